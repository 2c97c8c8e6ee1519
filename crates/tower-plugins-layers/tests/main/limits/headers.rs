use http::{HeaderMap, Response};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_plugins_layers::test_util::{Answer, Probe};
use tower_plugins_layers::{RateLimitLayer, RateLimiter, Refused};

use crate::support::{millis, request, secs};

fn shown(headers: &HeaderMap) -> [Option<&str>; 3] {
    ["ratelimit-policy", "ratelimit", "retry-after"]
        .map(|name| headers.get(name).map(|value| value.to_str().unwrap()))
}

#[tokio::test(start_paused = true)]
async fn responses_and_refusals_say_how_the_caller_stands() {
    let layer = RateLimitLayer::new(0.5, 2).headers(true);
    let call = async || {
        let service = layer.layer(Probe::new(Answer::Frames));
        service.oneshot(request()).await
    };
    let policy = Some("\"default\";q=2;w=4");
    let response = call().await.unwrap();
    assert_eq!(
        shown(response.headers()),
        [policy, Some("\"default\";r=1;t=2"), None]
    );
    let response = call().await.unwrap();
    assert_eq!(
        shown(response.headers()),
        [policy, Some("\"default\";r=0;t=4"), None]
    );
    tokio::time::advance(millis(500)).await;
    let error = call().await.unwrap_err();
    let refused = Refused::find(&*error).unwrap();
    let quota = refused.quota().unwrap();
    assert_eq!(refused.wait(), Some(millis(1500)));
    assert_eq!(
        (
            quota.limit(),
            quota.remaining(),
            quota.window(),
            quota.reset()
        ),
        (2, 0, secs(4), secs(4))
    );
    // As a server does that makes an answer of the error.
    let mut response = Response::new(());
    refused.write_to(response.headers_mut());
    assert_eq!(
        shown(response.headers()),
        [policy, Some("\"default\";r=0;t=4"), Some("2")]
    );
}

#[tokio::test(start_paused = true)]
async fn responses_are_left_alone_unless_headers_are_asked_for() {
    let service = RateLimitLayer::new(1.0, 2).layer(Probe::new(Answer::Frames));
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!(shown(response.headers()), [None; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waited_is_told_too() {
    let layer = RateLimitLayer::new(1.0, 1).headers(true).max_wait(secs(5));
    for _ in 0..2 {
        let service = layer.layer(Probe::new(Answer::Frames));
        let response = service.oneshot(request()).await.unwrap();
        assert_eq!(shown(response.headers())[1], Some("\"default\";r=0;t=1"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_changed_in_place_and_the_fill_keeps_its_proportion() {
    let limiter = RateLimiter::new(10.0, 100);
    let now = Instant::now();
    limiter.try_take_n(now, 50).unwrap();
    limiter.set_rate(1.0, 10);
    assert_eq!((limiter.available(now), limiter.burst()), (5.0, 10));
    assert!((limiter.per_second() - 1.0).abs() < 1e-9);
    assert_eq!(limiter.try_take_n(now, 6), Err(secs(1)));
    limiter.reset();
    assert_eq!(limiter.available(now), 10.0);
}
