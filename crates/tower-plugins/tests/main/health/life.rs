//! When checks begin and end, and what they decide.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio::time::sleep;
use tower::ServiceExt;
use tower_plugins::HealthStatus::{Degraded, Healthy, Unhealthy, Unknown};
use tower_plugins::config::{Config, HealthSpec, Number, PluginSpec};
use tower_plugins::{Body, Plugins};
use tower_service::Service;

use super::checked::Checked;
use crate::support::{Shelf, config, get};

const SECOND: Duration = Duration::from_secs(1);

const EVERY_TEN: &str = "health_check: { interval: 10s, jitter: 0 }";

#[tokio::test(start_paused = true)]
async fn an_unhealthy_endpoint_gets_no_calls_and_gets_them_again_when_it_is_well() {
    let checked = Checked::of(3, EVERY_TEN).await;
    sleep(SECOND).await;
    assert_eq!(checked.calls(30).await, [10, 10, 10]);
    checked.answers(1, 503);
    sleep(20 * SECOND).await;
    assert_eq!(checked.statuses(), [Healthy, Degraded, Healthy]);
    assert_eq!(checked.calls(30).await, [10, 10, 10]);
    sleep(10 * SECOND).await;
    assert_eq!(checked.statuses(), [Healthy, Unhealthy, Healthy]);
    assert_eq!(checked.status(), Degraded);
    assert_eq!(checked.calls(30).await, [15, 0, 15]);
    checked.answers(1, 200);
    sleep(10 * SECOND).await;
    // A level is counted anew every ten milliseconds.
    assert_eq!(checked.calls(30).await, [10, 10, 10]);
}

#[tokio::test(start_paused = true)]
async fn when_all_are_unhealthy_calls_go_to_all() {
    let checked = Checked::first(3, EVERY_TEN, |_, first| first.status = 503).await;
    sleep(SECOND).await;
    assert_eq!(checked.status(), Unhealthy);
    assert_eq!(checked.calls(30).await, [10, 10, 10]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_well_again_gets_its_share_by_and_by() {
    let keys = format!(
        "{EVERY_TEN}, load_balancing: {{ strategy: round-robin, slow_start_window: 100s }}"
    );
    let checked = Checked::of(3, &keys).await;
    sleep(200 * SECOND).await;
    checked.answers(0, 503);
    sleep(30 * SECOND).await;
    assert_eq!(checked.calls(300).await[0], 0);
    checked.answers(0, 200);
    sleep(10 * SECOND).await;
    fastrand::seed(7);
    let first = checked.calls(3_000).await[0];
    assert!((20..300).contains(&first), "{first}");
    sleep(100 * SECOND).await;
    assert_eq!(checked.calls(3_000).await, [1_000; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_checker_goes_on_over_reloads_that_leave_it_equal() {
    let checked = Checked::of(1, EVERY_TEN).await;
    for n in 1..=33 {
        sleep(3 * SECOND).await;
        checked
            .reload(1, &format!("{EVERY_TEN}, drain_timeout: {n}s"))
            .await;
    }
    assert_eq!(checked.asked(0), [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
    assert_eq!(checked.plugins.status().generation.get(), 34);
}

#[tokio::test(start_paused = true)]
async fn a_check_never_runs_twice_at_once() {
    let checked = Checked::of(1, EVERY_TEN).await;
    checked.takes(0, 3 * SECOND);
    let mut plugin = checked.plugins.plugin("p");
    let mut held = Vec::new();
    for n in 1..=50 {
        // So that the old node goes on.
        held.push(Service::call(&mut plugin, get("/call")));
        sleep(2 * SECOND).await;
        let interval = 10 + n % 2;
        let keys = format!("health_check: {{ interval: {interval}s, jitter: 0 }}");
        checked.reload(1, &keys).await;
    }
    assert_eq!(checked.most_at_once(0), 1);
    let asked = checked.asked(0).len();
    assert!((8..=11).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn what_is_known_stays_with_other_credentials_and_other_limits() {
    let checked = Checked::first(1, EVERY_TEN, |_, first| first.status = 503).await;
    sleep(4 * SECOND).await;
    let before = checked.endpoints();
    let keys = "auth: { method: bearer, token: t }, \
                health_check: { interval: 10s, jitter: 0, failure_limit: 9 }";
    checked.reload(1, keys).await;
    assert_eq!(checked.endpoints(), before);
    sleep(10 * SECOND).await;
    assert_eq!(checked.asked(0), [0, 10]);
    assert_eq!(checked.headers(0, "authorization"), ["", "Bearer t"]);
}

#[tokio::test(start_paused = true)]
async fn another_question_begins_anew() {
    let checked = Checked::first(1, EVERY_TEN, |_, first| first.status = 503).await;
    sleep(4 * SECOND).await;
    assert_eq!(checked.status(), Unhealthy);
    checked.answers(0, 200);
    checked.takes(0, SECOND);
    let keys = "health_check: { interval: 10s, jitter: 0, endpoint: /ready }";
    checked.reload(1, keys).await;
    assert_eq!(checked.status(), Unknown);
    sleep(2 * SECOND).await;
    assert_eq!(checked.questions(0), ["GET /health", "GET /ready"]);
    assert_eq!(checked.status(), Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_check_ends_with_its_plugin_even_if_a_call_does_not() {
    let checked = Checked::of(2, EVERY_TEN).await;
    sleep(SECOND).await;
    let mut plugin = checked.plugins.plugin("p");
    let held = Service::call(&mut plugin, get("/call"));
    checked.takes(0, 4 * SECOND);
    checked.takes(1, 4 * SECOND);
    sleep(10 * SECOND).await;
    assert_eq!(checked.asked(0), [0, 10]);
    // One endpoint goes, in the midst of its check, and then the plugin.
    checked.reload(1, EVERY_TEN).await;
    sleep(30 * SECOND).await;
    assert_eq!((checked.asked(0).len(), checked.asked(1).len()), (4, 2));
    let other = "plugins: { q: { transport: in-process, endpoint: s0 } }";
    checked.plugins.reload(config(other)).await.unwrap();
    sleep(100 * SECOND).await;
    assert_eq!((checked.asked(0).len(), checked.asked(1).len()), (4, 2));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_check_ends_when_it_is_switched_off() {
    let checked = Checked::first(1, EVERY_TEN, |_, first| first.status = 503).await;
    sleep(SECOND).await;
    assert_eq!(checked.status(), Unhealthy);
    checked.reload(1, "health_check: off").await;
    assert_eq!(checked.status(), Unknown);
    sleep(100 * SECOND).await;
    assert_eq!(checked.asked(0), [0]);
}

#[tokio::test(start_paused = true)]
async fn no_task_is_left_when_plugins_shut_down_or_are_dropped() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let checked = Checked::of(3, EVERY_TEN).await;
    sleep(SECOND).await;
    // The one that reloads, and the three that ask.
    assert_eq!(tasks(), before + 4);
    checked.plugins.shutdown(SECOND).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(tasks(), before);

    let checked = Checked::of(3, EVERY_TEN).await;
    let plugin = checked.plugins.plugin("p");
    drop(checked);
    sleep(15 * SECOND).await;
    // A handle works on, and knows who is well.
    assert_eq!(tasks(), before + 3);
    assert_eq!(plugin.health().unwrap().status, Healthy);
    drop(plugin);
    yield_now().await;
    assert_eq!(tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_panics_is_asked_again() {
    let panics = tower::service_fn(|request: http::Request<tower_plugins::Body>| async move {
        assert_eq!(request.uri().path(), "/call", "out of cheese");
        Ok::<_, std::convert::Infallible>(http::Response::new(tower_plugins::Body::empty()))
    });
    let yaml = format!("plugins: {{ p: {{ transport: in-process, endpoint: s, {EVERY_TEN} }} }}");
    let plugins = Plugins::builder().service("s", panics);
    let plugins = plugins.start(config(&yaml)).await.unwrap();
    sleep(35 * SECOND).await;
    let health = plugins.plugin("p").health().unwrap();
    assert_eq!(
        (health.status, health.endpoints[0].failures),
        (Unhealthy, 4)
    );
    let message = health.endpoints[0].message.clone().unwrap();
    assert!(message.contains("out of cheese"), "{message}");
    // The only endpoint is called all the same.
    plugins.plugin("p").oneshot(get("/call")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn limits_and_breakers_know_nothing_of_checks() {
    let keys = "rate_limit: { requests_per_second: 1, burst_size: 1 }, \
                health_check: { interval: 1s, jitter: 0 }";
    let checked = Checked::of(1, keys).await;
    sleep(Duration::from_millis(5500)).await;
    assert_eq!(checked.asked(0).len(), 6);
    assert_eq!(checked.calls(1).await, [1]);
    let active = checked.plugins.active_requests("p");
    assert_eq!((active, checked.status()), (0, Healthy));
}

#[tokio::test]
async fn a_plugin_without_checks_is_unknown_and_gets_its_calls() {
    let plugins = Shelf::default()
        .start("plugins: { p: { transport: in-process, endpoint: shelf } }")
        .await;
    let health = plugins.health();
    assert_eq!(health.status(), Unknown);
    assert_eq!(health.plugin("p").unwrap().endpoints[0].last_check, None);
    plugins.plugin("p").oneshot(get("/")).await.unwrap();
    assert!(plugins.plugin("nobody").health().is_none());
}

/// In a config an interval is bounded; in code it is not.
#[tokio::test(start_paused = true)]
async fn an_interval_beyond_all_bounds_is_one_check_that_does_not_end_in_a_panic() {
    for (interval, unhealthy) in [(Duration::MAX, None), (SECOND, Some(Duration::MAX))] {
        let mut plugin = PluginSpec::in_process("p", "s").unwrap();
        let mut check = HealthSpec::default();
        check.interval = interval;
        check.unhealthy_interval = unhealthy;
        check.jitter = Number::new(1.0).unwrap();
        check.timeout = SECOND;
        plugin.policy.health = Some(check);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let service = tower::service_fn(move |_: Request<Body>| {
            count.fetch_add(1, Ordering::SeqCst);
            async { Err::<Response<Body>, _>(tower::BoxError::from("not well")) }
        });
        let plugins = Plugins::builder().service("s", service);
        let plugins = plugins.start(Config::new().with(plugin)).await.unwrap();
        let alive = Handle::current().metrics().num_alive_tasks();
        sleep(3_600 * SECOND).await;
        let expected = usize::from(unhealthy.is_some());
        assert_eq!(asked.load(Ordering::SeqCst), expected);
        // One that panicked asks no more, as one that waits; the runtime has only the latter.
        assert_eq!(Handle::current().metrics().num_alive_tasks(), alive);
        plugins.shutdown(SECOND).await.unwrap();
    }
}
