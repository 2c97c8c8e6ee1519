//! The breaker's state machine.

#![allow(clippy::expect_used)]

mod model;
mod policy;
mod shares;
mod steer;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio::task::unconstrained;
use tokio::time::{Instant, advance};
use tower::{Layer, Service, service_fn};
use tower_plugins_layers::breaker::{
    BreakerHistory, BreakerLayer, BreakerPolicy, BreakerState, ResponseBody,
};
use tower_plugins_layers::test_util::ScriptedBody;
use tower_plugins_layers::*;

type Reply = Result<Response<ScriptedBody>, BoxError>;
type Answer = Result<Response<ResponseBody<ScriptedBody>>, BoxError>;

/// A call that was let in, whose reply is the test's to make.
struct Call {
    reply: oneshot::Sender<Reply>,
    future: Pin<Box<dyn Future<Output = Answer> + Send>>,
}

/// Calls through `layer`, applied anew as axum does.
fn begin_with(layer: &BreakerLayer, request: Request<()>) -> Result<Call, BoxError> {
    let (reply, replied) = oneshot::channel();
    let mut replied = Some(replied);
    let mut service = layer.layer(service_fn(move |_: Request<()>| {
        let replied = replied.take().expect("one call");
        async move { replied.await.expect("a reply") }
    }));
    let mut future: Pin<Box<dyn Future<Output = Answer> + Send>> =
        Box::pin(unconstrained(service.call(request)));
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(answer) => Err(answer.expect_err("no reply was made")),
        Poll::Pending => Ok(Call { reply, future }),
    }
}

fn begin(layer: &BreakerLayer) -> Result<Call, BoxError> {
    begin_with(layer, Request::new(()))
}

impl Call {
    fn end(mut self, reply: Reply) -> Answer {
        self.reply.send(reply).expect("a call under way");
        let mut cx = Context::from_waker(Waker::noop());
        match self.future.as_mut().poll(&mut cx) {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("the reply was made"),
        }
    }
}

fn response(status: u16, body: ScriptedBody) -> Reply {
    Ok(Response::builder().status(status).body(body)?)
}

fn ok() -> Reply {
    response(200, ScriptedBody::new([]))
}

fn unavailable() -> Reply {
    response(503, ScriptedBody::new([]))
}

/// Fails, and asks to be left alone.
fn asking(seconds: u64) -> Reply {
    let response = Response::builder()
        .status(503)
        .header("retry-after", seconds);
    Ok(response.body(ScriptedBody::new([]))?)
}

fn succeed(layer: &BreakerLayer) {
    drop(begin(layer).expect("let in").end(ok()));
}

fn fail(layer: &BreakerLayer) {
    drop(begin(layer).expect("let in").end(unavailable()));
}

/// One failure opens it, for a second.
fn brittle() -> BreakerPolicy {
    BreakerPolicy::new()
        .consecutive_failures(1)
        .failure_rate(None)
        .recovery(Duration::from_secs(1))
        .max_recovery(Duration::ZERO)
        .jitter(0.0)
        .success_threshold(3)
}

async fn half_open(policy: BreakerPolicy) -> BreakerLayer {
    let layer = BreakerLayer::new(policy);
    fail(&layer);
    assert_eq!(layer.handle().state(), BreakerState::Open);
    advance(Duration::from_secs(1)).await;
    layer
}

fn reason(result: Result<Call, BoxError>) -> Option<Reason> {
    Reason::of(&*result.err()?)
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
    let layer = BreakerLayer::new(brittle().consecutive_failures(3));
    for _ in 0..5 {
        fail(&layer);
        fail(&layer);
        succeed(&layer);
    }
    assert_eq!(layer.handle().state(), BreakerState::Closed);
    for _ in 0..3 {
        fail(&layer);
    }
    assert_eq!(layer.handle().state(), BreakerState::Open);
    let error = begin(&layer).err().expect("refused");
    let refused = Refused::find(&*error).expect("a refusal");
    assert_eq!(refused.reason(), Reason::BreakerOpen);
    assert_eq!(refused.wait(), Some(Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn a_failure_rate_opens_it_once_there_are_enough_calls() {
    let policy = brittle()
        .consecutive_failures(None)
        .failure_rate(0.5)
        .min_requests(10);
    let layer = BreakerLayer::new(policy);
    for n in 0..9 {
        if n % 2 == 0 {
            fail(&layer);
        } else {
            succeed(&layer);
        }
    }
    assert_eq!(layer.handle().state(), BreakerState::Closed);
    fail(&layer);
    assert_eq!(layer.handle().state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn failures_older_than_the_window_are_forgotten() {
    let policy = brittle()
        .consecutive_failures(None)
        .failure_rate(0.5)
        .window(Duration::from_secs(10))
        .min_requests(2);
    let layer = BreakerLayer::new(policy);
    fail(&layer);
    // A day's sleep of the machine is a gap like any other.
    for gap in [10, 24 * 3600] {
        advance(Duration::from_secs(gap)).await;
        fail(&layer);
        assert_eq!(layer.handle().state(), BreakerState::Closed);
    }
    advance(Duration::from_secs(8)).await;
    fail(&layer);
    assert_eq!(layer.handle().state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn of_a_thousand_callers_a_half_open_circuit_lets_in_as_many_as_must_succeed() {
    let layer = half_open(brittle()).await;
    let runtime = tokio::runtime::Handle::current();
    let let_in = AtomicUsize::new(0);
    let calls: Vec<Call> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let _in_paused_time = runtime.enter();
                    let calls: Vec<_> = (0..125).filter_map(|_| begin(&layer).ok()).collect();
                    let_in.fetch_add(calls.len(), Ordering::Relaxed);
                    calls
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    assert_eq!(let_in.load(Ordering::Relaxed), 3);
    assert_eq!(reason(begin(&layer)), Some(Reason::BreakerOpen));
    assert!(!layer.handle().is_available(Instant::now()));
    for call in calls {
        assert_eq!(layer.handle().state(), BreakerState::HalfOpen);
        drop(call.end(ok()));
    }
    assert_eq!(layer.handle().state(), BreakerState::Closed);
}

#[test]
fn threads_that_race_do_not_wedge_it() {
    let policy = BreakerPolicy::new().recovery(Duration::from_millis(1));
    let layer = BreakerLayer::new(policy.max_recovery(Duration::ZERO).min_requests(5));
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let layer = &layer;
            scope.spawn(move || {
                let mut chance = fastrand::Rng::with_seed(seed);
                for _ in 0..10_000 {
                    let Ok(call) = begin(layer) else {
                        std::thread::yield_now();
                        continue;
                    };
                    match chance.u8(..8) {
                        0..4 => drop(call.end(ok())),
                        4..7 => drop(call.end(unavailable())),
                        _ => drop(call),
                    }
                }
            });
        }
    });
    assert!(layer.handle().changes() > 2);
    let bound = Instant::now() + Duration::from_secs(30);
    while layer.handle().state() != BreakerState::Closed {
        assert!(Instant::now() < bound, "wedged: {layer:?}");
        drop(begin(&layer).map(|call| call.end(ok())));
    }
}

#[tokio::test(start_paused = true)]
async fn one_failed_probe_opens_it_again_for_twice_as_long() {
    let layer = half_open(brittle().max_recovery(Duration::from_secs(3))).await;
    for open in [2, 3, 3] {
        let (first, second) = (begin(&layer), begin(&layer));
        drop(first.expect("let in").end(ok()));
        drop(second.expect("let in").end(unavailable()));
        assert_eq!(layer.handle().state(), BreakerState::Open);
        let wait = layer.handle().retry_after(Instant::now());
        assert_eq!(wait, Some(Duration::from_secs(open)));
        advance(Duration::from_secs(open)).await;
    }
    for _ in 0..3 {
        succeed(&layer);
    }
    fail(&layer);
    let wait = layer.handle().retry_after(Instant::now());
    assert_eq!(wait, Some(Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_probe_gives_its_permit_back() {
    let layer = half_open(brittle().success_threshold(1)).await;
    for _ in 0..10 {
        let call = begin(&layer).expect("let in");
        assert_eq!(reason(begin(&layer)), Some(Reason::BreakerOpen));
        drop(call);
        let body = begin(&layer)
            .expect("let in")
            .end(response(200, ScriptedBody::frames(["half"])));
        assert_eq!(reason(begin(&layer)), Some(Reason::BreakerOpen));
        drop(body);
        let refusal = Refused::new(Reason::ConcurrencyLimited).into();
        drop(begin(&layer).expect("let in").end(Err(refusal)));
    }
    assert_eq!(layer.handle().state(), BreakerState::HalfOpen);
    succeed(&layer);
    assert_eq!(layer.handle().state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn probes_that_hang_do_not_hold_it_half_open_and_count_when_they_end() {
    let layer = half_open(brittle().success_threshold(2)).await;
    let hung: Vec<_> = (0..2).map(|_| begin(&layer).expect("let in")).collect();
    assert_eq!(reason(begin(&layer)), Some(Reason::BreakerOpen));
    advance(Duration::from_secs(1)).await;
    assert!(layer.handle().is_available(Instant::now()));
    let _third = begin(&layer).expect("let in");
    for call in hung {
        drop(call.end(ok()));
    }
    assert_eq!(layer.handle().state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn what_began_before_the_last_change_is_ignored() {
    let layer = BreakerLayer::new(brittle());
    let early: Vec<_> = (0..4).map(|_| begin(&layer).expect("let in")).collect();
    let mut early = early.into_iter();
    let mut end_early = |reply| drop(early.next().expect("a call").end(reply));
    fail(&layer);
    end_early(ok());
    end_early(unavailable());
    assert_eq!(layer.handle().changes(), 1);
    advance(Duration::from_secs(1)).await;
    let probe = begin(&layer).expect("let in");
    end_early(unavailable());
    assert_eq!(layer.handle().state(), BreakerState::HalfOpen);
    drop(probe.end(ok()));
    succeed(&layer);
    succeed(&layer);
    end_early(unavailable());
    assert_eq!(layer.handle().state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_with_its_body() {
    let trailers = |status| {
        let status = HeaderValue::from_static(status);
        let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), status)]);
        ScriptedBody::new([Some(Ok(Frame::trailers(trailers)))])
    };
    let broken = ScriptedBody::new([Some(Err("broke off".into()))]);
    for (body, state) in [
        (trailers("14"), BreakerState::Open),
        (trailers("5"), BreakerState::Closed),
        (trailers("8"), BreakerState::Closed),
        (trailers("none"), BreakerState::Open),
        (broken, BreakerState::Open),
        (ScriptedBody::frames(["all"]), BreakerState::Closed),
    ] {
        let layer = BreakerLayer::new(brittle());
        let answer = begin(&layer).expect("let in").end(response(200, body));
        assert_eq!(layer.handle().state(), BreakerState::Closed);
        drop(answer.expect("a head").into_body().collect().await);
        assert_eq!(layer.handle().state(), state);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_endpoints_fault_does_not_open_it() {
    let layer = BreakerLayer::new(brittle());
    for status in [400, 404, 408, 429, 499, 501] {
        let body = ScriptedBody::frames(["why"]);
        drop(begin(&layer).expect("let in").end(response(status, body)));
    }
    for reason in [Reason::RateLimited, Reason::Draining, Reason::PoolExhausted] {
        let refusal = Refused::new(reason).into();
        drop(begin(&layer).expect("let in").end(Err(refusal)));
    }
    drop(begin(&layer).expect("let in"));
    assert_eq!(layer.handle().changes(), 0);
    for reason in [Reason::ConnectFailed, Reason::AttemptTimeout] {
        let layer = BreakerLayer::new(brittle());
        drop(
            begin(&layer)
                .expect("let in")
                .end(Err(Refused::new(reason).into())),
        );
        assert_eq!(layer.handle().state(), BreakerState::Open);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_cut_short_by_a_time_limit_outside_is_a_failure() {
    type Nothing = std::future::Pending<Result<Response<ScriptedBody>, BoxError>>;
    fn silence(_: Request<()>) -> Nothing {
        std::future::pending()
    }
    let second = Duration::from_secs(1);

    let breaker = BreakerLayer::new(brittle());
    let layers = (AttemptTimeoutLayer::new(second), breaker.clone());
    drop(
        layers
            .layer(service_fn(silence))
            .call(Request::new(()))
            .await,
    );
    assert_eq!(breaker.handle().state(), BreakerState::Open);

    let breaker = BreakerLayer::new(brittle());
    let layers = (DeadlineLayer::new(second), breaker.clone());
    drop(
        layers
            .layer(service_fn(silence))
            .call(Request::new(()))
            .await,
    );
    assert_eq!(breaker.handle().state(), BreakerState::Open);

    // Whoever leaves a stream after the policy's deadline has had what they wanted.
    let breaker = BreakerLayer::new(brittle());
    let mut request = Request::new(());
    let own = CallContext::new().own_deadline(Instant::now() + second);
    for (context, state) in [
        (CallContext::new(), BreakerState::Closed),
        (own, BreakerState::Open),
    ] {
        request.extensions_mut().insert(context);
        let layers = (DeadlineLayer::new(second), breaker.clone());
        let mut service = layers.layer(service_fn(|_: Request<()>| async {
            let body = ScriptedBody::new([Some(Ok(Frame::data("one".into()))), None]);
            let grpc = ("content-type", "application/grpc");
            Ok::<_, BoxError>(Response::builder().header(grpc.0, grpc.1).body(body)?)
        }));
        let response = service.call(request.clone()).await.expect("a head");
        advance(second * 2).await;
        drop(response);
        assert_eq!(breaker.handle().state(), state);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_policy_judges_by_the_old_history() {
    let old = BreakerLayer::new(brittle().consecutive_failures(3));
    fail(&old);
    fail(&old);
    let history = old.handle().history().expect("a circuit");
    let copy = Arc::new(BreakerHistory::copy(&history));
    let new = BreakerLayer::with_history(brittle().consecutive_failures(3), history);
    fail(&new);
    assert_eq!(old.handle().state(), BreakerState::Open);
    assert_eq!(copy.state(), BreakerState::Closed);
    let beside = BreakerLayer::with_history(brittle().consecutive_failures(3), copy);
    fail(&beside);
    assert_eq!(beside.handle().state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_given_back_when_asked_for() {
    let layer = BreakerLayer::new(brittle()).give_back();
    fail(&layer);
    let mut request = Request::new(());
    *request.uri_mut() = "/this".parse().expect("a path");
    let error = begin_with(&layer, request).err().expect("refused");
    let (request, cause) = Unsent::<()>::recover(error).expect("unsent");
    assert_eq!(request.expect("the request").uri(), "/this");
    assert_eq!(Reason::of(&*cause), Some(Reason::BreakerOpen));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_off_lets_everything_through() {
    let layer = BreakerLayer::off();
    for _ in 0..1000 {
        let answer = begin(&layer).expect("let in").end(unavailable());
        assert_eq!(
            answer.expect("a response").status(),
            StatusCode::SERVICE_UNAVAILABLE
        );
    }
    assert_eq!(layer.handle().state(), BreakerState::Closed);
    assert!(layer.handle().is_available(Instant::now()));
}
