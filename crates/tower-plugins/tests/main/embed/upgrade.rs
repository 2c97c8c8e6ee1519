//! Upgrades: a real WebSocket on both sides, and bytes where a WebSocket says too little.

mod drain;
mod server;
mod websocket;

use axum::Router;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::ext::Protocol as ConnectProtocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower_plugins::config::Protocol;
use tower_plugins::upgrade::{self, Upgraded};
use tower_plugins::{Body, Plugin, Plugins, Reason};

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

/// By a 200 a `CONNECT` would be a tunnel.
#[tokio::test]
async fn a_websocket_over_http2_that_the_plugin_does_not_open_is_no_tunnel() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("").await;
    let front = Front::start(&plugins).await;
    let (response, _connection) = front.connect("websocket").await;
    assert!(
        raw.last_head().contains("upgrade: websocket"),
        "it was asked"
    );
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
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
