//! How connections are opened, shared, waited for, kept and closed.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, Sender};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use http::Response;
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tower_plugins::Body;
use tower_plugins::config::Protocol;
use tower_plugins::transport::{Http, Transport};
use tower_plugins_layers::{Reason, Unsent};

use super::server::{
    EVERY, Server, Socket, chain, channel, data, echo, get, post, read, spec, tcp, within,
};

/// Polls `future` once.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_one_after_the_other_share_a_connection() {
    for (socket, protocol) in EVERY {
        let server = Server::start(socket, protocol, echo).await;
        let http = server.http();
        for _ in 0..50 {
            let response = within(http.call(post("/", "hello"))).await.unwrap();
            assert_eq!(read(response).await, "hello");
            read(within(http.call(get("/"))).await.unwrap()).await;
        }
        assert_eq!(server.accepted(), 1, "{socket:?} {protocol:?}");
    }
}

#[tokio::test]
async fn an_http2_peer_that_falls_silent_gets_no_further_call() {
    for socket in [Socket::Tcp, Socket::Unix] {
        let server = Server::start(socket, Protocol::Http2, |request| async {
            if request.uri().path() == "/never" {
                std::future::pending::<()>().await;
            }
            echo(request).await
        })
        .await;
        let http = server.http();
        let give_up_after = async |wait| {
            tokio::time::pause();
            let call = tokio::time::timeout(wait, http.call(get("/never"))).await;
            assert!(call.is_err());
            tokio::time::resume();
            read(within(http.call(post("/", "hello"))).await.unwrap()).await
        };
        read(within(http.call(get("/"))).await.unwrap()).await;
        assert_eq!(give_up_after(Duration::from_millis(10)).await, "hello");
        assert_eq!(server.accepted(), 1, "a short wait says nothing");
        assert_eq!(give_up_after(Duration::from_secs(2)).await, "hello");
        assert_eq!(server.accepted(), 2, "a long one does");
    }
}

#[tokio::test]
async fn a_connection_that_is_not_kept_alive_serves_one_call() {
    for (socket, protocol) in EVERY {
        let server = Server::start(socket, protocol, echo).await;
        let http = server.http_with(|spec| spec.keep_alive = false);
        for _ in 0..5 {
            read(within(http.call(post("/", "hello"))).await.unwrap()).await;
        }
        assert_eq!(server.accepted(), 5, "{socket:?} {protocol:?}");
        server.until_open(0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_connections_are_opened_than_allowed() {
    for socket in [Socket::Tcp, Socket::Unix] {
        let server = Server::start(socket, Protocol::Http1, echo).await;
        let http = server.http_with(|spec| spec.max_connections = 3);
        let calls = (0..50).map(|_| async {
            let response = http.call(post("/", "hello")).await.unwrap();
            assert_eq!(read(response).await, "hello");
        });
        within(join_all(calls)).await;
        assert!(server.most_open() <= 3, "{}", server.most_open());
    }
}

#[tokio::test]
async fn calls_that_start_at_once_share_one_attempt_to_connect_over_http2() {
    let server = Server::start(Socket::Tcp, Protocol::Http2, echo).await;
    let http = server.http();
    let mut gone = http.call(post("/", "gone"));
    assert!(poll_once(&mut gone).await.is_pending());
    let mut calls: Vec<_> = (0..50).map(|_| http.call(post("/", "hello"))).collect();
    for call in &mut calls {
        assert!(poll_once(call).await.is_pending());
    }
    // The one that began to connect goes away; the others have their connection.
    drop(gone);
    for response in within(join_all(calls)).await {
        assert_eq!(read(response.unwrap()).await, "hello");
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_connection_comes_back_when_the_body_has_been_read() {
    let (sender, body) = channel();
    let body = std::sync::Mutex::new(Some(body));
    let server = Server::start(Socket::Tcp, Protocol::Http1, move |_| {
        let body = body.lock().unwrap().take().unwrap_or_default();
        async { Response::new(body) }
    })
    .await;
    let http = server.http_with(|spec| spec.max_connections = 1);

    sender.send(data("head")).unwrap();
    let mut slow = within(http.call(get("/slow"))).await.unwrap().into_body();
    assert!(within(slow.frame()).await.unwrap().is_ok());
    let mut waiting = http.call(get("/"));
    assert!(poll_once(&mut waiting).await.is_pending());

    drop(sender);
    assert!(within(slow.frame()).await.is_none());
    assert_eq!(within(waiting).await.unwrap().status(), 200);
    assert_eq!(server.accepted(), 1);
    drop(slow);
}

#[tokio::test]
async fn calls_wait_in_turn_and_one_that_goes_away_passes_its_turn_on() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, echo).await;
    let http = server.http_with(|spec| spec.max_connections = 1);
    let (sender, body) = channel();
    sender.send(data("busy")).unwrap();
    let busy = within(http.call(post("/", body))).await.unwrap();

    let mut first = http.call(get("/"));
    let mut second = http.call(get("/"));
    let mut third = http.call(get("/"));
    for waiting in [&mut first, &mut second, &mut third] {
        assert!(poll_once(waiting).await.is_pending());
    }
    // One goes away while it waits, one when its turn has come.
    drop(first);
    drop(sender);
    read(busy).await;
    drop(second);
    assert_eq!(within(third).await.unwrap().status(), 200);
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_call_that_waits_too_long_for_a_connection_gets_its_request_back() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, echo).await;
    let http = server.http_with(|spec| {
        spec.max_connections = 1;
        spec.connection_timeout = Duration::from_millis(200);
    });
    let (sender, body) = channel();
    sender.send(data("busy")).unwrap();
    let _busy = within(http.call(post("/", body))).await.unwrap();
    let error = within(http.call(post("/", "mine"))).await.unwrap_err();
    assert_eq!(Reason::of(&*error), Some(Reason::PoolExhausted));
    assert!(
        chain(&error).contains("max_connections, 1,"),
        "{}",
        chain(&error)
    );
    let (request, _) = Unsent::<Body>::recover(error).unwrap();
    let body = request.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "mine");
}

#[tokio::test]
async fn an_idle_connection_is_closed_when_its_time_is_over() {
    for (socket, protocol) in EVERY {
        let server = Server::start(socket, protocol, echo).await;
        let http = server.http_with(|spec| spec.idle_timeout = Duration::from_millis(50));
        for accepted in 1..=2 {
            read(within(http.call(post("/", "hello"))).await.unwrap()).await;
            assert_eq!(server.accepted(), accepted);
            server.until_open(0).await;
        }
    }
}

#[tokio::test]
async fn no_more_connections_are_kept_idle_than_allowed() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, echo).await;
    let http = server.http_with(|spec| spec.max_idle_connections = 2);
    let mut busy = Vec::new();
    for _ in 0..5 {
        let (sender, body) = channel();
        sender.send(data("busy")).unwrap();
        busy.push((within(http.call(post("/", body))).await.unwrap(), sender));
    }
    server.until_open(5).await;
    for (response, sender) in busy {
        drop(sender);
        read(response).await;
    }
    server.until_open(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_place_is_lost_however_calls_are_cancelled() {
    for socket in [Socket::Tcp, Socket::Unix] {
        let server = Server::start(socket, Protocol::Http1, echo).await;
        let http = server.http_with(|spec| spec.max_connections = 3);
        let calls = (0..300).map(|i| {
            let http = &http;
            async move {
                let mut call = Box::pin(async {
                    let mut body = http.call(post("/", "hello")).await.unwrap().into_body();
                    while let Some(frame) = body.frame().await {
                        frame.unwrap();
                    }
                });
                for _ in 0..i % 9 {
                    if poll_once(&mut call).await.is_ready() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            }
        });
        within(join_all(calls)).await;

        // All three places are there, at the same time.
        let mut busy = Vec::new();
        for _ in 0..3 {
            let (sender, body) = channel();
            sender.send(data("busy")).unwrap();
            busy.push((within(http.call(post("/", body))).await.unwrap(), sender));
        }
        assert!(poll_once(&mut http.call(get("/"))).await.is_pending());
        server.until_open(3).await;
    }
}

/// Serves one request on each connection, says that it is kept alive, and closes it when told.
fn serve_and_close(listener: &std::net::TcpListener, close: &Receiver<Sender<()>>) {
    while let Ok((mut stream, _)) = listener.accept() {
        let mut head = [0; 1024];
        assert!(stream.read(&mut head).unwrap() > 0);
        let response = b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok";
        stream.write_all(response).unwrap();
        let Ok(closed) = close.recv() else { return };
        drop(stream);
        closed.send(()).unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closed_just_now_costs_no_call() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp(listener.local_addr().unwrap());
    let http = Http::new(&address, &spec(Protocol::Http1)).unwrap();
    let (close, closing) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || serve_and_close(&listener, &closing));
    for round in 0..200 {
        let response = within(http.call(post("/", "not idempotent"))).await;
        let response = response.unwrap_or_else(|error| panic!("round {round}: {}", chain(&error)));
        assert_eq!(read(response).await, "ok");
        // The thread is held up until the server has closed: the runtime cannot have seen it.
        let (closed, has_closed) = std::sync::mpsc::channel();
        close.send(closed).unwrap();
        has_closed.recv().unwrap();
    }
    // It waits for one more connection, which is its last.
    drop(close);
    within(http.call(get("/"))).await.unwrap();
    server.join().unwrap();
}

#[tokio::test]
async fn a_connection_that_goes_away_is_replaced_over_http2() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp(listener.local_addr().unwrap());
    let http = Http::new(&address, &spec(Protocol::Http2)).unwrap();
    let server = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            respond.send_response(Response::new(()), true).unwrap();
            connection.graceful_shutdown();
            connections.spawn(async move { while connection.accept().await.is_some() {} });
        }
    });
    for round in 0..50 {
        let response = within(http.call(post("/", "not idempotent"))).await;
        let response = response.unwrap_or_else(|error| panic!("round {round}: {}", chain(&error)));
        assert_eq!(response.status(), 200);
    }
    server.abort();
}

#[tokio::test]
async fn a_dropped_body_closes_an_http1_connection_and_frees_its_place() {
    for socket in [Socket::Tcp, Socket::Unix] {
        let server = Server::start(socket, Protocol::Http1, echo).await;
        let http = server.http_with(|spec| spec.max_connections = 1);
        let (sender, body) = channel();
        sender.send(data("some")).unwrap();
        let response = within(http.call(post("/", body))).await.unwrap();
        drop(response);
        server.until_open(0).await;
        read(within(http.call(post("/", "next"))).await.unwrap()).await;
        assert!(sender.is_closed());
    }
}

#[tokio::test]
async fn a_dropped_body_resets_its_stream_alone_over_http2() {
    let (gone, ended) = oneshot::channel::<()>();
    let gone = std::sync::Mutex::new(Some(gone));
    let server = Server::start(Socket::Tcp, Protocol::Http2, move |request| {
        let gone = gone.lock().unwrap().take();
        async move {
            // Dropped with the stream's body on this side.
            Response::new(request.into_body().map_frame(move |frame| {
                let _held = &gone;
                frame
            }))
            .map(Body::new)
        }
    })
    .await;
    let http = server.http();
    let (sender, body) = channel();
    sender.send(data("some")).unwrap();
    let response = within(http.call(post("/", body))).await.unwrap();
    let other = within(http.call(post("/", "other"))).await.unwrap();
    drop(response);
    // The server's side of the stream ends, and so does the request that was still being sent.
    assert!(within(ended).await.is_err());
    within(sender.closed()).await;
    assert_eq!(read(other).await, "other");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_dropped_call_closes_or_resets_what_it_had() {
    for (socket, protocol) in EVERY {
        let (arrived, mut arrivals) = mpsc::unbounded_channel();
        let server = Server::start(socket, protocol, move |_| {
            let (held, dropped) = oneshot::channel::<()>();
            arrived.send(dropped).unwrap();
            async move {
                let _held = held;
                std::future::pending().await
            }
        })
        .await;
        let http = server.http_with(|spec| spec.max_connections = 1);
        for _ in 0..3 {
            let mut dropped = None;
            within(async {
                tokio::select! {
                    _ = http.call(get("/")) => panic!("no answer is given"),
                    arrival = arrivals.recv() => dropped = arrival,
                }
            })
            .await;
            let dropped = within(dropped.unwrap()).await;
            assert!(dropped.is_err(), "{socket:?} {protocol:?}");
        }
    }
}
