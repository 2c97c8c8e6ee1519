//! `grpc.health.v1`, over HTTP/2.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use tokio::sync::mpsc::UnboundedSender;
use tower::ServiceExt;
use tower_plugins::Body;
use tower_plugins::HealthStatus::{Healthy, Unhealthy};
use tower_plugins::config::Protocol;

use super::checked::{grpc, serving};
use super::report::{endpoint, start, until};
use crate::support::{Server, Socket, channel, within};

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
