use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::sleep;
use tower_plugins::HealthStatus::{self, Degraded, Healthy, Unhealthy, Unknown};
use tower_plugins::Plugins;
use tower_plugins::config::HealthKind;

use super::stage::SECOND;
use crate::health::checked::{Checked, serving};
use crate::support::{config, within};

/// Asked at once, and then every ten seconds.
const EVERY_TEN: &str = "interval: 10s, jitter: 0";

/// When the one endpoint of a plugin with `keys` was asked in a hundred seconds.
async fn asked(root: &str, keys: &str) -> Vec<u64> {
    let checked = Checked::under(root, 1, keys).await;
    sleep(99 * SECOND).await;
    checked.asked(0)
}

#[tokio::test(start_paused = true)]
async fn health_check_asks_the_endpoints_of_this_plugin() {
    let every_ten: Vec<_> = (0..10).map(|n| n * 10).collect();
    for (keys, times) in [
        ("", vec![]),
        ("health_check: off", vec![]),
        (&format!("health_check: {{ {EVERY_TEN} }}"), every_ten),
    ] {
        assert_eq!(asked("", keys).await, times, "{keys}");
    }
}

#[tokio::test(start_paused = true)]
async fn default_health_check_holds_for_plugins_that_do_not_say_otherwise() {
    let root = "default_health_check: { interval: 40s, jitter: 0 },";
    for (keys, times) in [
        ("", vec![0, 40, 80]),
        ("health_check: { interval: 50s }", vec![0, 50]),
        ("health_check: off", vec![]),
    ] {
        assert_eq!(asked(root, keys).await, times, "{keys}");
    }
}

#[tokio::test(start_paused = true)]
async fn enabled_false_asks_nobody_whatever_the_defaults_say() {
    let root = "default_health_check: { interval: 40s, jitter: 0 },";
    let none = asked(root, "health_check: { enabled: false }").await;
    assert!(none.is_empty());
}

#[test]
fn a_plugin_that_speaks_grpc_is_asked_by_grpc_where_nobody_says_how() {
    for (keys, kind) in [
        (
            "",
            HealthKind::Grpc {
                service: String::new(),
            },
        ),
        (", kind: tcp", HealthKind::Tcp),
    ] {
        let text = format!(
            "plugins: {{ p: {{ transport: grpc, endpoint: 'localhost:1', health_check: {{ {EVERY_TEN}{keys} }} }} }}"
        );
        let config = config(&text);
        let [plugin] = config.plugins.values().collect::<Vec<_>>()[..] else {
            panic!("{config:?}");
        };
        assert_eq!(plugin.policy.health.as_ref().unwrap().kind, kind);
    }
}

#[tokio::test(start_paused = true)]
async fn kind_is_what_is_asked() {
    for (kind, question) in [
        ("http", "GET /health"),
        ("grpc", "POST /grpc.health.v1.Health/Check"),
        ("grpc-watch", "POST /grpc.health.v1.Health/Watch"),
    ] {
        let keys = format!("health_check: {{ kind: {kind}, {EVERY_TEN} }}");
        let checked = Checked::of(1, &keys).await;
        sleep(SECOND).await;
        assert_eq!(checked.questions(0), [question]);
        assert_eq!(checked.status(), Healthy, "{kind}");
    }
}

#[tokio::test]
async fn the_kind_tcp_opens_a_connection_and_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let yaml = format!(
        "{{ plugins: {{ p: {{ transport: http, endpoint: 'http://{address}',
            health_check: {{ kind: tcp, jitter: 0, interval: 20ms }} }} }} }}"
    );
    let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
    let mut health = plugins.subscribe_health();
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    let mut byte = [0; 1];
    let read = tokio::io::AsyncReadExt::read(&mut stream, &mut byte);
    assert_eq!(within(read).await.unwrap(), 0);
    until(&mut health, Healthy).await;
    drop(listener);
    until(&mut health, HealthStatus::Offline).await;
}

async fn until(
    health: &mut tokio::sync::watch::Receiver<tower_plugins::HealthReport>,
    status: HealthStatus,
) {
    let is = |report: &tower_plugins::HealthReport| report.plugin("p").unwrap().status == status;
    within(health.wait_for(is)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn endpoint_is_the_path_that_is_asked_for() {
    let keys = format!("health_check: {{ endpoint: '/healthz?full=1', {EVERY_TEN} }}");
    let checked = Checked::of(1, &keys).await;
    sleep(SECOND).await;
    assert_eq!(checked.questions(0), ["GET /healthz?full=1"]);
}

#[tokio::test(start_paused = true)]
async fn statuses_are_those_that_are_well() {
    for (answer, status) in [
        (200, Healthy),
        (204, Unhealthy),
        (400, Unhealthy),
        (402, Healthy),
        (503, Unhealthy),
    ] {
        let keys = format!("health_check: {{ statuses: [200, '401-403'], {EVERY_TEN} }}");
        let checked = Checked::first(1, &keys, |_, first| first.status = answer).await;
        sleep(SECOND).await;
        assert_eq!(checked.status(), status, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn service_is_the_one_that_is_asked_about() {
    for (service, message) in [
        ("a.b.C", &b"\0\0\0\0\x07\x0a\x05a.b.C"[..]),
        ("", b"\0\0\0\0\0"),
    ] {
        let keys = format!("health_check: {{ kind: grpc, service: '{service}', {EVERY_TEN} }}");
        let checked = Checked::of(1, &keys).await;
        sleep(SECOND).await;
        assert_eq!(checked.body(0), message);
    }
}

#[tokio::test(start_paused = true)]
async fn interval_is_from_the_end_of_a_check_to_the_next() {
    let keys = "health_check: { interval: 20s, jitter: 0 }";
    let checked = Checked::first(1, keys, |_, first| first.takes = 4 * SECOND).await;
    sleep(99 * SECOND).await;
    assert_eq!(checked.asked(0), [0, 24, 48, 72, 96]);
}

#[tokio::test(start_paused = true)]
async fn unhealthy_interval_is_the_wait_after_a_check_that_failed() {
    let keys = "health_check: { interval: 20s, unhealthy_interval: 3s, jitter: 0 }";
    let checked = Checked::first(1, keys, |_, first| first.status = 500).await;
    sleep(7 * SECOND).await;
    checked.answers(0, 200);
    sleep(30 * SECOND).await;
    assert_eq!(checked.asked(0), [0, 3, 6, 9, 29]);
}

#[tokio::test(start_paused = true)]
async fn jitter_is_what_may_be_added_to_an_interval_and_before_the_first_check() {
    let checked = Checked::of(20, "health_check: { interval: 10s, jitter: 0.5 }").await;
    sleep(200 * SECOND).await;
    let times: Vec<_> = (0..20).map(|n| checked.times(n)).collect();
    let first: Vec<_> = times.iter().map(|times| times[0]).collect();
    assert!(first.iter().all(|first| *first <= 5 * SECOND));
    let waits = times.iter().flat_map(|times| times.windows(2));
    let waits: Vec<_> = waits.map(|two| two[1] - two[0]).collect();
    let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    // Timers are of a millisecond.
    assert!(*least >= 10 * SECOND && *most <= 15 * SECOND + Duration::from_millis(2));
    assert!(*most - *least > 3 * SECOND && first.iter().max() > first.iter().min());
}

#[tokio::test(start_paused = true)]
async fn timeout_is_how_long_a_check_may_take() {
    for (timeout, status) in [(1, Unhealthy), (3, Healthy)] {
        let keys = format!("health_check: {{ timeout: {timeout}s, {EVERY_TEN} }}");
        let checked = Checked::first(1, &keys, |_, first| first.takes = 2 * SECOND).await;
        sleep(9 * SECOND).await;
        let endpoint = &checked.endpoints()[0];
        assert_eq!(endpoint.status, status);
        let message = (status == Unhealthy).then_some("no answer within 1s");
        assert_eq!(endpoint.message.as_deref(), message);
        assert_eq!(endpoint.response_time.unwrap().as_secs(), timeout.min(2));
    }
}

#[tokio::test(start_paused = true)]
async fn failure_limit_is_how_many_failures_in_a_row_take_an_endpoint_out() {
    for (limit, out_at) in [(1, 1), (3, 3)] {
        let keys = format!("health_check: {{ failure_limit: {limit}, {EVERY_TEN} }}");
        let checked = Checked::of(1, &keys).await;
        sleep(SECOND).await;
        assert_eq!(checked.status(), Healthy);
        checked.answers(0, 500);
        for failures in 1..=4 {
            sleep(10 * SECOND).await;
            let expected = if failures < out_at {
                Degraded
            } else {
                Unhealthy
            };
            assert_eq!(checked.status(), expected, "{limit} {failures}");
            assert_eq!(checked.endpoints()[0].failures, failures);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn healthy_threshold_is_how_many_successes_in_a_row_bring_it_back() {
    for threshold in [1, 3] {
        let keys = format!("health_check: {{ healthy_threshold: {threshold}, {EVERY_TEN} }}");
        let checked = Checked::first(1, &keys, |_, first| first.status = 500).await;
        sleep(SECOND).await;
        assert_eq!(checked.status(), Unhealthy);
        checked.answers(0, 200);
        for successes in 1..=3 {
            sleep(10 * SECOND).await;
            let expected = if successes < threshold {
                Unhealthy
            } else {
                Healthy
            };
            assert_eq!(checked.status(), expected, "{threshold} {successes}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn degraded_after_is_how_long_an_answer_takes_that_is_slow() {
    for (limit, status) in [("1s", Degraded), ("3s", Healthy), ("off", Healthy)] {
        let keys = format!("health_check: {{ degraded_after: {limit}, {EVERY_TEN} }}");
        let checked = Checked::first(1, &keys, |_, first| first.takes = 2 * SECOND).await;
        assert_eq!(checked.status(), Unknown);
        sleep(9 * SECOND).await;
        assert_eq!(checked.status(), status, "{limit}");
        assert_eq!(checked.calls(3).await, [3]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_grpc_server_says_of_itself_is_believed() {
    for (says, status) in [(1, Healthy), (2, Unhealthy), (0, Unhealthy)] {
        let keys = format!("health_check: {{ kind: grpc, {EVERY_TEN} }}");
        let checked = Checked::first(1, &keys, |_, first| first.says = serving(says)).await;
        sleep(SECOND).await;
        assert_eq!(checked.status(), status, "{says}");
    }
}
