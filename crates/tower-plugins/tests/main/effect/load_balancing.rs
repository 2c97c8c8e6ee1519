use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use tower::{ServiceExt, service_fn};
use tower_plugins::{Body, Plugins, Reason};

use super::stage::{Answer, Stage};
use crate::support::{config, get, read};

/// `p` at these endpoints, balanced so.
async fn stage(endpoints: &str, balancing: &str) -> Stage {
    Stage::start(&format!(
        "plugins: {{ p: {{ transport: in-process, endpoints: [{endpoints}], retry: off,
            circuit_breaker: {{ failure_threshold: 1, recovery_timeout: 24h }},
            load_balancing: {{ {balancing} }} }} }}"
    ))
    .await
}

fn with(name: &str, value: &str) -> Request<Body> {
    let request = Request::get("/").header(name, value);
    request.body(Body::empty()).unwrap()
}

/// The endpoint that `request` goes to.
async fn goes_to(stage: &Stage, request: Request<Body>) -> &'static str {
    stage.seen();
    let response = stage.send("p", request).await.unwrap();
    read(response).await;
    stage.seen()[0].service
}

/// How many of so many calls each endpoint gets.
async fn spread(stage: &Stage, calls: usize) -> BTreeMap<&'static str, usize> {
    stage.seen();
    for _ in 0..calls {
        stage.call().await.unwrap();
    }
    count(stage)
}

/// How many of the calls that were seen each endpoint got.
fn count(stage: &Stage) -> BTreeMap<&'static str, usize> {
    let mut spread = BTreeMap::new();
    for seen in stage.seen() {
        *spread.entry(seen.service).or_default() += 1;
    }
    spread
}

/// Has the next call's endpoint fail, and its breaker open: in turn, the first.
async fn fail(stage: &Stage) -> &'static str {
    stage.seen();
    stage.next([Answer::Status(500)]);
    stage.call().await.unwrap();
    stage.seen()[0].service
}

#[tokio::test(start_paused = true)]
async fn strategy_is_each_in_turn_or_steers_around_a_slow_endpoint() {
    let of = |strategy: &str| {
        format!(
            "plugins: {{ p: {{ transport: in-process, endpoints: [one, slow], load_balancing: {{ strategy: {strategy} }} }} }}"
        )
    };
    let in_turn = Stage::start(&of("round-robin")).await;
    assert_eq!(in_turn.share_of_slow("p", 40).await, 20);
    let by_latency = Stage::start(&of("peak-ewma")).await;
    assert!(by_latency.share_of_slow("p", 40).await < 10);
}

#[tokio::test(start_paused = true)]
async fn each_strategy_can_be_chosen_by_name() {
    fastrand::seed(7);
    let ends = "{ url: one, weight: 1 }, { url: two, weight: 3 }";
    for (strategy, one) in [
        ("round-robin", 100..=100),
        ("weighted-round-robin", 50..=50),
        ("random", 75..=125),
        ("weighted-random", 30..=70),
        ("least-request", 30..=70),
        ("least-connections", 30..=70),
        ("peak-ewma", 1..=199),
        ("least-latency", 0..=200),
        ("ring-hash, hash_on: 'header:x'", 1..=199),
        ("consistent-hash, hash_on: 'header:x'", 1..=199),
        ("maglev, hash_on: 'header:x'", 1..=199),
    ] {
        let stage = stage(ends, &format!("strategy: {strategy}")).await;
        let spread = spread(&stage, 200).await;
        let had = spread.get("one").copied().unwrap_or_default();
        assert!(one.contains(&had), "{strategy}: {spread:?}");
        assert_eq!(spread.values().sum::<usize>(), 200);
    }
    // What these look at: calls under way, and time.
    let few = stage("one, slow", "strategy: least-latency").await;
    assert!(few.share_of_slow("p", 40).await < 10);
    for strategy in ["least-request", "least-connections"] {
        let stage = stage("one, two", &format!("strategy: {strategy}")).await;
        stage.answers(Answer::Never);
        let calls = stage.at_once("p", 20);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(
            count(&stage),
            [("one", 10), ("two", 10)].into(),
            "{strategy}"
        );
        drop(calls);
    }
}

#[tokio::test(start_paused = true)]
async fn hash_on_is_what_stays_with_an_endpoint() {
    for strategy in ["ring-hash", "maglev"] {
        for (place, header, value) in [
            (
                "header:x-user",
                "x-user",
                (|user: usize| user.to_string()) as fn(usize) -> String,
            ),
            ("cookie:user", "cookie", |user: usize| {
                format!("a=b; user={user}")
            }),
        ] {
            let keys = format!("strategy: {strategy}, hash_on: '{place}'");
            let stage = stage("one, two", &keys).await;
            let mut owners = BTreeMap::<_, usize>::new();
            for user in 0..40 {
                let owner = goes_to(&stage, with(header, &value(user))).await;
                for _ in 0..3 {
                    assert_eq!(goes_to(&stage, with(header, &value(user))).await, owner);
                }
                *owners.entry(owner).or_default() += 1;
            }
            assert!(
                owners.len() == 2 && owners.values().all(|&n| n > 5),
                "{owners:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn load_factor_is_how_many_times_the_mean_of_calls_an_endpoint_may_have() {
    for (factor, most) in [("1", 20), ("1.5", 30), ("0", 40)] {
        let keys = format!("strategy: maglev, hash_on: 'header:x', load_factor: {factor}");
        let stage = stage("one, two", &keys).await;
        stage.answers(Answer::Never);
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..40 {
            let stage = stage.clone();
            calls.spawn(async move { stage.send("p", with("x", "same")).await });
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let spread = count(&stage);
        assert_eq!(spread.values().max(), Some(&most), "{factor}: {spread:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn least_request_bias_is_how_much_calls_under_way_count_beside_weights() {
    fastrand::seed(7);
    for (bias, heavy) in [(0, 270..=330), (1, 235..=270), (10, 200..=215)] {
        let keys = format!("strategy: least-request, least_request_bias: {bias}");
        let stage = stage("one, { url: two, weight: 3 }", &keys).await;
        stage.answers(Answer::Never);
        let calls = stage.at_once("p", 400);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let spread = count(&stage);
        assert!(heavy.contains(&spread["two"]), "{bias}: {spread:?}");
        drop(calls);
    }
}

#[tokio::test(start_paused = true)]
async fn overprovisioning_is_when_a_level_spills_into_the_next() {
    fastrand::seed(7);
    for (factor, slow) in [("1", 70..=130), ("1.4", 35..=85), ("2", 0..=0)] {
        let keys = format!("strategy: round-robin, overprovisioning: {factor}");
        let stage = stage("one, two, { url: slow, priority: 1 }", &keys).await;
        fail(&stage).await;
        tokio::time::advance(Duration::from_millis(20)).await;
        let had = stage.share_of_slow("p", 200).await;
        assert!(slow.contains(&had), "{factor}: {had}");
    }
}

#[tokio::test(start_paused = true)]
async fn panic_threshold_is_when_levels_are_no_longer_judged() {
    fastrand::seed(7);
    // Of four endpoints in the first level one is well, and of three in the second. Judged, they get 35 parts to 47; below
    // the threshold, each gets calls by its size, 4 to 3.
    for (threshold, first) in [("0.2", 0.35 / (0.35 + 1.4 / 3.0)), ("0.5", 4.0 / 7.0)] {
        let well = Arc::new(AtomicUsize::new(0));
        let mut builder = Plugins::builder();
        for n in 0..7 {
            let well = Arc::clone(&well);
            let service = service_fn(move |_: Request<Body>| {
                let is_well = n == 0 || n == 4;
                if n == 0 {
                    well.fetch_add(1, Ordering::SeqCst);
                }
                let status = if is_well { 200 } else { 500 };
                let response = Response::builder().status(status).body(Body::empty());
                std::future::ready(Ok::<_, Infallible>(response.unwrap()))
            });
            builder = builder.service(&format!("s{n}"), service);
        }
        let ends = (0..7).map(|n| format!("{{ url: s{n}, priority: {} }}", u8::from(n > 3)));
        let ends = ends.collect::<Vec<_>>().join(", ");
        let yaml = format!(
            "plugins: {{ p: {{ transport: in-process, endpoints: [{ends}], retry: off,
                circuit_breaker: {{ failure_threshold: 1, recovery_timeout: 24h }},
                load_balancing: {{ strategy: random, panic_threshold: {threshold} }} }} }}"
        );
        let plugins = builder.start(config(&yaml)).await.unwrap();
        let call = || plugins.plugin("p").oneshot(get("/"));
        // Until the breakers of those that are not well are open.
        for _ in 0..300 {
            call().await.unwrap();
            tokio::time::advance(Duration::from_millis(20)).await;
        }
        well.store(0, Ordering::SeqCst);
        for _ in 0..2000 {
            assert_eq!(call().await.unwrap().status(), 200);
        }
        let part = well.load(Ordering::SeqCst) as f64 / 2000.0;
        assert!(
            (part - first).abs() < 0.04,
            "{threshold}: {part}, {first} expected"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn zone_is_where_calls_stay_as_long_as_they_can() {
    let ends = "{ url: one, zone: a }, { url: two, zone: b }, { url: slow }";
    for (zone, service) in [("a", "one"), ("b", "two")] {
        let stage = stage(ends, &format!("zone: {zone}")).await;
        assert_eq!(spread(&stage, 20).await, [(service, 20)].into());
        assert_eq!(fail(&stage).await, service);
        assert!(!spread(&stage, 20).await.contains_key(service));
    }
    let nowhere = stage(ends, "strategy: round-robin").await;
    assert_eq!(spread(&nowhere, 30).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn subset_is_the_labels_that_endpoints_must_have() {
    let ends = "{ url: one, labels: { version: '1', stage: canary } }, { url: two, labels: { version: '1' } }, slow";
    for (subset, services) in [
        ("version: '1'", &["one", "two"][..]),
        ("version: '1', stage: canary", &["one"]),
    ] {
        let stage = stage(
            ends,
            &format!("strategy: round-robin, subset: {{ {subset} }}"),
        )
        .await;
        let spread = spread(&stage, 20).await;
        assert_eq!(spread.into_keys().collect::<Vec<_>>(), services);
    }
}

const VERSIONS: &str =
    "{ url: one, labels: { version: '1' } }, { url: two, labels: { version: '2' } }";

#[tokio::test(start_paused = true)]
async fn subset_on_is_where_a_call_says_which_endpoints_it_wants() {
    for (place, header, value) in [
        ("header:x-version", "x-version", ""),
        ("cookie:v", "cookie", "v="),
    ] {
        let keys = format!("strategy: round-robin, subset_on: {{ version: '{place}' }}");
        let stage = stage(VERSIONS, &keys).await;
        for _ in 0..4 {
            for (version, service) in [("1", "one"), ("2", "two")] {
                let request = with(header, &format!("{value}{version}"));
                assert_eq!(goes_to(&stage, request).await, service);
            }
        }
        assert_eq!(spread(&stage, 20).await, [("one", 10), ("two", 10)].into());
    }
}

#[tokio::test(start_paused = true)]
async fn subset_fallback_is_what_becomes_of_calls_whose_subset_is_empty() {
    let keys = "strategy: round-robin, subset_on: { version: 'header:x-version' }";
    let any = stage(VERSIONS, &format!("{keys}, subset_fallback: any")).await;
    any.send("p", with("x-version", "3")).await.unwrap();
    let none = stage(VERSIONS, &format!("{keys}, subset_fallback: none")).await;
    let error = none.send("p", with("x-version", "3")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoEndpoint));
    assert_eq!(goes_to(&none, with("x-version", "2")).await, "two");
}

#[tokio::test(start_paused = true)]
async fn weight_is_the_share_of_an_endpoint() {
    let stage = stage(
        "{ url: one, weight: 3 }, two",
        "strategy: weighted-round-robin",
    )
    .await;
    assert_eq!(spread(&stage, 40).await, [("one", 30), ("two", 10)].into());
}

#[tokio::test(start_paused = true)]
async fn priority_is_who_gets_calls_first() {
    let stage = stage(
        "{ url: one, priority: 1 }, { url: two, priority: 0 }",
        "strategy: random",
    )
    .await;
    assert_eq!(spread(&stage, 20).await, [("two", 20)].into());
    assert_eq!(fail(&stage).await, "two");
    assert_eq!(spread(&stage, 20).await, [("one", 20)].into());
}

#[tokio::test(start_paused = true)]
async fn zone_of_an_endpoint_is_where_it_is() {
    let stage = stage(
        "{ url: one, zone: a }, { url: two, zone: a }, { url: slow, zone: b }",
        "zone: b",
    )
    .await;
    assert_eq!(spread(&stage, 20).await, [("slow", 20)].into());
}

#[tokio::test(start_paused = true)]
async fn labels_are_what_an_endpoint_is_found_by() {
    let keys = "subset: { kind: fast }";
    let stage = stage("one, { url: two, labels: { kind: fast, other: x } }", keys).await;
    assert_eq!(spread(&stage, 20).await, [("two", 20)].into());
}
