//! Two ways to call a shared stack of layers: a clone of it for each call, or by reference.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderName, Request, Response};
use tower::{ServiceBuilder, ServiceExt};
use tower_plugins::Body;
use tower_plugins_layers::balance::{Load, LoadLayer, Strategy};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::drain::Drain;
use tower_plugins_layers::{
    AttemptTimeout, AttemptTimeoutLayer, Balance, Breaker, BreakerLayer, Concurrency,
    ConcurrencyLayer, Credentials, CredentialsLayer, Deadline, DeadlineLayer, DrainHandle,
    DrainLayer, RateLimit, RateLimitLayer, Retry, RetryLayer, RetryPolicy, Trace, TraceLayer,
};
use tower_service::Service;

use super::full;
use crate::harness::{Calls, Run, Variant, in_turn, runtime};
use crate::{BoxError, Result};

/// Answers at once, by value and by reference.
#[derive(Clone, Debug)]
struct Null;

macro_rules! answer {
    ($service:ty) => {
        impl<B> Service<Request<B>> for $service {
            type Response = Response<Body>;
            type Error = Infallible;
            type Future = Ready<Result<Response<Body>, Infallible>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, _: Request<B>) -> Self::Future {
                ready(Ok(full::answer()))
            }
        }
    };
}

answer!(Null);
answer!(&Null);

/// What a plugin gives for any stack: one box, whatever the layers.
type Boxed<B> = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

fn clone_per_call<S, B>(stack: S) -> Result<Run>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: http_body::Body<Error: Into<BoxError>> + Unpin + 'static,
{
    let stack = Arc::new(stack);
    Ok(in_turn(runtime()?, async move || {
        let mut service = S::clone(&stack);
        let request = full::request();
        let call: Boxed<B> = Box::pin(async move { service.ready().await?.call(request).await });
        full::drain(call.await?).await
    }))
}

// A macro, as a bound on all references to a type parameter makes the compiler look at references to
// everything there is.
macro_rules! by_reference {
    ($stack:expr) => {{
        let stack = Arc::new($stack);
        Ok(in_turn(runtime()?, async move || {
            let stack = Arc::clone(&stack);
            let request = full::request();
            let call: Boxed<_> = Box::pin(async move { (&*stack).call(request).await });
            full::drain(call.await?).await
        }))
    }};
}

type Two = Deadline<RateLimit<Null>>;

fn two() -> Two {
    ServiceBuilder::new()
        .layer(DeadlineLayer::new(Duration::from_secs(10)))
        .layer(RateLimitLayer::new(1e8, 100_000_000))
        .service(Null)
}

type Endpoint = Breaker<Load<Credentials<Null>>>;
type All = Trace<Drain<Deadline<RateLimit<Concurrency<Retry<AttemptTimeout<Balance<Endpoint>>>>>>>>;

fn all() -> Result<All> {
    let key = HeaderName::from_static("x-api-key");
    let credentials = CredentialsLayer::api_key(key, "a-key-that-is-no-secret")?;
    let breaker = BreakerPolicy::new().failure_rate(0.5);
    let endpoints = [(); 3].map(|()| {
        ServiceBuilder::new()
            .layer(BreakerLayer::new(breaker))
            .layer(LoadLayer::new())
            .layer(credentials.clone())
            .service(Null)
    });
    Ok(ServiceBuilder::new()
        .layer(TraceLayer::new("full"))
        .layer(DrainLayer::new(DrainHandle::new()))
        .layer(DeadlineLayer::new(Duration::from_secs(10)))
        .layer(RateLimitLayer::new(1e8, 100_000_000))
        .layer(ConcurrencyLayer::new(100_000))
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(AttemptTimeoutLayer::new(Duration::from_secs(5)))
        .service(Balance::new(Strategy::PeakEwma, endpoints)))
}

pub(super) fn variants(floor: &'static str, calls: Calls) -> [Variant; 4] {
    let variant = |name, make: fn() -> Result<Run>| Variant::new(name, floor, calls, make);
    [
        variant("clone-per-call-2-layers", || clone_per_call(two())),
        variant("by-reference-2-layers", || by_reference!(two())),
        variant("clone-per-call-all-layers", || clone_per_call(all()?)),
        variant("by-reference-all-layers", || by_reference!(all()?)),
    ]
}
