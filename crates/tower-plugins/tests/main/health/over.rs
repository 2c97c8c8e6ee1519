//! Checks over each kind of connection.

use serde_json::{Value, json};
use tower_plugins::HealthStatus::{Healthy, Offline, Unhealthy};
use tower_plugins::Plugins;
use tower_plugins::config::{Config, HealthKind, HealthSpec, PluginSpec, Protocol};

use super::checked::Checked;
use super::report::{start, until};
use crate::grpc::server::{Server as Grpc, Way};
use crate::support::{Server, Socket, config, echo};
use crate::transport::tls::server::{Ca, Setup};
use crate::transport::unix_json::{Peer, Talk};

#[tokio::test]
async fn an_endpoint_behind_a_unix_socket_is_asked() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let server = Server::start(Socket::Unix, protocol, echo).await;
        let plugins = start(&server, "interval: 50ms, failure_limit: 1", "").await;
        until(&plugins, Healthy).await;
        drop(server);
        until(&plugins, Offline).await;
    }
}

#[tokio::test]
async fn an_endpoint_over_https_is_asked_and_must_prove_who_it_is() {
    let ca = Ca::new();
    let certified = ca.certify(&["localhost"]);
    let server = Setup::new(&certified).start().await;
    for (knows, status) in [(true, Healthy), (false, Offline)] {
        let mut plugin = PluginSpec::https("p", &server.at("localhost").to_string()).unwrap();
        let vouches = if knows {
            ca.trusted()
        } else {
            Ca::new().trusted()
        };
        plugin.upstream.tls = vouches;
        let mut check = HealthSpec::default();
        check.kind = HealthKind::http();
        plugin.policy.health = Some(check);
        let plugins = Plugins::builder().start(Config::new().with(plugin)).await;
        until(&plugins.unwrap(), status).await;
    }
}

#[tokio::test]
async fn a_grpc_endpoint_is_asked_over_tls_and_over_a_unix_socket() {
    for way in [Way::Tls, Way::Unix] {
        let server = Grpc::start(way).await;
        for kind in ["grpc", "grpc-watch"] {
            let keys = format!("health_check: {{ kind: {kind}, interval: 1s }}");
            until(&server.plugins(&keys).await, Healthy).await;
        }
    }
}

#[tokio::test]
async fn a_plugin_of_lines_is_asked_by_its_own_question() {
    let peer = Peer::start();
    let yaml = format!(
        "plugins: {{ p: {{ transport: unix-json, endpoint: '{}', retry: off,
            health_check: {{ interval: 20ms, timeout: 20ms, jitter: 0, failure_limit: 1 }} }} }}",
        peer.path.display()
    );
    let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
    let mut talk = peer.accept().await;
    let says = async |talk: &mut Talk, success: bool| {
        let asked: Value = serde_json::from_str(&talk.line().await).unwrap();
        assert_eq!(asked["type"], "health");
        let (id, error) = (&asked["request_id"], (!success).then_some("no disk"));
        let answer = json!({ "request_id": id, "success": success, "error": error });
        talk.say(&format!("{answer}\n")).await;
    };
    for (success, status) in [(true, Healthy), (false, Unhealthy), (true, Healthy)] {
        says(&mut talk, success).await;
        until(&plugins, status).await;
    }
    // One that is gone answers no check.
    drop((talk, peer));
    until(&plugins, Offline).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_of_the_program_is_asked_like_any_endpoint() {
    let checked = Checked::of(1, "health_check: { interval: 1s, failure_limit: 1 }").await;
    until(&checked.plugins, Healthy).await;
    assert_eq!(checked.questions(0)[0], "GET /health");
    checked.answers(0, 503);
    until(&checked.plugins, Unhealthy).await;
    checked.answers(0, 200);
    until(&checked.plugins, Healthy).await;
}
