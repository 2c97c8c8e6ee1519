//! The time that a whole call may take.
//!
//! [`DeadlineLayer`] ends a call that has taken too long, with [`Reason::DeadlineExceeded`]: waits
//! for tokens and permits, attempts and backoff of the layers inside it are all within the time.
//!
//! ```text
//!  call begins                        response's head                    last byte
//!      ├── waits ── attempts ── backoff ──┼──────────── body ───────────────┤
//!      ├────────────────── timeout: whichever comes first ──────────────────┤
//!      ├──────── timeout ends here ───────┼─ stream_idle ─┼─ stream_idle ─┤     a stream
//!      ├────────────────── the caller's own deadline ───────────────────────┤
//! ```
//!
//! The deadline is the earliest of the policy's (`timeout` after the call began), the caller's own in the
//! [`CallContext`], and what the caller says in `grpc-timeout` or in a [header](DeadlineLayer::header) such as
//! `x-request-timeout`. A caller can shorten what the policy gives and never lengthen it. Layers further in
//! find the deadline in the call's context, and [`TimeLeftLayer`] passes what is left of it on.
//!
//! It ends with the last byte of the response, so that a slow body counts. A *stream* is different
//! (`text/event-stream`, gRPC, an upgrade): a policy's deadline ends at its head, from where only
//! `stream_idle` bounds the silence between two frames. The caller's own deadline binds streams too.
//!
//! # Options
//!
//! | setter of [`DeadlineLayer`] | default | |
//! | --- | --- | --- |
//! | [`new(timeout)`](DeadlineLayer::new) | | for the whole call |
//! | [`of_callers()`](DeadlineLayer::of_callers) | | no time of its own: only callers' deadlines count |
//! | [`stream_idle(time)`](DeadlineLayer::stream_idle) | unbounded | between two frames of a stream |
//! | [`header(name)`](DeadlineLayer::header) | none | where callers that do not speak gRPC say how long they wait |
//!
//! With the feature `serde` a [`DeadlinePolicy`] is read from text, and a layer made of it.
//!
//! # Errors
//! [`Reason::DeadlineExceeded`] and [`Reason::StreamIdle`]: before the head as the call's error, after it as the
//! body's.
//!
//! # Cancellation
//! A call past its deadline fails even if nobody polls the service inside: that call is dropped with
//! the future or body. Dropping the future or body drops the call inside; nothing else is held.
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

mod body;
mod header;
mod policy;
mod time_left;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderName, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

pub use self::body::ResponseBody;
pub use self::header::TimeoutHeader;
pub use self::policy::DeadlinePolicy;
pub use self::time_left::{TimeLeft, TimeLeftLayer};
use crate::header::content_type;
use crate::timer::Timer;
use crate::{BoxError, CallContext, Reason, Refused};

/// Makes [`Deadline`] services.
#[derive(Clone, Debug, Default)]
pub struct DeadlineLayer {
    policy: DeadlinePolicy,
}

impl DeadlineLayer {
    /// A call may take `timeout`.
    #[must_use]
    pub const fn new(timeout: Duration) -> Self {
        Self::with_policy(DeadlinePolicy::new().timeout(timeout))
    }

    /// Only callers' own deadlines count.
    #[must_use]
    pub const fn of_callers() -> Self {
        Self::with_policy(DeadlinePolicy::new())
    }

    /// Bounds calls as `policy` says.
    #[must_use]
    pub const fn with_policy(policy: DeadlinePolicy) -> Self {
        Self { policy }
    }

    /// Bounds the silence between two frames of a streamed response. Unbounded by default.
    #[must_use]
    pub const fn stream_idle(mut self, idle: Duration) -> Self {
        self.policy.stream_idle = Some(idle);
        self
    }

    /// Callers say how long they wait in the header `name` too, in the form of a [`TimeoutHeader`]. Besides
    /// `grpc-timeout`, none is looked at by default.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> Self {
        self.policy.header = Some(TimeoutHeader::new(name));
        self
    }

    /// How long the caller waits, as far as its headers say.
    fn said<B>(&self, request: &Request<B>) -> [Option<Duration>; 2] {
        let headers = request.headers();
        let grpc = headers.get(&crate::header::GRPC_TIMEOUT);
        let other = self.policy.header.as_ref();
        [
            grpc.and_then(header::read_grpc),
            other.and_then(|header| header.read(headers.get(header.name())?)),
        ]
    }

    /// How long the caller of `request` waits, if it has set a time of its own: in the call's context, or in a header.
    ///
    /// ```
    /// use std::time::Duration;
    /// use http::Request;
    /// use tower_plugins_layers::DeadlineLayer;
    ///
    /// let request = Request::builder().header("grpc-timeout", "50m").body(())?;
    /// let waits = DeadlineLayer::of_callers().caller_waits(&request);
    /// assert_eq!(waits, Some(Duration::from_millis(50)));
    /// # Ok::<(), http::Error>(())
    /// ```
    #[must_use]
    pub fn caller_waits<B>(&self, request: &Request<B>) -> Option<Duration> {
        let (start, known) = known(request);
        let own = self.own(request, start, known)?;
        Some(own.saturating_duration_since(start))
    }

    /// The earliest of the deadlines that the caller has set.
    fn own<B>(&self, request: &Request<B>, start: Instant, known: Bounds) -> Option<Instant> {
        let [grpc, other] = self.said(request).map(|timeout| after(start, timeout));
        earliest([known.own, grpc, other])
    }

    /// When a call with `request` must be over; tells the layers further in.
    fn bounds<B>(&self, request: &mut Request<B>) -> Bounds {
        let (start, known) = known(request);
        let own = self.own(request, start, known);
        let all = earliest([known.all, own, after(start, self.policy.timeout)]);
        let bounds = Bounds { all, own };
        if let Some(at) = all.filter(|_| bounds != known) {
            let extensions = request.extensions_mut();
            extensions
                .get_or_insert_with(|| CallContext::at(start))
                .set_deadline(at, own);
        }
        bounds
    }
}

/// When the call began, and when it must be over, as far as its context knows.
fn known<B>(request: &Request<B>) -> (Instant, Bounds) {
    CallContext::of(request).map_or_else(
        || (Instant::now(), Bounds::default()),
        |context| {
            let (all, own) = (context.deadline(), context.callers_deadline());
            (context.start(), Bounds { all, own })
        },
    )
}

/// A time too far for the clock is no deadline.
fn after(start: Instant, timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| start.checked_add(timeout))
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

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline {
            inner,
            layer: self.clone(),
        }
    }
}

/// Ends a call that has taken too long. See the [module](self).
#[derive(Clone, Debug)]
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
        ResponseFuture {
            inner: self.inner.call(request),
            timer: Timer::maybe_at(bounds.all),
            own: bounds.own,
            stream_idle: self.layer.policy.stream_idle,
        }
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
        ResponseFuture {
            inner: (&self.inner).call(request),
            timer: Timer::maybe_at(bounds.all),
            own: bounds.own,
            stream_idle: self.layer.policy.stream_idle,
        }
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

/// `error`, as what came of the deadline if that is over: an endpoint that knows of it may have cut the call off
/// before the timer here fires.
fn of_time(timer: &Timer, error: BoxError) -> BoxError {
    if timer.has_passed() && Reason::of(&*error) != Some(Reason::DeadlineExceeded) {
        return Refused::new(Reason::DeadlineExceeded)
            .caused_by(error)
            .into();
    }
    error
}

impl<F, RB, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody<RB>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = this.inner.poll(cx);
        let (timer, silence) = match &polled {
            Poll::Ready(Ok(response)) => {
                // Only a policy's own bounds make a difference between the two.
                let differs = *this.own != this.timer.fires_at() || this.stream_idle.is_some();
                let streams = differs && is_stream(response);
                let silence = this.stream_idle.filter(|_| streams);
                // The timer moves on to the body, so that it is set at most once a call.
                if streams && *this.own != this.timer.fires_at() {
                    (Timer::maybe_at(*this.own), silence)
                } else {
                    (std::mem::take(this.timer), silence)
                }
            }
            Poll::Ready(Err(_)) => (std::mem::take(this.timer), None),
            Poll::Pending => {
                ready!(this.timer.poll(cx));
                return Poll::Ready(Err(Refused::new(Reason::DeadlineExceeded).into()));
            }
        };
        match polled {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(
                response.map(|inner| ResponseBody::new(inner, timer, silence))
            )),
            Poll::Ready(Err(error)) => Poll::Ready(Err(of_time(&timer, error.into()))),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Whether a response goes on for as long as it likes: 101, `text/event-stream` and gRPC.
///
/// ```
/// use http::Response;
/// use tower_plugins_layers::deadline::is_stream;
///
/// let mut response = Response::new(());
/// assert!(!is_stream(&response));
/// response.headers_mut().insert("content-type", "text/event-stream".parse()?);
/// assert!(is_stream(&response));
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
#[must_use]
pub fn is_stream<B>(response: &Response<B>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
        || content_type(response.headers()).is_some_and(|kind| {
            ["text/event-stream", "application/grpc"]
                .iter()
                .any(|stream| is_of_type(kind, stream.as_bytes()))
        })
}

/// Whether a content type begins like `stream`; its case says nothing.
pub(crate) fn is_of_type(value: &[u8], stream: &[u8]) -> bool {
    value
        .get(..stream.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(stream))
}
