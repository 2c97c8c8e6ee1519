//! Checks over each kind of connection.

use tower_plugins::HealthStatus::{Healthy, Offline};
use tower_plugins::Plugins;
use tower_plugins::config::{Config, HealthKind, HealthSpec, PluginSpec, Protocol};

use super::report::{start, until};
use crate::grpc::server::{Server as Grpc, Way};
use crate::support::{Server, Socket, echo};
use crate::transport::tls::server::{Ca, Setup};

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
