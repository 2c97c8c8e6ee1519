use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::ewma::Estimate;
use super::{EndpointLoad, Member};
use crate::classify::{Classify, HttpGrpc, Outcome, Reading};
use crate::deadline::is_stream;
use crate::{BoxError, CallContext, End, EndOfStream, OnEnd};
use crate::{header, hint};

/// The least that a failure counts for.
const PENALTY: Duration = Duration::from_secs(5);

/// Makes [`Load`] services, which share one [`EndpointLoad`].
///
/// | option | default | |
/// | --- | --- | --- |
/// | [`classify`](Self::classify) | [`HttpGrpc`] | what a failure is |
///
/// ```
/// use http::{Request, Response};
/// use tower::{Layer, Service, service_fn};
/// use tower_plugins_layers::BoxError;
/// use tower_plugins_layers::balance::LoadLayer;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let layer = LoadLayer::new();
/// let load = layer.load();
/// let mut service = layer.layer(service_fn(|_: Request<()>| async {
///     Ok::<_, BoxError>(Response::new(String::from("body")))
/// }));
/// let response = service.call(Request::new(())).await.unwrap();
/// assert_eq!(load.in_flight(), 1);
/// drop(response);
/// assert_eq!(load.in_flight(), 0);
/// # });
/// ```
#[derive(Clone, Debug, Default)]
pub struct LoadLayer<C = HttpGrpc> {
    load: Arc<EndpointLoad>,
    classify: C,
}

impl LoadLayer {
    /// Measures an endpoint of which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on measuring where others have begun.
    #[must_use]
    pub const fn with_load(load: Arc<EndpointLoad>) -> Self {
        Self {
            load,
            classify: HttpGrpc,
        }
    }
}

impl<C> LoadLayer<C> {
    /// Sets what a failure is; [`HttpGrpc`] by default.
    #[must_use]
    pub fn classify<D: Classify>(self, classify: D) -> LoadLayer<D> {
        LoadLayer {
            load: self.load,
            classify,
        }
    }

    /// What is measured.
    #[must_use]
    pub fn load(&self) -> Arc<EndpointLoad> {
        Arc::clone(&self.load)
    }
}

impl<C: Classify> LoadLayer<C> {
    fn begin<B>(&self, request: &Request<B>) -> Pending<C> {
        Pending {
            estimate: self.load.begin(),
            start: CallContext::now(request.extensions()),
            told: Told::Nothing,
            reading: Reading::of(request),
            classify: self.classify.clone(),
        }
    }
}

impl<S, C: Clone> Layer<S> for LoadLayer<C> {
    type Service = Load<S, C>;

    fn layer(&self, inner: S) -> Load<S, C> {
        Load {
            inner,
            layer: self.clone(),
        }
    }
}

/// Measures the load of an endpoint, for [`Balance`](super::Balance).
///
/// A call is under way from when it is made until its response's body ends or it is dropped. Its time
/// ends there too, but for streams (`text/event-stream`, gRPC, an upgrade), where it ends at the head:
/// how long they go on is not the endpoint's doing. A call that was dropped counts for the time it had.
///
/// # Errors
/// Its errors are those of the service inside. What [`LoadLayer::classify`] calls a failure counts as five seconds at the
/// least, and as longer where the endpoint asks for that: one that fails fast draws no calls.
///
/// # Order
/// Inside of [`Balance`](super::Balance), one for each endpoint, and of its breaker: it measures the endpoint, and not what
/// is refused on the way there. Layers of the endpoint outside of it hand on what it knows ([`Member`]).
#[derive(Clone, Debug)]
pub struct Load<S, C = HttpGrpc> {
    inner: S,
    layer: LoadLayer<C>,
}

impl<S, C> Load<S, C> {
    /// The service inside.
    #[must_use]
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, C> Member for Load<S, C> {
    fn load(&self, now: Instant) -> f64 {
        self.layer.load.load(now)
    }

    /// Always: what is slow is not away.
    fn is_available(&self, _: Instant) -> bool {
        true
    }

    fn is_back(&self, now: Instant) -> bool {
        self.layer.load.is_back(now)
    }

    fn in_flight(&self) -> usize {
        self.layer.load.in_flight()
    }

    fn rtt(&self, now: Instant) -> Duration {
        self.layer.load.rtt(now)
    }

    /// So many calls go at once as the weight says, before one waits for another: an idle member's weight is no
    /// reason to think that it answers sooner.
    fn weighted_load(&self, now: Instant, weight: f64) -> f64 {
        self.layer.load.weighted_load(now, weight)
    }
}

impl<S, B, RB, C> Service<Request<B>> for Load<S, C>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    RB: Body,
    C: Classify,
{
    type Response = Response<LoadBody<RB, C>>;
    type Error = BoxError;
    type Future = LoadFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let pending = Some(self.layer.begin(&request));
        let inner = self.inner.call(request);
        LoadFuture { inner, pending }
    }
}

impl<'a, S, B, RB, C> Service<Request<B>> for &'a Load<S, C>
where
    &'a S: Service<Request<B>, Response = Response<RB>>,
    <&'a S as Service<Request<B>>>::Error: Into<BoxError>,
    RB: Body,
    C: Classify,
{
    type Response = Response<LoadBody<RB, C>>;
    type Error = BoxError;
    type Future = LoadFuture<<&'a S as Service<Request<B>>>::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.inner).poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let pending = Some(self.layer.begin(&request));
        let inner = (&self.inner).call(request);
        LoadFuture { inner, pending }
    }
}

/// The body of [`Load`]'s responses.
pub type LoadBody<B, C = HttpGrpc> = EndOfStream<B, Option<Pending<C>>>;

/// What a call has told of the endpoint so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    /// How long a stream's head took; it may still fail.
    Time,
    All,
}

/// A call under way.
pub struct Pending<C> {
    estimate: Arc<CachePadded<Estimate>>,
    start: Instant,
    told: Told,
    reading: Reading,
    classify: C,
}

impl<C> Pending<C> {
    fn tell(&mut self, outcome: Outcome, headers: Option<&HeaderMap>) {
        let told = std::mem::replace(&mut self.told, Told::All);
        let now = Instant::now();
        let time = now.saturating_duration_since(self.start);
        match outcome {
            Outcome::Success if told == Told::Nothing => self.estimate.took(time, now),
            Outcome::Success | Outcome::Ignored => {}
            Outcome::Overloaded | Outcome::Failure => {
                let asked = headers.and_then(asked).unwrap_or_default();
                self.estimate.failed(time.max(asked).max(PENALTY), now);
            }
        }
    }
}

/// How long the endpoint asks to be left alone.
fn asked(headers: &HeaderMap) -> Option<Duration> {
    let pushback = headers.get(&header::GRPC_PUSHBACK);
    pushback
        .and_then(|millis| hint::pushback(millis.as_bytes()))
        .or_else(|| hint::retry_after(headers))
}

impl<C: Classify> Pending<C> {
    /// The response's head has come.
    fn at_head<RB>(&mut self, response: &Response<RB>) {
        let headers = response.headers();
        if let Some(outcome) = self.reading.head(&self.classify, response) {
            self.tell(outcome, Some(headers));
        } else if is_stream(response) {
            self.tell(Outcome::Success, None);
            self.told = Told::Time;
        }
    }
}

impl<C: Classify> OnEnd for Pending<C> {
    fn on_end(mut self, end: End<'_>) {
        if self.told == Told::All {
            return;
        }
        let outcome = self.reading.end(&self.classify, &end);
        let trailers = match end {
            End::Complete(trailers) => trailers,
            End::Error(_) => None,
        };
        self.tell(outcome, trailers);
    }
}

impl<C> Drop for Pending<C> {
    fn drop(&mut self) {
        if self.told == Told::Nothing {
            let now = Instant::now();
            let time = now.saturating_duration_since(self.start);
            self.estimate.took_more_than(time, now);
        }
    }
}

impl<C> fmt::Debug for Pending<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("start", &self.start)
            .field("told", &self.told)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`Load`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct LoadFuture<F, C = HttpGrpc> {
        #[pin]
        inner: F,
        pending: Option<Pending<C>>,
    }
}

impl<F, RB, E, C> Future for LoadFuture<F, C>
where
    F: Future<Output = Result<Response<RB>, E>>,
    E: Into<BoxError>,
    RB: Body,
    C: Classify,
{
    type Output = Result<Response<LoadBody<RB, C>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        EndOfStream::around(
            this.inner.poll(cx),
            this.pending,
            |pending, response| {
                let mut pending = pending.take();
                if let Some(pending) = &mut pending {
                    pending.at_head(response);
                }
                pending
            },
            |pending, error| {
                if let Some(mut pending) = pending.take() {
                    let outcome = pending.classify.error(&**error);
                    pending.tell(outcome, None);
                }
            },
        )
    }
}
