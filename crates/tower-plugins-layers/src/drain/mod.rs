//! Calls that are counted until they end, and can be ended.
//!
//! [`DrainLayer`] counts each call from its beginning until its response's body has ended or been
//! dropped, in a [`DrainHandle`]: a handle that says how many there are, refuses new ones, waits for the
//! last and cancels what is left. The end of a drain is a notification from the last call.
//!
//! A call that is cancelled ends with
//! [`Reason::DrainCancelled`]: before its head as the call's error,
//! after it as its body's.
//!
//! # Order
//! Outermost, or just inside what counts outcomes: all waiting and backoff is part of the call.
//!
//! ```
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::{BoxError, DrainHandle, DrainLayer};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let drain = DrainHandle::new();
//! let service = ServiceBuilder::new()
//!     .layer(DrainLayer::new(drain.clone()))
//!     .service(service_fn(|_: Request<()>| async {
//!         Ok::<_, BoxError>(Response::new("a body".to_owned()))
//!     }));
//! let response = service.oneshot(Request::new(())).await.unwrap();
//! assert_eq!(drain.active(), 1);
//! drop(response);
//! drain.close();
//! drain.drained().await;
//! # });
//! ```

mod handle;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use self::handle::Cancelled;
pub use self::handle::{DrainHandle, Hold};
use crate::{BoxError, EndOfStream, Reason, Refused};

/// Makes services that count their calls in a [`DrainHandle`].
#[derive(Clone, Debug)]
pub struct DrainLayer {
    drain: DrainHandle,
}

impl DrainLayer {
    /// Counts calls in `drain`.
    #[must_use]
    pub const fn new(drain: DrainHandle) -> Self {
        Self { drain }
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = Drain<S>;

    fn layer(&self, inner: S) -> Drain<S> {
        Drain {
            inner,
            drain: self.drain.clone(),
        }
    }
}

/// Counts its calls. See the [module](self).
#[derive(Clone, Debug)]
pub struct Drain<S> {
    inner: S,
    drain: DrainHandle,
}

impl<S, B, RB> Service<Request<B>> for Drain<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    RB: Body<Error: Into<BoxError>>,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.drain.hold() {
            Some(hold) => ResponseFuture::calling(self.inner.call(request), hold),
            None => ResponseFuture::refused(),
        }
    }
}

impl<'a, S, B, RB> Service<Request<B>> for &'a Drain<S>
where
    &'a S: Service<Request<B>, Response = Response<RB>>,
    <&'a S as Service<Request<B>>>::Error: Into<BoxError>,
    RB: Body<Error: Into<BoxError>>,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<<&'a S as Service<Request<B>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.inner).poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.drain.hold() {
            Some(hold) => ResponseFuture::calling((&self.inner).call(request), hold),
            None => ResponseFuture::refused(),
        }
    }
}

pin_project! {
    /// The future of [`Drain`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        // `None` when the call was refused.
        #[pin]
        inner: Option<F>,
        hold: Option<Hold>,
        cancelled: Cancelled,
    }
}

impl<F> ResponseFuture<F> {
    fn calling(inner: F, hold: Hold) -> Self {
        Self {
            inner: Some(inner),
            hold: Some(hold),
            cancelled: Cancelled::default(),
        }
    }

    fn refused() -> Self {
        Self {
            inner: None,
            hold: None,
            cancelled: Cancelled::default(),
        }
    }
}

impl<F, RB, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    E: Into<BoxError>,
    RB: Body<Error: Into<BoxError>>,
{
    type Output = Result<Response<ResponseBody<RB>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (Some(inner), Some(hold)) = (this.inner.as_mut().as_pin_mut(), &*this.hold) else {
            return Poll::Ready(Err(Refused::new(Reason::Draining).into()));
        };
        let Poll::Ready(result) = inner.poll(cx) else {
            ready!(this.cancelled.poll(hold, cx));
            this.inner.set(None);
            *this.hold = None;
            return Poll::Ready(Err(Refused::new(Reason::DrainCancelled).into()));
        };
        this.inner.set(None);
        let hold = this.hold.take();
        match result {
            Ok(response) => {
                let cancelled = std::mem::take(this.cancelled);
                Poll::Ready(Ok(response.map(|body| ResponseBody {
                    inner: Some(EndOfStream::new(body, hold)),
                    cancelled,
                })))
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

pin_project! {
    /// The body of [`Drain`]'s responses.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        // `None` once the call was cancelled.
        #[pin]
        inner: Option<EndOfStream<B, Option<Hold>>>,
        cancelled: Cancelled,
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        // Looked at before the frame, or a body that always has one would outrun its end.
        let is_over = inner
            .held()
            .is_some_and(|hold| hold.as_ref().is_some_and(Hold::is_cancelled));
        if !is_over {
            let mut inner = inner;
            if let Poll::Ready(frame) = inner.as_mut().poll_frame(cx) {
                return Poll::Ready(frame);
            }
            let Some(Some(hold)) = inner.held() else {
                return Poll::Pending;
            };
            ready!(this.cancelled.poll(hold, cx));
        }
        // With the body goes the call, even if the reader keeps the rest.
        this.inner.set(None);
        Poll::Ready(Some(Err(Refused::new(Reason::DrainCancelled).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
