//! What each layer adds to a call: a box that grows is noticed here before it is in a profile.

use std::future::{Pending, pending};
use std::task::{Context, Poll};

use http::{Request, Response};
use tower::{Layer, Service};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::classify::ClassifyPolicy;
use tower_plugins_layers::{
    AttemptTimeoutLayer, AttemptTraceLayer, AuthorizeLayer, BoxError, BreakerLayer,
    ConcurrencyLayer, CredentialsLayer, DeadlineLayer, DrainHandle, DrainLayer, FallbackLayer,
    Optional, RateLimitLayer, TraceLayer,
};

/// A service whose future has no size.
#[derive(Clone)]
struct Nothing;

impl Service<Request<String>> for Nothing {
    type Response = Response<String>;
    type Error = BoxError;
    type Future = Pending<Result<Response<String>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<String>) -> Self::Future {
        pending()
    }
}

fn future_and_body<L, S, B>(_: &L) -> (usize, usize)
where
    L: Layer<Nothing, Service = S>,
    S: Service<Request<String>, Response = Response<B>>,
{
    let own = size_of::<B>() - size_of::<String>();
    (size_of::<S::Future>(), own)
}

#[test]
fn no_layer_adds_much_to_a_call() {
    // Bytes of the future and of the body, over those of the service inside.
    let layers = [
        (
            "attempt_timeout",
            future_and_body(&AttemptTimeoutLayer::off()),
            (32, 0),
        ),
        (
            "attempt_trace",
            future_and_body(&AttemptTraceLayer::new("one")),
            (8, 16),
        ),
        (
            "authorize",
            future_and_body(&AuthorizeLayer::off()),
            (24, 0),
        ),
        (
            "fallback",
            future_and_body(&<FallbackLayer>::off()),
            (24, 16),
        ),
        (
            "breaker",
            future_and_body(&BreakerLayer::new(BreakerPolicy::new())),
            (112, 64),
        ),
        (
            "breaker with a classifier of its own",
            future_and_body(&BreakerLayer::off().classify(ClassifyPolicy::new())),
            (112, 64),
        ),
        (
            "concurrency",
            future_and_body(&ConcurrencyLayer::off()),
            // The permit of a limit that adapts knows when its call began and is cut.
            (48, 32),
        ),
        (
            "credentials",
            future_and_body(&CredentialsLayer::none()),
            (0, 0),
        ),
        (
            "deadline",
            future_and_body(&DeadlineLayer::of_callers()),
            (64, 72),
        ),
        (
            "drain",
            future_and_body(&DrainLayer::new(DrainHandle::new())),
            (40, 40),
        ),
        (
            "optional over concurrency",
            future_and_body(&Optional::new(None::<ConcurrencyLayer>)),
            (48, 32),
        ),
        (
            "rate_limit",
            future_and_body(&RateLimitLayer::off()),
            (48, 0),
        ),
        (
            "trace",
            future_and_body(&TraceLayer::new("plugin")),
            (80, 128),
        ),
    ];
    let grown: Vec<_> = layers
        .into_iter()
        .inspect(|(name, (future, body), _)| println!("{name}: future {future}, body {body}"))
        .filter(|(_, (future, body), (most_future, most_body))| {
            future > most_future || body > most_body
        })
        .collect();
    assert!(grown.is_empty(), "(layer, now, at most): {grown:?}");
}
