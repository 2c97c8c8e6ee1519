//! Resilience middleware for tower services over HTTP: any `http::Request` and `http::Response`, in a client
//! or in a server.
//!
//! | layer | what it does |
//! | --- | --- |
//! | [`RespondLayer`] | answers with a status where others fail, in HTTP and gRPC |
//! | [`TraceLayer`] | metrics and a span for each call |
//! | [`DrainLayer`] | counts calls, waits for the last, ends what is left |
//! | [`FallbackLayer`] | a fixed answer, or another service's, where there is none |
//! | [`AuthorizeLayer`] | who calls, and whether it may |
//! | [`DeadlineLayer`] | bounds the time of a whole call, waits, retries and body included |
//! | [`FilterLayer`] | another service is asked about each call |
//! | [`RateLimitLayer`] | so many calls a second, for all, each key or a fleet |
//! | [`ConcurrencyLayer`] | so many calls at once, or as many as go well, the most important first |
//! | [`RetryLayer`] | makes attempts anew, within a budget, of what may be repeated |
//! | [`HedgeLayer`] | makes a second attempt of a call that is slow |
//! | [`AttemptTimeoutLayer`] | bounds the time of one attempt |
//! | [`Balance`] | picks an endpoint for each call, by load or in turn |
//! | [`SlowStartLayer`](balance::SlowStartLayer) | gives an endpoint that is new or back its share by and by |
//! | [`HealthLayer`](balance::HealthLayer) | leaves an endpoint out of [`Balance`] that somebody calls unhealthy |
//! | [`OutlierLayer`] | leaves an endpoint out of [`Balance`] that fails more than the others |
//! | [`BreakerLayer`] | leaves an endpoint alone that fails |
//! | [`LoadLayer`] | measures an endpoint for [`Balance`] |
//! | [`TimeLeftLayer`] | tells the service that is called how much time is left |
//! | [`CredentialsLayer`] | puts headers on each request that are not printed |
//! | [`TokenCredentialsLayer`] | the same, with tokens that are refreshed |
//! | [`AttemptTraceLayer`](trace::attempt) | a span for each attempt (feature `tracing`) |
//!
//! They stand here in the order in which they are put around a client, the first outermost; each module says
//! why. A server takes those that it needs, in the same order. [`Optional`] is a layer or none, for settings that
//! say which there are.
//!
//! ```
//! use std::time::Duration;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::{
//!     BoxError, ConcurrencyLayer, DeadlineLayer, DrainHandle, DrainLayer, RateLimitLayer, TraceLayer,
//! };
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let drain = DrainHandle::new();
//! let mut server = ServiceBuilder::new()
//!     .layer(TraceLayer::new("greeter"))
//!     .layer(DrainLayer::new(drain.clone()))
//!     .layer(DeadlineLayer::new(Duration::from_secs(10)))
//!     .layer(RateLimitLayer::new(500.0, 50))
//!     .layer(ConcurrencyLayer::new(100))
//!     .service(service_fn(|_: Request<Full<Bytes>>| async {
//!         Ok::<_, BoxError>(Response::new(Full::new(Bytes::from("hello"))))
//!     }));
//! let response = server.ready().await?.call(Request::new(Full::default())).await?;
//! assert_eq!(response.status(), 200);
//!
//! drop(response);
//! drain.close(); // new calls are refused with `Reason::Draining`
//! drain.drained().await;
//! # Ok::<_, BoxError>(()) }).unwrap();
//! ```
//!
//! # A client, by hand
//!
//! What is inside of retry is an attempt's; what is inside of the balancer is an endpoint's.
//!
//! ```
//! use std::time::Duration;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::balance::Strategy;
//! use tower_plugins_layers::breaker::BreakerPolicy;
//! use tower_plugins_layers::{
//!     AttemptTimeoutLayer, Balance, BoxError, BreakerLayer, DeadlineLayer, LoadLayer, RateLimitLayer,
//!     ReplayBody, RetryLayer, RetryPolicy,
//! };
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let endpoint = |name: &'static str| {
//!     ServiceBuilder::new()
//!         .layer(BreakerLayer::new(BreakerPolicy::new()).give_back())
//!         .layer(LoadLayer::new())
//!         .service(service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| async move {
//!             Ok::<_, BoxError>(Response::new(Full::new(Bytes::from(name))))
//!         }))
//! };
//! let client = ServiceBuilder::new()
//!     .layer(DeadlineLayer::new(Duration::from_secs(10)))
//!     .layer(RateLimitLayer::new(500.0, 50).max_wait(Duration::from_millis(100)))
//!     .layer(RetryLayer::new(RetryPolicy::new().max_retries(2)))
//!     .layer(AttemptTimeoutLayer::new(Duration::from_secs(3)))
//!     .service(Balance::new(Strategy::PeakEwma, [endpoint("one"), endpoint("two")]));
//!
//! let response = client.oneshot(Request::get("/items").body(Full::default())?).await?;
//! assert_eq!(response.status(), 200);
//! # Ok::<_, BoxError>(()) }).unwrap();
//! ```
//!
//! In another order it compiles as well, and is another client:
//!
//! | this | outside of | because the other way round |
//! | --- | --- | --- |
//! | deadline | rate limit, concurrency, retry | what waits for a token, a place or a backoff may wait for ever |
//! | rate limit, concurrency | retry | each attempt takes a token, and a call in backoff has no place: retries exceed the limit |
//! | retry | attempt timeout | one slow attempt uses up the time of all of them |
//! | retry | balance | all attempts go to the endpoint that failed |
//! | balance | breaker | one endpoint that fails takes the others with it |
//! | breaker | load | the balancer takes refusals for quick answers |
//!
//! # What all of them keep to
//!
//! - Readiness is that of the service inside. What is refused is refused by the call's future, never by
//!   `poll_ready`, so that nothing is held for a call that may never come.
//! - State is in the layer value: what one value makes, and clones of it, share one bucket, one bulkhead,
//!   one circuit. Making the service anew for each request, as axum may, changes nothing.
//! - A call ends when its response's body ends ([`EndOfStream`]): at the trailers, the end, an error or the
//!   drop, once. Dropping a call's future gives back all that it held.
//! - An error is a [`BoxError`]; [`Reason::of`] has the one word for what happened, and [`Refused::wait`] the
//!   time after which another call has a chance. [`Unsent`] is the error of a request that was provably
//!   never processed.
//! - A [`CallContext`] in the request's extensions tells layers further in of the deadline and the attempt. Each
//!   layer works without it.
//!
//! # Two call forms
//!
//! Each layer's service `X<S>` is a [`Service`](tower_service::Service) twice, as `File` and `&File` both are
//! [`Read`](std::io::Read):
//!
//! - `X<S>` where `S: Service` is what `ServiceBuilder`, axum and tonic compose. Layers that may have to wait before
//!   they call, or call more than once, ask for `S: Clone`.
//! - `&X<S>` where `&S: Service` is for whoever holds a stack and shares it: a call clones no service, and its
//!   future borrows the stack. It takes an innermost service that can be called by reference.
//!
//! ```
//! use std::future::{Ready, ready};
//! use std::task::{Context, Poll};
//! use http::{Request, Response};
//! use tower::Layer;
//! use tower_plugins_layers::{BoxError, ConcurrencyLayer};
//! use tower_service::Service;
//!
//! /// Not even `Clone`.
//! struct Hello;
//!
//! impl Service<Request<String>> for &Hello {
//!     type Response = Response<String>;
//!     type Error = BoxError;
//!     type Future = Ready<Result<Response<String>, BoxError>>;
//!
//!     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
//!         Poll::Ready(Ok(()))
//!     }
//!
//!     fn call(&mut self, request: Request<String>) -> Self::Future {
//!         ready(Ok(Response::new(format!("hello, {}", request.body()))))
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let stack = ConcurrencyLayer::new(2).layer(Hello);
//! let response = (&stack).call(Request::new("tower".to_owned())).await?;
//! assert_eq!(response.status(), 200);
//! # Ok::<_, BoxError>(()) }).unwrap();
//! ```
//!
//! # Features
//!
//! All are off by default.
//!
//! | feature | |
//! | --- | --- |
//! | `serde` | policies are read and written by serde: fields have the names of the setters, times are text such as `250ms` |
//! | `jwt` | [`AuthorizeLayer`] takes tokens that somebody else signed |
//! | `metrics` | [`TraceLayer`], [`RetryLayer::named`], [`BreakerLayer::name`], [`OutlierDetector`] and shared rate limits record metrics through the `metrics` facade |
//! | `tracing` | [`TraceLayer`] opens a span for each call when somebody listens, and [`AttemptTraceLayer`](trace::attempt) for each attempt; breakers, outlier detectors and shared rate limits tell of events |
//! | `redis` | [`RedisLimiter`](rate_limit::RedisLimiter): a rate limit that many processes share |
//! | `test-util` | the contract that every layer keeps, as tests for layers of your own: `contract!(name, layer)` |

mod answer_body;
pub mod attempt_timeout;
pub mod authorize;
pub mod balance;
pub mod breaker;
#[cfg(feature = "serde")]
mod checked;
pub mod classify;
pub mod concurrency;
mod context;
pub mod credentials;
pub mod deadline;
pub mod drain;
mod end_of_stream;
pub mod fallback;
pub mod filter;
mod gate;
mod header;
pub mod hedge;
mod hint;
mod oneshot;
pub mod optional;
pub mod outlier;
mod picked;
pub mod rate_limit;
mod reason;
mod request_head;
pub mod respond;
pub mod retry;
mod sharded;
mod timer;
pub mod trace;
mod unsent;

#[cfg(feature = "test-util")]
pub mod test_util;

pub use answer_body::AnswerBody;
pub use attempt_timeout::{AttemptTimeout, AttemptTimeoutLayer};
pub use authorize::{Authorize, AuthorizeLayer, Principal};
pub use balance::{Balance, Load, LoadLayer};
pub use breaker::{Breaker, BreakerLayer};
pub use classify::{Classify, Outcome};
pub use concurrency::{Bulkhead, Concurrency, ConcurrencyLayer, ConcurrencyPolicy, Priority};
pub use context::{CallContext, Visited};
pub use credentials::{Credentials, CredentialsLayer, TokenCredentials, TokenCredentialsLayer};
pub use deadline::{Deadline, DeadlineLayer, TimeLeft, TimeLeftLayer};
pub use drain::{Drain, DrainHandle, DrainLayer};
pub use end_of_stream::{End, EndOfStream, OnEnd};
pub use fallback::{Fallback, FallbackLayer, FallbackPolicy, FallbackUsed};
pub use filter::{Filter, FilterLayer, FilterPolicy};
pub use hedge::{Hedge, HedgeLayer, HedgePolicy};
pub use optional::{Maybe, Optional};
pub use outlier::{Outlier, OutlierDetector, OutlierLayer, OutlierPolicy};
pub use rate_limit::{RateLimit, RateLimitLayer, RateLimitPolicy, RateLimiter};
pub use reason::{Reason, Refused};
pub use request_head::RequestHead;
pub use respond::{Respond, RespondLayer};
pub use retry::{ReplayBody, Retry, RetryLayer, RetryPolicy};
#[cfg(feature = "tracing")]
pub use trace::{AttemptTrace, AttemptTraceLayer};
pub use trace::{Trace, TraceLayer};
pub use unsent::Unsent;

/// The error that layers pass to one another, as everywhere in tower.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
