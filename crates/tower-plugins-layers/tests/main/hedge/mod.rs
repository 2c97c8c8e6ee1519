//! Hedging, through a service whose attempts are scripted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy takes only the test functions themselves for tests"
)]

mod first_frame;
mod model;
mod simulation;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceExt, service_fn};
use tower_layer::Layer;
use tower_plugins_layers::balance;
use tower_plugins_layers::hedge::Latencies;
use tower_plugins_layers::retry::{Backoff, Budget, ResponseBody};
use tower_plugins_layers::test_util::{Answer, Probe};
use tower_plugins_layers::*;

use crate::support::{Census, millis as ms};

type Answered = Result<Response<ResponseBody<Full<Bytes>>>, BoxError>;

/// What an attempt does: so long, and then that.
#[derive(Clone, Copy, Debug)]
struct Attempt(u64, End);

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Ok,
    Missing,
    Unavailable,
    /// Unavailable, and what its pushback says.
    Pushback(i32),
    Limited,
}

/// The 10 s of an attempt that is never waited for.
const HANGS: Attempt = Attempt(10_000, End::Ok);

fn outcome(end: End) -> Result<Response<Full<Bytes>>, BoxError> {
    let mut response = Response::new(Full::from("answer"));
    *response.status_mut() = match end {
        End::Ok => StatusCode::OK,
        End::Missing => StatusCode::NOT_FOUND,
        End::Unavailable | End::Pushback(_) => StatusCode::SERVICE_UNAVAILABLE,
        End::Limited => return Err(Refused::new(Reason::RateLimited).into()),
    };
    if let End::Pushback(millis) = end {
        let name = "grpc-retry-pushback-ms";
        response
            .headers_mut()
            .insert(name, HeaderValue::from(millis));
    }
    Ok(response)
}

fn after(delay: u64) -> HedgePolicy {
    HedgePolicy::after(ms(delay))
}

/// Rules whose budget does not run out.
fn rules() -> RetryPolicy {
    RetryPolicy::new().budget(Budget::new(0.0, u32::MAX))
}

fn get() -> Request<Full<Bytes>> {
    Request::new(Full::from("ask"))
}

fn post() -> Request<Full<Bytes>> {
    Request::post("/").body(Full::from("ask")).unwrap()
}

/// What a call came to, when its attempts began, and when it was over.
struct Run {
    outcome: Answered,
    begun: Vec<u64>,
    took: u64,
    /// Attempts that were alive when the answer was handed on.
    left: usize,
}

impl Run {
    fn status(&self) -> u16 {
        self.outcome.as_ref().expect("a response").status().as_u16()
    }
}

async fn run<B>(layer: RetryLayer, request: Request<B>, attempts: &[Attempt]) -> Run
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let start = Instant::now();
    let begun = Arc::new(Mutex::new(Vec::new()));
    let census = Arc::new(Census::default());
    let inner = {
        let (begun, census, attempts) =
            (Arc::clone(&begun), Arc::clone(&census), attempts.to_vec());
        service_fn(move |request: Request<ReplayBody<B>>| {
            let counted = census.count();
            let mut begun = begun.lock().unwrap();
            let Attempt(millis, end) = attempts[begun.len()];
            let number = CallContext::of(&request).map_or(0, CallContext::attempt);
            assert_eq!(number as usize, begun.len());
            begun.push(start.elapsed().as_millis() as u64);
            async move {
                let _counted = counted;
                let body = request.into_body().collect().await?;
                assert_eq!(body.to_bytes(), "ask");
                sleep(ms(millis)).await;
                outcome(end)
            }
        })
    };
    // Held on to, so that what it has dropped it has dropped itself.
    let mut call = std::pin::pin!(layer.layer(inner).call(request));
    let outcome = call.as_mut().await;
    Run {
        outcome,
        begun: begun.lock().unwrap().clone(),
        took: start.elapsed().as_millis() as u64,
        left: census.alive(),
    }
}

fn hedged(policy: HedgePolicy) -> RetryLayer {
    RetryLayer::new(rules().max_retries(0).hedge(policy))
}

#[tokio::test(start_paused = true)]
async fn the_first_good_answer_wins_and_the_loser_is_gone_before_it_is_handed_on() {
    let run_of = async |attempts: &[Attempt]| {
        let run = run(hedged(after(50)), get(), attempts).await;
        assert_eq!((run.status(), run.left), (200, 0));
        (run.begun, run.took)
    };
    assert_eq!(run_of(&[Attempt(40, End::Ok)]).await, (vec![0], 40));
    assert_eq!(
        run_of(&[HANGS, Attempt(10, End::Ok)]).await,
        (vec![0, 50], 60)
    );
    assert_eq!(
        run_of(&[Attempt(70, End::Ok), HANGS]).await,
        (vec![0, 50], 70)
    );
}

#[tokio::test(start_paused = true)]
async fn there_are_as_many_hedges_as_the_policy_says_each_after_another_delay() {
    let slow = [HANGS; 6];
    for (most, begun) in [
        (1, vec![0, 50]),
        (2, vec![0, 50, 100]),
        (9, vec![0, 50, 100, 150, 200]),
    ] {
        let run = run(hedged(after(50).max_hedges(most)), get(), &slow).await;
        assert_eq!(run.begun, begun);
    }
}

#[tokio::test(start_paused = true)]
async fn only_calls_that_may_be_repeated_and_that_the_policy_is_for_are_hedged() {
    let attempts = async |layer, request: Request<Full<Bytes>>| {
        run(layer, request, &[HANGS; 3]).await.begun.len()
    };
    assert_eq!(attempts(hedged(after(50)), get()).await, 2);
    assert_eq!(attempts(hedged(after(50)), post()).await, 1);
    let mut keyed = post();
    keyed
        .headers_mut()
        .insert("idempotency-key", HeaderValue::from_static("k"));
    assert_eq!(attempts(hedged(after(50)), keyed).await, 2);
    assert_eq!(
        attempts(hedged(after(50).paths(["/other"])), get()).await,
        1
    );
    let never = rules().never(["/"]).hedge(after(50));
    assert_eq!(attempts(RetryLayer::new(never), get()).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_for_hedging_is_retried_and_one_that_is_is_not() {
    let policy = || {
        rules()
            .max_retries(2)
            .backoff(Backoff::new(ms(300), ms(300)).without_jitter())
    };
    let fails = [Attempt(10, End::Unavailable); 4];
    let one = run(
        RetryLayer::new(policy().hedge(after(50).paths(["/x"]))),
        get(),
        &fails,
    )
    .await;
    assert_eq!(one.begun, [0, 310, 620]);
    let other = run(RetryLayer::new(policy().hedge(after(50))), get(), &fails).await;
    assert_eq!(other.begun, [0, 10]);
    assert_eq!(other.status(), 503);
}

#[tokio::test(start_paused = true)]
async fn a_failure_waits_for_the_attempt_under_way_and_a_final_answer_does_not() {
    let run_of = async |attempts: &[Attempt]| {
        let run = run(hedged(after(50)), get(), attempts).await;
        assert_eq!(run.left, 0);
        (run.status(), run.took)
    };
    let failed = Attempt(60, End::Unavailable);
    assert_eq!(run_of(&[failed, Attempt(100, End::Ok)]).await, (200, 150));
    assert_eq!(
        run_of(&[failed, Attempt(100, End::Unavailable)]).await,
        (503, 150)
    );
    assert_eq!(run_of(&[HANGS, Attempt(20, End::Missing)]).await, (404, 70));
    // A failure begins the next at once.
    let sooner = [Attempt(20, End::Unavailable), Attempt(10, End::Ok)];
    assert_eq!(run_of(&sooner).await, (200, 30));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_is_refused_fails_no_call() {
    let refused = Attempt(1, End::Limited);
    let slow = [Attempt(200, End::Ok), refused, HANGS];
    let run = run(hedged(after(50).max_hedges(3)), get(), &slow).await;
    assert_eq!((run.status(), run.took, run.begun.len()), (200, 200, 2));
    // Nobody but the first is refused: that is the call's end.
    let run = super::hedge::run(hedged(after(50)), get(), &[refused]).await;
    assert_eq!(
        Reason::of(&*run.outcome.unwrap_err()),
        Some(Reason::RateLimited)
    );
}

#[tokio::test(start_paused = true)]
async fn pushback_delays_or_stops_the_next() {
    let run_of = async |pushback| {
        let attempts = [Attempt(10, End::Pushback(pushback)), Attempt(10, End::Ok)];
        let run = run(hedged(after(50)), get(), &attempts).await;
        (run.status(), run.begun)
    };
    assert_eq!(run_of(0).await, (200, vec![0, 10]));
    assert_eq!(run_of(200).await, (200, vec![0, 210]));
    assert_eq!(run_of(-1).await, (503, vec![0]));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_is_taken_out_of_the_budget() {
    let budget = Budget::new(0.0, 0);
    let none = RetryLayer::new(rules().budget(budget).hedge(after(50)));
    assert_eq!(run(none, get(), &[HANGS; 2]).await.begun, [0]);

    // And is under way until its attempt is over.
    let budget = Budget::in_flight(0.0, 1);
    let layer = RetryLayer::new(rules().budget(budget.clone()).hedge(after(50)));
    let free = || budget.withdraw(Instant::now()).is_some();
    let slow = [HANGS, Attempt(100, End::Ok)];
    let call = async {
        run(layer, get(), &slow).await;
        assert!(free());
    };
    let watch = async {
        sleep(ms(40)).await;
        assert!(free());
        sleep(ms(40)).await;
        assert!(!free());
    };
    tokio::join!(call, watch);
}

#[tokio::test(start_paused = true)]
async fn none_begins_at_the_deadline_or_after_it() {
    for (deadline, begun) in [(50, vec![0]), (51, vec![0, 50])] {
        let mut request = get();
        let at = Instant::now() + ms(deadline);
        CallContext::new().own_deadline(at).attach(&mut request);
        assert_eq!(
            run(hedged(after(50)), request, &[HANGS; 2]).await.begun,
            begun
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_in_many_pieces_is_copied_once_it_has_been_sent_and_not_before() {
    /// A body whose pieces come a while apart.
    fn pieces(apart: u64) -> impl Body<Data = Bytes, Error = BoxError> + Send + Unpin {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            for piece in ["a", "s", "k"] {
                sleep(ms(apart)).await;
                let _ = sender.send(Bytes::from_static(piece.as_bytes())).await;
            }
        });
        struct Pieces(tokio::sync::mpsc::Receiver<Bytes>);
        impl Body for Pieces {
            type Data = Bytes;
            type Error = BoxError;
            fn poll_frame(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
                let poll = self.0.poll_recv(cx);
                poll.map(|data| data.map(|data| Ok(http_body::Frame::data(data))))
            }
        }
        Pieces(receiver)
    }
    for (apart, begun) in [(10, vec![0, 50]), (25, vec![0, 100]), (40, vec![0, 150])] {
        let request = Request::new(pieces(apart));
        let attempts = [Attempt(10_000, End::Ok), Attempt(5, End::Ok)];
        let run = run(hedged(after(50)), request, &attempts).await;
        assert_eq!((run.status(), run.begun), (200, begun), "{apart}");
    }
    // A body over the cap is sent, and not again.
    let small = RetryLayer::new(rules().max_replay(2).hedge(after(50)));
    let run = run(
        small,
        Request::new(pieces(1)),
        &[Attempt(100, End::Ok), HANGS],
    )
    .await;
    assert_eq!((run.status(), run.begun), (200, vec![0]));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_drops_all_its_attempts() {
    let inner = Probe::new(Answer::Never);
    let journal = inner.journal();
    let service = HedgeLayer::new(after(50).max_hedges(2)).layer(inner);
    let call = service.oneshot(get());
    assert!(tokio::time::timeout(ms(120), call).await.is_err());
    assert_eq!((journal.calls(), journal.under_way()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn hedges_by_reference_too() {
    let inner = Probe::new(Answer::Never);
    let journal = inner.journal();
    let service = HedgeLayer::new(after(50)).layer(inner);
    let call = (&service).call(get());
    assert!(tokio::time::timeout(ms(120), call).await.is_err());
    assert_eq!((journal.calls(), journal.under_way()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_goes_to_another_endpoint() {
    for policy in [balance::Strategy::PeakEwma, balance::Strategy::RoundRobin] {
        for endpoints in [2, 3] {
            let probes: Vec<_> = (0..endpoints).map(|_| Probe::new(Answer::Never)).collect();
            let journals: Vec<_> = probes.iter().map(Probe::journal).collect();
            let members = probes
                .into_iter()
                .map(|probe| LoadLayer::new().layer(probe));
            let balance = Balance::new(policy, members);
            let service = HedgeLayer::new(after(50).max_hedges(1)).layer(balance);
            for call in 1..=20 {
                let under_way = service.clone().oneshot(get());
                assert!(tokio::time::timeout(ms(60), under_way).await.is_err());
                let calls: usize = journals.iter().map(|journal| journal.calls()).sum();
                assert_eq!(calls, 2 * call);
                // Two endpoints: each call goes to both.
                if endpoints == 2 {
                    assert!(journals.iter().all(|journal| journal.calls() == call));
                }
            }
        }
    }
    // With one endpoint it goes there again.
    let probe = Probe::new(Answer::Never);
    let journal = probe.journal();
    let balance = Balance::new(balance::Strategy::PeakEwma, [LoadLayer::new().layer(probe)]);
    let call = HedgeLayer::new(after(50)).layer(balance).oneshot(get());
    assert!(tokio::time::timeout(ms(60), call).await.is_err());
    assert_eq!(journal.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_delay_is_the_quantile_once_there_are_samples() {
    let latencies = Latencies::new();
    let policy = HedgePolicy::new()
        .quantile(0.9)
        .min_samples(10)
        .latencies(latencies.clone());
    let layer = hedged(policy.clone());
    // Nothing is known: no hedge without a delay, and a fixed one if there is.
    assert_eq!(run(layer.clone(), get(), &[HANGS]).await.begun, [0]);
    let fixed = hedged(policy.delay(ms(70)));
    assert_eq!(
        run(fixed, get(), &[HANGS, Attempt(1, End::Ok)]).await.begun,
        [0, 70]
    );
    tokio::time::advance(Duration::from_secs(120)).await;
    for n in 0..20 {
        let millis = if n < 18 { 10 } else { 40 };
        run(layer.clone(), get(), &[Attempt(millis, End::Ok), HANGS]).await;
        // Failures are not measured.
        run(layer.clone(), get(), &[Attempt(500, End::Missing), HANGS]).await;
        tokio::time::advance(ms(100)).await;
    }
    let delay = latencies.quantile(0.9, 10, Instant::now()).unwrap();
    assert!(delay > ms(10) && delay <= ms(12), "{delay:?}");
    let hedged = run(layer.clone(), get(), &[HANGS, Attempt(1, End::Ok)]).await;
    assert_eq!(hedged.begun, [0, delay.as_millis() as u64 + 1]);
    // A minute later nothing is known any more.
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(latencies.quantile(0.9, 10, Instant::now()), None);
}

#[tokio::test]
async fn samples_of_many_threads_are_all_counted() {
    let latencies = Latencies::new();
    let now = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|_| latencies.record(ms(10), now)));
        }
    });
    assert!(latencies.quantile(0.5, 4000, now).is_some());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(Latencies::new().quantile(0.5, 1, now).is_none());
}
