//! Calls that are counted, waited for and ended.

mod server;
mod shutdown;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};
use tower_plugins_layers::drain::Drain;
use tower_plugins_layers::test_util::{Answer, Probe};
use tower_plugins_layers::{BoxError, DrainHandle, DrainLayer, Reason};

use crate::support::{Census, Endless, counting, is_pending, reason, request, secs, timed};

fn over(drain: &DrainHandle, answer: Answer) -> Drain<Probe> {
    DrainLayer::new(drain.clone()).layer(Probe::new(answer))
}

#[tokio::test(start_paused = true)]
async fn an_idle_drain_is_over_at_once_and_an_open_one_never() {
    let drain = DrainHandle::new();
    let mut drained = Box::pin(drain.drained());
    assert!(is_pending(&mut drained).await);
    drain.close();
    assert!(drain.is_closed());
    let ((), took) = timed(drained).await;
    assert_eq!(took, Duration::ZERO);
    drain.drained().await;
}

#[tokio::test(start_paused = true)]
async fn it_is_over_when_the_last_body_ends_and_no_timer_is_needed() {
    let drain = DrainHandle::new();
    let first = over(&drain, Answer::Silence)
        .oneshot(request())
        .await
        .unwrap();
    let second = over(&drain, Answer::Frames)
        .oneshot(request())
        .await
        .unwrap();
    drain.close();
    // Several wait, and one asks twice.
    let mut waiting: Vec<_> = (0..3)
        .map(|_| {
            let drain = drain.clone();
            tokio::spawn(async move { drain.drained().await })
        })
        .collect();
    assert!(is_pending(&mut Box::pin(drain.drained())).await);
    tokio::task::yield_now().await;

    let start = Instant::now();
    drop(first);
    tokio::task::yield_now().await;
    assert!(waiting.iter().all(|task| !task.is_finished()));
    second.into_body().collect().await.unwrap();
    for task in &mut waiting {
        task.await.unwrap();
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_closed_drain_takes_no_new_calls_and_leaves_the_others_alone() {
    let drain = DrainHandle::new();
    let before = over(&drain, Answer::Frames)
        .oneshot(request())
        .await
        .unwrap();
    drain.close();
    let probe = Probe::new(Answer::Frames);
    let journal = probe.journal();
    let refused = DrainLayer::new(drain.clone())
        .layer(probe)
        .oneshot(request())
        .await;
    assert_eq!(reason(refused), Some(Reason::Draining));
    assert_eq!((journal.calls(), drain.active()), (0, 1));
    let whole = before.into_body().collect().await.unwrap();
    assert_eq!(whole.to_bytes(), "onetwo");
    drain.drained().await;
}

#[tokio::test(start_paused = true)]
async fn calls_are_counted_until_they_end() {
    let drain = DrainHandle::new();
    let mut body = over(&drain, Answer::Frames)
        .oneshot(request())
        .await
        .unwrap()
        .into_body();
    let mut pending = over(&drain, Answer::Never).oneshot(request());
    while drain.active() < 2 {
        assert!(is_pending(&mut pending).await);
    }
    over(&drain, Answer::Error("broke"))
        .oneshot(request())
        .await
        .unwrap_err();
    over(&drain, Answer::Empty)
        .oneshot(request())
        .await
        .unwrap();
    assert_eq!(drain.active(), 2);
    drop(pending);
    assert_eq!(drain.active(), 1);
    while body.frame().await.is_some() {}
    assert_eq!(drain.active(), 0);
}

#[tokio::test(start_paused = true)]
async fn cancel_wakes_and_ends_a_call_without_an_answer() {
    let drain = DrainHandle::new();
    let probe = Probe::new(Answer::Never);
    let journal = probe.journal();
    let call = tokio::spawn(
        DrainLayer::new(drain.clone())
            .layer(probe)
            .oneshot(request()),
    );
    while journal.under_way() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(drain.cancel(), 1);
    assert_eq!(reason(call.await.unwrap()), Some(Reason::DrainCancelled));
    assert_eq!((journal.under_way(), drain.active()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn cancel_wakes_and_ends_a_silent_body() {
    let drain = DrainHandle::new();
    let probe = Probe::new(Answer::Silence);
    let journal = probe.journal();
    let response = DrainLayer::new(drain.clone())
        .layer(probe)
        .oneshot(request())
        .await
        .unwrap();
    let reader = tokio::spawn(async move {
        let mut body = response.into_body();
        body.frame().await.unwrap().unwrap();
        (body.frame().await.unwrap(), body)
    });
    tokio::task::yield_now().await;
    drain.close();
    assert_eq!(drain.cancel(), 1);
    let (error, mut body) = reader.await.unwrap();
    assert_eq!(reason(error), Some(Reason::DrainCancelled));
    // Really ended: the body inside is gone, although the reader still has what was around it.
    assert_eq!((journal.bodies(), drain.active()), (0, 0));
    drain.drained().await;
    assert!(body.is_end_stream());
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn cancel_ends_a_body_that_always_has_frames() {
    let drain = DrainHandle::new();
    let service = DrainLayer::new(drain.clone()).layer(service_fn(async |_| {
        Ok::<_, BoxError>(Response::new(Endless))
    }));
    let mut body = service.oneshot(request()).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drain.cancel();
    assert_eq!(
        reason(body.frame().await.unwrap()),
        Some(Reason::DrainCancelled)
    );
}

#[tokio::test(start_paused = true)]
async fn cancel_leaves_alone_what_has_ended() {
    let drain = DrainHandle::new();
    let mut read = over(&drain, Answer::Frames)
        .oneshot(request())
        .await
        .unwrap()
        .into_body();
    for _ in 0..3 {
        read.frame().await.unwrap().unwrap();
    }
    let mut empty = over(&drain, Answer::Empty)
        .oneshot(request())
        .await
        .unwrap()
        .into_body();
    assert_eq!(drain.cancel(), 0);
    assert!(read.frame().await.is_none());
    assert!(empty.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_begins_after_a_cancel_ends_so_too() {
    let drain = DrainHandle::new();
    drain.cancel();
    let call = over(&drain, Answer::Never).oneshot(request());
    assert_eq!(reason(call.await), Some(Reason::DrainCancelled));
}

/// Calls on several threads against one that closes and waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_drain_is_never_over_while_a_call_is_alive() {
    for _ in 0..300 {
        let drain = DrainHandle::new();
        let census = Arc::new(Census::default());
        let tasks: Vec<_> = (0..6)
            .map(|_| tokio::spawn(calls(drain.clone(), census.clone())))
            .collect();
        for _ in 0..fastrand::u32(0..20) {
            tokio::task::yield_now().await;
        }
        drain.close();
        let over = tokio::time::timeout(secs(30), drain.drained()).await;
        assert_eq!(census.alive(), 0, "over too early");
        over.expect("over at all");
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(drain.active(), 0);
    }
}

/// Calls until one is refused; some end on another task than they began.
async fn calls(drain: DrainHandle, census: Arc<Census>) {
    let service = DrainLayer::new(drain).layer(counting(&census));
    loop {
        match service.clone().oneshot(request()).await {
            Ok(response) if fastrand::bool() => {
                tokio::spawn(response.into_body().collect());
            }
            Ok(response) => drop(response),
            Err(error) => return assert_eq!(Reason::of(&*error), Some(Reason::Draining)),
        }
    }
}

#[tokio::test]
async fn a_body_of_one_frame_is_passed_through_whole() {
    let service = DrainLayer::new(DrainHandle::new()).layer(service_fn(async |_| {
        Ok::<_, BoxError>(Response::new(Full::new(Bytes::from_static(b"all"))))
    }));
    let body = service.oneshot(request()).await.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(3));
    assert_eq!(body.collect().await.unwrap().to_bytes(), "all");
}
