//! Connections that the peer has closed.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use http_body_util::BodyExt;
use rustls::{ServerConfig, ServerConnection, Stream};
use tower_plugins::config::{Address, Protocol};
use tower_plugins::transport::Transport;
use tower_plugins_layers::Reason;

use super::http;
use super::server::{Ca, Setup};
use crate::transport::server::{chain, get, post, read, within};

const BODY: &str = "not idempotent";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok";
const ENDLESS: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok";

/// How a connection is closed.
#[derive(Clone, Copy, Debug)]
enum Goodbye {
    Said,
    Unsaid,
}

/// Answers one request on each connection, and closes it when told.
fn serve(
    listener: &TcpListener,
    config: &Arc<ServerConfig>,
    answer: &[u8],
    close: &Receiver<(Goodbye, Sender<()>)>,
) {
    while let Ok((mut stream, _)) = listener.accept() {
        stream.set_nodelay(true).unwrap();
        let mut session = ServerConnection::new(Arc::clone(config)).unwrap();
        let mut secured = Stream::new(&mut session, &mut stream);
        // What is left unread would make a reset of the close.
        let (mut request, mut part) = (Vec::new(), [0; 1024]);
        while !(request.ends_with(BODY.as_bytes())
            || request.ends_with(b"\r\n\r\n") && request.starts_with(b"GET"))
        {
            let length = secured.read(&mut part).unwrap();
            request.extend_from_slice(&part[..length]);
        }
        secured.write_all(answer).unwrap();
        secured.flush().unwrap();
        let Ok((goodbye, closed)) = close.recv() else {
            return;
        };
        if matches!(goodbye, Goodbye::Said) {
            session.send_close_notify();
            session.write_tls(&mut stream).unwrap();
        }
        drop(stream);
        closed.send(()).unwrap();
    }
}

/// Whether a socket that is connected to `port` has not received that the peer has closed: on a busy
/// machine the kernel takes its time, loopback or not.
fn is_established(port: u16) -> bool {
    let row = format!(" 0100007F:{port:04X} 01 ");
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    table.contains(&row)
}

/// A server of one answer a connection, and how to have it close the one it has.
fn start(
    config: ServerConfig,
    answer: &'static [u8],
) -> (Address, impl Fn(Goodbye), std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("https://localhost:{port}");
    let (close, closing) = channel();
    let config = Arc::new(config);
    let thread = std::thread::spawn(move || serve(&listener, &config, answer, &closing));
    let close = move |goodbye| {
        let (closed, has_closed) = channel();
        close.send((goodbye, closed)).unwrap();
        has_closed.recv().unwrap();
        while is_established(port) {
            std::thread::yield_now();
        }
    };
    (Address::https(&url).unwrap(), close, thread)
}

#[tokio::test]
async fn a_connection_that_the_server_closed_just_now_costs_no_call() {
    let ca = Ca::new();
    let shows = ca.certify(&["localhost"]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let setup = Setup {
            version,
            ..Setup::new(&shows)
        };
        for goodbye in [Goodbye::Said, Goodbye::Unsaid] {
            let (address, close, server) = start(setup.config(), ANSWER);
            let http = http(&address, Protocol::Http1, &ca.trusted());
            for round in 0..50 {
                let response = within(http.call(post("/", BODY))).await;
                let response = response
                    .unwrap_or_else(|error| panic!("{goodbye:?} {round}: {}", chain(&error)));
                assert_eq!(read(response).await, "ok");
                // The thread is held up until the server has closed: the runtime cannot have seen it.
                close(goodbye);
            }
            // It waits for one more connection, which is its last.
            drop(close);
            within(http.call(get("/"))).await.unwrap();
            server.join().unwrap();
        }
    }
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_whole_only_if_the_peer_says_goodbye() {
    let ca = Ca::new();
    let shows = ca.certify(&["localhost"]);
    for goodbye in [Goodbye::Said, Goodbye::Unsaid] {
        let (address, close, server) = start(Setup::new(&shows).config(), ENDLESS);
        let http = http(&address, Protocol::Http1, &ca.trusted());
        let response = within(http.call(get("/"))).await.unwrap();
        close(goodbye);
        let body = within(response.into_body().collect()).await;
        match goodbye {
            Goodbye::Said => assert_eq!(body.unwrap().to_bytes(), "ok"),
            // Anyone on the way can close a connection.
            Goodbye::Unsaid => {
                let error = body.unwrap_err();
                let reason = Reason::of(&*error);
                assert_eq!(reason, Some(Reason::ConnectionLost));
            }
        }
        drop(close);
        within(http.call(get("/"))).await.unwrap();
        server.join().unwrap();
    }
}

/// Some servers want a certificate, and say nothing to who has none.
#[tokio::test]
async fn a_peer_that_closes_before_a_word_may_want_a_certificate() {
    let (ca, hint) = (Ca::new(), "it may require a client certificate");
    let shows = ca.certify(&["localhost"]);
    let mine = ca.certify(&["me"]).identity();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let config = Arc::new(Setup::new(&shows).config());
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut session = ServerConnection::new(Arc::clone(&config)).unwrap();
                while session.is_handshaking() && session.complete_io(&mut stream).is_ok() {}
            }
        });
        for (identity, is_hinted) in [(None, true), (Some(mine.clone()), false)] {
            let mut tls = ca.trusted();
            tls.identity = identity;
            // Which side of the connection sees its end first is a race: it is run often.
            for _ in 0..20 {
                let http = http(&Address::https(&url).unwrap(), protocol, &tls);
                let error = within(http.call(post("/", BODY))).await.unwrap_err();
                let text = chain(&error);
                assert_eq!(text.contains(hint), is_hinted, "{protocol:?}: {text}");
            }
        }
    }
}
