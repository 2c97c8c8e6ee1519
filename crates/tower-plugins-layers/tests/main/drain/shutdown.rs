//! A drain as a whole, and what is said while it lasts.

use http::{Method, Request, Response, StatusCode, Version, header};
use http_body_util::BodyExt;
use tokio::time::advance;
use tower::{Layer, ServiceExt, service_fn};
use tower_plugins_layers::drain::{DrainHold, DrainReport};
use tower_plugins_layers::test_util::Answer;
use tower_plugins_layers::{BoxError, DrainHandle, DrainLayer, Reason};

use super::over;
use crate::support::{is_pending, reason, request, secs, timed};

/// Finished, cancelled and left.
fn counts(report: &DrainReport) -> (usize, usize, usize) {
    (report.finished, report.cancelled, report.left)
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_then_cancels_and_says_what_became_of_the_calls() {
    let drain = DrainHandle::new();
    let ends = over(&drain, Answer::Frames).oneshot(request()).await;
    let silent = over(&drain, Answer::Silence).oneshot(request()).await;
    let reader = tokio::spawn(silent.unwrap().into_body().collect());
    let shutdown = {
        let drain = drain.clone();
        tokio::spawn(async move { timed(drain.shutdown(secs(10))).await })
    };
    drain.closed().await;
    advance(secs(2)).await;
    ends.unwrap().into_body().collect().await.unwrap();
    assert_eq!(reason(reader.await.unwrap()), Some(Reason::DrainCancelled));
    let (report, took) = shutdown.await.unwrap();
    assert_eq!((counts(&report), took), ((1, 1, 0), secs(10)));
    assert_eq!(report.elapsed, secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_with_the_last_call_and_at_once_without_any() {
    let drain = DrainHandle::new();
    let body = over(&drain, Answer::Frames).oneshot(request()).await;
    tokio::spawn(async move {
        tokio::time::sleep(secs(3)).await;
        drop(body);
    });
    let (report, took) = timed(drain.shutdown(secs(10))).await;
    assert_eq!((counts(&report), took), ((1, 0, 0), secs(3)));
    let (report, took) = timed(drain.shutdown(secs(10))).await;
    assert_eq!((counts(&report), took), ((0, 0, 0), secs(0)));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_although_a_body_is_never_read_again() {
    let drain = DrainHandle::new();
    let _stuck = over(&drain, Answer::Silence).oneshot(request()).await;
    let (report, took) = timed(drain.shutdown(secs(10))).await;
    assert_eq!((counts(&report), took), ((0, 1, 1), secs(11)));
}

#[tokio::test(start_paused = true)]
async fn progress_gives_each_count_that_is_seen_and_ends_at_zero() {
    let drain = DrainHandle::new();
    let mut progress = drain.progress();
    assert!(is_pending(&mut Box::pin(progress.next())).await);
    let mut calls = Vec::new();
    for _ in 0..3 {
        calls.push(over(&drain, Answer::Silence).oneshot(request()).await);
    }
    drain.close();
    for left in (0..=3).rev() {
        let seen = progress.next().await.unwrap();
        assert_eq!((seen.calls, seen.elapsed), (left, secs(3 - left as u64)));
        assert_eq!(is_pending(&mut Box::pin(progress.next())).await, left > 0);
        advance(secs(1)).await;
        calls.pop();
    }
    assert_eq!(progress.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_reopened_takes_calls_and_one_that_is_cancelled_does_not() {
    let drain = DrainHandle::new();
    let mut progress = drain.progress();
    let held = over(&drain, Answer::Silence).oneshot(request()).await;
    drain.close();
    assert_eq!(progress.next().await.unwrap().calls, 1);
    assert!(drain.reopen() && !drain.is_closed());
    assert_eq!(progress.next().await, None);
    over(&drain, Answer::Frames)
        .oneshot(request())
        .await
        .unwrap();
    drop(held);
    assert!(is_pending(&mut Box::pin(drain.drained())).await);
    drain.close();
    drain.cancel();
    assert!(!drain.reopen() && drain.is_closed());
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_or_cancelled_is_answered_if_that_is_wished() {
    let drain = DrainHandle::new();
    let layer = DrainLayer::new(drain.clone()).answer(secs(7));
    let service = || layer.layer(tower_plugins_layers::test_util::Probe::new(Answer::Never));
    let grpc = || {
        let kind = (header::CONTENT_TYPE, "application/grpc+proto");
        let request = Request::builder().version(Version::HTTP_2);
        request.header(kind.0, kind.1).body(()).unwrap()
    };
    let cancelled = tokio::spawn(service().oneshot(request()));
    while drain.active() == 0 {
        tokio::task::yield_now().await;
    }
    drain.close();
    let refused = service().oneshot(request()).await.unwrap();
    drain.cancel();
    for response in [refused, cancelled.await.unwrap().unwrap()] {
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "7");
        assert_eq!(response.headers()[header::CONNECTION], "close");
        assert!(
            response
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .is_empty()
        );
    }
    let response = service().oneshot(grpc()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["grpc-status"], "14");
    assert!(!response.headers().contains_key(header::CONNECTION));
}

/// A granted upgrade whose connection nobody has taken over yet.
async fn upgraded(drain: &DrainHandle, asks: Request<()>, status: u16) -> Response<impl Sized> {
    let service = service_fn(move |request: Request<()>| {
        assert!(request.extensions().get::<DrainHold>().is_some());
        let response = Response::builder().status(status);
        std::future::ready(response.body(String::new()).map_err(BoxError::from))
    });
    let layer = DrainLayer::new(drain.clone());
    layer.layer(service).oneshot(asks).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_granted_upgrade_is_counted_once_until_its_hold_is_dropped() {
    let by_header = || {
        let request = Request::builder().header(header::UPGRADE, "talk");
        request.body(()).unwrap()
    };
    let by_connect = || {
        let request = Request::builder().method(Method::CONNECT);
        request.body(()).unwrap()
    };
    for (asks, status) in [(by_header(), 101), (by_connect(), 200)] {
        let drain = DrainHandle::new();
        let mut response = upgraded(&drain, asks, status).await;
        let hold = response.extensions_mut().remove::<DrainHold>().unwrap();
        drop(response);
        let other = hold.clone();
        assert_eq!(drain.active(), 1);
        drain.close();
        assert!(hold.is_draining());
        drop(hold);
        assert!(is_pending(&mut Box::pin(drain.drained())).await);
        drop(other);
        drain.drained().await;
    }
    // One that is not granted is over with its body.
    for (asks, status) in [(by_header(), 200), (by_connect(), 403)] {
        let drain = DrainHandle::new();
        let response = upgraded(&drain, asks, status).await;
        assert!(response.extensions().get::<DrainHold>().is_none());
        drop(response);
        assert_eq!(drain.active(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_hold_keeps_ends_when_it_is_cancelled() {
    let drain = DrainHandle::new();
    let kept = drain.hold().unwrap().keep(std::future::pending::<()>());
    let kept = tokio::spawn(kept);
    let done = drain.hold().unwrap().keep(std::future::ready(5)).await;
    assert_eq!((done, drain.active()), (Some(5), 1));
    let report = drain.shutdown(secs(1)).await;
    assert_eq!((counts(&report), kept.await.unwrap()), ((0, 1, 0), None));
    assert!(drain.hold().is_none());
}
