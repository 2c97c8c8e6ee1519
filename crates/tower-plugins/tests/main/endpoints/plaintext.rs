//! Credentials in the clear go to no endpoint of another machine, however it was found.
//!
//! `0.0.0.0` leads to this machine and is not one of its loopback addresses: whatever were sent there would be seen.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use futures_util::stream;
use http::Response;
use tokio::sync::mpsc;
use tower::discover::Change;
use tower_plugins::config::{
    Address, Config, CredentialsSpec, EndpointSpec, PluginName, PluginSpec, Protocol, Secret,
};
use tower_plugins::{Body, HealthReport, HealthStatus, Plugins, Reason};

use super::dns::server::NameServer;
use super::{at, shared};
use crate::support::{Server, Socket, call, causes, config, get, text, within};

const OPEN: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// A server that keeps what it is shown.
async fn shown() -> (Server, Arc<Mutex<Vec<String>>>) {
    let seen: Arc<Mutex<Vec<String>>> = shared();
    let keep = Arc::clone(&seen);
    let server = Server::start(Socket::Tcp, Protocol::Http1, move |request| {
        let token = request.headers().get("authorization").cloned();
        let token = token.map_or_else(String::new, |token| token.to_str().unwrap().to_owned());
        keep.lock().unwrap().push(token);
        async { Response::new(Body::from("one")) }
    });
    (server.await, seen)
}

/// A call is refused, the error and the health of the plugin say why, and nobody was asked.
async fn is_refused(plugins: &Plugins, server: &Server, place: SocketAddr) {
    let was = server.accepted();
    let error = call(&plugins.plugin("p"), get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoEndpoint));
    let why = causes(&error);
    let health = within(plugins.subscribe_health().wait_for(is_out))
        .await
        .unwrap()
        .clone();
    let plugin = health.plugin("p").unwrap();
    assert_eq!(plugin.status, HealthStatus::Offline);
    let message = plugin.endpoints[0].message.clone().unwrap();
    for why in [why, message] {
        assert!(
            why.contains("auth: of \"p\" would go over plaintext to"),
            "{why}"
        );
        assert!(why.contains(&place.to_string()), "{why}");
        assert!(why.contains("allow_plaintext: true"), "{why}");
        assert!(!why.contains("hunter2"), "{why}");
    }
    assert_eq!(server.accepted(), was);
}

fn is_out(report: &HealthReport) -> bool {
    let endpoints = &report.plugin("p").unwrap().endpoints;
    endpoints
        .iter()
        .any(|end| end.status == HealthStatus::Offline)
}

/// `p` at `name`, in the clear, with a token.
async fn start(name: &str, allow: bool) -> Plugins {
    let address = Address::dns(name, false).unwrap();
    let mut plugin = PluginSpec::new(PluginName::new("p").unwrap(), address);
    plugin.policy.credentials = CredentialsSpec::Bearer {
        token: Secret::new("hunter2".to_owned()),
    };
    plugin.policy.allow_plaintext = allow;
    plugin.upstream.dns.min_ttl = std::time::Duration::from_millis(5);
    plugin.upstream.dns.max_ttl = std::time::Duration::from_millis(20);
    Plugins::builder()
        .start(Config::new().with(plugin))
        .await
        .unwrap()
}

#[tokio::test]
async fn an_address_that_a_name_server_tells_of_gets_no_credentials_in_the_clear() {
    let (server, seen) = shown().await;
    let port = at(&server).port();
    let names = NameServer::start().await;
    let service = "_p._tcp.search.test";
    names.addresses("search.test", 0, &[OPEN]);
    names.service(service, 0, &[(0, 1, port, "search.test")]);
    let urls = [
        names.url(&format!("search.test:{port}")),
        names.service_url(service),
    ];
    for url in &urls {
        names.addresses("search.test", 0, &[OPEN]);
        let plugins = start(url, false).await;
        is_refused(&plugins, &server, SocketAddr::new(OPEN.into(), port)).await;
        // Beside one that is here it is left out.
        names.addresses("search.test", 0, &[OPEN, Ipv4Addr::LOCALHOST]);
        let both = |report: &HealthReport| report.plugin("p").unwrap().endpoints.len() == 2;
        let mut health = plugins.subscribe_health();
        let report = within(health.wait_for(both)).await.unwrap().clone();
        assert_eq!(report.plugin("p").unwrap().status, HealthStatus::Degraded);
        let before = server.accepted();
        for _ in 0..4 {
            assert_eq!(text(&plugins.plugin("p"), get("/")).await.unwrap(), "one");
        }
        assert_eq!(server.accepted(), before + 1);
    }
    let before = seen.lock().unwrap().len();
    names.addresses("search.test", 0, &[OPEN]);
    for url in &urls {
        let plugins = start(url, true).await;
        assert_eq!(text(&plugins.plugin("p"), get("/")).await.unwrap(), "one");
    }
    assert_eq!(seen.lock().unwrap()[before..], ["Bearer hunter2"; 2]);
}

#[tokio::test]
async fn an_endpoint_that_the_program_tells_of_gets_no_credentials_in_the_clear() {
    let (server, seen) = shown().await;
    let place = SocketAddr::new(OPEN.into(), at(&server).port());
    let (sender, receiver) = mpsc::unbounded_channel();
    let changes = stream::unfold(receiver, |mut receiver| async {
        let change: Change<u8, EndpointSpec> = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(change), receiver))
    });
    // It is not asked how it is either.
    let yaml = |allow: bool| {
        config(&format!(
            "plugins: {{ p: {{ transport: http, endpoint: {{ from: hosts }}, retry: off,
                health_check: {{ endpoint: /, interval: 2ms, healthy_threshold: 1 }},
                auth: {{ method: bearer, token: hunter2, allow_plaintext: {allow} }} }} }}"
        ))
    };
    let builder = Plugins::builder().endpoints("hosts", changes);
    let plugins = builder.start(yaml(false)).await.unwrap();
    let address = Address::http(&format!("http://{place}")).unwrap();
    sender.send(Change::Insert(1, address.into())).unwrap();
    is_refused(&plugins, &server, place).await;

    plugins.reload(yaml(true)).await.unwrap();
    assert_eq!(text(&plugins.plugin("p"), get("/")).await.unwrap(), "one");
    assert!(
        seen.lock()
            .unwrap()
            .iter()
            .all(|token| token == "Bearer hunter2")
    );

    // What was open is no way round it, for calls and for checks.
    let report = plugins.reload(yaml(false)).await.unwrap();
    report.retirement.wait().await;
    server.until_open(0).await;
    is_refused(&plugins, &server, place).await;
}
