use std::time::Duration;

use tokio::time::advance;
use tower_plugins::{Body, Plugins, Reason};

use super::stage::Answer::{Never, Status};
use super::stage::{SECOND, Stage, refusals};
use crate::support::{call, config, get};

const MILLISECOND: Duration = Duration::from_millis(1);

/// A plugin that fails, with no retries.
async fn failing(breaker: &str) -> Stage {
    let stage = Stage::of(&format!(
        "circuit_breaker: {{ {breaker} }}, retry: {{ enabled: false }}"
    ))
    .await;
    stage.answers(Status(500));
    stage
}

#[tokio::test(start_paused = true)]
async fn enabled_false_lets_every_call_through() {
    let stage = failing("enabled: false").await;
    assert_eq!(stage.asked(50).await, 50);
    let stage = failing("enabled: true").await;
    assert_eq!(stage.asked(50).await, 5);
    assert_eq!(stage.refusal().await, Some(Reason::BreakerOpen));
}

#[tokio::test(start_paused = true)]
async fn failure_threshold_is_the_number_of_failures_in_a_row_that_open_it() {
    for threshold in [1, 3, 8] {
        let stage = failing(&format!("failure_threshold: {threshold}")).await;
        // A success between them begins the row anew.
        stage.next(vec![Status(500); threshold - 1]);
        stage.next([Status(200)]);
        assert_eq!(stage.asked(50).await, 2 * threshold);
        assert_eq!(stage.refusal().await, Some(Reason::BreakerOpen));
    }
    let stage = failing("failure_threshold: 0, failure_rate: 1, min_request_threshold: 40").await;
    assert_eq!(stage.asked(50).await, 40, "0 is off");
}

#[tokio::test(start_paused = true)]
async fn failure_rate_is_the_share_of_failures_that_opens_it() {
    for (rate, asked) in [("0.5", 10), ("0.6", 40)] {
        let keys = format!("failure_rate: {rate}, min_request_threshold: 10");
        let stage = failing(&keys).await;
        stage.next([Status(200), Status(500)].repeat(20));
        assert_eq!(stage.asked(40).await, asked, "{rate}");
    }
    let stage = failing("failure_rate: 0").await;
    stage.next([Status(200), Status(500)].repeat(20));
    assert_eq!(stage.asked(40).await, 40, "0 is off");
}

#[tokio::test(start_paused = true)]
async fn window_is_the_time_over_which_the_rate_is_taken() {
    for (window, asked) in [("10s", 20), ("20s", 10)] {
        let stage = failing(&format!(
            "failure_threshold: 0, failure_rate: 1, min_request_threshold: 10, window: {window}"
        ))
        .await;
        let mut seen = 0;
        for _ in 0..20 {
            seen += stage.asked(1).await;
            advance(3 * SECOND / 2).await;
        }
        assert_eq!(seen, asked, "{window}");
    }
}

#[tokio::test(start_paused = true)]
async fn min_request_threshold_is_the_number_of_calls_before_the_rate_counts() {
    for least in [2, 12] {
        let stage = failing(&format!(
            "failure_threshold: 0, failure_rate: 0.5, min_request_threshold: {least}"
        ))
        .await;
        assert_eq!(stage.asked(50).await, least);
    }
}

#[tokio::test(start_paused = true)]
async fn recovery_timeout_is_how_long_it_stays_open() {
    for seconds in [3, 300] {
        let stage = failing(&format!("recovery_timeout: {seconds}s")).await;
        assert_eq!(stage.asked(10).await, 5);
        for _ in 0..3 {
            advance(seconds * SECOND - MILLISECOND).await;
            assert_eq!(stage.asked(10).await, 0);
            advance(MILLISECOND).await;
            assert_eq!(stage.asked(10).await, 1, "a probe, which fails");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn success_threshold_is_the_number_of_successes_that_close_it() {
    for successes in [1, 3] {
        let stage = failing(&format!("success_threshold: {successes}")).await;
        let half_open = async |successes| {
            stage.answers(Status(500));
            stage.asked(50).await;
            advance(30 * SECOND).await;
            stage.next(vec![Status(200); successes]);
        };
        half_open(successes - 1).await;
        assert_eq!(
            stage.asked(50).await,
            successes,
            "the next failure opens it"
        );
        half_open(successes).await;
        assert_eq!(stage.asked(50).await, successes + 5, "it takes five again");
        // Until it closes, as many are let in at once.
        half_open(0).await;
        stage.answers(Never);
        let mut calls = stage.at_once("p", 10);
        let refused = refusals(&mut calls, 10 - successes).await;
        assert_eq!(refused, vec![Reason::BreakerOpen; 10 - successes]);
        assert_eq!(stage.seen().len(), successes);
    }
}

/// Of so many calls of a service that takes a second: how often it was asked.
async fn asked_of_slow(breaker: &str, calls: usize) -> usize {
    let stage = Stage::start(&format!(
        "plugins: {{ p: {{ transport: in-process, endpoint: slow, circuit_breaker: {{ {breaker} }} }} }}"
    ))
    .await;
    stage.asked(calls).await
}

#[tokio::test(start_paused = true)]
async fn slow_call_duration_is_the_longest_that_a_call_takes_without_being_slow() {
    for (time, asked) in [("900ms", 5), ("1s", 20), ("off", 20)] {
        let shares = if time == "off" {
            ""
        } else {
            ", window: 1m, min_request_threshold: 5"
        };
        let keys = format!("slow_call_duration: {time} {shares}");
        assert_eq!(asked_of_slow(&keys, 20).await, asked, "{time}");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_call_rate_is_the_share_of_slow_calls_that_opens_it() {
    for (rate, asked) in [("0.5", 10), ("0.6", 40)] {
        let keys = format!(
            "slow_call_duration: 500ms, slow_call_rate: {rate}, min_request_threshold: 10, window: 1h"
        );
        let stage = Stage::of(&format!("circuit_breaker: {{ {keys} }}")).await;
        stage.takes([Duration::ZERO, SECOND].repeat(20));
        assert_eq!(stage.asked(40).await, asked, "{rate}");
    }
}

#[tokio::test(start_paused = true)]
async fn window_calls_is_the_number_of_calls_over_which_the_rate_is_taken() {
    for (calls, asked) in [(10, 15), (30, 20)] {
        let stage = failing(&format!(
            "failure_threshold: 0, failure_rate: 0.5, min_request_threshold: 10, window_calls: {calls}"
        ))
        .await;
        stage.next(vec![Status(200); 10]);
        let mut seen = 0;
        for _ in 0..30 {
            seen += stage.asked(1).await;
            // Longer than a window of time would be.
            advance(SECOND / 2).await;
        }
        assert_eq!(seen, asked, "{calls}");
    }
    let stage = failing("failure_threshold: 0, failure_rate: 1, window_calls: 0").await;
    assert_eq!(stage.asked(50).await, 20, "0 is off: within 10 s");
}

#[tokio::test(start_paused = true)]
async fn max_recovery_timeout_is_how_far_the_open_time_grows() {
    let stage = failing("recovery_timeout: 10s, max_recovery_timeout: 35s").await;
    assert_eq!(stage.asked(10).await, 5);
    for seconds in [10, 20, 35, 35] {
        advance(seconds * SECOND - MILLISECOND).await;
        assert_eq!(stage.asked(10).await, 0, "{seconds}");
        advance(MILLISECOND).await;
        assert_eq!(stage.asked(10).await, 1, "a probe, which fails");
    }
}

#[tokio::test(start_paused = true)]
async fn recovery_jitter_is_what_may_be_added_to_the_open_time() {
    let mut times = Vec::new();
    let stage = failing("recovery_timeout: 10s, recovery_jitter: 0.5").await;
    assert_eq!(stage.asked(10).await, 5);
    for _ in 0..10 {
        let mut time = 0;
        while stage.asked(1).await == 0 {
            advance(SECOND / 10).await;
            time += 1;
        }
        assert!((99..=151).contains(&time), "{time} tenths of a second");
        times.push(time);
    }
    times.dedup();
    assert!(times.len() > 1, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn failure_statuses_are_those_that_open_it() {
    for (statuses, failures) in [
        ("[404, '502-503']", [404, 502, 503].as_slice()),
        ("['500-599']", [500, 501, 502, 503, 505].as_slice()),
        ("[]", &[]),
    ] {
        for status in [404, 500, 501, 502, 503, 505] {
            let stage = failing(&format!("failure_statuses: {statuses}")).await;
            stage.answers(Status(status));
            let asked = if failures.contains(&status) { 5 } else { 20 };
            assert_eq!(stage.asked(20).await, asked, "{statuses} {status}");
        }
    }
    let stage = failing("").await;
    stage.answers(Status(501));
    assert_eq!(stage.asked(20).await, 20, "by default it is no failure");
}

#[tokio::test(start_paused = true)]
async fn failure_grpc_codes_are_those_that_open_it() {
    for (codes, code, asked) in [
        ("[not-found]", 5, 5),
        ("[not-found]", 14, 20),
        ("[unavailable, not-found]", 14, 5),
    ] {
        let service = tower::service_fn(move |_: http::Request<Body>| async move {
            let response = http::Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", code);
            response.body(Body::empty())
        });
        let plugins = Plugins::builder().service("grpc", service).start(config(&format!(
            "plugins: {{ p: {{ transport: in-process, endpoint: grpc, retry: off, circuit_breaker: {{ failure_grpc_codes: {codes} }} }} }}"
        )));
        let p = plugins.await.unwrap().plugin("p");
        let mut answered = 0;
        for _ in 0..20 {
            answered += usize::from(call(&p, get("/")).await.is_ok());
        }
        assert_eq!(answered, asked, "{codes} {code}");
    }
}
