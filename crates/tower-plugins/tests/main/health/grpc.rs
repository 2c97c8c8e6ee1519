//! `grpc.health.v1`, over HTTP/2.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::Response;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::mpsc::UnboundedSender;
use tower::ServiceExt;
use tower_plugins::HealthStatus::{Healthy, Unhealthy};
use tower_plugins::config::Protocol;
use tower_plugins::{Body, Plugins};

use super::checked::{grpc, serving};
use super::report::{endpoint, start, until};
use crate::support::{Server, Socket, channel, config, within};

/// A server whose answer the test says, and the streams of those who watch it.
struct Peer {
    server: Server,
    streams: tokio::sync::mpsc::UnboundedReceiver<UnboundedSender<Frame<Bytes>>>,
    says: Arc<Mutex<Vec<u8>>>,
}

/// An answer of a head alone.
fn refused(code: &'static str) -> Response<Body> {
    let response = Response::builder().header("content-type", "application/grpc");
    response
        .header("grpc-status", code)
        .body(Body::empty())
        .unwrap()
}

impl Peer {
    async fn start(can_watch: bool) -> Self {
        let says = Arc::new(Mutex::new(serving(1)));
        let (sender, streams) = tokio::sync::mpsc::unbounded_channel();
        let answer = Arc::clone(&says);
        let server = Server::start(Socket::Tcp, Protocol::Http2, move |request| {
            let (answer, sender) = (Arc::clone(&answer), sender.clone());
            async move {
                match request.uri().path() {
                    "/grpc.health.v1.Health/Check" => grpc(answer.lock().unwrap().clone()),
                    "/grpc.health.v1.Health/Watch" if can_watch => {
                        let (frames, body) = channel();
                        sender.send(frames).unwrap();
                        let response = Response::builder();
                        let response = response.header("content-type", "application/grpc");
                        response.body(body).unwrap()
                    }
                    _ => refused("12"),
                }
            }
        });
        Self {
            server: server.await,
            streams,
            says,
        }
    }

    async fn stream(&mut self) -> UnboundedSender<Frame<Bytes>> {
        within(self.streams.recv()).await.unwrap()
    }
}

fn message(status: u8) -> Frame<Bytes> {
    Frame::data(serving(status).into())
}

#[tokio::test]
async fn a_server_that_does_not_serve_is_out() {
    let peer = Peer::start(false).await;
    *peer.says.lock().unwrap() = serving(2);
    let check = "kind: grpc, interval: 1s, unhealthy_interval: 10ms";
    let plugins = start(&peer.server, check, "").await;
    until(&plugins, Unhealthy).await;
    let endpoint = endpoint(&plugins);
    let message = endpoint.message.as_deref();
    assert_eq!(message, Some("it says that it does not serve"));
    *peer.says.lock().unwrap() = serving(1);
    until(&plugins, Healthy).await;
}

#[tokio::test]
async fn a_watch_tells_at_once_and_is_opened_again_when_it_breaks() {
    let mut peer = Peer::start(true).await;
    let check = "kind: grpc-watch, interval: 20s, timeout: 20s, unhealthy_interval: 10ms";
    let plugins = start(&peer.server, check, "").await;
    let stream = peer.stream().await;
    // A message in two frames.
    for part in serving(1).chunks(3) {
        stream
            .send(Frame::data(Bytes::copy_from_slice(part)))
            .unwrap();
    }
    until(&plugins, Healthy).await;
    for status in [2, 1, 3, 1, 2] {
        stream.send(message(status)).unwrap();
        let expected = if status == 1 { Healthy } else { Unhealthy };
        until(&plugins, expected).await;
    }
    drop(stream);
    let stream = peer.stream().await;
    stream.send(message(1)).unwrap();
    until(&plugins, Healthy).await;
}

/// As a network does that is cut, or a machine that has lost its power: no connection ends.
#[tokio::test]
async fn an_endpoint_that_is_gone_without_a_word_is_noticed_while_it_is_watched() {
    let (frozen, watched) = tokio::sync::watch::channel(false);
    let server = Server::start(Socket::Tcp, Protocol::Http2, move |request| {
        let is_frozen = *watched.borrow();
        async move {
            let (frames, body) = channel();
            if is_frozen {
                std::future::pending::<()>().await;
            }
            if request.uri().path().ends_with("/Check") {
                return grpc(serving(1));
            }
            frames.send(message(1)).unwrap();
            // It stays open, and says nothing more.
            tokio::spawn(async move { frames.closed().await });
            let response = Response::builder().header("content-type", "application/grpc");
            response.body(body).unwrap()
        }
    });
    let server = server.await;
    let check = "kind: grpc-watch, interval: 50ms, timeout: 50ms";
    let plugins = start(&server, check, "").await;
    until(&plugins, Healthy).await;
    frozen.send(true).unwrap();
    until(&plugins, Unhealthy).await;
}

/// As a proxy may leave it that was cut off from its server.
#[tokio::test]
async fn an_answer_that_ends_without_a_status_is_a_check_that_failed() {
    let server = Server::start(Socket::Tcp, Protocol::Http2, |_| async {
        let response = Response::builder().header("content-type", "application/grpc");
        response.body(Body::from(serving(1))).unwrap()
    });
    let server = server.await;
    let check = "kind: grpc, interval: 1s, unhealthy_interval: 10ms";
    let plugins = start(&server, check, "").await;
    until(&plugins, Unhealthy).await;
    let message = endpoint(&plugins).message;
    assert_eq!(message.as_deref(), Some("an answer without a grpc-status"));
}

/// tonic's own server, behind hyper's.
#[tokio::test]
async fn tonics_health_service_is_asked_and_watched() {
    for kind in ["grpc", "grpc-watch"] {
        let (reporter, service) = tonic_health::server::health_reporter();
        let routes = tonic::service::Routes::new(service).prepare();
        let server = Server::start(Socket::Tcp, Protocol::Http2, move |request| {
            let answer = routes.clone().oneshot(request.map(tonic::body::Body::new));
            async { answer.await.unwrap().map(Body::new) }
        });
        let server = server.await;
        let check = format!(
            "kind: {kind}, service: a.b.C, interval: 100ms, failure_limit: 1, timeout: 100ms"
        );
        let plugins = start(&server, &check, "").await;
        until(&plugins, Unhealthy).await;
        let message = endpoint(&plugins).message.unwrap();
        let unknown = ["grpc status not-found", "it knows no such service"];
        assert!(
            unknown.contains(&&*message) || message.starts_with("no answer"),
            "{message}"
        );
        let states = [
            (tonic_health::ServingStatus::Serving, Healthy),
            (tonic_health::ServingStatus::NotServing, Unhealthy),
            (tonic_health::ServingStatus::Serving, Healthy),
        ];
        for (says, status) in states {
            reporter.set_service_status("a.b.C", says).await;
            until(&plugins, status).await;
        }
    }
}

/// A server that goes on with the rest of an answer for as long as somebody reads it, up to 100 MB; and how many bytes it
/// has sent.
async fn endless(begin: &'static [u8], rest: &'static [u8]) -> (Server, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let server = Server::start(Socket::Tcp, Protocol::Http2, move |_| {
        let count = Arc::clone(&count);
        let rest = stream::repeat_with(move || {
            count.fetch_add(rest.len(), SeqCst);
            Frame::data(Bytes::from_static(rest))
        });
        let rest = rest.take(100_000_000 >> 16);
        let frames = stream::iter([Frame::data(Bytes::from_static(begin))]).chain(rest);
        let body = StreamBody::new(frames.map(Ok::<_, Infallible>));
        let response = Response::builder().header("content-type", "application/grpc");
        let response = response.body(Body::new(body)).unwrap();
        async { response }
    });
    (server.await, sent)
}

#[tokio::test]
async fn an_answer_of_a_hundred_megabytes_is_cut() {
    static NOTHING: [u8; 1 << 16] = [0; 1 << 16];
    static SERVING: LazyLock<Vec<u8>> = LazyLock::new(|| serving(1).repeat(1 << 13));
    // A message that says it is so long, more messages than one, and what is no message.
    let long = [0, 5, 245, 225, 0].as_slice();
    let cases: [(&[u8], &'static [u8]); 3] = [
        (long, &NOTHING),
        (&[], &SERVING),
        (&[1, 255, 255, 255, 255], &NOTHING),
    ];
    for (kind, (begin, rest)) in cases
        .into_iter()
        .flat_map(|case| [("grpc", case), ("grpc-watch", case)])
    {
        if kind == "grpc-watch" && begin.is_empty() {
            // Messages one after the other are what it asked for.
            continue;
        }
        let (server, sent) = endless(begin, rest).await;
        let plugins = start(
            &server,
            &format!("kind: {kind}, interval: 1h, failure_limit: 1"),
            "",
        )
        .await;
        until(&plugins, Unhealthy).await;
        let message = endpoint(&plugins).message.unwrap();
        assert!(message.starts_with("an answer "), "{message}");
        server.until_open(1).await;
        // What HTTP/2's windows let go, and no more.
        let sent = sent.load(SeqCst);
        assert!(sent <= 4 << 20, "{sent}");
    }
}

#[tokio::test]
async fn the_limit_of_messages_holds_for_health_too() {
    let peer = Peer::start(true).await;
    let at = peer.server.address.to_string();
    let target = at.strip_prefix("http://").unwrap();
    for (max, status) in [(1, Unhealthy), (2, Healthy)] {
        let yaml = format!(
            "plugins: {{ p: {{ transport: grpc, endpoint: '{target}', grpc: {{ max_response_message: {max} }},
                health_check: {{ kind: grpc, interval: 1h, jitter: 0, failure_limit: 1, healthy_threshold: 1 }} }} }}"
        );
        let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
        until(&plugins, status).await;
    }
}

#[tokio::test]
async fn a_server_without_watch_is_asked_by_check() {
    let peer = Peer::start(false).await;
    let check = "kind: grpc-watch, interval: 1s, unhealthy_interval: 10ms";
    let plugins = start(&peer.server, check, "").await;
    until(&plugins, Healthy).await;
}

#[tokio::test]
async fn a_server_without_the_service_is_out_and_says_so() {
    let server = Server::start(Socket::Tcp, Protocol::Http2, |_| async { refused("12") });
    let server = server.await;
    let plugins = start(&server, "kind: grpc", "").await;
    until(&plugins, Unhealthy).await;
    let endpoint = endpoint(&plugins);
    let message = endpoint.message.as_deref();
    assert_eq!(message, Some("grpc status unimplemented"));
}
