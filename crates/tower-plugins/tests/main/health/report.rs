//! What is said of the health of plugins, and checks over real connections.

use http::{Response, StatusCode};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;
use tower::ServiceExt;
use tower_plugins::HealthStatus::{self, Degraded, Healthy, Offline, Unhealthy, Unknown};
use tower_plugins::config::{Address, Protocol};
use tower_plugins::{Body, EndpointHealth, HealthReport, Plugins};

use super::checked::{Checked, Endpoint};
use crate::support::{Server, Socket, config, get, within};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_channel_tells_of_each_change() {
    let keys = "health_check: { interval: 10s, jitter: 0 }";
    let takes = |_: usize, first: &mut Endpoint| first.takes = SECOND;
    let checked = Checked::first(2, keys, takes).await;
    let mut health = checked.plugins.subscribe_health();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let report = health.borrow_and_update().clone();
            let plugin = report.plugin("p").map(|plugin| plugin.status);
            all.lock().unwrap().push((report.status(), plugin));
            if health.changed().await.is_err() {
                return;
            }
        }
    });
    sleep(3 * SECOND).await;
    checked.answers(0, 503);
    sleep(40 * SECOND).await;
    checked.plugins.shutdown(SECOND).await.unwrap();
    sleep(SECOND).await;
    let mut seen = seen.lock().unwrap().clone();
    seen.dedup();
    let same = |status| (status, Some(status));
    assert_eq!(
        seen,
        [
            same(Unknown),
            same(Healthy),
            same(Degraded),
            (Unknown, None)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn metrics_have_what_is_known_and_what_was_asked() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let keys = "health_check: { interval: 10s, jitter: 0 }";
    let sick = |n: usize, first: &mut Endpoint| first.status = [200, 503][n];
    let _checked = Checked::first(2, keys, sick).await;
    sleep(15 * SECOND).await;
    let mut seen = Vec::new();
    for (key, _, _, value) in snapshots.snapshot().into_vec() {
        let name = key.key().name();
        if !name.contains("health") {
            continue;
        }
        let labels: Vec<_> = key.key().labels().map(|label| label.value()).collect();
        let value = match value {
            DebugValue::Gauge(value) => format!("{value}"),
            DebugValue::Counter(count) => format!("{count}"),
            DebugValue::Histogram(values) => format!("{} values", values.len()),
        };
        seen.push(format!("{name} {} {value}", labels.join(" ")));
    }
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            "plugin_endpoint_health_status p in-process:s0 1",
            "plugin_endpoint_health_status p in-process:s1 0",
            "plugin_health_check_duration_seconds p 4 values",
            "plugin_health_check_failures_total p status 2",
            "plugin_health_checks_total p healthy 2",
            "plugin_health_checks_total p unhealthy 2",
            "plugin_health_status p 0.5",
        ]
    );
}

/// Waits until the plugin `p` is so.
pub(super) async fn until(plugins: &Plugins, status: HealthStatus) {
    let mut health = plugins.subscribe_health();
    let is = |report: &HealthReport| report.plugin("p").unwrap().status == status;
    within(health.wait_for(is)).await.unwrap();
}

/// What is known of the one endpoint of the plugin `p`.
pub(super) fn endpoint(plugins: &Plugins) -> EndpointHealth {
    let mut plugin = plugins.plugin("p").health().unwrap();
    plugin.endpoints.remove(0)
}

/// The plugin `p` at `server`, with `check` and `keys`.
pub(super) async fn start(server: &Server, check: &str, keys: &str) -> Plugins {
    let protocol = if server.protocol == Protocol::Http2 {
        "http2"
    } else {
        "http1"
    };
    let transport = match server.address {
        Address::Unix { .. } => "unix",
        _ => "http",
    };
    let yaml = format!(
        "{{ plugins: {{ p: {{ transport: {transport}, endpoint: '{}', connection: {{ protocol: {protocol} }},
            health_check: {{ jitter: 0, {check} }}, {keys} }} }} }}",
        server.address
    );
    Plugins::builder().start(config(&yaml)).await.unwrap()
}

#[tokio::test]
async fn checks_share_the_connections_of_the_calls() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let server = Server::start(Socket::Tcp, protocol, move |request| {
            let path = request.uri().path().to_owned();
            if path == "/healthz" {
                counted.fetch_add(1, SeqCst);
            }
            async move { Response::new(Body::from(path)) }
        });
        let server = server.await;
        let plugins = start(
            &server,
            "endpoint: /healthz, interval: 10ms, timeout: 10ms",
            "",
        )
        .await;
        until(&plugins, Healthy).await;
        let call = plugins.plugin("p").oneshot(get("/call"));
        let body = crate::support::read(within(call).await.unwrap()).await;
        assert_eq!(body, "/call");
        let before = asked.load(SeqCst);
        within(async {
            while asked.load(SeqCst) < before + 3 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(server.accepted() <= 2, "{}", server.accepted());
    }
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_offline_and_fails_no_start() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for (check, status) in [
        ("kind: http", Offline),
        ("kind: tcp", Offline),
        ("kind: grpc", Offline),
        ("kind: grpc-watch", Offline),
    ] {
        let yaml = format!(
            "{{ plugins: {{ p: {{ transport: http, endpoint: 'http://{address}',
                connection: {{ protocol: http2 }}, health_check: {{ jitter: 0, {check} }} }} }} }}"
        );
        let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
        until(&plugins, status).await;
        let endpoint = endpoint(&plugins);
        let message = endpoint.message.as_deref().unwrap();
        assert!(message.contains("refused"), "{check}: {message}");
        assert!(endpoint.last_check.is_some());
        assert_eq!(plugins.health().status(), Unhealthy);
    }
}

#[tokio::test]
async fn a_check_that_hangs_is_over_in_its_time() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, |_| std::future::pending());
    let server = server.await;
    let plugins = start(&server, "timeout: 50ms", "").await;
    until(&plugins, Unhealthy).await;
    let endpoint = endpoint(&plugins);
    assert_eq!(endpoint.message.as_deref(), Some("no answer within 50ms"));
}

#[tokio::test]
async fn an_endpoint_is_asked_past_its_prefix_and_a_body_that_is_long_is_left() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, |request| async move {
        let is_asked = request.uri().path() == "/v1/health";
        let status = if is_asked {
            StatusCode::OK
        } else {
            StatusCode::NOT_FOUND
        };
        let body = Body::from(vec![b'x'; 1 << 20]);
        Response::builder().status(status).body(body).unwrap()
    });
    let server = server.await;
    let yaml = format!(
        "{{ plugins: {{ p: {{ transport: http, endpoint: '{}/v1', health_check: {{ jitter: 0 }} }} }} }}",
        server.address
    );
    let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
    until(&plugins, Healthy).await;
    server.until_open(0).await;
}
