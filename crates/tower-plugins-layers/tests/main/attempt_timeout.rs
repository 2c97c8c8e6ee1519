use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_plugins_layers::test_util::{Answer, Probe};
use tower_plugins_layers::{AttemptTimeoutLayer, BoxError, CallContext, RateLimitLayer, Reason};

use crate::support::{is_pending, millis, reason, request, secs, timed};

#[tokio::test(start_paused = true)]
async fn an_attempt_without_a_head_ends_in_time() {
    let service = AttemptTimeoutLayer::new(millis(200)).layer(Probe::new(Answer::Never));
    let (result, took) = timed(service.oneshot(request())).await;
    assert_eq!(reason(result), Some(Reason::AttemptTimeout));
    assert_eq!(took, millis(200));
}

#[tokio::test(start_paused = true)]
async fn a_body_may_take_longer() {
    let service = AttemptTimeoutLayer::new(millis(200)).layer(Probe::new(Answer::Silence));
    let mut body = service.oneshot(request()).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    assert!(
        tokio::time::timeout(secs(3600), body.frame())
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn the_longest_time_is_no_bound_and_none_leaves_room_for_what_is_there() {
    for layer in [
        AttemptTimeoutLayer::new(Duration::MAX),
        AttemptTimeoutLayer::off(),
    ] {
        let mut call = layer.layer(Probe::new(Answer::Never)).oneshot(request());
        assert!(
            tokio::time::timeout(secs(1_000_000), &mut call)
                .await
                .is_err()
        );
        assert!(is_pending(&mut call).await);
    }
    let none = AttemptTimeoutLayer::new(Duration::ZERO);
    let at_once = service_fn(async |_| Ok::<_, BoxError>(Response::new(())));
    none.layer(at_once).oneshot(request()).await.unwrap();
    let (result, took) = timed(none.layer(Probe::new(Answer::Never)).oneshot(request())).await;
    assert_eq!(reason(result), Some(Reason::AttemptTimeout));
    assert!(took <= millis(1));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_begins_after_its_call_has_waited() {
    let service = ServiceBuilder::new()
        .layer(RateLimitLayer::new(0.1, 1).max_wait(secs(60)))
        .layer(AttemptTimeoutLayer::new(secs(5)))
        .service(service_fn(async |_| {
            tokio::time::sleep(secs(3)).await;
            Ok::<_, BoxError>(Response::new(()))
        }));
    service.clone().oneshot(request()).await.unwrap();
    let mut second = request();
    second.extensions_mut().insert(CallContext::new());
    let (result, took) = timed(service.oneshot(second)).await;
    result.unwrap();
    assert_eq!(took, secs(10));
}
