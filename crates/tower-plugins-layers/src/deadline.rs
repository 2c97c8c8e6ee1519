//! The time that a whole call may take.
//!
//! [`DeadlineLayer`] ends a call that has taken too long, with [`Reason::DeadlineExceeded`]: waits
//! for tokens and permits, attempts and backoff of the layers inside it are all within the time.
//!
//! The deadline is the earliest of the policy's (`timeout` after the call began), the caller's own
//! in the [`CallContext`], and the one of a `grpc-timeout` header. Layers further in find it in the
//! call's context.
//!
//! It ends with the last byte of the response, so that a slow body counts. A *stream* is different
//! (`text/event-stream`, gRPC, an upgrade): a policy's deadline ends at its head, from where only
//! `stream_idle` bounds the silence between two frames. The caller's own deadline binds streams too.
//!
//! A call past its deadline fails even if nobody polls the service inside: that call is dropped with
//! the future or body.
//!
//! # Order
//! Outside retry and every layer that waits, inside whatever counts outcomes. Inside retry it would
//! bound each attempt and the whole not at all; that is [`AttemptTimeout`](crate::AttemptTimeout).
//!
//! ```
//! use std::time::Duration;
//! use http::{Request, Response};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::{BoxError, DeadlineLayer, Reason};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! let mut service = ServiceBuilder::new()
//!     .layer(DeadlineLayer::new(Duration::from_secs(1)))
//!     .service(service_fn(|_: Request<()>| async {
//!         tokio::time::sleep(Duration::from_secs(5)).await;
//!         Ok::<_, BoxError>(Response::new(String::new()))
//!     }));
//! let error = service.ready().await.unwrap().call(Request::new(())).await.unwrap_err();
//! assert_eq!(Reason::of(&*error), Some(Reason::DeadlineExceeded));
//! # });
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::timer::Timer;
use crate::{BoxError, CallContext, Reason, Refused};

/// Makes [`Deadline`] services.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadlineLayer {
    timeout: Option<Duration>,
    stream_idle: Option<Duration>,
}

impl DeadlineLayer {
    /// A call may take `timeout`.
    #[must_use]
    pub const fn new(timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            stream_idle: None,
        }
    }

    /// Only callers' own deadlines count.
    #[must_use]
    pub const fn of_callers() -> Self {
        Self {
            timeout: None,
            stream_idle: None,
        }
    }

    /// Bounds the silence between two frames of a streamed response. Unbounded by default.
    #[must_use]
    pub const fn stream_idle(mut self, idle: Duration) -> Self {
        self.stream_idle = Some(idle);
        self
    }

    /// When a call with `request` must be over; tells the layers further in.
    fn bounds<B>(&self, request: &mut Request<B>) -> Bounds {
        let context = request.extensions().get::<CallContext>();
        let (start, known) = context.map_or_else(
            || (Instant::now(), Bounds::default()),
            |context| {
                let (all, own) = (context.deadline(), context.callers_deadline());
                (context.start(), Bounds { all, own })
            },
        );
        // A time too far for the clock is no deadline.
        let after = |timeout: Option<Duration>| timeout.and_then(|t| start.checked_add(t));
        let own = earliest([known.own, after(grpc_timeout(request.headers()))]);
        let all = earliest([known.all, own, after(self.timeout)]);
        let bounds = Bounds { all, own };
        if let Some(at) = all.filter(|_| bounds != known) {
            let extensions = request.extensions_mut();
            extensions
                .get_or_insert_with(CallContext::new)
                .set_deadline(at, own);
        }
        bounds
    }
}

/// The deadlines of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bounds {
    /// The earliest of all.
    all: Option<Instant>,
    /// The earliest of the caller's own, which bind streams too.
    own: Option<Instant>,
}

fn earliest<const N: usize>(deadlines: [Option<Instant>; N]) -> Option<Instant> {
    deadlines.into_iter().flatten().min()
}

/// The value of `grpc-timeout`: at most eight digits and a unit. Anything else is no deadline.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(&crate::header::GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline {
            inner,
            layer: *self,
        }
    }
}

/// Ends a call that has taken too long. See the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct Deadline<S> {
    inner: S,
    layer: DeadlineLayer,
}

impl<S, B, RB> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let bounds = self.layer.bounds(&mut request);
        ResponseFuture::new(self.inner.call(request), bounds, self.layer.stream_idle)
    }
}

impl<'a, S, B, RB> Service<Request<B>> for &'a Deadline<S>
where
    &'a S: Service<Request<B>, Response = Response<RB>>,
    <&'a S as Service<Request<B>>>::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<<&'a S as Service<Request<B>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.inner).poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let bounds = self.layer.bounds(&mut request);
        ResponseFuture::new((&self.inner).call(request), bounds, self.layer.stream_idle)
    }
}

pin_project! {
    /// The future of [`Deadline`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        timer: Timer,
        own: Option<Instant>,
        stream_idle: Option<Duration>,
    }
}

impl<F> ResponseFuture<F> {
    fn new(inner: F, bounds: Bounds, stream_idle: Option<Duration>) -> Self {
        Self {
            inner,
            timer: Timer::maybe_at(bounds.all),
            own: bounds.own,
            stream_idle,
        }
    }
}

impl<F, RB, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody<RB>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(result) = this.inner.poll(cx) {
            let response = match result {
                Ok(response) => response,
                Err(error) => return Poll::Ready(Err(error.into())),
            };
            // Only a policy's own bounds make a difference between the two.
            let differs = *this.own != this.timer.fires_at() || this.stream_idle.is_some();
            let streams = differs && is_stream(&response);
            let silence = this.stream_idle.filter(|_| streams).map(|bound| {
                Box::new(Silence {
                    bound,
                    timer: Timer::Never,
                })
            });
            // The timer moves on to the body, so that it is set at most once a call.
            let timer = if streams && *this.own != this.timer.fires_at() {
                Timer::maybe_at(*this.own)
            } else {
                std::mem::take(this.timer)
            };
            return Poll::Ready(Ok(response.map(|inner| ResponseBody {
                inner,
                timer,
                silence,
                started: false,
                over: false,
            })));
        }
        ready!(this.timer.poll(cx));
        Poll::Ready(Err(Refused::new(Reason::DeadlineExceeded).into()))
    }
}

/// Whether a response goes on for as long as it likes.
pub(crate) fn is_stream<B>(response: &Response<B>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
        || response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| {
                ["text/event-stream", "application/grpc"]
                    .iter()
                    .any(|stream| is_of_type(value.as_bytes(), stream.as_bytes()))
            })
}

/// Whether a content type begins like `stream`; its case says nothing.
pub(crate) fn is_of_type(value: &[u8], stream: &[u8]) -> bool {
    value
        .get(..stream.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(stream))
}

pin_project! {
    /// The body of [`Deadline`]'s responses.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        inner: B,
        timer: Timer,
        // Of a stream that may not be silent for too long.
        silence: Option<Box<Silence>>,
        started: bool,
        over: bool,
    }
}

/// `body` as it is, within no time.
impl<B> From<B> for ResponseBody<B> {
    fn from(inner: B) -> Self {
        Self {
            inner,
            timer: Timer::Never,
            silence: None,
            started: false,
            over: false,
        }
    }
}

#[derive(Debug)]
struct Silence {
    bound: Duration,
    timer: Timer,
}

impl Silence {
    /// Nothing has come: is it too long now?
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.fires_at().is_none() {
            self.timer = Timer::maybe_at(Instant::now().checked_add(self.bound));
        }
        self.timer.poll(cx)
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
        if *this.over {
            return Poll::Ready(None);
        }
        // The deadline goes before the frame, or a body that always has one would outrun it. The
        // clock and not the timer is asked, which only fires when the task lets go.
        let late = *this.started && this.timer.has_passed() && !this.inner.is_end_stream();
        let reason = if late {
            Reason::DeadlineExceeded
        } else if let Poll::Ready(frame) = this.inner.as_mut().poll_frame(cx) {
            *this.started = true;
            *this.over = frame.is_none();
            if let Some(silence) = this.silence {
                silence.timer = Timer::Never;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        } else if this.timer.poll(cx).is_ready() {
            Reason::DeadlineExceeded
        } else {
            let Some(silence) = this.silence else {
                return Poll::Pending;
            };
            ready!(silence.poll(cx));
            Reason::StreamIdle
        };
        *this.over = true;
        Poll::Ready(Some(Err(Refused::new(reason).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
