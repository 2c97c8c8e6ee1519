//! How an endpoint that is new, or comes back, gets its share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::{Request, Response};
use proptest::prelude::{Just, any, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as _;
use tokio::time::{Instant, advance};
use tower::{Layer, Service, service_fn};
use tower_plugins_layers::balance::{
    HealthLayer, LoadLayer, Member, SlowStartLayer, SlowStartPolicy, Strategy,
};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::outlier::{OutlierDetector, OutlierPolicy};
use tower_plugins_layers::*;

use crate::support::{request, secs};

fn policy() -> SlowStartPolicy {
    SlowStartPolicy::new().window(secs(100))
}

/// An endpoint that does nothing.
fn idle(layer: &SlowStartLayer) -> impl Member + use<> {
    layer.layer(LoadLayer::new().layer(()))
}

/// The shares, in percent, of 20,000 calls.
async fn shares(strategy: Strategy, layers: &[SlowStartLayer]) -> Vec<f64> {
    let counts: Vec<_> = layers
        .iter()
        .map(|_| Arc::new(AtomicUsize::new(0)))
        .collect();
    let endpoints = layers.iter().zip(&counts).map(|(layer, count)| {
        let count = count.clone();
        layer.layer(LoadLayer::new().layer(service_fn(move |_: Request<()>| {
            count.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok::<_, BoxError>(Response::new(String::new())))
        })))
    });
    let mut balance = Balance::new(strategy, endpoints);
    fastrand::seed(11);
    for _ in 0..20_000 {
        balance.call(request()).await.unwrap();
    }
    let share = |count: &Arc<AtomicUsize>| count.load(Ordering::Relaxed) as f64 / 200.0;
    counts.iter().map(share).collect()
}

#[tokio::test(start_paused = true)]
async fn the_weight_grows_over_the_window_by_the_formula() {
    let steps = |policy: SlowStartPolicy| -> Vec<f64> {
        let part = |age| policy.part(secs(age));
        [0, 5, 25, 50, 99, 100, 1000].map(part).to_vec()
    };
    assert_eq!(steps(policy()), [0.1, 0.1, 0.25, 0.5, 0.99, 1.0, 1.0]);
    let fast = steps(policy().aggression(2.0));
    assert!((fast[2] - 0.5).abs() < 1e-9 && (fast[3] - 0.5_f64.sqrt()).abs() < 1e-9);
    assert_eq!(steps(policy().window(secs(0))), [1.0; 7]);
    assert_eq!(steps(policy().min_weight(0.4))[2], 0.4);
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_gets_its_share_by_and_by() {
    // By key, and by least latency where all are as fast, an endpoint has no share by weight.
    let by_weight = |s: &Strategy| !s.is_hash() && *s != Strategy::LeastLatency;
    for strategy in Strategy::ALL.into_iter().filter(by_weight) {
        let mut layers: Vec<_> = (0..3).map(|_| SlowStartLayer::new(policy())).collect();
        advance(secs(100)).await;
        layers.push(SlowStartLayer::new(policy()));
        let first = shares(strategy, &layers).await[3];
        advance(secs(50)).await;
        let half = shares(strategy, &layers).await[3];
        advance(secs(50)).await;
        let full = shares(strategy, &layers).await[3];
        println!("{strategy:?}: {first:.1} %, {half:.1} %, {full:.1} %");
        assert!(
            first < half && half < full,
            "{strategy:?} {first} {half} {full}"
        );
        assert!(first > 0.5 && first < 12.0, "{strategy:?} {first}");
        assert!((full - 25.0).abs() < 3.0, "{strategy:?} {full}");
    }
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_are_all_new_share_as_they_always_will() {
    for strategy in [
        Strategy::PeakEwma,
        Strategy::WeightedRandom,
        Strategy::RoundRobin,
    ] {
        let layers: Vec<_> = (0..4).map(|_| SlowStartLayer::new(policy())).collect();
        for share in shares(strategy, &layers).await {
            assert!((share - 25.0).abs() < 3.0, "{strategy:?} {share}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_from_an_ejection_starts_slowly_again() {
    let detector = OutlierDetector::new(OutlierPolicy::new());
    let (outlier, _other) = (detector.endpoint("one"), detector.endpoint("two"));
    let start = SlowStartLayer::new(policy());
    let member = start.layer(outlier.layer(LoadLayer::new().layer(())));
    advance(secs(200)).await;
    assert_eq!(member.ramp(Instant::now()), 1.0);
    assert!(detector.eject("one") && member.is_ejected(Instant::now()));
    advance(secs(20)).await;
    assert!(detector.restore("one"));
    assert!(member.is_available(Instant::now()) && !member.is_ejected(Instant::now()));
    assert_eq!(member.ramp(Instant::now()), 0.1);
    advance(secs(50)).await;
    assert_eq!(member.ramp(Instant::now()), 0.5);
}

#[tokio::test(start_paused = true)]
async fn one_whose_breaker_lets_calls_in_again_starts_slowly_again() {
    let breaker = BreakerLayer::new(
        BreakerPolicy::new()
            .consecutive_failures(1)
            .recovery(secs(5))
            .jitter(0.0),
    );
    let failing =
        service_fn(|_: Request<()>| async { Err::<Response<String>, BoxError>("down".into()) });
    let mut member =
        SlowStartLayer::new(policy()).layer(breaker.layer(LoadLayer::new().layer(failing)));
    advance(secs(200)).await;
    member.call(request()).await.unwrap_err();
    assert!(!member.is_available(Instant::now()));
    assert_eq!(member.ramp(Instant::now()), 1.0);
    advance(secs(5)).await;
    assert!(member.is_available(Instant::now()));
    assert_eq!(member.ramp(Instant::now()), 0.1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_of_another_layer_is_not_new() {
    let old = SlowStartLayer::new(policy());
    advance(secs(60)).await;
    let new = SlowStartLayer::with_arrival(policy(), old.arrival());
    assert_eq!(idle(&new).ramp(Instant::now()), 0.6);
    assert_eq!(idle(&SlowStartLayer::off()).ramp(Instant::now()), 1.0);
}

#[test]
fn a_policy_is_written_and_read_and_nonsense_is_refused() {
    let policy = SlowStartPolicy::new().min_weight(0.2).aggression(1.5);
    let text = serde_json::to_string(&policy).unwrap();
    assert!(text.contains("\"window\":\"30s\""), "{text}");
    assert_eq!(
        serde_json::from_str::<SlowStartPolicy>(&text).unwrap(),
        policy
    );
    for wrong in [
        r#"{"window":30}"#,
        r#"{"min_weight":0.0}"#,
        r#"{"min_weight":1.1}"#,
        r#"{"aggression":0.0}"#,
        r#"{"unknown":1}"#,
    ] {
        assert!(
            serde_json::from_str::<SlowStartPolicy>(wrong).is_err(),
            "{wrong}"
        );
    }
}

/// An endpoint that takes calls or not, as somebody says.
struct Door(Arc<AtomicBool>);

impl Member for Door {
    fn load(&self, _: Instant) -> f64 {
        0.0
    }

    fn is_available(&self, _: Instant) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u64),
    Healthy(bool),
    Open(bool),
    /// A call is balanced.
    Look,
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0_u64..60).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Healthy),
        1 => any::<bool>().prop_map(Step::Open),
        3 => Just(Step::Look),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn the_weight_is_by_the_time_since_it_was_last_seen_to_come_back(
        steps in steps(),
        window in 0_u64..200,
    ) {
        crate::support::paused().block_on(async {
            let policy = policy().window(secs(window));
            let (health, open) = (HealthLayer::new(), Arc::new(AtomicBool::new(true)));
            let member = SlowStartLayer::new(policy).layer(health.layer(Door(open.clone())));
            let mut since = Instant::now();
            let (mut is_healthy, mut is_open, mut was_away) = (true, true, false);
            for step in steps {
                match step {
                    Step::Wait(seconds) => advance(secs(seconds)).await,
                    Step::Healthy(well) => {
                        is_healthy = well;
                        health.handle().set_healthy(well);
                    }
                    Step::Open(takes) => {
                        is_open = takes;
                        open.store(takes, Ordering::Relaxed);
                    }
                    Step::Look => {
                        let now = Instant::now();
                        prop_assert_eq!(member.is_available(now), is_open);
                        prop_assert_eq!(member.is_ejected(now), !is_healthy);
                        let is_away = !is_open || !is_healthy;
                        if was_away && !is_away {
                            since = now;
                        }
                        was_away = is_away;
                        if !is_away {
                            prop_assert_eq!(member.ramp(now), policy.part(now - since));
                        }
                    }
                }
            }
            Ok(())
        })?;
    }
}
