//! What a hop has to mend in the heads of requests and responses.

use http::header::{CONTENT_LENGTH, COOKIE, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tower_plugins::config::Protocol;
use tower_plugins::transport::{Http, Transport};
use tower_plugins::{Body, Plugins};

use super::server::{EVERY, Server, Socket, channel, data, echo, get, read, spec, tcp, within};
use crate::support::{config, text};

/// HTTP/2 has them in several (RFC 9113, section 8.2.3), and servers of HTTP/1.1 read one.
#[tokio::test]
async fn cookies_are_one_header_over_http1() {
    for (socket, protocol) in EVERY {
        let server = Server::start(socket, protocol, |request: Request<Body>| async move {
            let cookies = request.headers().get_all(COOKIE).iter();
            let cookies: Vec<_> = cookies.map(|value| value.to_str().unwrap()).collect();
            Response::new(Body::from(cookies.join(" | ")))
        })
        .await;
        let mut request = get("/");
        for cookie in ["a=1", "b=2; c=3", "d=4"] {
            let cookie = HeaderValue::from_static(cookie);
            request.headers_mut().append(COOKIE, cookie);
        }
        let response = within(server.http().call(request)).await.unwrap();
        let seen = read(response).await;
        match protocol {
            Protocol::Http1 => assert_eq!(seen, "a=1; b=2; c=3; d=4", "{socket:?}"),
            _ => assert_eq!(seen, "a=1 | b=2; c=3 | d=4", "{socket:?}"),
        }
    }
}

/// It says nothing beside `transfer-encoding` (RFC 9112, section 6.3), which is taken off: the next hop would believe it.
#[tokio::test]
async fn a_length_beside_chunks_is_not_passed_on() {
    const ANSWER: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n\
        5\r\nhello\r\n0\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp(listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let length = stream.read(&mut request).await.unwrap();
        stream.write_all(ANSWER).await.unwrap();
        String::from_utf8_lossy(&request[..length]).to_lowercase()
    });
    let http = Http::new(&address, &spec(Protocol::Http1)).unwrap();
    let (frames, body) = channel();
    drop(frames);
    let request = Request::post("/")
        .header(CONTENT_LENGTH, "3")
        .header(TRANSFER_ENCODING, "chunked")
        .body(body)
        .unwrap();
    let response = within(http.call(request)).await.unwrap();
    assert!(!response.headers().contains_key(CONTENT_LENGTH));
    assert_eq!(read(response).await, "hello");
    let asked = within(server).await.unwrap();
    assert!(!asked.contains("content-length"), "{asked}");
}

#[tokio::test]
async fn a_get_keeps_a_body_of_which_nobody_knows_the_length() {
    for (socket, protocol) in EVERY {
        let server = Server::start(socket, protocol, echo).await;
        let http = server.http();
        for _ in 0..2 {
            let (frames, body) = channel();
            frames.send(data("search for this")).unwrap();
            drop(frames);
            let request = Request::get("/search").body(body).unwrap();
            let response = within(http.call(request)).await.unwrap();
            let answer = read(response).await;
            assert_eq!(answer, "search for this", "{socket:?} {protocol:?}");
        }
        assert_eq!(server.accepted(), 1, "{socket:?} {protocol:?}");
    }
}

/// It is for the next hop (RFC 9110, section 11.7.1), which is this program.
#[tokio::test]
async fn a_callers_credentials_for_a_proxy_go_no_further() {
    for (socket, protocol) in EVERY {
        let server = Server::start(socket, protocol, |request: Request<Body>| async move {
            let seen = request.headers().get_all("proxy-authorization").iter();
            let seen: Vec<_> = seen.map(|value| value.to_str().unwrap()).collect();
            Response::new(Body::from(seen.join(" | ")))
        })
        .await;
        let asked = || {
            let mut request = get("/");
            let secret = HeaderValue::from_static("Basic callers");
            request.headers_mut().append("proxy-authorization", secret);
            request
        };
        let auth = "auth: { method: api-key, api_key: ours, header: proxy-authorization }";
        for (keys, sent) in [("", ""), (auth, "ours")] {
            let transport = match socket {
                Socket::Unix => "unix",
                _ => "http",
            };
            let protocol = match protocol {
                Protocol::Http1 => "http1",
                _ => "http2",
            };
            let yaml = format!(
                "plugins: {{ p: {{ transport: {transport}, endpoint: '{}',
                    connection: {{ protocol: {protocol} }}, {keys} }} }}",
                server.address
            );
            let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
            let answer = text(&plugins.plugin("p"), asked()).await.unwrap();
            assert_eq!(answer, sent, "{transport} {protocol}");
        }
    }
}
