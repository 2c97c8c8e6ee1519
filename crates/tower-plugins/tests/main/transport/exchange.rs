//! Requests and responses: what is sent, what comes back, what goes wrong.

use http::header::{CONNECTION, HOST, LOCATION, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tower_plugins::Body;
use tower_plugins::config::{Address, Protocol};
use tower_plugins::transport::{Http, Transport};
use tower_plugins_layers::{BoxError, Reason, Unsent};
use tower_service::Service;

use super::server::{
    EVERY, Server, Socket, chain, channel, data, echo, get, post, read, spec, tcp, unix, within,
};

#[tokio::test]
async fn a_request_is_answered_over_every_transport() {
    for (socket, protocol) in EVERY {
        let server = Server::start(socket, protocol, echo).await;
        let http = server.http();
        let response = within(Service::call(&mut &http, post("/echo", "hello")))
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{socket:?} {protocol:?}");
        assert_eq!(read(response).await, "hello", "{socket:?} {protocol:?}");
    }
}

/// Answers with what the request looked like.
async fn describe(request: Request<Body>) -> Response<Body> {
    let authority = request.uri().authority().map(ToString::to_string);
    let host = request
        .headers()
        .get(HOST)
        .map(|host| host.to_str().unwrap().to_owned());
    let path = request.uri().path_and_query().unwrap().to_string();
    let mut names: Vec<_> = request.headers().keys().map(ToString::to_string).collect();
    names.sort();
    Response::builder()
        .header("authority", authority.or(host).unwrap())
        .header("path", path)
        .header("names", names.join(" "))
        .header(LOCATION, "http://elsewhere.example/")
        .status(StatusCode::TEMPORARY_REDIRECT)
        .body(Body::empty())
        .unwrap()
}

fn with_prefix(address: &Address) -> Address {
    let mut address = address.clone();
    match &mut address {
        Address::Http { prefix, .. } | Address::Unix { prefix, .. } => "/v1".clone_into(prefix),
        _ => unreachable!(),
    }
    address
}

#[tokio::test]
async fn a_request_is_addressed_to_the_endpoint_and_loses_what_is_about_one_hop() {
    for (socket, protocol) in EVERY {
        let server = Server::start(socket, protocol, describe).await;
        let http = Http::new(&with_prefix(&server.address), &spec(protocol)).unwrap();
        let request = Request::get("http://caller.example/path?query=1")
            .header(HOST, "caller.example")
            .header(CONNECTION, "keep-alive, x-kept")
            .header("keep-alive", "timeout=5")
            .header("proxy-connection", "close")
            .header(UPGRADE, "websocket")
            .header(TRANSFER_ENCODING, "chunked")
            .header(TE, "trailers")
            .header("x-kept", "yes")
            .body(Body::empty())
            .unwrap();
        let response = within(http.call(request)).await.unwrap();

        assert_eq!(response.headers()["path"], "/v1/path?query=1");
        let authority = match &server.address {
            Address::Http { authority, .. } => authority.as_str(),
            _ => "localhost",
        };
        assert_eq!(response.headers()["authority"], authority);
        let names = response.headers()["names"].to_str().unwrap();
        let kept = match (socket, protocol) {
            (Socket::Unix, Protocol::Http1) => "host te x-kept",
            (Socket::Unix, _) => "te x-kept",
            (_, Protocol::Http1) => "accept-encoding host te x-kept",
            _ => "accept-encoding te x-kept",
        };
        assert_eq!(names, kept, "{socket:?} {protocol:?}");
        // No redirect is followed.
        assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    }
}

#[tokio::test]
async fn a_path_alone_and_a_whole_uri_reach_the_same_path() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, describe).await;
    let http = server.http();
    for uri in ["/path?query=1", "http://caller.example/path?query=1"] {
        let response = within(http.call(get(uri))).await.unwrap();
        assert_eq!(response.headers()["path"], "/path?query=1");
    }
    let response = within(http.call(get("http://caller.example")))
        .await
        .unwrap();
    assert_eq!(response.headers()["path"], "/");
}

#[tokio::test]
async fn a_response_loses_what_is_about_one_hop() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, |_| async {
        Response::builder()
            .header(CONNECTION, "close, x-hop")
            .header("keep-alive", "timeout=5")
            .header("x-hop", "1")
            .header("x-end", "1")
            .body(channel().1)
            .unwrap()
    })
    .await;
    let response = within(server.http().call(get("/"))).await.unwrap();
    assert!(response.headers().contains_key("x-end"));
    for gone in ["connection", "keep-alive", "x-hop", "transfer-encoding"] {
        assert!(!response.headers().contains_key(gone), "{gone}");
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    for (socket, protocol) in EVERY {
        let server = Server::start(socket, protocol, echo).await;
        let http = server.http();
        let (sender, body) = channel();
        sender.send(data("one")).unwrap();
        let response = within(http.call(post("/", body))).await.unwrap();
        let mut body = response.into_body();
        for next in ["two", "three"] {
            let frame = within(body.frame()).await.unwrap().unwrap();
            assert!(frame.is_data(), "{socket:?} {protocol:?}");
            sender.send(data(next)).unwrap();
        }
        drop(sender);
        let rest = within(body.collect()).await.unwrap().to_bytes();
        assert_eq!(rest, "three", "{socket:?} {protocol:?}");
    }
}

#[tokio::test]
async fn trailers_arrive() {
    for (socket, protocol) in EVERY {
        let server = Server::start(socket, protocol, |_| async {
            let (sender, body) = channel();
            sender.send(data("body")).unwrap();
            let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]);
            sender.send(Frame::trailers(trailers)).unwrap();
            Response::builder()
                .header("trailer", "x-sum")
                .body(body)
                .unwrap()
        })
        .await;
        let http = server.http();
        for _ in 0..2 {
            let request = Request::get("/")
                .header(TE, "trailers")
                .body(Body::empty())
                .unwrap();
            let response = within(http.call(request)).await.unwrap();
            let collected = within(response.into_body().collect()).await.unwrap();
            let sum = collected
                .trailers()
                .map(|trailers| trailers["x-sum"].clone());
            assert_eq!(
                sum,
                Some(HeaderValue::from_static("7")),
                "{socket:?} {protocol:?}"
            );
        }
        // The connection came back at the trailers.
        assert_eq!(server.accepted(), 1, "{socket:?} {protocol:?}");
    }
}

#[tokio::test]
async fn a_refused_connection_gives_the_request_back() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = [
        tcp(listener.local_addr().unwrap()),
        unix(directory.path().join("none")),
    ];
    drop(listener);

    for (address, protocol) in nowhere
        .iter()
        .flat_map(|address| [(address, Protocol::Http1), (address, Protocol::Http2)])
    {
        let address = with_prefix(address);
        let http = Http::new(&address, &spec(protocol)).unwrap();
        let error = within(http.call(post("/path?query=1", "body")))
            .await
            .unwrap_err();
        assert_eq!(Reason::of(&*error), Some(Reason::ConnectFailed));
        assert!(
            chain(&error).contains(&address.to_string()),
            "{}",
            chain(&error)
        );

        let (request, _) = Unsent::<Body>::recover(error).unwrap();
        let request = request.unwrap();
        assert_eq!(request.uri().path_and_query().unwrap(), "/path?query=1");
        assert_eq!(
            request.into_body().collect().await.unwrap().to_bytes(),
            "body"
        );
    }
}

/// The config refuses them in a URL.
#[tokio::test]
async fn credentials_in_an_address_that_is_made_in_code_go_nowhere() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let server = Server::start(Socket::Tcp, protocol, describe).await;
        let Address::Http { authority, prefix } = server.address.clone() else {
            unreachable!()
        };
        let address = Address::Http {
            authority: format!("user:hunter2@{authority}").parse().unwrap(),
            prefix,
        };
        let http = Http::new(&address, &spec(protocol)).unwrap();
        assert!(!format!("{http:?}").contains("hunter2"), "{http:?}");
        let response = within(http.call(get("/"))).await.unwrap();
        assert_eq!(response.headers()["authority"], authority.as_str());
        drop((server, response, http));

        let http = Http::new(&address, &spec(protocol)).unwrap();
        let error = within(http.call(get("/"))).await.unwrap_err();
        let said = chain(&error);
        assert!(!said.contains("hunter2"), "{said}");
        assert!(said.contains(authority.as_str()), "{said}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_is_lost_and_not_unsent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp(listener.local_addr().unwrap());
    let http = Http::new(&address, &spec(Protocol::Http1)).unwrap();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        assert!(stream.read(&mut head).await.unwrap() > 0);
    };
    let (outcome, ()) = within(async { tokio::join!(http.call(get("/")), server) }).await;
    let error = outcome.unwrap_err();
    assert_eq!(Reason::of(&*error), Some(Reason::ConnectionLost));
    assert!(
        chain(&error).contains(&address.to_string()),
        "{}",
        chain(&error)
    );
    assert!(Unsent::<Body>::recover(error).is_err());
}

#[tokio::test]
async fn a_connection_that_breaks_within_the_body_fails_the_body() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp(listener.local_addr().unwrap());
    let http = Http::new(&address, &spec(Protocol::Http1)).unwrap();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello";
        stream.write_all(response).await.unwrap();
    };
    let (outcome, ()) = within(async { tokio::join!(http.call(get("/")), server) }).await;
    let error = within(outcome.unwrap().into_body().collect())
        .await
        .unwrap_err();
    assert_eq!(Reason::of(&*error), Some(Reason::ConnectionLost));
}

/// The error of one call to an HTTP/2 server that resets its stream.
async fn reset_with(reason: h2::Reason) -> BoxError {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp(listener.local_addr().unwrap());
    let http = Http::new(&address, &spec(Protocol::Http2)).unwrap();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        respond.send_reset(reason);
        std::future::poll_fn(|cx| connection.poll_closed(cx))
            .await
            .unwrap();
    };
    within(async {
        tokio::select! {
            outcome = http.call(get("/")) => outcome.unwrap_err(),
            () = server => panic!("the server ends last"),
        }
    })
    .await
}

#[tokio::test]
async fn a_refused_stream_is_unsent_and_a_reset_one_is_not() {
    let refused = reset_with(h2::Reason::REFUSED_STREAM).await;
    assert_eq!(Reason::of(&*refused), Some(Reason::ConnectionLost));
    let (request, _) = Unsent::<Body>::recover(refused).unwrap();
    assert_eq!(request.unwrap().uri().path(), "/");

    let reset = reset_with(h2::Reason::INTERNAL_ERROR).await;
    assert_eq!(Reason::of(&*reset), Some(Reason::ConnectionLost));
    assert!(Unsent::<Body>::recover(reset).is_err());
}

#[tokio::test]
async fn a_body_that_is_said_to_be_too_large_is_refused_at_once() {
    for (socket, protocol) in EVERY {
        let server = Server::start(socket, protocol, echo).await;
        let http = server.http_with(|spec| spec.max_response_body = Some(8));
        let response = within(http.call(post("/", "12345678"))).await.unwrap();
        assert_eq!(read(response).await, "12345678");
        let error = within(http.call(post("/", "123456789"))).await.unwrap_err();
        assert_eq!(Reason::of(&*error), Some(Reason::ResponseTooLarge));
        assert!(chain(&error).contains("8 bytes"), "{}", chain(&error));
    }
}

#[tokio::test]
async fn a_body_of_unknown_size_is_counted() {
    for (socket, protocol) in EVERY {
        let server = Server::start(socket, protocol, |_| async {
            let (sender, body) = channel();
            for text in ["1234", "5678", "9"] {
                sender.send(data(text)).unwrap();
            }
            Response::new(body)
        })
        .await;
        let http = server.http_with(|spec| spec.max_response_body = Some(8));
        let mut body = within(http.call(get("/"))).await.unwrap().into_body();
        let error = loop {
            match within(body.frame()).await.unwrap() {
                Ok(frame) => assert!(frame.is_data()),
                Err(error) => break error,
            }
        };
        assert_eq!(
            Reason::of(&*error),
            Some(Reason::ResponseTooLarge),
            "{socket:?} {protocol:?}"
        );
        assert!(body.is_end_stream());
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    for (socket, protocol) in EVERY {
        let server = Server::start(socket, protocol, |_| async {
            let long = "x".repeat(10_000);
            Response::builder()
                .header("x-long", long)
                .body(Body::empty())
                .unwrap()
        })
        .await;
        let http = server.http_with(|spec| spec.max_response_head = 1_000);
        let error = within(http.call(get("/"))).await.unwrap_err();
        // Over HTTP/2 it is told as any other broken stream.
        let expected = match protocol {
            Protocol::Http1 => Reason::ResponseTooLarge,
            _ => Reason::ConnectionLost,
        };
        assert_eq!(Reason::of(&*error), Some(expected), "{protocol:?}");
        assert!(Unsent::<Body>::recover(error).is_err());
    }
}

#[tokio::test]
async fn a_request_body_that_fails_is_no_failure_of_the_endpoint() {
    for (socket, protocol) in EVERY {
        let server = Server::start(socket, protocol, echo).await;
        let http = server.http();
        let (sender, body) = channel();
        sender.send(data("some")).unwrap();
        let failing = body.map_frame(|frame| frame).map_err(|_| "unused");
        let failing = failing.with_trailers(async { Some(Err::<HeaderMap, _>("out of paper")) });
        drop(sender);
        let error = match within(http.call(post("/", Body::new(failing)))).await {
            Ok(response) => within(response.into_body().collect()).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(
            Reason::of(&*error),
            Some(Reason::RequestBroken),
            "{socket:?} {protocol:?}: {}",
            chain(&error)
        );
        assert!(chain(&error).contains("out of paper"), "{}", chain(&error));
    }
}

#[test]
fn an_address_that_http_cannot_reach_is_refused() {
    let in_process = Address::InProcess {
        service: "s".to_owned(),
    };
    let error = Http::new(&in_process, &spec(Protocol::Http1)).unwrap_err();
    assert!(error.to_string().contains("in-process:s"), "{error}");

    let prefix = "no path".to_owned();
    let bad = Address::Http {
        authority: "localhost".parse().unwrap(),
        prefix,
    };
    assert!(Http::new(&bad, &spec(Protocol::Http1)).is_err());
}
