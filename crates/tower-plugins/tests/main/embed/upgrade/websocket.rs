//! WebSockets, spoken by tungstenite on both sides.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use http::Request;
use http::header::{CONNECTION, UPGRADE};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};
use tower_plugins::config::{Address, Config, PluginSpec};
use tower_plugins::{Body, Plugins, upgrade};

use super::{Front, idle};
use crate::support::{call, within};
use crate::transport::server::{tcp, unix};
use crate::transport::tls::server::{Ca, Setup};

/// How the server is reached.
#[derive(Clone, Copy, Debug)]
enum Way {
    Tcp,
    Tls,
    Unix,
}

const WAYS: [Way; 3] = [Way::Tcp, Way::Tls, Way::Unix];

/// A server that sends back each message.
struct Echo {
    plugins: Plugins,
    task: JoinHandle<()>,
    _directory: TempDir,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Echo {
    async fn start(way: Way) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        let (address, task) = match way {
            Way::Unix => {
                let path = directory.path().join("echo.sock");
                let listener = UnixListener::bind(&path).unwrap();
                let accept = async move || listener.accept().await.unwrap().0;
                (unix(path), tokio::spawn(serve(accept)))
            }
            Way::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = tcp(listener.local_addr().unwrap());
                let accept = async move || listener.accept().await.unwrap().0;
                (address, tokio::spawn(serve(accept)))
            }
            Way::Tls => {
                let certified = ca.certify(&["localhost"]);
                let acceptor = TlsAcceptor::from(Arc::new(Setup::new(&certified).config()));
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let port = listener.local_addr().unwrap().port();
                let accept = async move || {
                    let stream = listener.accept().await.unwrap().0;
                    acceptor.accept(stream).await.unwrap()
                };
                let address = Address::https(&format!("https://localhost:{port}")).unwrap();
                (address, tokio::spawn(serve(accept)))
            }
        };
        let mut spec = PluginSpec::http("p", "http://127.0.0.1:1").unwrap();
        spec.upstream.endpoints[0].address = address;
        spec.upstream.tls = ca.trusted();
        let config = Config::new().with(spec);
        Self {
            plugins: Plugins::builder().start(config).await.unwrap(),
            task,
            _directory: directory,
        }
    }
}

async fn serve<S>(accept: impl AsyncFn() -> S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let stream = accept().await;
        connections.spawn(async move {
            // A request that is no WebSocket's ends its connection.
            let Ok(mut socket) = accept_async(stream).await else {
                return;
            };
            while let Some(Ok(message)) = socket.next().await {
                if message.is_text() || message.is_binary() {
                    socket.send(message).await.unwrap();
                }
            }
        });
    }
}

async fn talk<S>(mut socket: WebSocketStream<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for message in [
        Message::text("hello"),
        Message::binary(vec![7; 1 << 20]),
        Message::text(""),
    ] {
        within(socket.send(message.clone())).await.unwrap();
        assert_eq!(within(socket.next()).await.unwrap().unwrap(), message);
    }
    within(socket.close(None)).await.unwrap();
    // The goodbye of the other side, and then its end.
    while let Some(Ok(message)) = within(socket.next()).await {
        assert!(message.is_close());
    }
}

#[tokio::test]
async fn a_websocket_goes_through_a_route_over_tcp_tls_and_unix_sockets() {
    for way in WAYS {
        let echo = Echo::start(way).await;
        let front = Front::start(&echo.plugins).await;
        let stream = TcpStream::connect(&front.address).await.unwrap();
        let url = format!("ws://{}/talk?to=me", front.address);
        let (socket, answer) = within(client_async(url, stream)).await.unwrap();
        assert_eq!(answer.status(), 101, "{way:?}");
        assert_eq!(echo.plugins.active_requests("p"), 1);
        talk(socket).await;
        idle(&echo.plugins).await;
    }
}

#[tokio::test]
async fn a_library_caller_speaks_websocket_over_tcp_tls_and_unix_sockets() {
    for way in WAYS {
        let echo = Echo::start(way).await;
        let request = Request::get("/talk")
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(Body::empty())
            .unwrap();
        let mut response = call(&echo.plugins.plugin("p"), request).await.unwrap();
        // The answer to the key that RFC 6455 has as its example.
        let accept = &response.headers()["sec-websocket-accept"];
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "{way:?}");
        let connection = within(upgrade::on(&mut response)).await.unwrap();
        talk(WebSocketStream::from_raw_socket(connection, Role::Client, None).await).await;
        idle(&echo.plugins).await;
    }
}

/// A server that grants each upgrade with this answer to the key, or without one, and says what comes of the connection.
async fn grants(accept: Option<&'static str>) -> (Plugins, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp(listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while stream.read_line(&mut line).await.unwrap() > 2 {
                line.clear();
            }
            let accept = accept.map(|accept| format!("sec-websocket-accept: {accept}\r\n"));
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n{}\r\n",
                accept.unwrap_or_default()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut said = String::new();
            let _ = stream.read_to_string(&mut said).await;
            sender.send(said).unwrap();
        }
    });
    let mut spec = PluginSpec::http("p", "http://127.0.0.1:1").unwrap();
    spec.upstream.endpoints[0].address = address;
    let plugins = Plugins::builder().start(Config::new().with(spec)).await;
    (plugins.unwrap(), receiver)
}

#[tokio::test]
async fn a_101_that_does_not_answer_to_the_key_made_here_is_refused_and_its_connection_closed() {
    // That of RFC 6455's example, which is the answer to another key.
    for accept in [None, Some(""), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")] {
        let (plugins, mut closed) = grants(accept).await;
        let front = Front::start(&plugins).await;
        let (response, _connection) = front.connect("websocket").await;
        assert_eq!(response.status(), 502, "{accept:?}");
        drop(response);
        assert_eq!(within(closed.recv()).await.unwrap(), "");
        idle(&plugins).await;
        // A caller's own key is the caller's to check.
        let request = Request::get("/talk")
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "websocket")
            .header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==")
            .body(Body::empty())
            .unwrap();
        let response = call(&plugins.plugin("p"), request).await.unwrap();
        assert_eq!(response.status(), 101, "{accept:?}");
    }
}

/// RFC 8441 in front, HTTP/1.1 behind.
#[tokio::test]
async fn a_websocket_over_http2_goes_through_a_route() {
    let echo = Echo::start(Way::Tcp).await;
    let front = Front::start(&echo.plugins).await;
    let (mut response, _connection) = front.connect("websocket").await;
    assert_eq!(response.status(), 200);
    for name in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    let stream = TokioIo::new(within(hyper::upgrade::on(&mut response)).await.unwrap());
    assert_eq!(echo.plugins.active_requests("p"), 1);
    talk(WebSocketStream::from_raw_socket(stream, Role::Client, None).await).await;
    idle(&echo.plugins).await;
}
