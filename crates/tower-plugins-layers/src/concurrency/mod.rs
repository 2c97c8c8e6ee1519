//! At most so many calls at once, or as many as the service inside can take.
//!
//! [`ConcurrencyLayer`] gives each call a place in a [`Bulkhead`], from before the inner service is
//! called until the response's body has ended or been dropped. Without a place a call is refused
//! with [`Reason::ConcurrencyLimited`](crate::Reason::ConcurrencyLimited), or waits in a bounded
//! queue, first come, first served, for a bounded time. A caller that goes away leaves the queue.
//!
//! ```text
//!            a place is free
//!   call ──────────────────────────────────────────▶ goes on, holds it to the body's end
//!     │ none                                   ▲
//!     ├─ the queue has room, or one of less    │ the most important first,
//!     │  importance to displace ──▶ waits ─────┘ then first come, first served
//!     │                               └─ max_wait, or displaced ──▶ refused
//!     └─ else ──▶ refused
//! ```
//!
//! The limit is a number ([`Bulkhead::new`]), or it is found from how the calls go
//! ([`Bulkhead::adaptive`]): from the time to a response's head, and from failures, as an [`AdaptivePolicy`]
//! says. What a call's end says is read as by [`HttpGrpc`](crate::classify::HttpGrpc): at the head if that
//! decides, else at the end of the body.
//!
//! All services made by one layer and its clones share one bulkhead, which is the handle too: it says how many
//! calls there are and what the limit is, and takes another one.
//!
//! # Priorities
//! A call has a [`Priority`]: the one in its [`CallContext`], else the one that a
//! [header](ConcurrencyLayer::priority_header) names, else normal. Calls of less importance get a
//! [share](Bulkhead::share) of the places and of the queue.
//!
//! # Options
//!
//! | option | unit | default |
//! | --- | --- | --- |
//! | `max` | calls | |
//! | [`queue`](Bulkhead::queue) | calls, time | 0, 0: refused at once |
//! | [`share`](Bulkhead::share) | of 1, a priority | 1, 1, 0.8, 0.5 |
//! | [`priority_header`](ConcurrencyLayer::priority_header) | | none |
//!
//! A [`ConcurrencyPolicy`] has all of them as one value, which serde reads and writes.
//!
//! # Errors
//! [`Reason::ConcurrencyLimited`](crate::Reason::ConcurrencyLimited); and
//! [`Reason::Shed`](crate::Reason::Shed) where a place is left for calls of more importance, at once or when
//! the wait is over, or one of those took this call's place in the queue.
//!
//! # Cancellation
//! A call that is dropped leaves the queue, or gives its place back.
//!
//! # Order
//! Inside the deadline, so that waiting counts; outside retry, so that a call in backoff keeps its
//! place and retries cannot exceed the limit. One that adapts stands inside retry, where it sees each attempt.
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

mod adaptive;
mod bulkhead;
mod permit;
mod policy;
mod priority;
mod queue;
#[cfg(feature = "serde")]
mod text;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderName, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

pub use self::adaptive::{AdaptivePolicy, Algorithm};
pub use self::bulkhead::Bulkhead;
pub use self::permit::Permit;
pub use self::policy::ConcurrencyPolicy;
pub use self::priority::{NoPriority, Priority};
use crate::gate::{Admission, Gate, take_ready};
use crate::{BoxError, CallContext, EndOfStream};

/// Makes [`Concurrency`] services.
#[derive(Clone, Debug)]
pub struct ConcurrencyLayer {
    bulkhead: Option<Arc<Bulkhead>>,
    priority_header: Option<HeaderName>,
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
            priority_header: None,
        }
    }

    /// Any number of calls: the layer does nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self {
            bulkhead: None,
            priority_header: None,
        }
    }

    /// The header that has the priority of a call whose [`CallContext`] has none: `critical`, `normal`,
    /// `sheddable` or `bulk`, and normal for any other value. It is the caller's word.
    #[must_use]
    pub fn priority_header(mut self, name: HeaderName) -> Self {
        self.priority_header = Some(name);
        self
    }

    fn priority<B>(&self, request: &Request<B>) -> Priority {
        if let Some(priority) = CallContext::of(request).and_then(CallContext::get_priority) {
            return priority;
        }
        let name = self.priority_header.as_ref();
        let value = name.and_then(|name| request.headers().get(name));
        let text = value.and_then(|value| value.to_str().ok());
        text.and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    fn admit<B>(&self, request: &Request<B>) -> Admission<Option<Permit>> {
        let Some(bulkhead) = &self.bulkhead else {
            return Admission::Granted(None);
        };
        let deadline = Permit::deadline(request);
        match bulkhead.admit(self.priority(request)) {
            Admission::Granted(mut permit) => {
                permit.begin(deadline);
                Admission::Granted(Some(permit))
            }
            Admission::Wait(wait) => Admission::Wait(Box::pin(async move {
                let mut permit = wait.await?;
                permit.begin(deadline);
                Ok(Some(permit))
            })),
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
        let gate = match self.layer.admit(&request) {
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
        let gate = match self.layer.admit(&request) {
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

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut gate = self.project().gate;
        EndOfStream::around(
            gate.as_mut().poll(cx),
            gate,
            |gate, response| {
                let mut permit = gate.as_mut().take_permit().flatten();
                if let Some(permit) = &mut permit {
                    permit.head(response);
                }
                permit
            },
            |_, _| (),
        )
    }
}
