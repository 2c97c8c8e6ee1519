use std::time::Duration;

use http::{Request, Response};
use tokio::time::Instant;
use tower::{ServiceExt, service_fn};
use tower_plugins::{Body, Plugins, Reason};

use super::stage::Answer::{Never, Status};
use super::stage::{SECOND, Stage};
use crate::support::{channel, config, get, post};

/// A plugin that always asks to be called later, and a breaker that lets all of it happen.
async fn failing(retry: &str) -> Stage {
    let stage = Stage::of(&format!(
        "retry: {{ {retry} }}, circuit_breaker: {{ enabled: false }}, connection: {{ request_timeout: off }}"
    ))
    .await;
    stage.answers(Status(503));
    stage
}

/// The waits between the attempts of a call.
async fn waits(retry: &str) -> Vec<Duration> {
    let stage = failing(retry).await;
    assert_eq!(stage.call().await.unwrap(), 503);
    stage.gaps()
}

fn millis<const N: usize>(waits: [u64; N]) -> [Duration; N] {
    waits.map(Duration::from_millis)
}

#[tokio::test(start_paused = true)]
async fn enabled_false_is_one_attempt() {
    for (enabled, attempts) in [(true, 4), (false, 1)] {
        let stage = failing(&format!("enabled: {enabled}")).await;
        assert_eq!(stage.asked(1).await, attempts);
    }
}

#[tokio::test(start_paused = true)]
async fn max_retries_is_the_number_of_attempts_beyond_the_first() {
    for retries in [0, 1, 7] {
        let stage = failing(&format!("max_retries: {retries}")).await;
        assert_eq!(stage.asked(1).await, 1 + retries);
    }
}

#[tokio::test(start_paused = true)]
async fn initial_interval_is_the_first_wait() {
    for first in [40, 300] {
        let retry = format!("random_jitter: false, initial_interval: {first}ms");
        assert_eq!(waits(&retry).await, millis([first, 2 * first, 4 * first]));
    }
}

#[tokio::test(start_paused = true)]
async fn max_interval_is_the_longest_wait() {
    let retry = "random_jitter: false, max_retries: 5, initial_interval: 1s, max_interval:";
    let long = waits(&format!("{retry} 10s")).await;
    assert_eq!(long, [1, 2, 4, 8, 10].map(Duration::from_secs));
    let short = waits(&format!("{retry} 1500ms")).await;
    assert_eq!(short, millis([1000, 1500, 1500, 1500, 1500]));
}

#[tokio::test(start_paused = true)]
async fn multiplier_is_how_fast_waits_grow() {
    let retry = "random_jitter: false, multiplier:";
    assert_eq!(waits(&format!("{retry} 1")).await, millis([100, 100, 100]));
    assert_eq!(waits(&format!("{retry} 3")).await, millis([100, 300, 900]));
    assert_eq!(
        waits(&format!("{retry} 1.5")).await,
        millis([100, 150, 225])
    );
}

#[tokio::test(start_paused = true)]
async fn random_jitter_draws_a_wait_below_its_ceiling() {
    let retry = "max_retries: 50, multiplier: 1, initial_interval: 1s, random_jitter:";
    assert_eq!(waits(&format!("{retry} false")).await, [SECOND; 50]);
    let drawn = waits(&format!("{retry} true")).await;
    assert_eq!(drawn.len(), 50);
    assert!(drawn.iter().all(|wait| *wait <= SECOND));
    // Fifty draws that are all on one side of the middle are no draws.
    assert!(drawn.iter().any(|wait| *wait < SECOND / 2));
    assert!(drawn.iter().any(|wait| *wait > SECOND / 2));
}

#[tokio::test(start_paused = true)]
async fn budget_ratio_is_the_share_of_calls_that_are_repeated() {
    let quick = "initial_interval: 1ms, max_retries: 1, budget_min_per_second: 0";
    for (ratio, retries) in [("0", 0), ("0.2", 20), ("0.5", 50), ("1", 100)] {
        let stage = failing(&format!("{quick}, budget_ratio: {ratio}")).await;
        assert_eq!(stage.asked(100).await, 100 + retries, "{ratio}");
    }
}

#[tokio::test(start_paused = true)]
async fn budget_min_per_second_is_what_is_always_allowed() {
    let quick = "initial_interval: 1ms, max_retries: 1, budget_ratio: 0";
    for a_second in [0, 1, 3] {
        let stage = failing(&format!("{quick}, budget_min_per_second: {a_second}")).await;
        // It is an allowance for ten seconds, and then for the next ten.
        for _ in 0..3 {
            assert_eq!(stage.asked(100).await, 100 + 10 * a_second);
            tokio::time::advance(11 * SECOND).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn idempotent_is_what_may_be_repeated_whatever_its_method() {
    let stage = failing("idempotent: [/check, /read/*]").await;
    for (path, attempts) in [
        ("/check", 4),
        ("/read/", 4),
        ("/read/a/b?c", 4),
        ("/check/more", 1),
        ("/write", 1),
    ] {
        stage.send("p", post(path, "body")).await.unwrap();
        let seen = stage.seen();
        assert_eq!(seen.len(), attempts, "{path}");
        assert!(seen.iter().all(|seen| seen.request.body() == "body"));
    }
}

#[tokio::test(start_paused = true)]
async fn never_is_what_is_not_repeated_whatever_its_method() {
    let stage = failing("never: [/pay, /orders/*], idempotent: [/pay]").await;
    for (path, attempts) in [("/pay", 1), ("/orders/7", 1), ("/order", 4)] {
        stage.send("p", get(path)).await.unwrap();
        assert_eq!(stage.seen().len(), attempts, "{path}");
        stage.send("p", post(path, "body")).await.unwrap();
        assert_eq!(stage.seen().len(), 1, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn attempt_header_tells_of_the_attempts_before() {
    for (header, told) in [("x-retry-attempt", "12"), ("off", "")] {
        let stage = failing(&format!("max_retries: 2, attempt_header: {header}")).await;
        stage.call().await.unwrap();
        let seen = stage.seen();
        let numbers = seen.iter().filter_map(|seen| {
            let header = seen.request.headers().get("x-retry-attempt")?;
            header.to_str().ok()
        });
        assert_eq!(numbers.collect::<String>(), told);
    }
}

#[tokio::test(start_paused = true)]
async fn on_is_what_is_retried() {
    for (on, status, attempts) in [
        ("[gateway-error]", 502, 4),
        ("[gateway-error]", 500, 1),
        ("[5xx]", 500, 4),
        ("['409', connect-failure]", 409, 4),
        ("[]", 503, 1),
    ] {
        let stage = failing(&format!("on: {on}")).await;
        stage.answers(Status(status));
        assert_eq!(stage.asked(1).await, attempts, "{on}: {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn jitter_decorrelated_never_waits_less_than_the_first_interval() {
    let retry = "max_retries: 50, initial_interval: 1s, max_interval: 9s, jitter:";
    let drawn = waits(&format!("{retry} decorrelated")).await;
    assert!(
        drawn
            .iter()
            .all(|wait| *wait >= SECOND && *wait <= 9 * SECOND)
    );
    assert!(drawn.iter().any(|wait| *wait < 8 * SECOND));
    let full = waits(&format!("{retry} full")).await;
    assert!(full.iter().any(|wait| *wait < SECOND));
}

/// The attempts that so many calls at once make, each of which may be repeated once.
async fn asked_at_once(budget: &str, calls: usize) -> usize {
    let stage = failing(&format!("max_retries: 1, random_jitter: false, {budget}")).await;
    stage.at_once("p", calls).join_all().await;
    stage.seen().len()
}

#[tokio::test(start_paused = true)]
async fn budget_is_what_bounds_retries() {
    // Ten at once: those that failed before are no longer under way, but were calls all the same.
    for (budget, retries) in [
        (
            "budget: ratio, budget_ratio: 1, budget_min_per_second: 0",
            10,
        ),
        (
            "budget: in_flight, budget_ratio: 0, budget_min_in_flight: 2",
            2,
        ),
        ("budget: tokens, budget_max_tokens: 10", 4),
    ] {
        assert_eq!(asked_at_once(budget, 10).await, 10 + retries, "{budget}");
    }
}

#[tokio::test(start_paused = true)]
async fn budget_min_in_flight_is_how_many_retries_are_under_way_at_least() {
    for least in [0, 1, 5] {
        let budget = format!("budget: in_flight, budget_ratio: 0, budget_min_in_flight: {least}");
        assert_eq!(asked_at_once(&budget, 10).await, 10 + least);
    }
}

#[tokio::test(start_paused = true)]
async fn budget_max_tokens_is_twice_the_failures_that_stop_retries() {
    for (tokens, retries) in [(2, 0), (10, 4), (16, 7)] {
        let budget = format!("budget: tokens, budget_max_tokens: {tokens}");
        assert_eq!(asked_at_once(&budget, 20).await, 20 + retries);
    }
}

#[tokio::test(start_paused = true)]
async fn budget_token_ratio_is_what_a_success_gives_back() {
    for (ratio, attempts) in [("0", 1), ("1", 2)] {
        let budget = format!(
            "max_retries: 1, budget: tokens, budget_max_tokens: 4, budget_token_ratio: {ratio}"
        );
        let stage = failing(&budget).await;
        stage.asked(5).await;
        stage.answers(Status(200)).asked(4).await;
        assert_eq!(
            stage.answers(Status(503)).asked(1).await,
            attempts,
            "{ratio}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn max_replay_bytes_is_the_longest_body_that_is_sent_again() {
    for (limit, longest) in [("0", 0), ("1000", 1000), ("2KiB", 2048)] {
        let stage = failing(&format!("max_replay_bytes: {limit}")).await;
        for (length, attempts) in [(longest, 4), (longest + 1, 1)] {
            let body = Body::from(vec![b'x'; length]);
            stage
                .send("p", Request::put("/").body(body).unwrap())
                .await
                .unwrap();
            let seen = stage.seen();
            assert_eq!(seen.len(), attempts, "{limit}: {length}");
            assert!(seen.iter().all(|seen| seen.request.body().len() == length));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn attempt_timeout_gives_an_attempt_up_for_the_next() {
    let retry = "random_jitter: false, max_retries: 1, attempt_timeout:";
    for (timeout, wait) in [("2s", 2100), ("5s", 5100)] {
        let stage = failing(&format!("{retry} {timeout}")).await;
        stage.next([Never, Status(200)]);
        assert_eq!(stage.call().await.unwrap(), 200);
        assert_eq!(stage.gaps(), millis([wait]));
        stage.answers(Never);
        assert_eq!(stage.refusal().await, Some(Reason::AttemptTimeout));
    }
    let stage = Stage::of(&format!("retry: {{ {retry} off }}")).await;
    stage.next([Never, Status(200)]);
    let begun = Instant::now();
    assert_eq!(stage.refusal().await, Some(Reason::DeadlineExceeded));
    assert_eq!((begun.elapsed(), stage.seen().len()), (30 * SECOND, 1));
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_another_endpoint() {
    let stage = Stage::start(
        "plugins: { p: { transport: in-process, endpoints: [one, two],
            load_balancing: { strategy: random }, circuit_breaker: { enabled: false } } }",
    )
    .await;
    for _ in 0..20 {
        stage.next([Status(503)]);
        assert_eq!(stage.call().await.unwrap(), 200);
        let seen = stage.seen();
        assert_eq!(seen.len(), 2);
        assert_ne!(seen[0].service, seen[1].service);
    }
}

#[tokio::test(start_paused = true)]
async fn endpoint_budget_is_what_an_endpoint_may_be_asked_again() {
    for own in [false, true] {
        let stage = Stage::start(&format!(
            "plugins: {{ p: {{ transport: in-process, endpoints: [one, never],
                load_balancing: {{ strategy: random }}, circuit_breaker: {{ enabled: false }},
                retry: {{ max_retries: 1, attempt_timeout: 1ms, initial_interval: 1ms, attempt_header: x-before,
                    budget_min_per_second: 0, endpoint_budget: {own} }} }} }}"
        ))
        .await;
        let mut refused = 0;
        for _ in 0..400 {
            if let Err(error) = stage.call().await {
                refused += usize::from(error.reason() == Some(Reason::RetryBudget));
            }
        }
        let seen = stage.seen();
        let (again, first): (Vec<_>, Vec<_>) = seen
            .iter()
            .filter(|seen| seen.service == "one")
            .partition(|seen| seen.request.headers().contains_key("x-before"));
        // A fifth of all calls are repeated, or of those that the endpoint had.
        let most = if own { first.len() / 5 } else { 400 / 5 };
        assert!(
            again.len() <= most && again.len() + 9 > most,
            "{} of {most}",
            again.len()
        );
        // A call that is not repeated ends with what it has.
        assert_eq!(refused, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn first_frame_wait_is_how_long_a_silent_stream_s_head_is_held_up() {
    for (wait, held_up) in [("off", 0), ("20ms", 20), ("100ms", 100)] {
        let plugins = Plugins::builder()
            .service(
                "silent",
                service_fn(|_: Request<Body>| async {
                    let (frames, body) = channel();
                    let response = Response::builder().header("content-type", "application/grpc");
                    // Never heard of again.
                    tokio::spawn(async move {
                        std::future::pending::<()>().await;
                        drop(frames);
                    });
                    response.body(body)
                }),
            )
            .start(config(&format!(
                "plugins: {{ p: {{ transport: in-process, endpoint: silent, retry: {{ first_frame_wait: {wait} }} }} }}"
            )))
            .await
            .unwrap();
        let begun = Instant::now();
        plugins.plugin("p").oneshot(get("/")).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_millis(held_up));
    }
}
