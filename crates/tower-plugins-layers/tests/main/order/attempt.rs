//! What stands around one endpoint: `time_left`, `credentials` and `attempt_trace`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, Request, Response};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_plugins_layers::balance::{LoadLayer, Strategy};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::retry::{Backoff, ReplayBody};
use tower_plugins_layers::{
    AttemptTraceLayer, Balance, BoxError, BreakerLayer, CredentialsLayer, DeadlineLayer,
    RateLimitLayer, Reason, Refused, RetryLayer, RetryPolicy, TimeLeftLayer,
};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::with_default;
use tracing::{Dispatch, Event, Metadata, Subscriber};

use crate::support::{request, secs};

/// Answers with the headers that it was asked with.
async fn echo<B>(request: Request<B>) -> Result<Response<String>, BoxError> {
    let mut response = Response::new(String::new());
    *response.headers_mut() = request.headers().clone();
    Ok(response)
}

#[tokio::test(start_paused = true)]
async fn time_left_inside_of_a_wait_tells_what_is_left_and_outside_what_was() {
    let name = HeaderName::from_static("x-timeout");
    let time_left = || TimeLeftLayer::new().header(name.clone());
    let limit = || RateLimitLayer::new(0.5, 1).max_wait(secs(60));
    let deadline = || DeadlineLayer::new(secs(10));
    let left = |headers: &HeaderMap| headers[&name].to_str().unwrap().to_owned();

    let inside = ServiceBuilder::new()
        .layer(deadline())
        .layer(limit())
        .layer(time_left())
        .service(service_fn(echo::<()>));
    inside.clone().oneshot(request()).await.unwrap();
    let response = inside.oneshot(request()).await.unwrap();
    assert_eq!(left(response.headers()), "8");

    let outside = ServiceBuilder::new()
        .layer(deadline())
        .layer(time_left())
        .layer(limit())
        .service(service_fn(echo::<()>));
    outside.clone().oneshot(request()).await.unwrap();
    let response = outside.oneshot(request()).await.unwrap();
    assert_eq!(left(response.headers()), "10");
}

#[tokio::test(start_paused = true)]
async fn credentials_inside_of_a_balancer_are_each_endpoints_own_and_outside_all_get_them() {
    let bearer = |token: &str| CredentialsLayer::bearer(token).unwrap();
    let shown = |headers: &HeaderMap| headers[AUTHORIZATION].to_str().unwrap().to_owned();
    let ends = ["one", "two"]
        .map(|token| LoadLayer::new().layer(bearer(token).layer(service_fn(echo::<()>))));
    let inside = Balance::new(Strategy::RoundRobin, ends);
    let mut all = Vec::new();
    for _ in 0..2 {
        let response = inside.clone().oneshot(request()).await.unwrap();
        all.push(shown(response.headers()));
    }
    all.sort();
    assert_eq!(all, ["Bearer one", "Bearer two"]);

    let ends = [(); 2].map(|()| LoadLayer::new().layer(service_fn(echo::<()>)));
    let outside = bearer("one").layer(Balance::new(Strategy::RoundRobin, ends));
    for _ in 0..2 {
        let response = outside.clone().oneshot(request()).await.unwrap();
        assert_eq!(shown(response.headers()), "Bearer one");
    }
}

/// Counts the spans of attempts.
#[derive(Clone, Default)]
struct Attempts(Arc<AtomicUsize>);

impl Subscriber for Attempts {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let is_attempt = span.metadata().name() == "plugin.attempt";
        self.0.fetch_add(usize::from(is_attempt), SeqCst);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Spans of attempts in one call that `call` makes.
fn spans<F: Future>(call: impl FnOnce() -> F) -> usize {
    let attempts = Attempts::default();
    // With only one subscriber alive, a test on another thread, which has none, would switch spans off for all.
    let _another = Dispatch::new(Attempts::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    with_default(attempts.clone(), || {
        runtime.block_on(async { call().await })
    });
    attempts.0.load(SeqCst)
}

async fn away<B>(_: Request<B>) -> Result<Response<String>, BoxError> {
    Err(Refused::new(Reason::ConnectFailed).into())
}

#[test]
fn an_attempt_trace_inside_of_retry_has_a_span_an_attempt_and_one_outside_a_call() {
    let retry = || {
        let policy = RetryPolicy::new().max_retries(2);
        RetryLayer::new(policy.backoff(Backoff::new(secs(0), secs(0))))
    };
    let trace = || AttemptTraceLayer::new("one");
    let request = || Request::new(String::new());
    let inside = ServiceBuilder::new()
        .layer(retry())
        .layer(trace())
        .service(service_fn(away::<ReplayBody<String>>));
    assert_eq!(spans(|| inside.oneshot(request())), 3);
    let outside = ServiceBuilder::new()
        .layer(trace())
        .layer(retry())
        .service(service_fn(away::<ReplayBody<String>>));
    assert_eq!(spans(|| outside.oneshot(request())), 1);
}

#[test]
fn an_attempt_trace_inside_of_a_breaker_has_no_span_of_what_that_refuses_and_one_outside_has() {
    let open = || {
        let layer = BreakerLayer::new(BreakerPolicy::new());
        layer.handle().force_open();
        layer
    };
    let trace = || AttemptTraceLayer::new("one");
    let inside = ServiceBuilder::new()
        .layer(open())
        .layer(trace())
        .service(service_fn(echo::<()>));
    assert_eq!(spans(|| inside.oneshot(request())), 0);
    let outside = ServiceBuilder::new()
        .layer(trace())
        .layer(open())
        .service(service_fn(echo::<()>));
    assert_eq!(spans(|| outside.oneshot(request())), 1);
}
