use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, advance, pause, resume};
use tower_plugins::config::Protocol;
use tower_plugins::{Body, Plugin, Plugins, Reason};

use super::stage::Answer::{Never, Status};
use super::stage::{SECOND, Stage};
use crate::support::{
    Server, Socket, call, channel, config, data, echo, get, ours, post, read, text, within,
};
use crate::transport::compression::{compressed, gzip};
use crate::transport::proxy::Proxy;

/// The plugin at `url` with this `connection`, and no retries.
async fn at(url: impl std::fmt::Display, connection: &str) -> Plugin {
    let yaml = format!(
        "plugins: {{ p: {{ transport: http, endpoint: '{url}', connection: {{ {connection} }}, retry: {{ enabled: false }} }} }}"
    );
    let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
    plugins.plugin("p")
}

async fn echoing() -> Server {
    Server::start(Socket::Tcp, Protocol::Http1, echo).await
}

/// HTTP/2 with as many connections as calls.
const ONE_STREAM: &str = "protocol: http2, max_streams: 1,";

/// A call under way, until its sender is dropped.
type Held = (UnboundedSender<Frame<Bytes>>, Response<Body>);

async fn hold(plugin: &Plugin) -> Held {
    let (sender, body) = channel();
    sender.send(data("busy")).unwrap();
    (sender, call(plugin, post("/", body)).await.unwrap())
}

async fn hold_many(plugin: &Plugin, count: usize) -> Vec<Held> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(hold(plugin).await);
    }
    held
}

/// Ends calls, so that their connections come back.
async fn release(held: impl IntoIterator<Item = Held>) {
    for (sender, response) in held {
        drop(sender);
        read(response).await;
    }
}

/// Lets time pass.
async fn rest(minutes: u32) {
    pause();
    advance(minutes * 60 * SECOND).await;
    resume();
}

/// Why a call fails that nothing but the time can end, and when.
async fn fails_in_time(plugin: &Plugin) -> (Option<Reason>, u64) {
    pause();
    let begun = Instant::now();
    let error = call(plugin, get("/")).await.unwrap_err();
    let elapsed = begun.elapsed().as_secs();
    resume();
    (error.reason(), elapsed)
}

#[tokio::test]
async fn protocol_is_what_is_spoken() {
    for (word, protocol, version) in [
        ("http1", Protocol::Http1, "HTTP/1.1"),
        ("http2", Protocol::Http2, "HTTP/2.0"),
    ] {
        let server = Server::start(Socket::Tcp, protocol, |request| async move {
            Response::new(format!("{:?}", request.version()).into())
        })
        .await;
        let plugin = at(&server.address, &format!("protocol: {word}")).await;
        assert_eq!(text(&plugin, get("/")).await.unwrap(), version);
    }
}

#[tokio::test]
async fn max_connections_is_the_number_of_calls_that_have_one() {
    for most in [1, 4] {
        for (protocol, keys) in [(Protocol::Http1, ""), (Protocol::Http2, ONE_STREAM)] {
            let server = Server::start(Socket::Tcp, protocol, echo).await;
            let plugin = at(&server.address, &format!("{keys} max_connections: {most}")).await;
            let held = hold_many(&plugin, most).await;
            assert_eq!(
                fails_in_time(&plugin).await,
                (Some(Reason::PoolExhausted), 10)
            );
            assert_eq!(server.accepted(), most);
            release(held).await;
            assert_eq!(text(&plugin, post("/", "free")).await.unwrap(), "free");
        }
    }
}

#[tokio::test]
async fn max_streams_is_the_number_of_calls_that_share_a_connection() {
    for (calls, connections) in [(1, 6), (2, 3), (6, 1)] {
        let server = Server::start(Socket::Tcp, Protocol::Http2, echo).await;
        let keys = format!("protocol: http2, max_streams: {calls}");
        let plugin = at(&server.address, &keys).await;
        let held = hold_many(&plugin, 6).await;
        assert_eq!(server.accepted(), connections);
        release(held).await;
    }
}

#[tokio::test]
async fn max_age_is_how_old_a_connection_may_be_when_it_is_given_a_call() {
    for (protocol, keys) in [(Protocol::Http1, ""), (Protocol::Http2, "protocol: http2,")] {
        let server = Server::start(Socket::Tcp, protocol, echo).await;
        let plugin = at(
            &server.address,
            &format!("{keys} max_age: 1h, idle_timeout: 23h, request_timeout: off"),
        )
        .await;
        let under_way = hold(&plugin).await;
        let again = async || text(&plugin, post("/", "again")).await.unwrap();
        let first = again().await;
        let opened = server.accepted();
        rest(53).await;
        assert_eq!(again().await, first);
        assert_eq!(server.accepted(), opened, "{protocol:?}");
        // A tenth sooner at most, and no later.
        rest(8).await;
        assert_eq!(again().await, first);
        assert_eq!(server.accepted(), opened + 1, "{protocol:?}");
        // What was under way ends by itself, and its connection with it.
        under_way.0.send(data(" as ever")).unwrap();
        drop(under_way.0);
        assert_eq!(read(under_way.1).await, "busy as ever");
        server.until_open(1).await;
    }
}

/// A proxy to `server`.
async fn proxy_to(server: &Server, credentials: Option<&'static str>) -> Proxy {
    let address = server.address.to_string();
    let port = address.rsplit(':').next().unwrap();
    Proxy::to(port.parse().unwrap(), credentials).await
}

#[tokio::test]
async fn proxy_is_who_opens_the_way_to_the_endpoint() {
    let server = echoing().await;
    let proxy = proxy_to(&server, None).await;
    let keys = format!("proxy: 'http://127.0.0.1:{}'", proxy.port);
    let plugin = at("http://search.internal:8080", &keys).await;
    assert_eq!(text(&plugin, post("/", "there")).await.unwrap(), "there");
    assert!(proxy.heads()[0].starts_with("CONNECT search.internal:8080 "));
    // What is on the loopback interface needs none.
    for none in ["off", "environment"] {
        let plugin = at(&server.address, &format!("proxy: {none}")).await;
        assert_eq!(text(&plugin, post("/", "there")).await.unwrap(), "there");
    }
    assert_eq!(proxy.heads().len(), 1);
}

#[tokio::test]
async fn proxy_auth_is_what_the_proxy_is_told() {
    let server = echoing().await;
    let proxy = proxy_to(
        &server,
        Some("proxy-authorization: Basic dXNlcjpodW50ZXIy\r\n"),
    )
    .await;
    let keys = format!("proxy: 'http://127.0.0.1:{}'", proxy.port);
    let plugin = at("http://search.internal", &keys).await;
    let error = call(&plugin, get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ConnectFailed));
    let plugin = at(
        "http://search.internal",
        &format!("{keys}, proxy_auth: 'user:hunter2'"),
    )
    .await;
    assert_eq!(text(&plugin, post("/", "there")).await.unwrap(), "there");
}

#[tokio::test]
async fn max_idle_connections_is_the_number_kept_without_a_call() {
    for kept in [0, 2] {
        for (protocol, keys) in [(Protocol::Http1, ""), (Protocol::Http2, ONE_STREAM)] {
            let server = Server::start(Socket::Tcp, protocol, echo).await;
            let keys = format!("{keys} max_idle_connections: {kept}");
            let plugin = at(&server.address, &keys).await;
            let held = hold_many(&plugin, 5).await;
            server.until_open(5).await;
            release(held).await;
            server.until_open(kept).await;
            let _held = hold_many(&plugin, kept).await;
            assert_eq!(server.accepted(), 5);
            let _one_more = hold(&plugin).await;
            assert_eq!(server.accepted(), 6);
        }
    }
}

#[tokio::test]
async fn idle_timeout_is_how_long_a_connection_is_kept_without_a_call() {
    let server = echoing().await;
    let plugin = at(&server.address, "idle_timeout: 1h").await;
    // A machine may be slow, but not by minutes.
    for (minutes, accepted) in [(0, 1), (55, 1), (55, 1), (65, 2)] {
        rest(minutes).await;
        assert_eq!(text(&plugin, post("/", "again")).await.unwrap(), "again");
        assert_eq!(server.accepted(), accepted);
    }
    rest(65).await;
    server.until_open(0).await;
}

#[tokio::test]
async fn connection_timeout_is_how_long_a_call_waits_for_a_connection() {
    for seconds in [2, 7] {
        let server = echoing().await;
        let keys = format!("max_connections: 1, connection_timeout: {seconds}s");
        let plugin = at(&server.address, &keys).await;
        let held = hold(&plugin).await;
        assert_eq!(
            fails_in_time(&plugin).await,
            (Some(Reason::PoolExhausted), seconds)
        );
        release([held]).await;
    }
}

/// The kernel takes the connections of a few callers, and lets the others wait.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn connection_timeout_is_how_long_connecting_may_take() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut taken = Vec::new();
    for _ in 0..2 {
        taken.push(
            within(tokio::net::TcpStream::connect(address))
                .await
                .unwrap(),
        );
    }
    for seconds in [2, 7] {
        let plugin = at(
            format!("http://{address}"),
            &format!("connection_timeout: {seconds}s"),
        )
        .await;
        assert_eq!(
            fails_in_time(&plugin).await,
            (Some(Reason::ConnectFailed), seconds)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn request_timeout_is_the_time_of_a_whole_call() {
    let retry = "retry: { attempt_timeout: 1500ms, max_retries: 100, max_interval: 1ms, initial_interval: 1ms }";
    for (seconds, attempts) in [(2, 2), (45, 30)] {
        let stage = Stage::of(&format!(
            "connection: {{ request_timeout: {seconds}s }}, {retry}, circuit_breaker: {{ enabled: false }}"
        ))
        .await;
        stage.answers(Never);
        let begun = Instant::now();
        assert_eq!(stage.refusal().await, Some(Reason::DeadlineExceeded));
        assert_eq!(begun.elapsed(), seconds * SECOND);
        assert_eq!(stage.seen().len(), attempts, "they are within it");
    }
    for off in ["off", "0s"] {
        let stage = Stage::of(&format!(
            "connection: {{ request_timeout: {off} }}, retry: {{ attempt_timeout: 1h, random_jitter: false }}"
        ))
        .await;
        stage.next([Never, Status(200)]);
        let begun = Instant::now();
        assert_eq!(stage.call().await.unwrap(), 200);
        assert_eq!(begun.elapsed(), 3600 * SECOND + SECOND / 10);
    }
}

fn with(name: &'static str, value: &str, kind: &'static str) -> http::Request<Body> {
    let mut request = get("/");
    let headers = request.headers_mut();
    headers.insert(name, HeaderValue::try_from(value).unwrap());
    headers.insert("content-type", HeaderValue::from_static(kind));
    request
}

#[tokio::test(start_paused = true)]
async fn timeout_header_is_how_long_callers_wait_and_what_endpoints_are_told_of_it() {
    for (header, is_read, of_second) in [
        ("connection: { timeout_header: x-wait }", true, "7.5"),
        ("connection: { timeout_header: off }", false, "10"),
    ] {
        let stage = Stage::of(&format!(
            "{header}, retry: {{ attempt_timeout: 20s, random_jitter: false, initial_interval: 2500ms }}"
        ))
        .await;
        // Each attempt is told what is left then.
        stage.next([Status(503)]);
        let call = stage.send("p", with("x-wait", "10", "text/plain"));
        assert_eq!(call.await.unwrap().status(), 200);
        let told = stage.seen().into_iter().map(|seen| {
            assert!(!seen.request.headers().contains_key("grpc-timeout"));
            seen.request.headers()["x-wait"].clone()
        });
        assert_eq!(told.collect::<Vec<_>>(), ["10", of_second], "{header}");

        stage.answers(Never);
        let begun = Instant::now();
        let call = stage.send("p", with("x-wait", "1500ms", "text/plain"));
        assert_eq!(
            call.await.unwrap_err().reason(),
            Some(Reason::DeadlineExceeded)
        );
        let seconds = if is_read { 1.5 } else { 30.0 };
        assert_eq!(begun.elapsed().as_secs_f64(), seconds);
    }
    // The policy's own time, and that of an attempt, are told without a word of the caller.
    let stage = Stage::of(
        "connection: { timeout_header: x-wait-ms, request_timeout: 9s }, retry: { attempt_timeout: 4s }",
    )
    .await;
    stage.call().await.unwrap();
    assert_eq!(stage.seen()[0].request.headers()["x-wait-ms"], "4000");
}

#[tokio::test(start_paused = true)]
async fn a_grpc_endpoint_is_told_what_is_left_of_its_caller_s_time() {
    let stage = Stage::of(
        "retry: { random_jitter: false, initial_interval: 2500ms, idempotent: [/*] }, connection: { request_timeout: 8s }",
    )
    .await;
    stage.next([Status(503)]);
    let call = stage.send("p", with("grpc-timeout", "5S", "application/grpc"));
    assert_eq!(call.await.unwrap().status(), 200);
    let told: Vec<_> = (stage.seen().into_iter())
        .map(|seen| seen.request.headers()["grpc-timeout"].clone())
        .collect();
    assert_eq!(told, ["5000000u", "2500000u"]);
}

/// How long a stream may be silent before it fails; `None` is an hour at least.
async fn silence(connection: &str) -> Option<(Option<Reason>, Duration)> {
    let (frames, body) = channel();
    let body = std::sync::Mutex::new(Some(body));
    let body = std::sync::Arc::new(body);
    let service = tower::service_fn(move |_: http::Request<Body>| {
        let mut response = Response::new(body.lock().unwrap().take().unwrap());
        let kind = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert("content-type", kind);
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    });
    let yaml = format!(
        "plugins: {{ p: {{ transport: in-process, endpoint: s, connection: {{ {connection} }} }} }}"
    );
    let plugins = Plugins::builder().service("s", service);
    let plugins = plugins.start(config(&yaml)).await.unwrap();
    let mut stream = call(&plugins.plugin("p"), get("/"))
        .await
        .unwrap()
        .into_body();
    for _ in 0..3 {
        advance(4 * SECOND).await;
        frames.send(data("event")).unwrap();
        assert!(stream.frame().await.unwrap().is_ok());
    }
    let begun = Instant::now();
    let end = tokio::time::timeout(3600 * SECOND, stream.frame())
        .await
        .ok()?;
    let error = end.unwrap().unwrap_err();
    Some((ours(&*error).reason(), begun.elapsed()))
}

#[tokio::test(start_paused = true)]
async fn stream_idle_timeout_is_how_long_a_stream_may_be_silent() {
    let after = |seconds: u32| Some((Some(Reason::StreamIdle), seconds * SECOND));
    assert_eq!(silence("stream_idle_timeout: 5s").await, after(5));
    assert_eq!(silence("stream_idle_timeout: 20m").await, after(1200));
    assert_eq!(silence("stream_idle_timeout: off").await, None);
}

#[tokio::test]
async fn keep_alive_is_whether_a_connection_serves_more_than_one_call() {
    for (keep, accepted) in [(true, 1), (false, 5)] {
        let server = echoing().await;
        let plugin = at(&server.address, &format!("keep_alive: {keep}")).await;
        for _ in 0..5 {
            assert_eq!(text(&plugin, post("/", "hello")).await.unwrap(), "hello");
        }
        assert_eq!(server.accepted(), accepted);
        server.until_open(usize::from(keep)).await;
    }
}

#[tokio::test]
async fn disable_compression_is_whether_responses_are_not_asked_for_compressed() {
    for (keys, asked) in [
        ("", true),
        ("disable_compression: false", true),
        ("disable_compression: true", false),
    ] {
        let server = Server::start(Socket::Tcp, Protocol::Http1, |request| async move {
            if request.headers().contains_key("accept-encoding") {
                compressed(&request, gzip(b"hello"))
            } else {
                Response::new("plain".into())
            }
        })
        .await;
        let plugin = at(&server.address, keys).await;
        let answer = text(&plugin, get("/")).await.unwrap();
        assert_eq!(answer, if asked { "hello" } else { "plain" });
    }
}

#[tokio::test]
async fn max_response_head_is_the_largest_head_that_is_taken() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, |_| async {
        let mut response = Response::new("ok".into());
        let value = HeaderValue::try_from("x".repeat(20 << 10)).unwrap();
        response.headers_mut().insert("x-large", value);
        response
    })
    .await;
    let small = at(&server.address, "max_response_head: 16KiB").await;
    let error = call(&small, get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ResponseTooLarge));
    let large = at(&server.address, "max_response_head: 24KiB").await;
    assert_eq!(text(&large, get("/")).await.unwrap(), "ok");
}

/// The length of an answer of 1000 bytes, or why there is none.
async fn thousand(plugin: &Plugin) -> Result<usize, Option<Reason>> {
    let response = call(plugin, post("/", vec![b'x'; 1000])).await;
    let body = response.map_err(|error| error.reason())?.into_body();
    match within(body.collect()).await {
        Ok(body) => Ok(body.to_bytes().len()),
        Err(error) => Err(ours(&*error).reason()),
    }
}

#[tokio::test]
async fn max_response_body_is_the_largest_body_that_is_taken() {
    let server = echoing().await;
    for (limit, answer) in [
        ("999", Err(Some(Reason::ResponseTooLarge))),
        ("1000", Ok(1000)),
        ("off", Ok(1000)),
    ] {
        let plugin = at(&server.address, &format!("max_response_body: {limit}")).await;
        assert_eq!(thousand(&plugin).await, answer, "{limit}");
    }
}
