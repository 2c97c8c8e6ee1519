//! A layer that may be left out, as a type.
//!
//! [`Optional`] is a layer or none. Without one the service it makes *is* the service inside: nothing is
//! asked, timed or counted, and the response's body is the one that came. What it costs is one branch in the
//! call, one in the future and one for each frame. It is what a program needs whose settings say which of the
//! layers there are, where the type of the stack has to be one and the same.
//!
//! | | |
//! | --- | --- |
//! | errors | those of the layer, or those of the service inside |
//! | cancelling | drops the call inside |
//!
//! # What it takes
//! Any layer with [`BoxError`] for its error that leaves the type of the response's body as it is, and any that wraps the body in a type
//! which can be made [`From`] it: [`EndOfStream`](crate::EndOfStream) and with it the bodies of all layers
//! here. Where that is not given, as with many layers of others, box the body on both sides
//! (`tower::util::MapResponseLayer`).
//!
//! [`RetryLayer`](crate::RetryLayer) changes the type of the request's body, so that a service with it and
//! one without do not take the same request: [`RetryLayer::off`](crate::RetryLayer::off) is its form for
//! none.
//!
//! # More than a few
//! To the compiler each `Optional` is two stacks, so that the time it takes doubles with every one at least.
//! Where there are more than about four in one type, give a service between them a type of its own, or box it
//! (`tower::util::BoxCloneSyncService`).
//!
//! # Order
//! That of the layer which it is.
//!
//! ```
//! use http::{Request, Response};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::{BoxError, ConcurrencyLayer, Optional, RateLimitLayer};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let (rate, places): (Option<f64>, Option<usize>) = (None, Some(1)); // from the program's settings
//!
//! let mut service = ServiceBuilder::new()
//!     .layer(Optional::new(rate.map(|rate| RateLimitLayer::new(rate, 10))))
//!     .layer(Optional::new(places.map(ConcurrencyLayer::new)))
//!     .service(service_fn(|_: Request<()>| async {
//!         Ok::<_, BoxError>(Response::new("a body".to_owned()))
//!     }));
//! let first = service.ready().await.unwrap().call(Request::new(())).await.unwrap();
//! // The one place is taken until `first` is read; of a rate nothing is known.
//! assert!(service.ready().await.unwrap().call(Request::new(())).await.is_err());
//! # drop(first);
//! # });
//! ```

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::BoxError;
use crate::balance::Member;

/// A layer, or none. See the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct Optional<L> {
    layer: Option<L>,
}

impl<L> Optional<L> {
    /// `layer` if there is one.
    pub const fn new(layer: Option<L>) -> Self {
        Self { layer }
    }

    /// The layer, if there is one.
    pub const fn get_ref(&self) -> Option<&L> {
        self.layer.as_ref()
    }
}

impl<L> From<Option<L>> for Optional<L> {
    fn from(layer: Option<L>) -> Self {
        Self::new(layer)
    }
}

impl<L: Layer<S>, S> Layer<S> for Optional<L> {
    type Service = Maybe<L, S>;

    fn layer(&self, inner: S) -> Maybe<L, S> {
        match &self.layer {
            Some(layer) => Maybe::On(layer.layer(inner)),
            None => Maybe::Off(inner),
        }
    }
}

/// What [`Optional`] makes of a service: the service of the layer, or the service as it was.
///
/// It is named after the layer and not after the layer's service, because the name of a stack of such would
/// double with each of them.
pub enum Maybe<L: Layer<S>, S> {
    /// There is a layer.
    On(L::Service),
    /// There is none.
    Off(S),
}

impl<L, S> Clone for Maybe<L, S>
where
    L: Layer<S, Service: Clone>,
    S: Clone,
{
    fn clone(&self) -> Self {
        match self {
            Self::On(service) => Self::On(service.clone()),
            Self::Off(service) => Self::Off(service.clone()),
        }
    }
}

impl<L, S> fmt::Debug for Maybe<L, S>
where
    L: Layer<S, Service: fmt::Debug>,
    S: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(service) => service.fmt(f),
            Self::Off(service) => service.fmt(f),
        }
    }
}

impl<L, S, B, On, Off> Service<Request<B>> for Maybe<L, S>
where
    L: Layer<S>,
    L::Service: Service<Request<B>, Response = Response<On>, Error = BoxError>,
    S: Service<Request<B>, Response = Response<Off>, Error: Into<BoxError>>,
    Off: Into<On>,
{
    type Response = Response<On>;
    type Error = BoxError;
    type Future = ResponseFuture<L::Service, S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::On(service) => service.poll_ready(cx),
            Self::Off(service) => service.poll_ready(cx).map_err(Into::into),
        }
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self {
            Self::On(service) => ResponseFuture::on(service.call(request)),
            Self::Off(service) => ResponseFuture::off(service.call(request)),
        }
    }
}

impl<'a, L, S, B, On, Off> Service<Request<B>> for &'a Maybe<L, S>
where
    L: Layer<S>,
    &'a L::Service: Service<Request<B>, Response = Response<On>, Error = BoxError>,
    &'a S: Service<Request<B>, Response = Response<Off>, Error: Into<BoxError>>,
    Off: Into<On>,
{
    type Response = Response<On>;
    type Error = BoxError;
    type Future = ResponseFuture<&'a L::Service, &'a S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Maybe::On(service) => { service }.poll_ready(cx),
            Maybe::Off(service) => { service }.poll_ready(cx).map_err(Into::into),
        }
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self {
            Maybe::On(service) => ResponseFuture::on({ service }.call(request)),
            Maybe::Off(service) => ResponseFuture::off({ service }.call(request)),
        }
    }
}

pin_project! {
    /// The future of [`Maybe`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<On, Off, B>
    where
        On: Service<Request<B>>,
        Off: Service<Request<B>>,
    {
        #[pin]
        state: State<On::Future, Off::Future>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<On, Off> {
        On { #[pin] future: On },
        Off { #[pin] future: Off },
    }
}

impl<On, Off, B> ResponseFuture<On, Off, B>
where
    On: Service<Request<B>>,
    Off: Service<Request<B>>,
{
    const fn on(future: On::Future) -> Self {
        Self {
            state: State::On { future },
        }
    }

    const fn off(future: Off::Future) -> Self {
        Self {
            state: State::Off { future },
        }
    }
}

impl<On, Off, B, OnBody, OffBody> Future for ResponseFuture<On, Off, B>
where
    On: Service<Request<B>, Response = Response<OnBody>, Error = BoxError>,
    Off: Service<Request<B>, Response = Response<OffBody>, Error: Into<BoxError>>,
    OffBody: Into<OnBody>,
{
    type Output = Result<Response<OnBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            // As it is: whatever is done to a response here copies it.
            Projected::On { future } => future.poll(cx),
            Projected::Off { future } => match future.poll(cx) {
                Poll::Ready(Ok(response)) => Poll::Ready(Ok(response.map(Into::into))),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl<On, Off, B> fmt::Debug for ResponseFuture<On, Off, B>
where
    On: Service<Request<B>>,
    Off: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::On { .. } => "On",
            State::Off { .. } => "Off",
        })
    }
}

impl<L, S> Member for Maybe<L, S>
where
    L: Layer<S, Service: Member>,
    S: Member,
{
    fn load(&self, now: Instant) -> f64 {
        match self {
            Self::On(service) => service.load(now),
            Self::Off(service) => service.load(now),
        }
    }

    fn is_available(&self, now: Instant) -> bool {
        match self {
            Self::On(service) => service.is_available(now),
            Self::Off(service) => service.is_available(now),
        }
    }

    fn takes_retry(&self, now: Instant) -> bool {
        match self {
            Self::On(service) => service.takes_retry(now),
            Self::Off(service) => service.takes_retry(now),
        }
    }

    fn retry_after(&self, now: Instant) -> Option<Duration> {
        match self {
            Self::On(service) => service.retry_after(now),
            Self::Off(service) => service.retry_after(now),
        }
    }

    fn is_ejected(&self, now: Instant) -> bool {
        match self {
            Self::On(service) => service.is_ejected(now),
            Self::Off(service) => service.is_ejected(now),
        }
    }

    fn ramp(&self, now: Instant) -> f64 {
        match self {
            Self::On(service) => service.ramp(now),
            Self::Off(service) => service.ramp(now),
        }
    }

    fn is_back(&self, now: Instant) -> bool {
        match self {
            Self::On(service) => service.is_back(now),
            Self::Off(service) => service.is_back(now),
        }
    }

    fn in_flight(&self) -> usize {
        match self {
            Self::On(service) => service.in_flight(),
            Self::Off(service) => service.in_flight(),
        }
    }

    fn rtt(&self, now: Instant) -> Duration {
        match self {
            Self::On(service) => service.rtt(now),
            Self::Off(service) => service.rtt(now),
        }
    }

    fn weighted_load(&self, now: Instant, weight: f64) -> f64 {
        match self {
            Self::On(service) => service.weighted_load(now, weight),
            Self::Off(service) => service.weighted_load(now, weight),
        }
    }
}
