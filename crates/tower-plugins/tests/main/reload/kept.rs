use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Response;
use tower_plugins::config::{Config, Protocol};
use tower_plugins::{Body, Plugins, Reason};

use crate::support::{Server, Shelf, Socket, call, channel, config, echo, get, read, text};

/// One plugin `p` at `endpoints`, with further keys.
fn at(endpoints: &[String], keys: &str) -> Config {
    config(&format!(
        "plugins: {{ p: {{ transport: http, endpoints: [{}], {keys} }} }}",
        endpoints.join(", ")
    ))
}

#[tokio::test]
async fn a_change_of_policy_keeps_the_connections() {
    for (protocol, name) in [(Protocol::Http1, "http1"), (Protocol::Http2, "http2")] {
        let server = Server::start(Socket::Tcp, protocol, echo).await;
        let url = [server.address.to_string()];
        let keys =
            |request| format!("connection: {{ protocol: {name}, request_timeout: {request}s }}");
        let plugins = Plugins::builder().start(at(&url, &keys(1))).await.unwrap();
        let p = plugins.plugin("p");
        for request in 2..8 {
            assert_eq!(text(&p, get("/")).await.unwrap(), "");
            let report = plugins.reload(at(&url, &keys(request))).await.unwrap();
            assert_eq!(
                report.to_string(),
                format!("generation {request}: restack p (connection.request_timeout)")
            );
            report.retirement.wait().await;
        }
        assert_eq!(text(&p, get("/")).await.unwrap(), "");
        assert_eq!(server.accepted(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_plugin_that_is_kept_keeps_its_connection_while_others_change() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, echo).await;
    let with = |others: &str| {
        config(&format!(
            "plugins: {{ p: {{ transport: http, endpoint: \"{}\" }}, {others} }}",
            server.address
        ))
    };
    let plugins = Plugins::builder()
        .service("shelf", Shelf::default())
        .start(with(""))
        .await
        .unwrap();
    let p = plugins.plugin("p");
    for number in 0..5 {
        text(&p, get("/")).await.unwrap();
        let other = format!("q{number}: {{ transport: in-process, endpoint: shelf }}");
        plugins.reload(with(&other)).await.unwrap();
    }
    text(&p, get("/")).await.unwrap();
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn endpoints_that_stay_keep_their_connections_and_those_that_leave_close_theirs() {
    let one = Server::start(Socket::Tcp, Protocol::Http1, echo).await;
    let two = Server::start(Socket::Tcp, Protocol::Http1, echo).await;
    let urls = [one.address.to_string(), two.address.to_string()];
    let keys = "load_balancing: { strategy: round-robin }";
    let plugins = Plugins::builder().start(at(&urls, keys)).await.unwrap();
    let p = plugins.plugin("p");
    for _ in 0..4 {
        text(&p, get("/")).await.unwrap();
    }
    one.until_open(1).await;
    two.until_open(1).await;
    let report = plugins.reload(at(&urls[..1], keys)).await.unwrap();
    assert_eq!(report.to_string(), "generation 2: restack p (endpoints)");
    two.until_open(0).await;
    for _ in 0..4 {
        text(&p, get("/")).await.unwrap();
    }
    assert_eq!((one.accepted(), two.accepted()), (1, 1));
    plugins.reload(Config::default()).await.unwrap();
    one.until_open(0).await;
}

#[tokio::test]
async fn a_change_of_the_connection_block_makes_new_connections() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, echo).await;
    let url = [server.address.to_string()];
    let plugins = Plugins::builder().start(at(&url, "")).await.unwrap();
    let p = plugins.plugin("p");
    text(&p, get("/")).await.unwrap();
    let changed = at(&url, "connection: { max_connections: 7 }");
    let report = plugins.reload(changed).await.unwrap();
    assert_eq!(report.to_string(), "generation 2: replace p (connection)");
    server.until_open(0).await;
    text(&p, get("/")).await.unwrap();
    assert_eq!(server.accepted(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_reload_is_no_free_burst() {
    let limited = |keys: &str, limit: &str| {
        config(&format!(
            "plugins: {{ p: {{ transport: in-process, endpoint: shelf, {keys} rate_limit: {{ {limit} }} }} }}"
        ))
    };
    let plugins = Plugins::builder()
        .service("shelf", Shelf::default())
        .start(limited("", "requests_per_second: 1, burst_size: 4"))
        .await
        .unwrap();
    let p = plugins.plugin("p");
    for _ in 0..4 {
        text(&p, get("/")).await.unwrap();
    }
    for (keys, limit) in [
        ("", "requests_per_second: 1, burst_size: 4"),
        (
            "drain_timeout: 7s,",
            "requests_per_second: 1, burst_size: 4",
        ),
        ("", "requests_per_second: 2, burst_size: 8"),
        ("", "requests_per_second: 1000, burst_size: 1000"),
        ("", "requests_per_second: 1, burst_size: 4, max_wait: 1ms"),
    ] {
        plugins.reload(limited(keys, limit)).await.unwrap();
        let error = text(&p, get("/")).await.expect_err(limit);
        assert_eq!(error.reason(), Some(Reason::RateLimited), "{keys} {limit}");
    }
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    for _ in 0..2 {
        text(&p, get("/")).await.unwrap();
    }
    assert!(text(&p, get("/")).await.is_err());
}

#[tokio::test]
async fn calls_under_way_keep_their_places_across_a_restack() {
    let shelf = Shelf::default();
    let limited = |drain| {
        format!(
            "plugins: {{ p: {{ transport: in-process, endpoint: shelf, drain_timeout: {drain}, concurrency: {{ max_concurrent: 1 }} }} }}"
        )
    };
    let plugins = shelf.start(&limited("1m")).await;
    let p = plugins.plugin("p");
    let (frames, body) = channel();
    shelf.put(body);
    let held = call(&p, get("/")).await.unwrap();
    plugins.reload(config(&limited("2m"))).await.unwrap();
    let error = text(&p, get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ConcurrencyLimited));
    drop(frames);
    read(held).await;
    assert_eq!(text(&p, get("/")).await.unwrap(), "hello");
}

/// A server that fails until it is told not to.
async fn failing() -> (Server, Arc<AtomicBool>) {
    let failing = Arc::new(AtomicBool::new(true));
    let for_server = Arc::clone(&failing);
    let server = Server::start(Socket::Tcp, Protocol::Http1, move |_| {
        let failing = for_server.load(Ordering::SeqCst);
        async move {
            let mut response = Response::new(Body::empty());
            if failing {
                *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            }
            response
        }
    })
    .await;
    (server, failing)
}

#[tokio::test]
async fn a_breaker_stays_open_by_its_address() {
    let (one, failing) = failing().await;
    let two = Server::start(Socket::Tcp, Protocol::Http1, echo).await;
    let (one_url, two_url) = (one.address.to_string(), two.address.to_string());
    let breaker = "retry: { enabled: false }, circuit_breaker: { failure_threshold: 2, recovery_timeout: 1h }";
    let plugins = Plugins::builder()
        .start(at(std::slice::from_ref(&one_url), breaker))
        .await
        .unwrap();
    let p = plugins.plugin("p");
    for _ in 0..2 {
        assert_eq!(call(&p, get("/")).await.unwrap().status(), 500);
    }
    failing.store(false, Ordering::SeqCst);
    let open = || async {
        let error = text(&p, get("/")).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::BreakerOpen));
        assert_eq!(error.http_status(), 503);
        assert!(error.retry_after().is_some());
    };
    open().await;
    let restacked = format!("{breaker}, drain_timeout: 7s");
    plugins
        .reload(at(std::slice::from_ref(&one_url), &restacked))
        .await
        .unwrap();
    open().await;
    let connection = format!("{breaker}, connection: {{ max_connections: 7 }}");
    plugins
        .reload(at(std::slice::from_ref(&one_url), &connection))
        .await
        .unwrap();
    open().await;
    // Beside an endpoint that works, the open one is passed over.
    let both = [one_url.clone(), two_url];
    plugins.reload(at(&both, breaker)).await.unwrap();
    for _ in 0..20 {
        assert_eq!(call(&p, get("/")).await.unwrap().status(), 200);
    }
    plugins
        .reload(at(std::slice::from_ref(&one_url), breaker))
        .await
        .unwrap();
    open().await;
    assert_eq!(one.accepted(), 1, "none of these calls reached it");
    // A plugin that was gone comes back without a past.
    plugins.reload(Config::default()).await.unwrap();
    plugins.reload(at(&[one_url], breaker)).await.unwrap();
    assert_eq!(call(&p, get("/")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_that_breaks_is_the_plugins_failure_and_one_that_is_dropped_is_not() {
    let shelf = Shelf::default();
    let plugins = shelf
        .start("plugins: { p: { transport: in-process, endpoint: shelf, circuit_breaker: { failure_threshold: 1 } } }")
        .await;
    let p = plugins.plugin("p");
    for _ in 0..5 {
        let (_frames, body) = channel();
        shelf.put(body);
        drop(call(&p, get("/")).await.unwrap());
    }
    assert_eq!(text(&p, get("/")).await.unwrap(), "hello");
    let broken = futures_util::stream::iter([Err::<http_body::Frame<bytes::Bytes>, _>(
        std::io::Error::other("gone"),
    )]);
    shelf.put(Body::new(http_body_util::StreamBody::new(broken)));
    let response = call(&p, get("/")).await.unwrap();
    assert!(
        http_body_util::BodyExt::collect(response.into_body())
            .await
            .is_err()
    );
    let error = text(&p, get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::BreakerOpen));
}

#[tokio::test]
async fn a_failure_in_the_trailers_counts() {
    let shelf = Shelf::default();
    let plugins = shelf
        .start("plugins: { p: { transport: in-process, endpoint: shelf, circuit_breaker: { failure_threshold: 1 } } }")
        .await;
    let p = plugins.plugin("p");
    let (frames, body) = channel();
    shelf.put(body);
    let trailers = http::HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        http::HeaderValue::from_static("14"),
    )]);
    frames.send(http_body::Frame::trailers(trailers)).unwrap();
    drop(frames);
    read(call(&p, get("/")).await.unwrap()).await;
    let error = text(&p, get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::BreakerOpen));
}
