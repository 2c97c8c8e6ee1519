//! Calls that are counted until they end, and can be ended.
//!
//! [`DrainLayer`] counts each call from its beginning until its response's body has ended or been
//! dropped, in a [`DrainHandle`]: a handle that says how many there are, refuses new ones, waits for the
//! last and cancels what is left. The end of a drain is a notification from the last call.
//!
//! # States
//!
//! ```text
//!              close                    the last call has ended
//!   +------+ ---------> +----------+ -----------------------------> drained
//!   | open |            | draining |
//!   +------+ <--------- +----------+ --> cancel: what is left ends, and what begins
//!              reopen
//! ```
//!
//! [`shutdown`](DrainHandle::shutdown) does all of it and says how it went; [`progress`](DrainHandle::progress) tells how
//! many are left, as that changes; [`closed`](DrainHandle::closed) is what servers wait for to accept no more.
//!
//! | option | default | |
//! | --- | --- | --- |
//! | [`answer`](DrainLayer::answer) | off: errors | what is refused, or cancelled before its head, is answered: 503 with `Retry-After`, or gRPC `UNAVAILABLE` |
//! | [`close_connections`](DrainLayer::close_connections) | off | responses over HTTP/1 during the drain say `connection: close` |
//!
//! # Upgrades
//! After a 101, or a 2xx to `CONNECT`, the response's body is over and its connection is not. A request that asks for
//! an upgrade has a [`DrainHold`] in its extensions, and so has the response that grants it: who takes the
//! connection over keeps it, and the call is counted until the connection ends.
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower_plugins_layers::BoxError;
//! use tower_plugins_layers::drain::DrainHold;
//!
//! async fn upgrade(mut request: Request<String>) -> Result<Response<String>, BoxError> {
//!     let hold = request.extensions_mut().remove::<DrainHold>();
//!     let talk = async move { /* over what `hyper::upgrade::on(request)` gives */ };
//!     tokio::spawn(async move {
//!         match hold {
//!             Some(hold) => hold.keep(talk).await.unwrap_or_default(),
//!             None => talk.await,
//!         }
//!     });
//!     let mut response = Response::new(String::new());
//!     *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
//!     Ok(response)
//! }
//! # let _ = upgrade;
//! ```
//!
//! In axum `Option<Extension<DrainHold>>` is an extractor, and `keep` goes around what `on_upgrade` is given. A handler
//! that lets go of the hold is not waited for.
//!
//! # Errors
//! [`Reason::Draining`] after `close`, [`Reason::DrainCancelled`] after `cancel`: before the head as the call's error,
//! after it as its body's.
//!
//! # Cancelling
//! A call that is dropped has ended.
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

mod answer;
mod handle;
mod hold;
mod report;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use self::answer::Seen;
use self::handle::Cancelled;
pub use self::handle::DrainHandle;
pub use self::hold::DrainHold;
use self::hold::Hold;
pub use self::report::{DrainProgress, DrainReport, Remaining};
use crate::end_of_stream::Held;
use crate::{BoxError, EndOfStream, Reason, Refused};

/// Makes services that count their calls in a [`DrainHandle`].
#[derive(Clone, Debug)]
pub struct DrainLayer {
    drain: DrainHandle,
    /// Seconds after which to come again.
    answer: Option<u32>,
    close_connections: bool,
}

impl DrainLayer {
    /// Counts calls in `drain`.
    #[must_use]
    pub const fn new(drain: DrainHandle) -> Self {
        Self {
            drain,
            answer: None,
            close_connections: false,
        }
    }

    /// Answers what is refused, or cancelled before its head, in place of an error: with 503 and `Retry-After`, or
    /// with `UNAVAILABLE` where the request is of gRPC.
    #[must_use]
    pub fn answer(mut self, retry_after: Duration) -> Self {
        self.answer = Some(u32::try_from(retry_after.as_secs()).unwrap_or(u32::MAX));
        self
    }

    /// Puts `connection: close` on the responses that begin during the drain, where the request came over HTTP/1. For
    /// servers that do not close idle connections by themselves.
    #[must_use]
    pub const fn close_connections(mut self) -> Self {
        self.close_connections = true;
        self
    }

    /// What a call holds, if it may begin.
    fn enter<B>(&self, request: &mut Request<B>) -> (Seen, Option<Hold>) {
        let seen = Seen::of(self, request);
        let hold = self.drain.enter(seen.is_upgrade());
        if let Some(Hold::Shared(hold)) = &hold {
            request.extensions_mut().insert(hold.clone());
        }
        (seen, hold)
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = Drain<S>;

    fn layer(&self, inner: S) -> Drain<S> {
        Drain {
            inner,
            layer: self.clone(),
        }
    }
}

/// Counts its calls. See the [module](self).
#[derive(Clone, Debug)]
pub struct Drain<S> {
    inner: S,
    layer: DrainLayer,
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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (seen, hold) = self.layer.enter(&mut request);
        // Not by `then`, which moves the future once more.
        let inner = if hold.is_some() {
            Some(self.inner.call(request))
        } else {
            None
        };
        ResponseFuture {
            inner,
            hold,
            cancelled: Cancelled::default(),
            seen,
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

    #[inline]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (seen, hold) = self.layer.enter(&mut request);
        let inner = if hold.is_some() {
            Some((&self.inner).call(request))
        } else {
            None
        };
        ResponseFuture {
            inner,
            hold,
            cancelled: Cancelled::default(),
            seen,
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
        seen: Seen,
    }
}

impl<F, RB, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    E: Into<BoxError>,
    RB: Body<Error: Into<BoxError>>,
{
    type Output = Result<Response<ResponseBody<RB>>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (Some(inner), Some(hold)) = (this.inner.as_mut().as_pin_mut(), &*this.hold) else {
            return Poll::Ready(this.seen.refuse(Reason::Draining));
        };
        let mut polled = inner.poll(cx);
        let held = match &mut polled {
            Poll::Pending => {
                ready!(this.cancelled.poll(hold, cx));
                this.inner.set(None);
                *this.hold = None;
                return Poll::Ready(this.seen.refuse(Reason::DrainCancelled));
            }
            Poll::Ready(Ok(response)) => {
                this.seen.at_head(hold, response);
                this.inner.set(None);
                Held::by(response.body(), this.hold.take())
            }
            Poll::Ready(Err(_)) => {
                this.inner.set(None);
                *this.hold = None;
                Held::Nobody
            }
        };
        let cancelled = std::mem::take(this.cancelled);
        match polled {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(response.map(|body| ResponseBody {
                inner: Some(EndOfStream::with(body, held)),
                cancelled,
            }))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

pin_project! {
    /// The body of [`Drain`]'s responses.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        // `None` once the call was cancelled, and in an answer of the drain's own.
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
