//! What a reload does to connections when what TLS is told has changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http_body_util::BodyExt;
use tower_plugins::config::{BreakerSpec, Config, PluginSpec, Protocol, TlsSpec};
use tower_plugins::{Plugins, Reason};

use super::BOTH;
use super::server::{Ca, Setup};
use crate::support::{Server, Socket, call, channel, config, data, echo, get, post, read, within};

/// One plugin `p` at `url`.
fn at(url: &str, protocol: Protocol, tls: &TlsSpec) -> PluginSpec {
    let mut p = PluginSpec::https("p", url).unwrap();
    p.upstream.connection.protocol = protocol;
    p.upstream.tls = tls.clone();
    p
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_are_rotated_under_load_and_no_call_fails() {
    let ca = Ca::new();
    let shows = ca.certify(&["localhost"]);
    let setup = Setup {
        clients: Some(&ca),
        ..Setup::new(&shows)
    };
    for protocol in BOTH {
        let server = setup.start().await;
        let url = server.at("localhost").to_string();
        let showing = |identity| {
            let mut tls = ca.trusted();
            tls.identity = Some(identity);
            Config::new().with(at(&url, protocol, &tls))
        };
        let first = ca.certify(&["client"]);
        let plugins = Plugins::builder()
            .start(showing(first.identity()))
            .await
            .unwrap();
        let plugins = Arc::new(plugins);
        let over = Arc::<AtomicBool>::default();
        let calls = Arc::<AtomicUsize>::default();
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let p = plugins.plugin("p");
                let (over, calls) = (Arc::clone(&over), Arc::clone(&calls));
                tokio::spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        let response = call(&p, post("/", "hello")).await.unwrap();
                        assert_eq!(read(response).await, "hello");
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let p = plugins.plugin("p");
        for round in 0..10 {
            let next = ca.certify(&["client"]);
            let report = plugins.reload(showing(next.identity())).await.unwrap();
            assert!(report.to_string().ends_with("replace p (tls)"), "{report}");
            let response = call(&p, get("/")).await.unwrap();
            assert_eq!(
                response.headers()["x-client"],
                next.fingerprint(),
                "{round}"
            );
            within(report.retirement.wait()).await;
            let before = calls.load(Ordering::Relaxed);
            within(async {
                while calls.load(Ordering::Relaxed) < before + 8 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        over.store(true, Ordering::Relaxed);
        for caller in callers {
            within(caller).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_call_under_way_ends_on_the_connection_it_has() {
    let ca = Ca::new();
    let shows = ca.certify(&["localhost"]);
    let setup = Setup {
        clients: Some(&ca),
        ..Setup::new(&shows)
    };
    for protocol in BOTH {
        let server = setup.start().await;
        let url = server.at("localhost").to_string();
        let (old, new) = (ca.certify(&["old"]), ca.certify(&["new"]));
        let mut tls = ca.trusted();
        tls.identity = Some(old.identity());
        let plugins = Plugins::builder();
        let plugins = plugins
            .start(Config::new().with(at(&url, protocol, &tls)))
            .await
            .unwrap();
        let p = plugins.plugin("p");
        let (sender, body) = channel();
        sender.send(data("be")).unwrap();
        let response = call(&p, post("/", body)).await.unwrap();
        assert_eq!(response.headers()["x-client"], old.fingerprint());

        tls.identity = Some(new.identity());
        plugins
            .reload(Config::new().with(at(&url, protocol, &tls)))
            .await
            .unwrap();
        let next = call(&p, get("/")).await.unwrap();
        assert_eq!(next.headers()["x-client"], new.fingerprint());
        sender.send(data("fore")).unwrap();
        drop(sender);
        let body = within(response.into_body().collect()).await.unwrap();
        assert_eq!(body.to_bytes(), "before");
    }
}

#[tokio::test]
async fn a_breaker_stays_open_when_a_certificate_is_rotated() {
    let ca = Ca::new();
    let shows = ca.certify(&["localhost"]);
    let server = Setup::new(&shows).start().await;
    let url = server.at("localhost").to_string();
    let breaker: BreakerSpec = config(
        "plugins: { p: { transport: in-process, endpoint: s, circuit_breaker: \
         { failure_threshold: 1, recovery_timeout: 1h } } }",
    )
    .plugins["p"]
        .policy
        .breaker
        .clone()
        .unwrap();
    let with = |tls: &TlsSpec| {
        let mut p = at(&url, Protocol::Http1, tls);
        p.policy.breaker = Some(breaker.clone());
        Config::new().with(p)
    };
    let mut tls = ca.trusted();
    let plugins = Plugins::builder().start(with(&tls)).await.unwrap();
    let p = plugins.plugin("p");
    let response = call(&p, get("/fail")).await.unwrap();
    assert_eq!(response.status(), 500);
    drop(read(response).await);

    tls.identity = Some(ca.certify(&["client"]).identity());
    plugins.reload(with(&tls)).await.unwrap();
    let error = call(&p, get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::BreakerOpen), "{error}");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_plain_endpoint_keeps_its_connections_whatever_tls_says() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, echo).await;
    let with = |tls: TlsSpec| {
        let mut p = PluginSpec::http("p", &server.address.to_string()).unwrap();
        p.upstream.tls = tls;
        Config::new().with(p)
    };
    let plugins = Plugins::builder()
        .start(with(TlsSpec::default()))
        .await
        .unwrap();
    let p = plugins.plugin("p");
    read(call(&p, get("/")).await.unwrap()).await;
    plugins.reload(with(Ca::new().trusted())).await.unwrap();
    read(call(&p, get("/")).await.unwrap()).await;
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn an_identity_that_cannot_be_used_leaves_the_old_one_serving() {
    let ca = Ca::new();
    let shows = ca.certify(&["localhost"]);
    let server = Setup::new(&shows).start().await;
    let url = server.at("localhost").to_string();
    let mut tls = ca.trusted();
    let plugins = Plugins::builder();
    let start = Config::new().with(at(&url, Protocol::Http1, &tls));
    let plugins = plugins.start(start).await.unwrap();
    let p = plugins.plugin("p");
    read(call(&p, get("/")).await.unwrap()).await;

    let mut identity = ca.certify(&["client"]).identity();
    identity.key = ca.certify(&["client"]).identity().key;
    tls.identity = Some(identity);
    let next = Config::new().with(at(&url, Protocol::Http1, &tls));
    let error = plugins.reload(next).await.unwrap_err();
    let text = crate::support::causes(&error);
    assert!(
        text.contains("does not belong to the certificate"),
        "{text}"
    );
    read(call(&p, get("/")).await.unwrap()).await;
    assert_eq!(server.accepted(), 1);
}
