//! Several HTTP/2 connections to an endpoint, and peers that turn requests away.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tower_plugins::config::{ConnectionSpec, Protocol};
use tower_plugins::transport::{Http, Transport};
use tower_plugins::{Body, Plugins, Reason};
use tower_plugins_layers::{BoxError, Unsent};

use super::h2_peer::{Does, Peer};
use super::server::{
    Server, Socket, chain, channel, data, echo, get, post, read, spec, tcp, within,
};
use crate::support::{call, config};

/// What reaches `peer`, which takes what it is asked for.
fn http(peer: &Peer, change: impl FnOnce(&mut ConnectionSpec)) -> Http {
    let mut spec = spec(Protocol::Http2);
    change(&mut spec);
    Http::new(&peer.address, &spec).unwrap()
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx))).await
}

/// The body of the request that came back with `error`.
async fn came_back(error: BoxError) -> Option<bytes::Bytes> {
    let (request, _) = Unsent::<Body>::recover(error).unwrap();
    let body = request?.into_body().collect().await;
    Some(body.unwrap().to_bytes())
}

#[tokio::test]
async fn calls_beyond_what_the_peer_takes_on_a_connection_get_another() {
    let peer = Peer::start(4, |_| Does::Nothing).await;
    let http = http(&peer, |_| ());
    let mut calls: Vec<_> = (0..18).map(|_| http.call(get("/"))).collect();
    for call in &mut calls {
        assert!(poll_once(call).await.is_pending());
    }
    within(async {
        tokio::select! {
            _ = join_all(calls) => panic!("no answer is given"),
            () = peer.until_seen(18) => {}
        }
    })
    .await;
    assert_eq!(peer.accepted(), 5);
    assert!(peer.most_streams() <= 4);
}

#[tokio::test]
async fn calls_beyond_all_streams_wait_in_turn_for_a_bounded_time() {
    let server = Server::start(Socket::Tcp, Protocol::Http2, echo).await;
    let http = server.http_with(|spec| {
        spec.max_connections = 1;
        spec.max_streams = 1;
        spec.connection_timeout = Duration::from_millis(500);
    });
    let (sender, body) = channel();
    sender.send(data("busy")).unwrap();
    let busy = within(http.call(post("/", body))).await.unwrap();
    let error = within(http.call(post("/", "mine"))).await.unwrap_err();
    assert_eq!(Reason::of(&*error), Some(Reason::PoolExhausted));
    assert!(
        chain(&error).contains("max_connections, 1,"),
        "{}",
        chain(&error)
    );
    assert_eq!(came_back(error).await.unwrap(), "mine");

    let mut waiting: Vec<_> = (0..3).map(|_| http.call(post("/", "next"))).collect();
    for call in &mut waiting {
        assert!(poll_once(call).await.is_pending());
    }
    // One goes away while it waits, one when its turn has come.
    let last = waiting.pop().unwrap();
    let second = waiting.pop().unwrap();
    drop(waiting);
    drop(sender);
    read(busy).await;
    drop(second);
    assert_eq!(read(within(last).await.unwrap()).await, "next");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_stream_is_lost_however_calls_are_cancelled() {
    let server = Server::start(Socket::Tcp, Protocol::Http2, echo).await;
    let http = server.http_with(|spec| {
        spec.max_connections = 2;
        spec.max_streams = 2;
    });
    let calls = (0..300).map(|i| {
        let http = &http;
        async move {
            let mut call =
                Box::pin(async { read(http.call(post("/", "hello")).await.unwrap()).await });
            for _ in 0..i % 9 {
                if poll_once(&mut call).await.is_ready() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
    });
    within(join_all(calls)).await;
    // All four are there, at the same time, and no fifth.
    let mut busy = Vec::new();
    for _ in 0..4 {
        let (sender, body) = channel();
        sender.send(data("busy")).unwrap();
        busy.push((within(http.call(post("/", body))).await.unwrap(), sender));
    }
    assert!(poll_once(&mut http.call(get("/"))).await.is_pending());
    server.until_open(2).await;
}

#[tokio::test]
async fn a_peer_that_does_not_speak_http2_is_not_connected_to() {
    for closes in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut spec = spec(Protocol::Http2);
        spec.connection_timeout = Duration::from_millis(500);
        let http = Http::new(&tcp(listener.local_addr().unwrap()), &spec).unwrap();
        let silent = async {
            let (stream, _) = listener.accept().await.unwrap();
            if !closes {
                std::future::pending::<()>().await;
            }
            drop(stream);
            std::future::pending::<()>().await;
        };
        let error = within(async {
            tokio::select! {
                outcome = http.call(post("/", "mine")) => outcome.unwrap_err(),
                () = silent => unreachable!(),
            }
        })
        .await;
        assert_eq!(
            Reason::of(&*error),
            Some(Reason::ConnectFailed),
            "{}",
            chain(&error)
        );
        assert_eq!(came_back(error).await.unwrap(), "mine");
    }
}

/// Bodies of which nothing, or a frame, has been read when they come back.
fn body(number: usize) -> Body {
    if number.is_multiple_of(2) {
        return "all of it".into();
    }
    let (sender, body) = channel();
    for text in ["some", "more"] {
        sender.send(data(text)).unwrap();
    }
    body
}

/// Calls of eight callers through a plugin at `peer`, which may not be repeated. None fails, and none is
/// taken twice.
async fn none_fails(peer: &Peer, keys: &str) {
    const CALLS: usize = 250;
    let url = &peer.address;
    let yaml = format!(
        "plugins: {{ p: {{ transport: http, endpoint: '{url}', connection: {{ protocol: http2 }}, {keys} }} }}"
    );
    let plugins = Arc::new(Plugins::builder().start(config(&yaml)).await.unwrap());
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let p = plugins.plugin("p");
            tokio::spawn(async move {
                for number in 0..CALLS {
                    let response = call(&p, post("/", body(number))).await.unwrap();
                    assert_eq!(response.status(), 200);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(peer.answered(), 8 * CALLS);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_go_away_under_load_cost_no_call_even_without_retries() {
    for keys in ["retry: default", "retry: { enabled: false }"] {
        for leave in [Does::Leave, Does::LeaveAtItsEnd] {
            let plan = move |number| {
                if number % 20 == 19 {
                    leave
                } else {
                    Does::Answer
                }
            };
            let peer = Peer::start(100, plan).await;
            none_fails(&peer, keys).await;
            assert!(peer.accepted() > 20, "{}", peer.accepted());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_refused_under_load_cost_no_call() {
    let plan = |number| match number % 20 {
        19 => Does::Refuse,
        _ => Does::Answer,
    };
    let peer = Peer::start(100, plan).await;
    none_fails(&peer, "retry: default").await;
    assert_eq!(peer.accepted(), 1);
}

#[tokio::test]
async fn a_request_that_was_read_beyond_what_is_kept_is_unavailable() {
    let peer = Peer::start(100, |number| match number {
        0 => Does::LeaveAtItsEnd,
        _ => Does::Answer,
    })
    .await;
    let large = async |http: &Http, bytes: usize| {
        let (sender, body) = channel();
        for _ in 0..bytes / 1024 {
            sender
                .send(http_body::Frame::data(vec![0; 1024].into()))
                .unwrap();
        }
        drop(sender);
        within(http.call(post("/", body))).await
    };
    let http = http(&peer, |_| ());
    let error = large(&http, 100 << 10).await.unwrap_err();
    assert_eq!(Reason::of(&*error), Some(Reason::ConnectionLost));
    assert!(came_back(error).await.is_none());
    assert_eq!(large(&http, 100 << 10).await.unwrap().status(), 200);
    assert_eq!(peer.accepted(), 2);
}
