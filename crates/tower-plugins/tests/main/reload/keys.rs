//! What keys of the block `reload` change, of which no other test is about.

use std::time::Duration;

use http_body_util::BodyExt;
use tokio::time::{Instant, sleep};
use tower_plugins::Error;
use tower_plugins::reload::{ReloadReport, Verdict};

use super::support::{Load, SECOND, p, services, who};
use crate::support::{Shelf, call, channel, config, get, ours};

/// What comes of a plugin that is called a thousand times a second, when `service` takes the place of a good one under
/// `keys`; how long that takes, and who answers in the end.
async fn replaced(keys: &str, service: &str) -> (Result<ReloadReport, Error>, Duration, String) {
    let plugins = services().start(p(keys, "good")).await.unwrap();
    let _load = Load::on(plugins.plugin("p"));
    sleep(2 * SECOND).await;
    let begun = Instant::now();
    let report = plugins.reload(p(keys, service)).await;
    let took = begun.elapsed();
    // One that fails three calls of ten says who it is all the same.
    (report, took, who(&plugins, "p").await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn max_failure_increase_is_how_much_more_may_fail() {
    for (keys, serves) in [("", "good"), (", max_failure_increase: 0.5", "bad")] {
        let keys = format!("strategy: blue-green, observe_for: 10s{keys}");
        let (report, _, who) = replaced(&keys, "bad").await;
        assert_eq!(who, serves);
        assert_eq!(
            report.is_ok_and(|it| it.verdict == Verdict::Fine),
            who == "bad"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn max_latency_factor_is_how_much_slower_it_may_be() {
    for (keys, serves) in [("", "good"), (", max_latency_factor: 20", "slow")] {
        let keys = format!("strategy: blue-green, observe_for: 10s{keys}");
        let (report, _, who) = replaced(&keys, "slow").await;
        assert_eq!(who, serves);
        assert_eq!(
            report.is_ok_and(|it| it.verdict == Verdict::Fine),
            who == "slow"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn min_calls_are_needed_to_judge() {
    let keys = "strategy: blue-green, observe_for: 10s, min_calls: 1000000";
    let (report, took, who) = replaced(keys, "bad").await;
    assert_eq!(report.unwrap().verdict, Verdict::Unjudged);
    assert_eq!((took.as_secs(), &*who), (10, "bad"));
}

#[tokio::test(start_paused = true)]
async fn rollback_on_failure_is_whether_what_is_worse_is_taken_back() {
    let keys = "strategy: blue-green, observe_for: 10s, rollback_on_failure: false";
    let (report, _, who) = replaced(keys, "bad").await;
    assert!(matches!(report.unwrap().verdict, Verdict::Worse { .. }));
    assert_eq!(who, "bad");
}

#[tokio::test(start_paused = true)]
async fn canary_min_calls_are_what_a_step_waits_for() {
    for (calls, least) in [(10, 1), (5_000, 9)] {
        let keys = format!(
            "strategy: canary, canary_steps: [50], canary_step_time: 1s, observe_for: 30s,
             canary_min_calls: {calls}"
        );
        let (report, took, who) = replaced(&keys, "better").await;
        assert_eq!(report.unwrap().verdict, Verdict::Fine);
        // Half of a thousand a second, and then all for as long as they are observed.
        let step = took.checked_sub(30 * SECOND).unwrap().as_secs();
        assert!((least..=least + 2).contains(&step), "{step} s for {calls}");
        assert_eq!(who, "better");
    }
}

#[tokio::test(start_paused = true)]
async fn graceful_timeout_is_how_long_the_drains_of_a_reload_may_take() {
    for (keys, seconds) in [
        ("", 30),
        ("graceful_timeout: 7s", 7),
        ("graceful_timeout: 1h", 30),
    ] {
        let with = |hours: u32| {
            format!(
                "reload: {{ {keys} }}
plugins: {{ p: {{ transport: in-process, endpoint: shelf, connection: {{ request_timeout: {hours}h }} }} }}"
            )
        };
        let shelf = Shelf::default();
        let plugins = shelf.start(&with(1)).await;
        let (_frames, body) = channel();
        shelf.put(body);
        let response = call(&plugins.plugin("p"), get("/")).await.unwrap();
        let reader = tokio::spawn(response.into_body().collect());
        let report = plugins.reload(config(&with(2))).await.unwrap();
        let retired = report.retirement.wait().await;
        assert_eq!(
            (retired[0].cancelled, retired[0].elapsed.as_secs()),
            (1, seconds)
        );
        let error = reader.await.unwrap().unwrap_err();
        assert!(ours(&*error).is_drain_cancelled());
    }
}
