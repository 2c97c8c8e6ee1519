//! A drain in a real server.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::extract::Request;
use axum::routing::get;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::Frame;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower::ServiceBuilder;
use tower_plugins_layers::drain::DrainHold;
use tower_plugins_layers::test_util::ScriptedBody;
use tower_plugins_layers::{BoxError, DrainHandle, DrainLayer};

use crate::support::{millis, secs};

struct Server {
    address: std::net::SocketAddr,
    drain: DrainHandle,
    /// Lets the slow call go on.
    go: Arc<Notify>,
    task: JoinHandle<std::io::Result<()>>,
}

async fn events() -> Response<Body> {
    let first = Some(Ok(Frame::data(Bytes::from_static(b"data: one"))));
    let body = Body::new(ScriptedBody::new([first, None]));
    let response = Response::builder().header("content-type", "text/event-stream");
    response.body(body).unwrap()
}

/// Sends back what it gets.
async fn echo(mut request: Request) -> Response<Body> {
    let hold = request.extensions_mut().remove::<DrainHold>().unwrap();
    let talk = async move {
        let io = hyper::upgrade::on(request).await.unwrap();
        let (mut read, mut write) = tokio::io::split(TokioIo::new(io));
        let _ = tokio::io::copy(&mut read, &mut write).await;
    };
    tokio::spawn(hold.keep(talk));
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "upgrade")
        .header("upgrade", "echo");
    response.body(Body::empty()).unwrap()
}

async fn serve() -> Server {
    let (drain, go) = (DrainHandle::new(), Arc::new(Notify::new()));
    let slow = {
        let go = go.clone();
        get(move || async move {
            go.notified().await;
            "done"
        })
    };
    let layers = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|error: BoxError| async move {
            (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }))
        .layer(
            DrainLayer::new(drain.clone())
                .answer(secs(5))
                .close_connections(),
        );
    let router = Router::new()
        .route("/quick", get(|| async { "quick" }))
        .route("/slow", slow)
        .route("/events", get(events))
        .route("/echo", get(echo))
        .layer(layers);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = axum::serve(listener, router).with_graceful_shutdown(drain.closed());
    Server {
        address,
        drain,
        go,
        task: tokio::spawn(server.into_future()),
    }
}

impl Server {
    /// A connection on which `path` was asked for.
    async fn ask(&self, path: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: here\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    async fn upgrade(&self) -> TcpStream {
        let mut stream = self
            .ask("/echo", "connection: upgrade\r\nupgrade: echo\r\n")
            .await;
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        stream.write_all(b"ping").await.unwrap();
        read_until(&mut stream, "ping").await;
        stream
    }

    async fn wait_for(&self, active: usize) {
        while self.drain.active() != active {
            tokio::task::yield_now().await;
        }
    }
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        text.push(char::from(stream.read_u8().await.unwrap()));
    }
    text
}

/// What is still to come until the server closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    String::from_utf8(rest).unwrap()
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(secs(30), future).await.expect("not in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_lets_calls_end_and_cuts_streams_and_upgrades_at_its_time() {
    in_time(async {
        let server = serve().await;
        let mut idle = server.ask("/quick", "").await;
        read_until(&mut idle, "quick").await;
        let mut events = server.ask("/events", "").await;
        read_until(&mut events, "one\r\n").await;
        let mut upgraded = server.upgrade().await;
        let mut slow = server.ask("/slow", "").await;
        server.wait_for(3).await;

        let drain = server.drain.clone();
        let shutdown = tokio::spawn(async move { drain.shutdown(millis(500)).await });
        server.drain.closed().await;
        server.go.notify_one();
        let answer = rest(&mut slow).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"),
            "{answer}"
        );
        assert!(answer.contains("connection: close"), "{answer}");
        // No obstacle, and closed without waiting for the others.
        assert_eq!(rest(&mut idle).await, "");
        assert!(!shutdown.is_finished());
        upgraded.write_all(b"still").await.unwrap();
        read_until(&mut upgraded, "still").await;

        let report = shutdown.await.unwrap();
        assert_eq!((report.finished, report.cancelled, report.left), (1, 2, 0));
        assert!(report.elapsed >= millis(500));
        assert_eq!(
            (rest(&mut events).await, rest(&mut upgraded).await),
            Default::default()
        );
        server.task.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_connection_is_counted_until_it_ends() {
    in_time(async {
        let server = serve().await;
        let upgraded = server.upgrade().await;
        assert_eq!(server.drain.active(), 1);
        let drain = server.drain.clone();
        let shutdown = tokio::spawn(async move { drain.shutdown(secs(60)).await });
        server.drain.closed().await;
        assert_eq!(server.drain.active(), 1);
        drop(upgraded);
        let report = shutdown.await.unwrap();
        assert_eq!((report.finished, report.cancelled, report.left), (1, 0, 0));
        server.task.await.unwrap().unwrap();
    })
    .await;
}
