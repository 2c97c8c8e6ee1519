//! At most so many calls a second.
//!
//! [`RateLimitLayer`] takes a token out of a [`RateLimiter`] for each call. Without a token a call
//! is refused at once with [`Reason::RateLimited`](crate::Reason::RateLimited) and the time after
//! which there is one, or, where [`max_wait`](RateLimitLayer::max_wait) allows it, waits its turn:
//! turns come in the order of the calls, and when a caller goes away those behind it move up.
//!
//! All services made by one layer and its clones draw from one bucket.
//!
//! # Order
//! Outside retry, so that a call takes one token and not one an attempt; inside the deadline, so
//! that waiting counts.
//!
//! ```
//! use http::{Request, Response};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::{BoxError, RateLimitLayer, Reason};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! let mut service = ServiceBuilder::new()
//!     .layer(RateLimitLayer::new(0.5, 1))
//!     .service(service_fn(|_: Request<()>| async { Ok::<_, BoxError>(Response::new(())) }));
//! assert!(service.ready().await.unwrap().call(Request::new(())).await.is_ok());
//! let error = service.ready().await.unwrap().call(Request::new(())).await.unwrap_err();
//! assert_eq!(Reason::of(&*error), Some(Reason::RateLimited));
//! # });
//! ```

mod limiter;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Request;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

pub use self::limiter::RateLimiter;
use crate::gate::{Admission, Gate, take_ready};
use crate::{BoxError, CallContext};

/// Makes [`RateLimit`] services.
#[derive(Clone, Debug)]
pub struct RateLimitLayer {
    limiter: Option<Arc<RateLimiter>>,
    max_wait: Duration,
}

impl RateLimitLayer {
    /// `per_second` calls a second on average, and up to `burst` at once.
    #[must_use]
    pub fn new(per_second: f64, burst: u32) -> Self {
        Self::with_limiter(Arc::new(RateLimiter::new(per_second, burst)))
    }

    /// Draws from `limiter`, which others may draw from too.
    #[must_use]
    pub const fn with_limiter(limiter: Arc<RateLimiter>) -> Self {
        Self {
            limiter: Some(limiter),
            max_wait: Duration::ZERO,
        }
    }

    /// Any number of calls: the layer does nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self {
            limiter: None,
            max_wait: Duration::ZERO,
        }
    }

    /// How long a call may wait for its token. Zero, the default, refuses at once.
    #[must_use]
    pub const fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    fn admit<B>(&self, request: &Request<B>) -> Admission<()> {
        match &self.limiter {
            None => Admission::Granted(()),
            Some(limiter) => limiter.admit(CallContext::now(request.extensions()), self.max_wait),
        }
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> RateLimit<S> {
        RateLimit {
            inner,
            layer: self.clone(),
        }
    }
}

/// Lets at most so many calls a second through. See the [module](self).
#[derive(Clone, Debug)]
pub struct RateLimit<S> {
    inner: S,
    layer: RateLimitLayer,
}

impl<S, B> Service<Request<B>> for RateLimit<S>
where
    S: Service<Request<B>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let gate = match self.layer.admit(&request) {
            Admission::Granted(()) => Gate::calling(self.inner.call(request), ()),
            Admission::Wait(wait) => Gate::waiting(wait, take_ready(&mut self.inner), request),
            Admission::Refused(refused) => Gate::refused(refused),
        };
        ResponseFuture { gate }
    }
}

impl<'a, S, B> Service<Request<B>> for &'a RateLimit<S>
where
    &'a S: Service<Request<B>>,
    <&'a S as Service<Request<B>>>::Error: Into<BoxError>,
{
    type Response = <&'a S as Service<Request<B>>>::Response;
    type Error = BoxError;
    type Future = ResponseFuture<&'a S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.inner).poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inner = &self.inner;
        let gate = match self.layer.admit(&request) {
            Admission::Granted(()) => Gate::calling(inner.call(request), ()),
            Admission::Wait(wait) => Gate::waiting(wait, inner, request),
            Admission::Refused(refused) => Gate::refused(refused),
        };
        ResponseFuture { gate }
    }
}

pin_project! {
    /// The future of [`RateLimit`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<Svc, B>
    where
        Svc: Service<Request<B>>,
    {
        #[pin]
        gate: Gate<Svc, B, ()>,
    }
}

impl<Svc, B> Future for ResponseFuture<Svc, B>
where
    Svc: Service<Request<B>>,
    Svc::Error: Into<BoxError>,
{
    type Output = Result<Svc::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ((), response) = ready!(self.project().gate.poll(cx))?;
        Poll::Ready(Ok(response))
    }
}

impl<Svc, B> std::fmt::Debug for ResponseFuture<Svc, B>
where
    Svc: Service<Request<B>>,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ResponseFuture").field(&self.gate).finish()
    }
}
