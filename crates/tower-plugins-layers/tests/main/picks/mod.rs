//! What each strategy makes of weights, keys, levels and subsets, and sets that change.

mod changing;
mod hashing;
mod levels;
mod only;
mod shares;
mod text;

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio::time::Instant;
use tower::Service;
use tower_plugins_layers::balance::{Balance, BalancePolicy, EndpointMeta, Member};
use tower_plugins_layers::{BoxError, Reason};

/// An endpoint that is what a test says, and answers with its number.
#[derive(Clone, Debug)]
struct Spot(Arc<State>);

#[derive(Debug)]
struct State {
    number: usize,
    up: AtomicBool,
    ejected: AtomicBool,
    /// Of 1000.
    ramp: AtomicU64,
    calls: AtomicUsize,
    /// Whether calls never end.
    holds: AtomicBool,
    millis: AtomicU64,
    back: AtomicBool,
    looks: AtomicUsize,
}

impl Spot {
    fn new(number: usize) -> Self {
        Self(Arc::new(State {
            number,
            up: true.into(),
            ejected: false.into(),
            ramp: 1000.into(),
            calls: 0.into(),
            holds: false.into(),
            millis: 10.into(),
            back: false.into(),
            looks: 0.into(),
        }))
    }

    fn many(n: usize) -> Vec<Self> {
        (0..n).map(Self::new).collect()
    }

    fn set_up(&self, up: bool) {
        self.0.up.store(up, SeqCst);
    }

    fn set_ejected(&self, ejected: bool) {
        self.0.ejected.store(ejected, SeqCst);
    }

    fn hold(&self) {
        self.0.holds.store(true, SeqCst);
    }

    fn set_calls(&self, calls: usize) {
        self.0.calls.store(calls, SeqCst);
    }

    fn answer<B>(&self, _: &Request<B>) -> Ready<Result<Response<usize>, BoxError>> {
        if self.0.holds.load(SeqCst) {
            self.0.calls.fetch_add(1, SeqCst);
        }
        ready(Ok(Response::new(self.0.number)))
    }
}

impl Member for Spot {
    fn load(&self, now: Instant) -> f64 {
        self.weighted_load(now, 1.0)
    }

    fn is_available(&self, _: Instant) -> bool {
        self.0.looks.fetch_add(1, SeqCst);
        self.0.up.load(SeqCst)
    }

    fn is_ejected(&self, _: Instant) -> bool {
        self.0.ejected.load(SeqCst)
    }

    fn ramp(&self, _: Instant) -> f64 {
        self.0.ramp.load(SeqCst) as f64 / 1000.0
    }

    fn is_back(&self, _: Instant) -> bool {
        self.0.back.load(SeqCst)
    }

    fn in_flight(&self) -> usize {
        self.0.calls.load(SeqCst)
    }

    fn rtt(&self, _: Instant) -> Duration {
        Duration::from_millis(self.0.millis.load(SeqCst))
    }

    /// As that of `Load`.
    fn weighted_load(&self, now: Instant, weight: f64) -> f64 {
        self.rtt(now).as_secs_f64() * (self.in_flight() as f64 / weight + 1.0)
    }
}

impl<B> Service<Request<B>> for Spot {
    type Response = Response<usize>;
    type Error = BoxError;
    type Future = Ready<Result<Response<usize>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.answer(&request)
    }
}

impl<B> Service<Request<B>> for &Spot {
    type Response = Response<usize>;
    type Error = BoxError;
    type Future = Ready<Result<Response<usize>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.answer(&request)
    }
}

/// A balancer over `spots`, each with its number as its key.
fn balance(
    policy: impl Into<BalancePolicy>,
    spots: &[Spot],
    meta: impl Fn(usize) -> EndpointMeta,
) -> Balance<Spot> {
    let endpoint = |(n, spot): (usize, &Spot)| (format!("spot {n}"), spot.clone(), meta(n));
    Balance::with_endpoints(policy, spots.iter().enumerate().map(endpoint))
}

fn weighted(weights: &'static [u32]) -> impl Fn(usize) -> EndpointMeta {
    move |n| EndpointMeta::new().weight(weights[n])
}

fn plain(_: usize) -> EndpointMeta {
    EndpointMeta::new()
}

/// Which endpoint a call goes to. Nothing here waits.
fn try_send(mut balance: &Balance<Spot>, request: Request<()>) -> Result<usize, BoxError> {
    let call = std::pin::pin!(balance.call(request));
    let mut cx = Context::from_waker(std::task::Waker::noop());
    match call.poll(&mut cx) {
        Poll::Ready(answer) => Ok(answer?.into_body()),
        Poll::Pending => panic!("it waits"),
    }
}

fn send(balance: &Balance<Spot>) -> usize {
    try_send(balance, Request::new(())).expect("an answer")
}

fn refusal(balance: &Balance<Spot>) -> Option<Reason> {
    let error = try_send(balance, Request::new(())).expect_err("nobody");
    Reason::of(&*error)
}

/// How many of `calls` go to each.
fn spread(balance: &Balance<Spot>, calls: usize) -> Vec<usize> {
    let mut spread = vec![0; balance.members().len()];
    for _ in 0..calls {
        spread[send(balance)] += 1;
    }
    spread
}

/// The part of the calls that each got.
fn parts(spread: &[usize]) -> Vec<f64> {
    let all: usize = spread.iter().sum();
    spread.iter().map(|&n| n as f64 / all as f64).collect()
}

/// How far the parts are from those of `weights`, at the most.
fn error(spread: &[usize], weights: &[u32]) -> f64 {
    let all: u32 = weights.iter().sum();
    let wanted = weights.iter().map(|&w| f64::from(w) / f64::from(all));
    let errors = parts(spread).into_iter().zip(wanted);
    errors
        .map(|(part, wanted)| (part - wanted).abs())
        .fold(0.0, f64::max)
}
