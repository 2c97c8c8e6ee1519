//! A tonic server that passes calls on without knowing their messages.

use std::time::Duration;

use ::tonic::service::Routes;
use ::tonic::transport::Server as TonicServer;
use ::tonic::transport::server::TcpIncoming;
use ::tonic::{Code, Request};
use axum::Router;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tower::service_fn;
use tower_plugins::config::{Address, Config, Protocol};
use tower_plugins::transport::{Http, Transport};
use tower_plugins::{Body, Plugins};
use tower_plugins_layers::BoxError;
use tower_plugins_proto::v1::InfoRequest;
use tower_plugins_proto::v1::plugin_client::PluginClient;

use crate::grpc::server::calculator::DivideRequest;
use crate::grpc::server::calculator::calculator_client::CalculatorClient;
use crate::grpc::server::{Server, Way, client, number};
use crate::support::{config, post, within};
use crate::transport::server::spec;

/// A tonic server of `routes`, and a plugin `front` that is it.
struct Front {
    plugins: Plugins,
    address: String,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Front {
    async fn start(routes: impl Into<Routes>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = TonicServer::builder().add_routes(routes.into());
        let server = server.serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(async { server.await.unwrap() });
        let config = config(&format!(
            "plugins: {{ front: {{ transport: grpc, endpoint: '{address}', retry: off }} }}"
        ));
        Self {
            plugins: Plugins::builder().start(config).await.unwrap(),
            address,
            server,
        }
    }

    fn client(&self) -> CalculatorClient<tower_plugins::Plugin> {
        client(self.plugins.plugin("front"))
    }

    /// The whole answer to a call, as it is on the wire: its head's status and headers, its bytes, its trailers.
    async fn wire(&self, kind: &'static str) -> (u16, HeaderMap, Bytes, Option<HeaderMap>) {
        let address = Address::http(&format!("http://{}", self.address)).unwrap();
        let http = Http::new(&address, &spec(Protocol::Http2)).unwrap();
        let mut request = post("/some.Service/Method", "");
        let headers = request.headers_mut();
        headers.insert("content-type", kind.parse().unwrap());
        let response = within(http.call(request)).await.unwrap();
        let (head, body) = response.into_parts();
        let body = within(body.collect()).await.unwrap();
        let trailers = body.trailers().cloned();
        (
            head.status.as_u16(),
            head.headers,
            body.to_bytes(),
            trailers,
        )
    }
}

const fn divide(divisor: f64) -> DivideRequest {
    DivideRequest {
        dividend: 1.0,
        divisor,
    }
}

async fn proxied(server: &Server, keys: &str) -> (Plugins, Front) {
    let plugins = server.plugins(keys).await;
    let proxy = plugins.plugin("p").into_grpc_proxy();
    let front = Front::start(Router::new().fallback_service(proxy)).await;
    (plugins, front)
}

#[tokio::test]
async fn every_shape_of_a_call_goes_through_a_tonic_server() {
    for way in [Way::Tcp, Way::Unix, Way::Tls] {
        let server = Server::start(way).await;
        let (plugins, front) = proxied(&server, "").await;
        let mut client = front.client();
        let quotient = within(client.divide(divide(8.0))).await.unwrap();
        assert_eq!(quotient.into_inner(), number(0.125), "{way:?}");
        let numbers = stream::iter((1..=100).map(f64::from).map(number));
        let sum = within(client.sum(numbers)).await.unwrap();
        assert_eq!(sum.into_inner(), number(5050.0));
        let count = within(client.count(number(1000.0))).await.unwrap();
        assert_eq!(within(count.into_inner().count()).await, 1000);

        // Both ways at once: the next number is sent when the last sum is here.
        let (numbers, receiver) = mpsc::unbounded_channel();
        numbers.send(number(1.0)).unwrap();
        let requests =
            ::tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
        let sums = within(client.running_sum(requests)).await.unwrap();
        let mut sums = sums.into_inner();
        for sum in [1.0, 2.0, 3.0] {
            assert_eq!(within(sums.message()).await.unwrap(), Some(number(sum)));
            numbers.send(number(1.0)).unwrap();
        }
        drop(numbers);
        while within(sums.message()).await.unwrap().is_some() {}
        assert_eq!(plugins.active_requests("p"), 0);
    }
}

#[tokio::test]
async fn the_plugins_own_statuses_arrive_with_their_trailers() {
    let server = Server::start(Way::Tcp).await;
    let (_plugins, front) = proxied(&server, "").await;
    let mut client = front.client();
    let status = within(client.divide(divide(0.0))).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "cannot divide by 0 %");
    assert_eq!(status.metadata().get("x-why").unwrap(), "because");
    let below = stream::iter([1.0, -1.0].map(number));
    let mut sums = within(client.running_sum(below))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(within(sums.message()).await.unwrap(), Some(number(1.0)));
    let status = within(sums.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
}

#[tokio::test]
async fn each_service_has_its_plugin_by_path_and_by_prefix() {
    let server = Server::start(Way::Tcp).await;
    let plugins = server.plugins("").await;
    let there = plugins.plugin("p").into_grpc_proxy();
    let not_there = plugins.plugin("q").into_grpc_proxy();
    let routes = Router::new()
        .route_service("/calculator.v1.Calculator/{method}", there.clone())
        .nest_service("/v2", there)
        .fallback_service(not_there);
    let front = Front::start(routes).await;
    let quotient = within(front.client().divide(divide(2.0))).await.unwrap();
    assert_eq!(quotient.into_inner(), number(0.5));
    let channel = front.plugins.plugin("front");
    let status = within(
        PluginClient::with_origin(channel.clone(), "http://front".parse().unwrap())
            .info(InfoRequest {}),
    )
    .await
    .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("`q`"), "{status:?}");
    let mut nested = PluginClient::with_origin(channel, "http://front/v2".parse().unwrap());
    let info = within(nested.info(InfoRequest {})).await.unwrap();
    assert_eq!(info.into_inner().name, "calculator");
}

#[tokio::test]
async fn grpc_timeout_and_cancellation_reach_the_plugin() {
    let mut server = Server::start(Way::Tcp).await;
    let (plugins, front) = proxied(&server, "").await;
    let mut client = front.client();
    let mut endless = Request::new(stream::pending());
    endless.set_timeout(Duration::from_millis(200));
    let status = within(client.sum(endless)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let seen = server.desk.seen();
    let timeout = seen[0].0.get("grpc-timeout").unwrap().to_str().unwrap();
    assert!(
        timeout.ends_with(['u', 'm', 'n']),
        "what is left: {timeout}"
    );

    let count = within(client.count(number(1e15))).await.unwrap();
    drop(count);
    server.ended().await;
    within(async {
        while plugins.active_requests("p") > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn errors_are_grpc_statuses_before_the_answer_and_within_it() {
    let server = Server::start(Way::Tcp).await;
    let (plugins, front) = proxied(&server, "drain_timeout: 50ms").await;
    let mut client = front.client();
    let (numbers, receiver) = mpsc::unbounded_channel();
    numbers.send(number(1.0)).unwrap();
    let requests = ::tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
    let sums = within(client.running_sum(requests)).await.unwrap();
    let mut sums = sums.into_inner();
    assert_eq!(within(sums.message()).await.unwrap(), Some(number(1.0)));
    let limited = server.config("rate_limit: { requests_per_second: 0.001, burst_size: 1 }");
    plugins.reload(limited).await.unwrap();
    let status = within(sums.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("drain"), "{status:?}");

    within(client.divide(divide(2.0))).await.unwrap();
    let status = within(client.divide(divide(2.0))).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.metadata().contains_key("retry-after"));
    plugins.reload(Config::default()).await.unwrap();
    let status = within(client.divide(divide(2.0))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

/// A front of a plugin that answers as `answer` says.
async fn answering<F>(answer: F) -> (Plugins, Front)
where
    F: Fn() -> Response<Body> + Clone + Send + Sync + 'static,
{
    let service = service_fn(move |_: http::Request<Body>| {
        let answer = answer();
        async { Ok::<_, BoxError>(answer) }
    });
    let config = config("plugins: { p: { transport: in-process, endpoint: s, retry: off } }");
    let plugins = Plugins::builder().service("s", service).start(config);
    let plugins = plugins.await.unwrap();
    let proxy = plugins.plugin("p").into_grpc_proxy();
    let front = Front::start(Router::new().fallback_service(proxy)).await;
    (plugins, front)
}

#[tokio::test]
async fn an_answer_that_is_not_grpc_is_told_by_its_status() {
    for (status, code) in [
        (400, "13"),
        (401, "16"),
        (403, "7"),
        (404, "12"),
        (502, "14"),
        (200, "2"),
    ] {
        let (_plugins, front) = answering(move || {
            let page = Response::builder().header("content-type", "text/html");
            page.status(status).body(Body::from("<h1>oh</h1>")).unwrap()
        })
        .await;
        let (status, headers, body, _) = front.wire("application/grpc").await;
        assert_eq!(status, 200);
        assert_eq!(headers["grpc-status"], code);
        assert_eq!(headers["content-type"], "application/grpc");
        assert!(body.is_empty());
    }
}

/// A plugin, or a proxy before it, may say both (gRPC's "Status Codes and HTTP"): the gRPC status is the plugin's word.
#[tokio::test]
async fn a_grpc_status_counts_whatever_the_status_of_http_is() {
    for kind in ["application/grpc", "application/grpc+proto", "text/plain"] {
        let (_plugins, front) = answering(move || {
            let head = Response::builder().header("content-type", kind).status(503);
            let head = head
                .header("grpc-status", "9")
                .header("grpc-message", "not now")
                .header("content-length", "7")
                .header("x-why", "because");
            head.body(Body::from("nothing")).unwrap()
        })
        .await;
        let (status, headers, body, _) = front.wire("application/grpc").await;
        assert_eq!(
            (status, &headers["grpc-status"]),
            (200, &"9".parse().unwrap())
        );
        assert_eq!(headers["grpc-message"], "not now");
        assert_eq!(headers["x-why"], "because");
        assert!(
            headers["content-type"]
                .to_str()
                .unwrap()
                .starts_with("application/grpc")
        );
        assert!(body.is_empty(), "{kind}");
    }
}

#[tokio::test]
async fn a_grpc_status_in_trailers_counts_whatever_the_status_of_http_is() {
    for (given, code) in [(Some("9"), "9"), (None, "14")] {
        let (_plugins, front) = answering(move || {
            let mut trailers = HeaderMap::new();
            if let Some(given) = given {
                trailers.insert("grpc-status", given.parse().unwrap());
            }
            let frames = [Ok::<_, BoxError>(Frame::trailers(trailers))];
            let body = Body::new(StreamBody::new(stream::iter(frames)));
            let grpc = Response::builder().header("content-type", "application/grpc");
            grpc.status(503).body(body).unwrap()
        })
        .await;
        let (status, headers, _, trailers) = front.wire("application/grpc").await;
        assert_eq!(status, 200);
        let said = trailers.unwrap_or(headers);
        assert_eq!(said["grpc-status"], code);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_forgets_its_status_ends_with_one() {
    for broken in [true, false] {
        let (_plugins, front) = answering(move || {
            let mut frames = vec![Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\x01a")))];
            if broken {
                frames.push(Err(std::io::Error::other("the disk is gone")));
            }
            let body = Body::new(StreamBody::new(stream::iter(frames)));
            let grpc = Response::builder().header("content-type", "application/grpc+proto");
            grpc.body(body).unwrap()
        })
        .await;
        let (status, headers, body, trailers) = front.wire("application/grpc").await;
        assert_eq!(status, 200);
        assert!(!headers.contains_key("grpc-status"));
        assert_eq!(body.len(), 6, "the whole message");
        let trailers = trailers.unwrap();
        let code = if broken { "14" } else { "13" };
        assert_eq!(trailers["grpc-status"], code);
        let message = trailers["grpc-message"].to_str().unwrap();
        assert!(!message.contains("disk"), "causes stay inside: {message}");
    }
}

#[tokio::test]
async fn trailers_that_forget_the_status_get_one() {
    let (_plugins, front) = answering(|| {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-kept", "yes".parse().unwrap());
        let frames = [
            Frame::data(Bytes::from_static(b"\0\0\0\0\x01a")),
            Frame::trailers(trailers),
        ];
        let body = Body::new(StreamBody::new(stream::iter(frames.map(Ok::<_, BoxError>))));
        let grpc = Response::builder().header("content-type", "application/grpc");
        grpc.body(body).unwrap()
    })
    .await;
    let trailers = front.wire("application/grpc").await.3.unwrap();
    assert_eq!(trailers["grpc-status"], "13");
    assert_eq!(trailers["x-kept"], "yes");
}

#[tokio::test]
async fn a_request_that_is_not_grpc_is_unsupported() {
    let (_plugins, front) = answering(|| Response::new(Body::empty())).await;
    for kind in [
        "application/json",
        "application/grpc-web",
        "application/grpcx",
    ] {
        assert_eq!(front.wire(kind).await.0, 415, "{kind}");
    }
}
