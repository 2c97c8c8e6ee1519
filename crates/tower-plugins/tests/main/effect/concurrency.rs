use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_plugins::Priority;
use tower_plugins::Reason::{ConcurrencyLimited, Shed};
use tower_plugins::call::Method;

use super::stage::Answer::{Never, Status};
use super::stage::{Outcome, SECOND, Stage, refusals};
use crate::support::get;

/// A plugin whose service never answers.
async fn limited(keys: &str) -> Stage {
    let stage = Stage::of(&format!("concurrency: {{ {keys} }}")).await;
    stage.answers(Never);
    stage
}

#[tokio::test(start_paused = true)]
async fn enabled_false_lifts_a_limit_of_the_defaults() {
    for (enabled, asked) in [(true, 1), (false, 5)] {
        let root = "default_concurrency: { max_concurrent: 1 },";
        let keys = format!("concurrency: {{ enabled: {enabled} }}");
        let stage = Stage::pair(root, &keys).await;
        stage.answers(Never);
        refusals(&mut stage.at_once("q", 5), 5).await;
        assert_eq!(stage.seen().len(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn max_concurrent_is_the_number_of_calls_under_way() {
    for places in [1, 4] {
        let stage = limited(&format!("max_concurrent: {places}")).await;
        let begun = Instant::now();
        let mut calls = stage.at_once("p", 10);
        let refused = refusals(&mut calls, 10 - places).await;
        assert_eq!(refused, vec![ConcurrencyLimited; 10 - places]);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(stage.seen().len(), places);
        refusals(&mut calls, places).await;
        assert_eq!(stage.asked(1).await, 1, "places come back");
    }
}

#[tokio::test(start_paused = true)]
async fn max_queued_is_the_number_of_calls_that_wait_for_a_place() {
    for queued in [1, 5] {
        let stage = limited(&format!(
            "max_concurrent: 1, max_queued: {queued}, max_wait: 2s"
        ))
        .await;
        let begun = Instant::now();
        let mut calls = stage.at_once("p", 10);
        refusals(&mut calls, 9 - queued).await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "there is no room to wait");
        let waited = refusals(&mut calls, queued).await;
        assert_eq!(waited, vec![ConcurrencyLimited; queued]);
        assert_eq!(begun.elapsed(), 2 * SECOND);
        assert_eq!(stage.seen().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn max_wait_is_how_long_a_call_waits_for_a_place() {
    let with = |wait: u32| {
        format!(
            "plugins: {{ p: {{ transport: in-process, endpoint: slow, concurrency: {{ max_concurrent: 1, max_queued: 1, max_wait: {wait}ms }} }} }}"
        )
    };
    let too_short = Stage::start(&with(900)).await;
    let begun = Instant::now();
    let mut calls = too_short.at_once("p", 2);
    assert_eq!(refusals(&mut calls, 1).await, [ConcurrencyLimited]);
    assert_eq!(begun.elapsed(), Duration::from_millis(900));

    let long_enough = Stage::start(&with(1100)).await;
    let answers = long_enough.at_once("p", 2).join_all().await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(long_enough.gaps(), [SECOND]);
}

/// Failures in a row take a limit that adapts down from 20 to 1; one that is fixed they do not touch.
#[tokio::test(start_paused = true)]
async fn adaptive_lets_the_limit_find_its_size() {
    for (adaptive, places) in [("off", 30), ("aimd", 1), ("gradient", 1)] {
        let stage = Stage::of(&format!(
            "circuit_breaker: {{ enabled: false }}, \
             concurrency: {{ max_concurrent: 30, adaptive: {adaptive} }}"
        ))
        .await;
        stage.answers(Status(500));
        for _ in 0..40 {
            let _ = stage.call().await;
        }
        stage.answers(Never);
        stage.seen();
        let mut calls = stage.at_once("p", 40);
        let refused = refusals(&mut calls, 40 - places).await;
        assert_eq!(refused, vec![ConcurrencyLimited; 40 - places], "{adaptive}");
        assert_eq!(stage.seen().len(), places, "{adaptive}");
    }
}

/// A plugin of four places with this key, of which two calls that do not end have two.
async fn half_taken(key: &str) -> (Stage, JoinSet<Outcome>) {
    let stage = limited(&format!("max_concurrent: 4, {key}")).await;
    let held = stage.at_once("p", 2);
    let mut asked = 0;
    while asked < 2 {
        tokio::task::yield_now().await;
        asked += stage.seen().len();
    }
    stage.answers(Status(204));
    (stage, held)
}

#[tokio::test(start_paused = true)]
async fn priority_header_says_who_is_shed_first() {
    for (key, right) in [("", None), ("priority_header: x-priority", Some(Shed))] {
        let (stage, _held) = half_taken(key).await;
        let mut request = get("/");
        let bulk = http::HeaderValue::from_static("bulk");
        request.headers_mut().insert("x-priority", bulk);
        let error = stage.send("p", request).await.err();
        assert_eq!(error.and_then(|error| error.reason()), right);
    }
}

#[tokio::test(start_paused = true)]
async fn a_typed_calls_priority_counts_before_the_header() {
    static PING: Method<(), serde_json::Value> = Method::get("/");
    let (stage, _held) = half_taken("priority_header: x-priority").await;
    let plugin = stage.plugins.plugin("p");
    for (own, header, right) in [
        (None, "critical", None),
        (Some(Priority::Bulk), "critical", Some(Shed)),
        (Some(Priority::Normal), "bulk", None),
    ] {
        let mut call = plugin.invoke(&PING, &()).header("x-priority", header);
        if let Some(priority) = own {
            call = call.priority(priority);
        }
        let reason = call.await.err().and_then(|error| error.reason());
        assert_eq!(reason, right, "{own:?} and {header}");
    }
}
