//! At most so many calls at once.
//!
//! [`ConcurrencyLayer`] gives each call a place in a [`Bulkhead`], from before the inner service is
//! called until the response's body has ended or been dropped. Without a place a call is refused
//! with [`Reason::ConcurrencyLimited`](crate::Reason::ConcurrencyLimited), or waits in a bounded
//! queue, first come, first served, for a bounded time. A caller that goes away leaves the queue.
//!
//! All services made by one layer and its clones share one bulkhead.
//!
//! # Order
//! Inside the deadline, so that waiting counts; outside retry, so that a call in backoff keeps its
//! place and retries cannot exceed the limit.
//!
//! ```
//! use http::{Request, Response};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::{BoxError, ConcurrencyLayer, Reason};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let mut service = ServiceBuilder::new()
//!     .layer(ConcurrencyLayer::new(1))
//!     .service(service_fn(|_: Request<()>| async {
//!         Ok::<_, BoxError>(Response::new("a body".to_owned()))
//!     }));
//! let first = service.ready().await.unwrap().call(Request::new(())).await.unwrap();
//! // The first response's body is not read yet, so its call is not over.
//! let error = service.ready().await.unwrap().call(Request::new(())).await.unwrap_err();
//! assert_eq!(Reason::of(&*error), Some(Reason::ConcurrencyLimited));
//! drop(first);
//! assert!(service.ready().await.unwrap().call(Request::new(())).await.is_ok());
//! # });
//! ```

mod bulkhead;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

pub use self::bulkhead::{Bulkhead, Permit};
use crate::gate::{Admission, Gate, take_ready};
use crate::{BoxError, EndOfStream};

/// Makes [`Concurrency`] services.
#[derive(Clone, Debug)]
pub struct ConcurrencyLayer {
    bulkhead: Option<Arc<Bulkhead>>,
}

impl ConcurrencyLayer {
    /// At most `max` calls at once, at least one; others are refused.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self::with_bulkhead(Arc::new(Bulkhead::new(max)))
    }

    /// Calls take places in `bulkhead`, in which others may take places too.
    #[must_use]
    pub const fn with_bulkhead(bulkhead: Arc<Bulkhead>) -> Self {
        Self {
            bulkhead: Some(bulkhead),
        }
    }

    /// Any number of calls: the layer does nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self { bulkhead: None }
    }

    fn admit(&self) -> Admission<Option<Permit>> {
        let Some(bulkhead) = &self.bulkhead else {
            return Admission::Granted(None);
        };
        match bulkhead.admit() {
            Admission::Granted(permit) => Admission::Granted(Some(permit)),
            Admission::Wait(wait) => Admission::Wait(Box::pin(async { wait.await.map(Some) })),
            Admission::Refused(refused) => Admission::Refused(refused),
        }
    }
}

impl<S> Layer<S> for ConcurrencyLayer {
    type Service = Concurrency<S>;

    fn layer(&self, inner: S) -> Concurrency<S> {
        Concurrency {
            inner,
            layer: self.clone(),
        }
    }
}

/// Lets at most so many calls through at once. See the [module](self).
#[derive(Clone, Debug)]
pub struct Concurrency<S> {
    inner: S,
    layer: ConcurrencyLayer,
}

impl<S, B, RB> Service<Request<B>> for Concurrency<S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    RB: Body,
{
    type Response = Response<EndOfStream<RB, Option<Permit>>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let gate = match self.layer.admit() {
            Admission::Granted(permit) => Gate::calling(self.inner.call(request), permit),
            Admission::Wait(wait) => Gate::waiting(wait, take_ready(&mut self.inner), request),
            Admission::Refused(refused) => Gate::refused(refused),
        };
        ResponseFuture { gate }
    }
}

impl<'a, S, B, RB> Service<Request<B>> for &'a Concurrency<S>
where
    &'a S: Service<Request<B>, Response = Response<RB>>,
    <&'a S as Service<Request<B>>>::Error: Into<BoxError>,
    RB: Body,
{
    type Response = Response<EndOfStream<RB, Option<Permit>>>;
    type Error = BoxError;
    type Future = ResponseFuture<&'a S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.inner).poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inner = &self.inner;
        let gate = match self.layer.admit() {
            Admission::Granted(permit) => Gate::calling(inner.call(request), permit),
            Admission::Wait(wait) => Gate::waiting(wait, inner, request),
            Admission::Refused(refused) => Gate::refused(refused),
        };
        ResponseFuture { gate }
    }
}

pin_project! {
    /// The future of [`Concurrency`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<Svc, B>
    where
        Svc: Service<Request<B>>,
    {
        #[pin]
        gate: Gate<Svc, B, Option<Permit>>,
    }
}

impl<Svc, B, RB> Future for ResponseFuture<Svc, B>
where
    Svc: Service<Request<B>, Response = Response<RB>>,
    Svc::Error: Into<BoxError>,
    RB: Body,
{
    type Output = Result<Response<EndOfStream<RB, Option<Permit>>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (permit, response) = ready!(self.project().gate.poll(cx))?;
        Poll::Ready(Ok(response.map(|body| EndOfStream::new(body, permit))))
    }
}
