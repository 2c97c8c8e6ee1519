//! Which endpoint a call goes to.

#![allow(clippy::expect_used)]

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, Service, ServiceExt};
use tower_plugins_layers::balance::{
    Balance, EndpointLoad, Load, LoadBody, LoadLayer, Member, Strategy,
};
use tower_plugins_layers::breaker::{BreakerHandle, BreakerLayer, BreakerPolicy, BreakerState};
use tower_plugins_layers::test_util::{Answer, Probe, ScriptedBody};
use tower_plugins_layers::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

type Reply = Result<Response<ScriptedBody>, BoxError>;

/// An endpoint that takes some time and counts its calls.
#[derive(Clone, Debug)]
struct Server {
    time: Duration,
    well: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl Server {
    fn new(time: Duration) -> Self {
        Self {
            time,
            well: Arc::new(AtomicBool::new(true)),
            calls: Arc::default(),
        }
    }

    fn failing(time: Duration) -> Self {
        let server = Self::new(time);
        server.set_well(false);
        server
    }

    fn set_well(&self, well: bool) {
        self.well.store(well, Ordering::SeqCst);
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn answer(&self) -> Pin<Box<dyn Future<Output = Reply> + Send>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let (time, well) = (self.time, Arc::clone(&self.well));
        Box::pin(async move {
            sleep(time).await;
            let status = if well.load(Ordering::SeqCst) {
                200
            } else {
                503
            };
            Ok(Response::builder()
                .status(status)
                .body(ScriptedBody::frames(["answer"]))?)
        })
    }
}

impl Service<Request<()>> for Server {
    type Response = Response<ScriptedBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Reply> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        self.answer()
    }
}

impl Service<Request<()>> for &Server {
    type Response = Response<ScriptedBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Reply> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        self.answer()
    }
}

type Endpoint = Breaker<Load<Server>>;

/// One failure opens it for a second, one success closes it.
fn brittle() -> BreakerPolicy {
    BreakerPolicy::new()
        .consecutive_failures(1)
        .recovery(SECOND)
        .max_recovery(Duration::ZERO)
        .jitter(0.0)
        .success_threshold(1)
}

fn endpoint(server: &Server, breaker: BreakerLayer) -> Endpoint {
    breaker
        .give_back()
        .layer(LoadLayer::new().layer(server.clone()))
}

fn balance(policy: Strategy, servers: &[Server], breaker: BreakerPolicy) -> Balance<Endpoint> {
    let endpoint = |server| endpoint(server, BreakerLayer::new(breaker));
    Balance::new(policy, servers.iter().map(endpoint))
}

fn without_breakers(policy: Strategy, servers: &[Server]) -> Balance<Endpoint> {
    let endpoint = |server| endpoint(server, BreakerLayer::off());
    Balance::new(policy, servers.iter().map(endpoint))
}

/// One call by reference, read to its end.
async fn call(mut balance: &Balance<Endpoint>) -> Result<(), BoxError> {
    let response = balance.call(Request::new(())).await?;
    response.into_body().collect().await?;
    Ok(())
}

/// Many calls, some at once.
async fn call_much(balance: &Balance<Endpoint>, workers: usize, each: usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..workers {
        let balance = balance.clone();
        tasks.spawn(async move {
            for _ in 0..each {
                call(&balance).await.expect("a response");
            }
        });
    }
    tasks.join_all().await;
}

fn calls(servers: &[Server]) -> Vec<usize> {
    servers.iter().map(Server::calls).collect()
}

fn breakers(balance: &Balance<Endpoint>) -> Vec<BreakerHandle> {
    balance.members().map(Breaker::handle).collect()
}

#[tokio::test(start_paused = true)]
async fn round_robin_gives_each_exactly_its_turn() {
    let servers = [MS, MS * 50, MS * 2].map(Server::new);
    let balance = without_breakers(Strategy::RoundRobin, &servers);
    for n in 1..=30 {
        call(&balance).await.expect("a response");
        let per_server = calls(&servers);
        assert_eq!(per_server.iter().sum::<usize>(), n);
        assert!(
            per_server
                .iter()
                .all(|&calls| calls == n / 3 || calls == n / 3 + 1)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_turns_of_a_member_that_is_away_are_shared_by_the_others() {
    let servers = [MS; 4].map(Server::new);
    servers[1].set_well(false);
    let balance = balance(
        Strategy::RoundRobin,
        &servers,
        brittle().recovery(SECOND * 3600),
    );
    for _ in 0..302 {
        call(&balance).await.expect("a response");
    }
    let per_server = calls(&servers);
    assert_eq!(per_server[1], 1);
    assert!(
        per_server
            .iter()
            .all(|&calls| calls == 1 || (100..=101).contains(&calls))
    );
}

#[tokio::test(start_paused = true)]
async fn equals_get_about_the_same() {
    fastrand::seed(7);
    let servers = [MS * 10; 5].map(Server::new);
    let balance = without_breakers(Strategy::PeakEwma, &servers);
    call_much(&balance, 20, 100).await;
    for calls in calls(&servers) {
        assert!((300..=500).contains(&calls), "{calls} of 2000");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_gets_less() {
    fastrand::seed(7);
    let servers = [MS * 10, MS * 10, MS * 200].map(Server::new);
    let balance = without_breakers(Strategy::PeakEwma, &servers);
    call_much(&balance, 20, 100).await;
    let slow = servers[2].calls();
    assert!((1..200).contains(&slow), "{slow} of 2000");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_fast_does_not_attract_calls() {
    fastrand::seed(7);
    let servers = [
        Server::new(MS * 50),
        Server::new(MS * 50),
        Server::failing(MS / 10),
    ];
    let balance = without_breakers(Strategy::PeakEwma, &servers);
    call_much(&balance, 20, 100).await;
    let failing = servers[2].calls();
    assert!(failing < 2000 / 10, "{failing} of 2000");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_answers_nobody_is_avoided() {
    fastrand::seed(7);
    let servers = [MS * 10, MS * 10, SECOND * 3600].map(Server::new);
    let balance = without_breakers(Strategy::PeakEwma, &servers);
    let mut patient = AttemptTimeoutLayer::new(SECOND).layer(balance);
    for _ in 0..300 {
        drop(patient.call(Request::new(())).await);
    }
    let silent = servers[2].calls();
    assert!((1..30).contains(&silent), "{silent} of 300");
}

#[tokio::test(start_paused = true)]
async fn members_whose_breaker_is_open_are_skipped_until_it_may_be_probed() {
    for policy in [Strategy::PeakEwma, Strategy::RoundRobin] {
        let servers = [MS; 3].map(Server::new);
        servers[0].set_well(false);
        let balance = balance(policy, &servers, brittle().success_threshold(2));
        let first = breakers(&balance).remove(0);
        while first.state() == BreakerState::Closed {
            call(&balance).await.expect("a response");
        }
        let before = servers[0].calls();
        for _ in 0..100 {
            call(&balance).await.expect("a response");
        }
        assert_eq!(servers[0].calls(), before);
        servers[0].set_well(true);
        advance(SECOND).await;
        // Its failure still weighs five seconds, and it is tried nevertheless.
        for _ in 0..50 {
            call(&balance).await.expect("a response");
        }
        assert_eq!(first.state(), BreakerState::Closed, "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_no_member_is_available_the_refusal_says_when_one_may_be() {
    for policy in [Strategy::PeakEwma, Strategy::RoundRobin] {
        let servers = [MS; 3].map(Server::failing);
        let balance = balance(policy, &servers, brittle());
        for _ in 0..3 {
            call(&balance).await.expect("a 503");
            advance(MS * 100).await;
        }
        assert_eq!(calls(&servers), [1, 1, 1]);
        assert!(!balance.is_available(Instant::now()));
        let error = call(&balance).await.expect_err("refused");
        let refused = Refused::find(&*error).expect("a refusal");
        assert_eq!(refused.reason(), Reason::NoEndpoint);
        let wait = refused.wait().expect("a wait");
        assert!((MS * 600..=MS * 700).contains(&wait), "{wait:?}");
        assert_eq!(calls(&servers), [1, 1, 1]);
    }
    let nobody = balance(Strategy::PeakEwma, &[], brittle());
    let error = call(&nobody).await.expect_err("refused");
    assert_eq!(Reason::of(&*error), Some(Reason::NoEndpoint));
}

#[tokio::test(start_paused = true)]
async fn the_only_member_speaks_for_itself() {
    let servers = [Server::failing(MS)];
    let balance = balance(Strategy::PeakEwma, &servers, brittle());
    call(&balance).await.expect("a 503");
    let error = call(&balance).await.expect_err("refused");
    let refused = error.downcast_ref::<Refused>().expect("a refusal");
    assert_eq!(refused.reason(), Reason::BreakerOpen);
    assert_eq!(refused.wait(), Some(SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_loses_the_race_for_a_permit_goes_to_another_member() {
    let servers = [MS; 2].map(Server::new);
    let balance = balance(Strategy::PeakEwma, &servers, brittle());
    // One that was never called would attract the calls as much as one that may be probed.
    while calls(&servers).contains(&0) {
        call(&balance).await.expect("a response");
    }
    servers[0].set_well(false);
    while breakers(&balance)[0].state() == BreakerState::Closed {
        call(&balance).await.expect("a response");
    }
    servers[0].set_well(true);
    advance(SECOND).await;
    let before = calls(&servers);
    // Both are made for the endpoint that may be probed; it has one permit.
    let mut owned = balance.clone();
    let (one, other) = (owned.call(Request::new(())), owned.call(Request::new(())));
    let (one, other) = tokio::join!(one, other);
    assert_eq!(
        (
            one.expect("a response").status(),
            other.expect("a response").status()
        ),
        (
            200.try_into().expect("a status"),
            200.try_into().expect("a status")
        )
    );
    assert_eq!(calls(&servers), [before[0] + 1, before[1] + 1]);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_offered_to_each_member_at_most_once() {
    let servers = [MS; 3].map(Server::failing);
    let balance = balance(Strategy::RoundRobin, &servers, brittle());
    for _ in 0..3 {
        call(&balance).await.expect("a 503");
    }
    advance(SECOND).await;
    let mut owned = balance.clone();
    let calls_made: Vec<_> = (0..4).map(|_| owned.call(Request::new(()))).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for call in calls_made {
        tasks.spawn(call);
    }
    let (answered, refused): (Vec<_>, Vec<_>) =
        tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((answered.len(), refused.len()), (3, 1));
    assert_eq!(calls(&servers), [2, 2, 2]);
    let error = refused.into_iter().find_map(Result::err).expect("an error");
    assert_eq!(Reason::of(&*error), Some(Reason::NoEndpoint));
    let cause = error.source().expect("a cause");
    assert_eq!(Reason::of(cause), Some(Reason::BreakerOpen));
}

#[tokio::test(start_paused = true)]
async fn any_other_request_that_was_not_sent_is_the_callers() {
    let made = Arc::new(AtomicUsize::new(0));
    let refuse = {
        let made = Arc::clone(&made);
        tower::service_fn(move |request: Request<()>| {
            made.fetch_add(1, Ordering::SeqCst);
            let error = Unsent::new(Some(request), Refused::new(Reason::ConnectFailed));
            std::future::ready(Err::<Response<ScriptedBody>, BoxError>(error.into()))
        })
    };
    let members = (0..3).map(|_| LoadLayer::new().layer(refuse.clone()));
    let mut balance = Balance::new(Strategy::PeakEwma, members);
    let error = balance.call(Request::new(())).await.expect_err("refused");
    let (request, cause) = Unsent::<()>::recover(error).expect("unsent");
    assert!(request.is_some());
    assert_eq!(Reason::of(&*cause), Some(Reason::ConnectFailed));
    assert_eq!(made.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_gave_a_call_back_is_not_asked_again_though_it_says_it_could_be() {
    for policy in [Strategy::PeakEwma, Strategy::RoundRobin] {
        let asked = Arc::new(AtomicUsize::new(0));
        let members = (0..20).map(|_| {
            let asked = Arc::clone(&asked);
            LoadLayer::new().layer(tower::service_fn(move |request: Request<()>| {
                asked.fetch_add(1, Ordering::SeqCst);
                let error = Unsent::new(Some(request), Refused::new(Reason::BreakerOpen));
                std::future::ready(Err::<Response<ScriptedBody>, BoxError>(error.into()))
            }))
        });
        let mut balance = Balance::new(policy, members);
        let error = balance.call(Request::new(())).await.expect_err("refused");
        assert_eq!(Reason::of(&*error), Some(Reason::NoEndpoint));
        assert_eq!(asked.load(Ordering::SeqCst), 20);
    }
}

/// A member that counts how often it is looked at.
#[derive(Clone)]
struct Looked {
    server: Server,
    available: bool,
    looks: Arc<AtomicUsize>,
}

impl Member for Looked {
    fn load(&self, _: Instant) -> f64 {
        1.0
    }

    fn is_available(&self, _: Instant) -> bool {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.available
    }
}

impl Service<Request<()>> for Looked {
    type Response = Response<ScriptedBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Reply> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        self.server.answer()
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_thousand_members_few_are_looked_at() {
    fastrand::seed(7);
    let looks = Arc::new(AtomicUsize::new(0));
    let member = |available| Looked {
        server: Server::new(Duration::ZERO),
        available,
        looks: Arc::clone(&looks),
    };
    for (policy, most) in [(Strategy::PeakEwma, 2), (Strategy::RoundRobin, 1)] {
        looks.store(0, Ordering::SeqCst);
        let mut balance = Balance::new(policy, (0..1000).map(|_| member(true)));
        for _ in 0..100 {
            balance.call(Request::new(())).await.expect("a response");
        }
        assert_eq!(looks.load(Ordering::SeqCst), most * 100);

        let mut one_left = Balance::new(policy, (0..1000).map(|n| member(n == 777)));
        for _ in 0..10 {
            one_left.call(Request::new(())).await.expect("a response");
        }
        assert_eq!(one_left.members().nth(777).expect("it").server.calls(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn two_choices_reach_every_member() {
    fastrand::seed(7);
    let servers = [Duration::ZERO; 50].map(Server::new);
    let balance = without_breakers(Strategy::PeakEwma, &servers);
    call_much(&balance, 10, 100).await;
    let unused: BTreeSet<_> = (0..50).filter(|&n| servers[n].calls() == 0).collect();
    assert_eq!(unused, BTreeSet::new());
}

#[tokio::test(start_paused = true)]
async fn a_call_weighs_until_its_body_ends_or_is_dropped() {
    let layer = LoadLayer::new();
    let load = layer.load();
    let mut service = layer.layer(Server::new(MS));
    let idle = load.load(Instant::now());
    let first = service.call(Request::new(())).await.expect("a response");
    let second = service.call(Request::new(())).await.expect("a response");
    let third = service.call(Request::new(()));
    assert_eq!(load.in_flight(), 3);
    assert!(load.load(Instant::now()) > 3.0 * idle);
    first.into_body().collect().await.expect("a body");
    assert_eq!(load.in_flight(), 2);
    drop(second);
    assert_eq!(load.in_flight(), 1);
    drop(third);
    assert_eq!(load.in_flight(), 0);
}

/// The estimate after one call answered `reply`.
async fn rtt_after(service: impl Fn() -> Reply + Clone) -> Duration {
    let layer = LoadLayer::new();
    let mut service = layer.layer(tower::service_fn(move |_: Request<()>| {
        std::future::ready(service())
    }));
    if let Ok(response) = service.call(Request::new(())).await {
        drop(response.into_body().collect().await);
    }
    layer.load().rtt(Instant::now())
}

#[tokio::test(start_paused = true)]
async fn a_failure_costs_at_least_five_seconds_or_what_the_endpoint_asks_for() {
    for (status, header, value, seconds) in [
        (503, "x", "", 5),
        (500, "retry-after", "60", 60),
        (429, "retry-after", "1", 5),
        (503, "retry-after", "86400", 300),
        (429, "grpc-retry-pushback-ms", "8000", 8),
        (200, "grpc-status", "14", 5),
        (200, "grpc-status", "8", 5),
    ] {
        let rtt = rtt_after(|| {
            let response = Response::builder().status(status).header(header, value);
            Ok(response.body(ScriptedBody::frames(["why"]))?)
        });
        assert_eq!(rtt.await, SECOND * seconds, "{status} {header}: {value}");
    }
    let broken = rtt_after(|| {
        let body = ScriptedBody::new([Some(Err("broke off".into()))]);
        Ok(Response::new(body))
    });
    assert_eq!(broken.await, SECOND * 5);
    let refused_here = rtt_after(|| Err(Refused::new(Reason::PoolExhausted).into()));
    assert_eq!(refused_here.await, MS * 30);
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_is_the_estimate_at_once_and_is_forgotten_with_time() {
    let layer = LoadLayer::with_load(Arc::new(EndpointLoad::new(MS * 30, SECOND * 10)));
    let load = layer.load();
    let close = |expected: f64| {
        let rtt = load.rtt(Instant::now()).as_secs_f64();
        assert!((rtt - expected).abs() < 1e-3, "{rtt} is not {expected}");
    };
    for (time, rtt) in [(SECOND, 1.0), (SECOND * 10, 10.0)] {
        let response = layer.layer(Server::new(time)).call(Request::new(())).await;
        drop(response);
        close(rtt);
    }
    advance(SECOND * 10).await;
    close(10.0 / std::f64::consts::E);
    // A fast call weighs by the time since the last.
    drop(layer.layer(Server::new(MS)).call(Request::new(())).await);
    close(10.0 / std::f64::consts::E);
    // One that is given up counts if it had taken longer than was thought, and only then.
    let gave_up = tokio::time::timeout(MS, layer.layer(Server::new(SECOND)).call(Request::new(())));
    drop(gave_up.await);
    close(10.0 / std::f64::consts::E);
    let mut silent = layer.layer(Server::new(SECOND * 3600));
    let gave_up = tokio::time::timeout(SECOND * 20, silent.call(Request::new(())));
    drop(gave_up.await);
    close(20.0);
    let copy = load.copy();
    assert_eq!(copy.rtt(Instant::now()), load.rtt(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn the_time_for_which_an_endpoint_is_left_alone_makes_it_no_faster() {
    let layer = LoadLayer::with_load(Arc::new(EndpointLoad::new(MS * 30, SECOND * 10)));
    let load = layer.load();
    let close = |expected: f64| {
        let rtt = load.rtt(Instant::now()).as_secs_f64();
        assert!((rtt - expected).abs() < 1e-3, "{rtt} is not {expected}");
    };
    let fail = async || {
        let service = tower::service_fn(|_: Request<()>| {
            let failed: Reply = Err("no connection".into());
            std::future::ready(failed)
        });
        let _ = layer.layer(service).call(Request::new(())).await;
    };
    let read = async |response: Result<Response<LoadBody<ScriptedBody>>, BoxError>| {
        response.unwrap().into_body().collect().await.unwrap();
    };
    read(
        layer
            .layer(Server::new(SECOND))
            .call(Request::new(()))
            .await,
    )
    .await;
    for _ in 0..3 {
        fail().await;
        close(5.0);
        advance(SECOND * 5).await;
        close(1.0);
    }
    // A call that succeeds finds what was known before, and one that was under way meanwhile does no harm.
    let mut slow = layer.layer(Server::new(MS * 10));
    let slow = slow.call(Request::new(()));
    advance(MS).await;
    fail().await;
    read(slow.await).await;
    advance(SECOND * 4).await;
    read(layer.layer(Server::new(MS)).call(Request::new(())).await).await;
    close(1.0);
    // From then on it is forgotten with time, and so is that it was away.
    let is_back = || layer.layer(Server::new(MS)).is_back(Instant::now());
    assert!(is_back());
    advance(SECOND * 10).await;
    close(1.0 / std::f64::consts::E);
    assert!(!is_back());
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_as_slow_as_its_head() {
    let layer = LoadLayer::new();
    let mut service = layer.layer(tower::service_fn(|_: Request<()>| async {
        sleep(MS * 100).await;
        let response = Response::builder().header("content-type", "application/grpc");
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let frames = [Frame::data("one".into()), Frame::trailers(trailers)];
        let body = ScriptedBody::new(frames.map(|frame| Some(Ok(frame))));
        Ok::<_, BoxError>(response.body(body)?)
    }));
    let response = service.call(Request::new(())).await.expect("a head");
    advance(SECOND * 3600).await;
    assert_eq!(layer.load().in_flight(), 1);
    response.into_body().collect().await.expect("a stream");
    assert_eq!(layer.load().in_flight(), 0);
    assert!(layer.load().rtt(Instant::now()) <= MS * 100);
}

#[tokio::test(start_paused = true)]
async fn a_member_is_made_ready_before_it_is_called() {
    let probe = Probe::new(Answer::Frames);
    let members = (0..3).map(|_| LoadLayer::new().layer(probe.clone()));
    let balance = Balance::new(Strategy::RoundRobin, members);
    for _ in 0..6 {
        let answer = balance.clone().oneshot(Request::new(())).await;
        drop(answer.expect("a response"));
    }
    assert_eq!(probe.journal().calls(), 6);
}
