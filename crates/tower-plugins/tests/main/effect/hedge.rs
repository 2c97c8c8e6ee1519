use std::time::Duration;

use super::stage::Answer::{Never, Status};
use super::stage::{SECOND, Stage};
use crate::support::{get, post};

/// A plugin of which no answer comes, for ten seconds.
async fn silent(keys: &str) -> Stage {
    let keys = format!("{keys}, circuit_breaker: off, connection: {{ request_timeout: 10s }}");
    let stage = Stage::of(&keys).await;
    stage.answers(Never);
    stage
}

#[tokio::test(start_paused = true)]
async fn hedge_is_off_unless_this_plugin_has_it() {
    let stage = Stage::pair("", "hedge: { delay: 1s }").await;
    stage.answers(Never);
    assert_eq!(stage.asked_by("p", 1).await, 1);
    assert_eq!(stage.asked_by("q", 1).await, 2);
}

#[tokio::test(start_paused = true)]
async fn default_hedge_holds_for_plugins_that_do_not_say_otherwise() {
    for q in ["hedge: off", "retry: off"] {
        let stage = Stage::pair("default_hedge: { delay: 1s },", q).await;
        stage.answers(Never);
        assert_eq!(stage.asked_by("p", 1).await, 2);
        assert_eq!(stage.asked_by("q", 1).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn enabled_false_switches_a_hedge_of_the_defaults_off() {
    let stage = Stage::pair("default_hedge: { delay: 1s },", "hedge: { enabled: false }").await;
    stage.answers(Never);
    assert_eq!(stage.asked_by("q", 1).await, 1);
}

#[tokio::test(start_paused = true)]
async fn delay_is_how_long_an_attempt_is_waited_for() {
    for seconds in [1, 3] {
        let stage = silent(&format!("hedge: {{ delay: {seconds}s }}")).await;
        stage.next([Never, Status(200)]);
        assert_eq!(stage.call().await.unwrap(), 200);
        assert_eq!(stage.gaps(), [seconds * SECOND]);
    }
}

#[tokio::test(start_paused = true)]
async fn max_hedges_is_the_number_of_attempts_beyond_the_first() {
    for most in [1, 2, 4] {
        let stage = silent(&format!("hedge: {{ delay: 1s, max_hedges: {most} }}")).await;
        let _ = stage.call().await;
        assert_eq!(stage.gaps(), vec![SECOND; most]);
    }
}

#[tokio::test(start_paused = true)]
async fn paths_are_hedged_and_the_others_retried() {
    let stage =
        silent("hedge: { delay: 1s, paths: [/search/*] }, retry: { idempotent: ['/*'] }").await;
    for (path, attempts) in [("/search/a", 2), ("/other", 1)] {
        for request in [get(path), post(path, "body")] {
            let _ = stage.send("p", request).await;
            assert_eq!(stage.seen().len(), attempts, "{path}");
        }
    }
    stage.answers(Status(503));
    for (path, attempts) in [("/search/a", 2), ("/other", 4)] {
        stage.send("p", get(path)).await.unwrap();
        assert_eq!(stage.seen().len(), attempts, "{path}");
    }
}

/// When the second attempt of a call that gets no answer begins, after ten calls of which every other
/// takes a second.
async fn delay_after_ten_calls(hedge: &str) -> Option<Duration> {
    let stage = Stage::start(&format!(
        "plugins: {{ p: {{ transport: in-process, endpoints: [one, slow],
            load_balancing: {{ strategy: round-robin }}, hedge: {{ {hedge} }} }} }}"
    ))
    .await;
    for _ in 0..10 {
        stage.call().await.unwrap();
    }
    stage.seen();
    tokio::time::advance(SECOND).await;
    stage.answers(Never);
    let _ = stage.call().await;
    stage.gaps().first().copied()
}

#[tokio::test(start_paused = true)]
async fn quantile_is_the_share_of_attempts_that_are_waited_for() {
    // Half of the ten go to the service that is slow.
    let short = delay_after_ten_calls("quantile: 0.4, min_samples: 10").await;
    assert!(short.is_some_and(|delay| delay <= Duration::from_millis(2)));
    let long = delay_after_ten_calls("quantile: 0.9, min_samples: 10").await;
    assert!(
        long.is_some_and(
            |delay| delay >= SECOND && delay <= SECOND * 9 / 8 + Duration::from_millis(2)
        )
    );
}

#[tokio::test(start_paused = true)]
async fn min_samples_is_how_many_attempts_are_seen_before_a_hedge() {
    assert!(delay_after_ten_calls("min_samples: 10").await.is_some());
    assert_eq!(delay_after_ten_calls("min_samples: 11").await, None);
}
