//! Upgrades: a real WebSocket on both sides, and bytes where a WebSocket says too little.

mod server;
mod websocket;

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::ext::Protocol as ConnectProtocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::{ServiceBuilder, service_fn};
use tower_plugins::config::Protocol;
use tower_plugins::upgrade::{self, Upgraded};
use tower_plugins::{Body, Error, Plugin, Plugins, Reason};
use tower_plugins_layers::drain::DrainHold;
use tower_plugins_layers::filter::FilterBody;
use tower_plugins_layers::{DrainHandle, DrainLayer, FilterLayer, FilterPolicy, RespondLayer};

use self::server::Raw;
use crate::support::{Server, Socket, call, causes, config, get, within};

/// An axum app on a real listener, with the plugin `p` at every path.
struct Front {
    address: String,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Front {
    async fn start(plugins: &Plugins) -> Self {
        let route = plugins.plugin("p").into_route();
        Self::serve(Router::new().route_service("/{*rest}", route)).await
    }

    async fn serve(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, server }
    }

    /// The answer to a `CONNECT` over HTTP/2 with `protocol` (RFC 8441).
    async fn connect(&self, protocol: &'static str) -> (Response<Incoming>, AbortOnDrop) {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut client, connection) = client.handshake(TokioIo::new(stream)).await.unwrap();
        let connection = AbortOnDrop(tokio::spawn(async { connection.await.unwrap() }));
        let uri = format!("http://{}/talk?to=me", self.address);
        // By its answer the server has said that it takes such a `CONNECT`.
        let plain = Request::head(&uri).body(Body::empty()).unwrap();
        within(client.send_request(plain)).await.unwrap();
        let tunnel = Request::connect(&uri)
            .extension(ConnectProtocol::from_static(protocol))
            .header("sec-websocket-version", "13")
            .body(Body::empty())
            .unwrap();
        let response = within(client.send_request(tunnel)).await.unwrap();
        (response, connection)
    }

    /// A connection that was upgraded to `echo`.
    async fn upgraded(&self) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let ask =
            "GET /talk HTTP/1.1\r\nhost: front\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n";
        stream.write_all(ask.as_bytes()).await.unwrap();
        let head = within(server::head(&mut stream)).await.unwrap();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        for line in ["\r\nconnection: upgrade\r\n", "\r\nupgrade: echo\r\n"] {
            assert!(head.contains(line), "{head}");
        }
        stream
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn upgrading() -> Request<Body> {
    let mut request = get("/talk");
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("echo"));
    request
}

async fn upgraded(plugin: &Plugin) -> Upgraded {
    let mut response = call(plugin, upgrading()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    within(upgrade::on(&mut response)).await.unwrap()
}

async fn echoes(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), word: &str) {
    stream.write_all(word.as_bytes()).await.unwrap();
    let mut back = vec![0; word.len()];
    within(stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, word.as_bytes());
}

async fn idle(plugins: &Plugins) {
    within(async {
        while plugins.active_requests("p") > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_library_caller_gets_the_connection_as_a_stream() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("").await;
    let p = plugins.plugin("p");
    let mut response = call(&p, upgrading()).await.unwrap();
    assert_eq!(response.headers()[UPGRADE], "echo");
    let mut connection = within(upgrade::on(&mut response)).await.unwrap();
    let mut early = [0; 5];
    within(connection.read_exact(&mut early)).await.unwrap();
    assert_eq!(&early, b"early", "it came with the head");
    echoes(&mut connection, "hello").await;
    assert_eq!(plugins.active_requests("p"), 1);
    let second = within(upgrade::on(&mut response)).await;
    assert!(second.is_err(), "there is one");

    // Half of it may end before the other.
    connection.shutdown().await.unwrap();
    let rest = within(connection.read_to_end(&mut Vec::new())).await;
    assert_eq!(rest.unwrap(), 0);
    drop(connection);
    idle(&plugins).await;
    let mut plain = call(&p, get("/")).await.unwrap();
    assert!(within(upgrade::on(&mut plain)).await.is_err());
}

#[tokio::test]
async fn an_answer_whose_connection_nobody_takes_closes_it() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("").await;
    let response = call(&plugins.plugin("p"), upgrading()).await.unwrap();
    raw.until_open(1).await;
    drop(response);
    raw.until_open(0).await;
    assert_eq!(plugins.active_requests("p"), 0);
}

#[tokio::test]
async fn a_side_that_goes_away_ends_the_other() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("").await;
    let front = Front::start(&plugins).await;
    let mut stream = front.upgraded().await;
    let mut early = [0; 5];
    within(stream.read_exact(&mut early)).await.unwrap();
    echoes(&mut stream, "hello").await;
    assert_eq!(plugins.active_requests("p"), 1);
    drop(stream);
    raw.until_open(0).await;
    idle(&plugins).await;

    let mut stream = front.upgraded().await;
    stream.write_all(b"quit").await.unwrap();
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"early", "the plugin has ended it");
    drop(stream);
    idle(&plugins).await;
}

#[tokio::test]
async fn an_upgraded_connection_outlives_reloads_and_its_node_waits_for_it() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("drain_timeout: 1h").await;
    let front = Front::start(&plugins).await;
    let mut stream = front.upgraded().await;
    let mut early = [0; 5];
    within(stream.read_exact(&mut early)).await.unwrap();
    let mut own = upgraded(&plugins.plugin("p")).await;
    within(own.read_exact(&mut early)).await.unwrap();
    let left = plugins
        .reload(raw.config("drain_timeout: 2h"))
        .await
        .unwrap();
    for hours in 3..10 {
        let keys = format!("drain_timeout: {hours}h");
        plugins.reload(raw.config(&keys)).await.unwrap();
        echoes(&mut stream, "still here").await;
        echoes(&mut own, "and here").await;
    }
    let retirement = tokio::spawn(left.retirement.wait());
    drop(own);
    echoes(&mut stream, "and on").await;
    assert!(!retirement.is_finished());
    drop(stream);
    let retired = within(retirement).await.unwrap();
    assert_eq!((retired[0].cancelled, retired[0].remaining), (0, 0));
}

#[tokio::test]
async fn drain_timeout_cuts_an_upgraded_connection() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("drain_timeout: 50ms").await;
    let front = Front::start(&plugins).await;
    let mut stream = front.upgraded().await;
    let mut own = upgraded(&plugins.plugin("p")).await;
    let reader = tokio::spawn(async move {
        let error = own.read_to_end(&mut Vec::new()).await.unwrap_err();
        let again = own.write_all(b"more").await.unwrap_err();
        (error, again)
    });
    let report = plugins
        .reload(raw.config("drain_timeout: 1h"))
        .await
        .unwrap();
    let retired = within(report.retirement.wait()).await;
    assert_eq!((retired[0].cancelled, retired[0].remaining), (2, 0));
    let (error, again) = within(reader).await.unwrap();
    for error in [error, again] {
        let error = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
        assert_eq!(error.reason(), Some(Reason::DrainCancelled));
        assert_eq!(error.plugin(), Some("p"));
    }
    // However it ends: it ends.
    let _ = within(stream.read_to_end(&mut Vec::new())).await;
    raw.until_open(0).await;
}

#[tokio::test]
async fn a_connection_that_is_silent_for_too_long_is_cut() {
    let raw = Raw::start().await;
    let mut silent = raw.config("");
    let policy = &mut silent.plugins.get_mut("p").unwrap().policy;
    policy.stream_idle_timeout = Some(Duration::from_millis(100));
    let plugins = Plugins::builder().start(silent).await.unwrap();
    let mut own = upgraded(&plugins.plugin("p")).await;
    let error = within(own.read_to_end(&mut Vec::new())).await.unwrap_err();
    let error = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!(error.reason(), Some(Reason::StreamIdle));
    let front = Front::start(&plugins).await;
    let mut stream = front.upgraded().await;
    let _ = within(stream.read_to_end(&mut Vec::new())).await;
    drop(own);
    idle(&plugins).await;
}

#[tokio::test]
async fn its_connection_counts_and_is_not_used_again() {
    let raw = Raw::start().await;
    let keys = "retry: off, connection: { max_connections: 1, connection_timeout: 50ms }";
    let plugins = raw.plugins(keys).await;
    let p = plugins.plugin("p");
    let own = upgraded(&p).await;
    let error = call(&p, get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::PoolExhausted));
    drop(own);
    raw.until_open(0).await;
    assert_eq!(call(&p, get("/")).await.unwrap().status(), 200);
    assert_eq!(raw.accepted(), 2);
}

#[tokio::test]
async fn an_upgrade_is_never_repeated_once_it_was_sent() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, |_| async {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
            .headers_mut()
            .insert("connection", HeaderValue::from_static("close"));
        response
    })
    .await;
    let config = config(&format!(
        "plugins: {{ p: {{ transport: http, endpoint: '{}', circuit_breaker: off,
           retry: {{ max_retries: 2, initial_interval: 1ms }} }} }}",
        server.address
    ));
    let plugins = Plugins::builder().start(config).await.unwrap();
    let p = plugins.plugin("p");
    assert_eq!(call(&p, get("/")).await.unwrap().status(), 503);
    assert_eq!(server.accepted(), 3);
    assert_eq!(call(&p, upgrading()).await.unwrap().status(), 503);
    assert_eq!(server.accepted(), 4);
}

#[tokio::test]
async fn what_cannot_be_upgraded_is_refused_and_the_error_says_what_to_do() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("connection: { protocol: http2 }").await;
    let error = call(&plugins.plugin("p"), upgrading()).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::UpgradeUnsupported));
    assert_eq!(
        (error.http_status().as_u16(), error.is_retryable()),
        (501, false)
    );
    let said = causes(&error);
    assert!(said.contains("set connection.protocol: http1"), "{said}");

    let mut connect = get("/");
    *connect.method_mut() = Method::CONNECT;
    let error = call(&plugins.plugin("p"), connect).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::UpgradeUnsupported));
    assert_eq!(raw.accepted(), 0, "nobody was asked");
}

#[tokio::test]
async fn a_tunnel_over_http2_that_is_no_websocket_is_refused_with_501() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("").await;
    let front = Front::start(&plugins).await;
    let (response, _connection) = front.connect("connect-udp").await;
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
    assert_eq!(raw.accepted(), 1, "for the plain request before it");
}

#[tokio::test]
async fn an_upgrade_that_is_about_one_hop_is_not_passed_on() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("").await;
    let p = plugins.plugin("p");
    for upgrade in ["h2c", "websocket, H2C", "TLS/1.3", "HTTP/2.0"] {
        let mut request = upgrading();
        request
            .headers_mut()
            .insert(UPGRADE, upgrade.parse().unwrap());
        assert_eq!(call(&p, request).await.unwrap().status(), 200);
        let head = raw.last_head();
        assert!(!head.contains("upgrade"), "{head}");
    }
    // And none that `connection` does not name.
    let mut request = upgrading();
    request.headers_mut().remove(CONNECTION);
    assert_eq!(call(&p, request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_an_error() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("retry: off").await;
    let error = call(&plugins.plugin("p"), get("/switch"))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ConnectionLost));
    let said = causes(&error);
    assert!(said.contains("nobody asked for"), "{said}");
    raw.until_open(0).await;
}

#[tokio::test]
async fn the_programs_own_drain_and_a_filter_before_the_route_know_of_it() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("").await;
    let drain = DrainHandle::new();
    let yes = service_fn(|_: Request<FilterBody>| async {
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let layers = ServiceBuilder::new()
        .layer(RespondLayer::new())
        .layer(DrainLayer::new(drain.clone()))
        .layer(FilterLayer::new(FilterPolicy::new(), yes));
    let app = Router::new()
        .route_service("/{*rest}", plugins.plugin("p").into_route())
        .layer(layers);
    let front = Front::serve(app).await;
    let mut stream = front.upgraded().await;
    assert_eq!((drain.active(), plugins.active_requests("p")), (1, 1));
    let report = within(drain.shutdown(Duration::from_millis(50))).await;
    assert_eq!((report.cancelled, report.left), (1, 0));
    let _ = within(stream.read_to_end(&mut Vec::new())).await;
    raw.until_open(0).await;
    idle(&plugins).await;
}

#[tokio::test]
async fn a_shutdown_cuts_it_after_its_time() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("drain_timeout: 1h").await;
    let front = Front::start(&plugins).await;
    let mut stream = front.upgraded().await;
    within(plugins.shutdown(Duration::from_millis(50)))
        .await
        .unwrap();
    let _ = within(stream.read_to_end(&mut Vec::new())).await;
    raw.until_open(0).await;
}

/// A service of the program that takes the caller's connection itself, and echoes.
async fn takes(mut request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let hold = request.extensions_mut().remove::<DrainHold>().unwrap();
    let caller = hyper::upgrade::on(&mut request);
    tokio::spawn(hold.keep(async move {
        let caller = TokioIo::new(caller.await.unwrap());
        let (mut read, mut write) = tokio::io::split(caller);
        let _ = tokio::io::copy(&mut read, &mut write).await;
    }));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("echo"));
    Ok(response)
}

#[tokio::test]
async fn a_service_of_the_program_takes_the_connection_itself_and_a_drain_waits_for_it() {
    let with = |drain: &str| {
        config(&format!(
            "plugins: {{ p: {{ transport: in-process, endpoint: takes, drain_timeout: {drain} }} }}"
        ))
    };
    let builder = Plugins::builder().service("takes", service_fn(takes));
    let plugins = builder.start(with("1h")).await.unwrap();
    let front = Front::start(&plugins).await;
    let mut stream = front.upgraded().await;
    echoes(&mut stream, "hello").await;
    let report = plugins.reload(with("50ms")).await.unwrap();
    let retirement = tokio::spawn(report.retirement.wait());
    echoes(&mut stream, "still here").await;
    assert!(!retirement.is_finished());
    drop(stream);
    let retired = within(retirement).await.unwrap();
    assert_eq!((retired[0].cancelled, retired[0].remaining), (0, 0));

    let mut stream = front.upgraded().await;
    let report = plugins.reload(with("1h")).await.unwrap();
    let retired = within(report.retirement.wait()).await;
    assert_eq!((retired[0].cancelled, retired[0].remaining), (1, 0));
    let _ = within(stream.read_to_end(&mut Vec::new())).await;
}
