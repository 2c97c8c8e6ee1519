//! Responses that are asked for compressed, and go on as they were before.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tower_plugins::Body;
use tower_plugins::config::Protocol;
use tower_plugins::transport::{Http, Transport};
use tower_plugins_layers::{Reason, Unsent};

use super::server::{Server, Socket, chain, channel, get, read, tcp, within};

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

pub(crate) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that no algorithm makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A response that says it is gzip, and tells in `x-asked` what was asked for.
pub(crate) fn compressed(request: &Request<Body>, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    if let Some(asked) = request.headers().get(ACCEPT_ENCODING) {
        headers.insert("x-asked", asked.clone());
    }
    response
}

async fn serving(socket: Socket, protocol: Protocol, body: Vec<u8>) -> Server {
    let body = Bytes::from(body);
    Server::start(socket, protocol, move |request| {
        let response = compressed(&request, body.clone());
        async { response }
    })
    .await
}

#[tokio::test]
async fn a_compressed_response_is_asked_for_and_goes_on_as_it_was_before() {
    let large = [noise(300_000), vec![b'x'; 3_000_000], noise(70_001)].concat();
    let twice = [gzip(b"one, "), gzip(b"two")].concat();
    for (plain, body) in [
        (large.clone(), gzip(&large)),
        (b"hello".to_vec(), gzip(b"hello")),
        (Vec::new(), gzip(b"")),
        (b"one, two".to_vec(), twice),
        (Vec::new(), Vec::new()),
    ] {
        for protocol in BOTH {
            let server = serving(Socket::Tcp, protocol, body.clone()).await;
            let http = server.http();
            for _ in 0..3 {
                let response = within(http.call(get("/"))).await.unwrap();
                assert_eq!(response.headers()["x-asked"], "gzip");
                assert!(!response.headers().contains_key(CONTENT_ENCODING));
                assert!(!response.headers().contains_key(CONTENT_LENGTH));
                assert!(read(response).await == plain, "{protocol:?}");
            }
            assert_eq!(server.accepted(), 1, "the connection is used again");
        }
    }
}

/// What comes of a request with this header, at an endpoint that compresses whatever it is asked.
async fn answer(http: &Http, header: Option<(HeaderName, &'static str)>) -> (HeaderMap, Bytes) {
    let mut request = get("/");
    if let Some((name, value)) = header {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let response = within(http.call(request)).await.unwrap();
    (response.headers().clone(), read(response).await)
}

#[tokio::test]
async fn what_this_side_did_not_ask_for_goes_through_as_it_is() {
    let body = gzip(b"hello");
    for protocol in BOTH {
        let server = serving(Socket::Tcp, protocol, body.clone()).await;
        let http = server.http();
        for header in [
            (ACCEPT_ENCODING, "gzip"),
            (ACCEPT_ENCODING, "identity"),
            (RANGE, "bytes=0-9"),
            (CONTENT_TYPE, "application/grpc+proto"),
        ] {
            let (headers, bytes) = answer(&http, Some(header.clone())).await;
            let asked = headers.get("x-asked").map(HeaderValue::as_bytes);
            let own = (header.0 == ACCEPT_ENCODING).then_some(header.1.as_bytes());
            assert_eq!(asked, own, "{header:?}");
            assert_eq!(headers[CONTENT_ENCODING], "gzip", "{header:?}");
            assert_eq!(headers[CONTENT_LENGTH], body.len().to_string());
            assert_eq!(bytes, body, "{header:?}");
        }
        let request = Request::builder().method(Method::HEAD);
        let request = request.body(Body::empty()).unwrap();
        let response = within(http.call(request)).await.unwrap();
        assert!(!response.headers().contains_key("x-asked"));
        let off = server.http_with(|spec| spec.disable_compression = true);
        let (headers, bytes) = answer(&off, None).await;
        assert!(!headers.contains_key("x-asked") && bytes == body);
    }
    let server = serving(Socket::Unix, Protocol::Http1, body.clone()).await;
    let (headers, bytes) = answer(&server.http(), None).await;
    assert!(!headers.contains_key("x-asked") && bytes == body);
}

#[tokio::test]
async fn another_encoding_than_was_asked_for_goes_through_as_it_is() {
    for encoding in ["br", "gzip, br"] {
        let server = Server::start(Socket::Tcp, Protocol::Http1, move |_| async move {
            let response = Response::builder().header(CONTENT_ENCODING, encoding);
            response.body("as it is".into()).unwrap()
        })
        .await;
        let (headers, bytes) = answer(&server.http(), None).await;
        assert_eq!(headers[CONTENT_ENCODING], encoding);
        assert_eq!(bytes, "as it is");
    }
}

/// Reads `response` until it fails: the largest piece, all bytes, and why.
async fn failing(response: Response<Body>) -> (usize, usize, String, Option<Reason>) {
    let mut body = response.into_body();
    let (mut largest, mut all) = (0, 0);
    loop {
        match within(body.frame()).await.expect("it fails") {
            Ok(frame) => {
                let length = frame.data_ref().unwrap().len();
                (largest, all) = (largest.max(length), all + length);
            }
            Err(error) => {
                assert!(within(body.frame()).await.is_none(), "an error is the end");
                return (largest, all, chain(&error), Reason::of(&*error));
            }
        }
    }
}

#[tokio::test]
async fn a_limit_is_of_what_comes_of_it_however_small_it_was_compressed() {
    const LIMIT: usize = 1 << 20;
    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(bomb.len() < 100_000);
    for protocol in BOTH {
        let server = serving(Socket::Tcp, protocol, bomb.clone()).await;
        let http = server.http_with(|spec| spec.max_response_body = Some(LIMIT as u64));
        let response = within(http.call(get("/"))).await.unwrap();
        let (largest, all, text, reason) = failing(response).await;
        assert_eq!(reason, Some(Reason::ResponseTooLarge), "{text}");
        assert!(text.contains("max_response_body, 1048576 bytes"), "{text}");
        assert!(largest <= 64 << 10, "{largest} bytes at once");
        assert!(all <= LIMIT && all > LIMIT - (64 << 10), "{all}");
    }
    // What does not get smaller is allowed as much.
    let plain = noise(LIMIT);
    let body = gzip(&plain);
    assert!(body.len() > LIMIT);
    let server = serving(Socket::Tcp, Protocol::Http1, body).await;
    let http = server.http_with(|spec| spec.max_response_body = Some(LIMIT as u64));
    let response = within(http.call(get("/"))).await.unwrap();
    assert!(read(response).await == plain);
}

#[tokio::test]
async fn what_is_damaged_or_cut_off_is_an_error() {
    let whole = gzip(&noise(5_000));
    let mut wrong_sum = whole.clone();
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 1;
    for body in [
        whole[..3_000].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        whole[..5].to_vec(),
        wrong_sum,
        [whole.clone(), b"and more".to_vec()].concat(),
        b"not compressed at all".to_vec(),
    ] {
        let server = serving(Socket::Tcp, Protocol::Http1, body).await;
        let response = within(server.http().call(get("/"))).await.unwrap();
        let (.., text, reason) = failing(response).await;
        assert_eq!(reason, Some(Reason::ConnectionLost), "{text}");
        assert!(text.contains("in gzip, is damaged or cut off"), "{text}");
    }
}

#[tokio::test]
async fn it_streams_piece_by_piece_and_trailers_come_last() {
    for protocol in BOTH {
        let (sender, body) = channel();
        let body = std::sync::Mutex::new(Some(body));
        let server = Server::start(Socket::Tcp, protocol, move |request| {
            let body = body.lock().unwrap().take().unwrap();
            let mut response = compressed(&request, body);
            let trailer = HeaderValue::from_static("x-sum");
            response.headers_mut().insert("trailer", trailer);
            async { response }
        })
        .await;
        let request = Request::get("/").header("te", "trailers");
        let request = request.body(Body::empty()).unwrap();
        let mut body = within(server.http().call(request))
            .await
            .unwrap()
            .into_body();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        for piece in ["one", "two", "three"] {
            encoder.write_all(piece.as_bytes()).unwrap();
            encoder.flush().unwrap();
            let bytes = std::mem::take(encoder.get_mut());
            sender.send(Frame::data(bytes.into())).unwrap();
            let mut come = Vec::new();
            while come.len() < piece.len() {
                let frame = within(body.frame()).await.unwrap().unwrap();
                come.extend_from_slice(frame.data_ref().unwrap());
            }
            assert_eq!(come, piece.as_bytes(), "{protocol:?}");
        }
        let end = Frame::data(encoder.finish().unwrap().into());
        sender.send(end).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        sender.send(Frame::trailers(trailers.clone())).unwrap();
        drop(sender);
        let last = within(body.frame()).await.unwrap().unwrap();
        assert_eq!(last.into_trailers().unwrap(), trailers, "{protocol:?}");
        assert!(within(body.frame()).await.is_none());
    }
}

#[tokio::test]
async fn a_request_that_was_not_sent_comes_back_without_what_was_added() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp(gone.local_addr().unwrap());
    drop(gone);
    let http = Http::new(&address, &super::server::spec(Protocol::Http1)).unwrap();
    let error = within(http.call(get("/"))).await.unwrap_err();
    let (request, _) = Unsent::<Body>::recover(error).unwrap();
    assert!(!request.unwrap().headers().contains_key(ACCEPT_ENCODING));
}
