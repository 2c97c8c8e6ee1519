//! A budget of an endpoint's own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::budget::{Budget, Deposit, Withdrawal};
use crate::balance::Member;
use crate::classify::{Classify, HttpGrpc, Outcome};
use crate::{BoxError, CallContext, End, EndOfStream, OnEnd, Reason, Refused, Unsent};

/// Bounds the repeated attempts at one endpoint by a [`Budget`], beside that of the calls as a whole.
///
/// When one endpoint of some fails, all its calls are repeated at the others. This layer stands on each of them, inside
/// [`Balance`](crate::Balance): first attempts are counted in the budget, and those beyond (by
/// [`CallContext::attempt`], hedges too) are taken out of it. One that it has nothing left for is given back,
/// and the balancer sends it to another endpoint.
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
/// | errors | [`Unsent`] with [`Reason::RetryBudget`], which nothing repeats: of a call through a balancer, when no endpoint has any left |
/// | cancelling | gives back what is under way |
/// | what [`Tokens`](super::BudgetLimits::Tokens) hear | what [`HttpGrpc`] says of the head, or else of the end |
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
            _ => UnderWay::Repeated(self.budget.withdraw(now)?),
        };
        Some(Attempt {
            _under_way: under_way,
            learns: Learns(self.budget.hears().then(|| Arc::clone(&self.budget))),
        })
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

    fn retry_after(&self, now: Instant) -> Option<Duration> {
        self.inner.retry_after(now)
    }

    fn is_ejected(&self, now: Instant) -> bool {
        self.inner.is_ejected(now)
    }

    fn ramp(&self, now: Instant) -> f64 {
        self.inner.ramp(now)
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
    type Response = Response<EndOfStream<RB, Learns>>;
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
    type Response = Response<EndOfStream<RB, Learns>>;
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
    _under_way: UnderWay,
    learns: Learns,
}

#[derive(Debug)]
enum UnderWay {
    First(#[expect(dead_code, reason = "held for its drop")] Deposit),
    Repeated(#[expect(dead_code, reason = "held for its drop")] Withdrawal),
}

/// A budget that hears what becomes of the call; none, once it has.
#[derive(Debug)]
pub struct Learns(Option<Arc<Budget>>);

impl Learns {
    fn tell(&mut self, outcome: Outcome) {
        let Some(budget) = self.0.take() else {
            return;
        };
        match outcome {
            Outcome::Success => budget.succeeded(),
            Outcome::Failure => budget.failed(),
            Outcome::Overloaded | Outcome::Ignored => {}
        }
    }
}

impl OnEnd for Learns {
    fn on_end(mut self, end: End<'_>) {
        if self.0.is_some() {
            self.tell(HttpGrpc.end(&end));
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
    type Output = Result<Response<EndOfStream<RB, Learns>>, BoxError>;

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
        let result = ready!(inner.poll(cx));
        let mut learns = attempt
            .take()
            .map_or(Learns(None), |attempt| attempt.learns);
        match result {
            Ok(response) => {
                if learns.0.is_some()
                    && let Some(outcome) = HttpGrpc.head(response.status(), response.headers())
                {
                    learns.tell(outcome);
                }
                Poll::Ready(Ok(response.map(|body| EndOfStream::new(body, learns))))
            }
            Err(error) => {
                let error = error.into();
                if learns.0.is_some() {
                    learns.tell(HttpGrpc.error(&*error));
                }
                Poll::Ready(Err(error))
            }
        }
    }
}
