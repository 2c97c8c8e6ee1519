//! A budget of an endpoint's own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::budget::{Budget, Deposit, Withdrawal};
use crate::balance::Member;
use crate::classify::{Classify, Cutoff, HttpGrpc, Outcome, Reading};
use crate::{
    BoxError, CallContext, End, EndOfStream, OnEnd, Reason, Refused, Unsent, header, picked,
};

/// Bounds the repeated attempts at one endpoint by a [`Budget`], beside that of the calls as a whole.
///
/// When one endpoint of some fails, all its calls are repeated at the others. This layer stands on each of them, inside
/// [`Balance`](crate::Balance): first attempts are counted in the budget, and those beyond (by
/// [`CallContext::attempt`], hedges too) are taken out of it. The balancer sends those to endpoints that have something
/// left; one that comes all the same is given back, and goes to another.
///
/// ```text
///   attempt 0 ──▶ Balance ──▶ budget of one: counts it ──▶ one      503
///   attempt 1 ──▶ Balance ──▶ budget of two: has none  ──▶ back to Balance
///                         ──▶ budget of three: pays    ──▶ three    200
/// ```
///
/// | option | default | |
/// | --- | --- | --- |
/// | `budget` | | the [`Budget`]; its kinds and their defaults are those of [`BudgetLimits`](super::BudgetLimits) |
///
/// | | |
/// | --- | --- |
/// | errors | [`Unsent`] with [`Reason::RetryBudget`], which nothing repeats: an attempt through a balancer ends so when no endpoint has any left, and a call through [`Retry`](crate::Retry) with what it has |
/// | cancelling | gives back what is under way |
/// | not sent, as the circuit inside is open | costs nothing |
/// | what [`Tokens`](super::BudgetLimits::Tokens) hear | what [`HttpGrpc`] says of the head, or else of the end; an attempt that was cut off when its time was over has failed |
///
/// Clones, and the services that they make, share the budget; so may several endpoints.
///
/// # Order
/// Inside [`Balance`](crate::Balance) and [`Outlier`](crate::Outlier), outside [`Breaker`](crate::Breaker): what it refuses
/// takes none of a half-open circuit's permits.
///
/// ```
/// use http::{Request, Response};
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_plugins_layers::{BoxError, CallContext, RetryLayer, RetryPolicy};
/// use tower_plugins_layers::balance::{Balance, LoadLayer, Strategy};
/// use tower_plugins_layers::retry::{Budget, EndpointBudgetLayer};
///
/// let endpoint = |_| {
///     let service = LoadLayer::new().layer(service_fn(|_: Request<_>| async {
///         Ok::<_, BoxError>(Response::new(String::from("body")))
///     }));
///     EndpointBudgetLayer::new(Budget::new(0.1, 1)).layer(service)
/// };
/// let balance = Balance::new(Strategy::PeakEwma, [1, 2].map(endpoint));
/// let service = RetryLayer::new(RetryPolicy::new()).layer(balance);
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// service.oneshot(Request::new(String::new())).await?;
/// # Ok::<_, BoxError>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct EndpointBudgetLayer {
    budget: Arc<Budget>,
}

impl EndpointBudgetLayer {
    /// Bounds repeated attempts by `budget`.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self {
            budget: Arc::new(budget),
        }
    }

    /// The attempt of `request`; nothing, if it is a repeated one and nothing is left.
    fn begin<B>(&self, request: &Request<B>) -> Option<Attempt> {
        let context = CallContext::of(request);
        let now = context.map_or_else(Instant::now, CallContext::attempt_start);
        let under_way = match context.map_or(0, CallContext::attempt) {
            0 => UnderWay::First(self.budget.deposit(now)),
            _ => UnderWay::Repeated(self.budget.withdraw(now)?, Arc::clone(&self.budget)),
        };
        let learns = self.budget.hears().then(|| {
            let (cut, cutoff) = Cutoff::of(request);
            let learns = Learns {
                budget: Some(Arc::clone(&self.budget)),
                cut,
                reading: Reading::of(request),
            };
            (learns, cutoff)
        });
        Some(Attempt { under_way, learns })
    }
}

impl<S> Layer<S> for EndpointBudgetLayer {
    type Service = EndpointBudget<S>;

    fn layer(&self, inner: S) -> EndpointBudget<S> {
        EndpointBudget {
            inner,
            layer: self.clone(),
        }
    }
}

/// Bounds the repeated attempts at one endpoint. See [`EndpointBudgetLayer`].
#[derive(Clone, Debug)]
pub struct EndpointBudget<S> {
    inner: S,
    layer: EndpointBudgetLayer,
}

impl<S: Member> Member for EndpointBudget<S> {
    fn load(&self, now: Instant) -> f64 {
        self.inner.load(now)
    }

    /// Whatever is left: it takes first attempts in any case.
    fn is_available(&self, now: Instant) -> bool {
        self.inner.is_available(now)
    }

    fn takes_retry(&self, now: Instant) -> bool {
        self.layer.budget.allows(now) && self.inner.takes_retry(now)
    }

    fn retry_after(&self, now: Instant) -> Option<Duration> {
        self.inner.retry_after(now)
    }

    fn is_ejected(&self, now: Instant) -> bool {
        self.inner.is_ejected(now)
    }

    fn ramp(&self, now: Instant) -> f64 {
        self.inner.ramp(now)
    }

    fn is_back(&self, now: Instant) -> bool {
        self.inner.is_back(now)
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn rtt(&self, now: Instant) -> Duration {
        self.inner.rtt(now)
    }

    fn weighted_load(&self, now: Instant, weight: f64) -> f64 {
        self.inner.weighted_load(now, weight)
    }
}

impl<S, B, RB> Service<Request<B>> for EndpointBudget<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    B: Send + 'static,
    RB: Body,
{
    type Response = Response<EndOfStream<RB, Option<Learns>>>;
    type Error = BoxError;
    type Future = EndpointBudgetFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        EndpointBudgetFuture::of(&self.layer, request, |request| self.inner.call(request))
    }
}

impl<'a, S, B, RB> Service<Request<B>> for &'a EndpointBudget<S>
where
    &'a S: Service<Request<B>, Response = Response<RB>>,
    <&'a S as Service<Request<B>>>::Error: Into<BoxError>,
    B: Send + 'static,
    RB: Body,
{
    type Response = Response<EndOfStream<RB, Option<Learns>>>;
    type Error = BoxError;
    type Future = EndpointBudgetFuture<<&'a S as Service<Request<B>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.inner).poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inner = &self.inner;
        EndpointBudgetFuture::of(&self.layer, request, |request| inner.call(request))
    }
}

/// An attempt until its response's head.
#[derive(Debug)]
struct Attempt {
    under_way: UnderWay,
    learns: Option<(Learns, Cutoff)>,
}

#[derive(Debug)]
enum UnderWay {
    First(#[expect(dead_code, reason = "held for its drop")] Deposit),
    Repeated(Withdrawal, Arc<Budget>),
}

/// A budget that hears what becomes of a call. Dropped before, it hears nothing, or of a failure if the call's time was
/// over.
#[derive(Debug)]
pub struct Learns {
    /// `None` once it has heard.
    budget: Option<Arc<Budget>>,
    /// When the call's time is over.
    cut: Option<Instant>,
    reading: Reading,
}

impl Learns {
    fn tell(&mut self, outcome: Outcome) {
        let Some(budget) = self.budget.take() else {
            return;
        };
        match outcome {
            Outcome::Success => budget.succeeded(),
            Outcome::Failure => budget.failed(),
            Outcome::Overloaded | Outcome::Ignored => {}
        }
    }

    /// The head has come.
    fn at_head<RB>(&mut self, cutoff: Cutoff, response: &Response<RB>) {
        self.cut = cutoff.of_body(response);
        if let Some(outcome) = self.reading.head(&HttpGrpc, response) {
            self.tell(outcome);
        }
    }
}

impl OnEnd for Learns {
    fn on_end(mut self, end: End<'_>) {
        if self.budget.is_some() {
            self.tell(self.reading.end(&HttpGrpc, &end));
        }
    }
}

impl Drop for Learns {
    fn drop(&mut self) {
        if self.budget.is_some() {
            self.tell(Cutoff::dropped(self.cut));
        }
    }
}

pin_project! {
    /// The future of [`EndpointBudget`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct EndpointBudgetFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    #[derive(Debug)]
    enum State<F> {
        Call { #[pin] inner: F, attempt: Option<Attempt> },
        Refused { error: Option<BoxError> },
    }
}

impl<F> EndpointBudgetFuture<F> {
    fn of<B: Send + 'static>(
        layer: &EndpointBudgetLayer,
        request: Request<B>,
        call: impl FnOnce(Request<B>) -> F,
    ) -> Self {
        let state = match layer.begin(&request) {
            Some(attempt) => State::Call {
                inner: call(request),
                attempt: Some(attempt),
            },
            None => {
                let refused = Refused::new(Reason::RetryBudget);
                State::Refused {
                    error: Some(Unsent::new(Some(request), refused).into()),
                }
            }
        };
        Self { state }
    }
}

impl<F, RB, E> Future for EndpointBudgetFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    E: Into<BoxError>,
    RB: Body,
{
    type Output = Result<Response<EndOfStream<RB, Option<Learns>>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (inner, attempt) = match self.project().state.project() {
            StateProjection::Call { inner, attempt } => (inner, attempt),
            StateProjection::Refused { error } => {
                // A future that is polled after its end has nothing to say.
                return error
                    .take()
                    .map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
            }
        };
        let result = inner.poll(cx);
        if result.is_pending() {
            return Poll::Pending;
        }
        let attempt = attempt.take();
        let (under_way, learns) = attempt.map_or((None, None), |attempt| {
            (Some(attempt.under_way), attempt.learns)
        });
        EndOfStream::around(
            result,
            learns,
            |learns, response| {
                if failed(response) {
                    picked::ask();
                }
                let (mut learns, cutoff) = learns.take()?;
                learns.at_head(cutoff, response);
                Some(learns)
            },
            |learns, error| {
                picked::ask();
                if let Some(UnderWay::Repeated(withdrawal, budget)) = under_way
                    && came_back(error)
                {
                    budget.give_back(withdrawal, Instant::now());
                }
                if let Some((mut learns, _)) = learns {
                    learns.tell(HttpGrpc.error(&**error));
                }
            },
        )
    }
}

/// Whether it may be that another attempt is wanted.
fn failed<B>(response: &Response<B>) -> bool {
    let status = response.status();
    status.is_client_error()
        || status.is_server_error()
        || response.headers().contains_key(&header::GRPC_STATUS)
}

/// Whether the attempt was not sent, for a circuit or a budget further in refused it.
fn came_back(error: &BoxError) -> bool {
    matches!(
        Reason::of(&**error),
        Some(Reason::BreakerOpen | Reason::RetryBudget)
    )
}
