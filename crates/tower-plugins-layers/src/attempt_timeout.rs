//! The time that one attempt may take.
//!
//! [`AttemptTimeoutLayer`] ends an attempt whose response head has not come in time, with
//! [`Reason::AttemptTimeout`]: inside retry, a slow attempt becomes a retryable failure while the
//! call's [deadline](crate::deadline) still has room. The response's body is not bounded.
//!
//! ```text
//!   attempt begins ── waits for a connection ── request ── head ── body
//!   ├──────────────────── timeout ───────────────────────────┤
//! ```
//!
//! | option | default | |
//! | --- | --- | --- |
//! | `timeout` | | from the attempt's beginning, as its [`CallContext`] has it, else from the call of this layer |
//! | [`off`](AttemptTimeoutLayer::off) | | any time, for settings that may have none |
//!
//! # Errors and cancellation
//! [`Reason::AttemptTimeout`], for which the attempt is dropped; a breaker inside counts it as a failure of
//! its endpoint. Dropping the future drops the attempt and its timer.
//!
//! # Order
//! Just inside retry. Outside retry it would bound all attempts together; that is the deadline.
//!
//! ```
//! use std::time::Duration;
//! use http::{Request, Response};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::{AttemptTimeoutLayer, BoxError, Reason};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! let mut service = ServiceBuilder::new()
//!     .layer(AttemptTimeoutLayer::new(Duration::from_millis(200)))
//!     .service(service_fn(|_: Request<()>| async {
//!         std::future::pending::<()>().await;
//!         Ok::<_, BoxError>(Response::new(()))
//!     }));
//! let error = service.ready().await.unwrap().call(Request::new(())).await.unwrap_err();
//! assert_eq!(Reason::of(&*error), Some(Reason::AttemptTimeout));
//! # });
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Request;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::timer::Timer;
use crate::{BoxError, CallContext, Reason, Refused};

/// Makes [`AttemptTimeout`] services.
#[derive(Clone, Copy, Debug)]
pub struct AttemptTimeoutLayer {
    timeout: Option<Duration>,
}

impl AttemptTimeoutLayer {
    /// An attempt may take `timeout`.
    #[must_use]
    pub const fn new(timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
        }
    }

    /// An attempt may take any time: the layer does nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self { timeout: None }
    }

    fn timer<B>(self, request: &mut Request<B>) -> Timer {
        let Some(timeout) = self.timeout else {
            return Timer::Never;
        };
        let now = CallContext::now(request.extensions());
        let Some(at) = now.checked_add(timeout) else {
            return Timer::Never;
        };
        // A breaker further in must tell an attempt that took too long from a caller that left.
        request
            .extensions_mut()
            .get_or_insert_with(|| CallContext::at(now))
            .set_attempt_deadline(at);
        Timer::At(at)
    }
}

impl<S> Layer<S> for AttemptTimeoutLayer {
    type Service = AttemptTimeout<S>;

    fn layer(&self, inner: S) -> AttemptTimeout<S> {
        AttemptTimeout {
            inner,
            layer: *self,
        }
    }
}

/// Ends an attempt that has taken too long. See the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct AttemptTimeout<S> {
    inner: S,
    layer: AttemptTimeoutLayer,
}

impl<S, B> Service<Request<B>> for AttemptTimeout<S>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        ResponseFuture {
            timer: self.layer.timer(&mut request),
            inner: self.inner.call(request),
        }
    }
}

impl<'a, S, B> Service<Request<B>> for &'a AttemptTimeout<S>
where
    &'a S: Service<Request<B>>,
    <&'a S as Service<Request<B>>>::Error: Into<BoxError>,
{
    type Response = <&'a S as Service<Request<B>>>::Response;
    type Error = BoxError;
    type Future = ResponseFuture<<&'a S as Service<Request<B>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.inner).poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        ResponseFuture {
            timer: self.layer.timer(&mut request),
            inner: (&self.inner).call(request),
        }
    }
}

pin_project! {
    /// The future of [`AttemptTimeout`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        timer: Timer,
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.inner.poll(cx) {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending => {
                ready!(this.timer.poll(cx));
                Poll::Ready(Err(Refused::new(Reason::AttemptTimeout).into()))
            }
        }
    }
}
