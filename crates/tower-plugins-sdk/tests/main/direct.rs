//! Served in this process, on a socket of the test's.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower_plugins_sdk::axum::body::{Body, Bytes};
use tower_plugins_sdk::axum::http::{Request, StatusCode};
use tower_plugins_sdk::axum::middleware::map_request;
use tower_plugins_sdk::axum::routing::get;
use tower_plugins_sdk::axum::{Router, response::Response};
use tower_plugins_sdk::{Error, Listen, Listener, Plugin};

/// What a test waits for an event at most.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

pub(crate) async fn within<F: Future>(what: F) -> F::Output {
    timeout(BOUND, what).await.unwrap()
}

type Http = Client<HttpConnector, Empty<Bytes>>;

/// A plugin that serves here, until it is told to end.
struct Serving {
    base: String,
    end: oneshot::Sender<()>,
    served: JoinHandle<Result<(), Error>>,
}

impl Serving {
    async fn start(plugin: Plugin) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (end, told) = oneshot::channel::<()>();
        let plugin = plugin.with_graceful_shutdown(async { drop(told.await) });
        let served = tokio::spawn(plugin.serve_on(listener));
        Self { base, end, served }
    }

    async fn end(self) {
        drop(self.end);
        within(self.served).await.unwrap().unwrap();
    }
}

fn http(http2: bool) -> Http {
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}

async fn text(client: &Http, uri: String) -> (u16, String) {
    let answer = within(client.get(uri.parse().unwrap())).await.unwrap();
    let status = answer.status().as_u16();
    let body = within(answer.into_body().collect()).await.unwrap();
    (status, String::from_utf8(body.to_bytes().into()).unwrap())
}

fn hello() -> Plugin {
    Plugin::new("greeter", "1.0.0").router(Router::new().route("/hello", get(|| async { "hello" })))
}

#[tokio::test]
async fn one_socket_has_http_1_and_http_2_and_grpc() {
    let serving = Serving::start(hello()).await;
    for http2 in [false, true] {
        let client = http(http2);
        let said = text(&client, format!("{}/hello", serving.base)).await;
        assert_eq!(said, (200, "hello".to_owned()));
        assert_eq!(text(&client, format!("{}/no", serving.base)).await.0, 404);
    }
    let endpoint = Channel::from_shared(serving.base.clone()).unwrap();
    let mut health = HealthClient::new(within(endpoint.connect()).await.unwrap());
    let service = String::new();
    let status = health.check(HealthCheckRequest { service }).await.unwrap();
    assert_eq!(status.into_inner().status().as_str_name(), "SERVING");
    serving.end().await;
}

#[tokio::test]
async fn a_fallback_of_the_plugins_answers_what_nobody_else_does() {
    let router = Router::new().fallback(|| async { "nobody else" });
    let serving = Serving::start(hello().router(router)).await;
    let said = text(&http(false), format!("{}/no", serving.base)).await;
    assert_eq!(said, (200, "nobody else".to_owned()));
    serving.end().await;
}

#[tokio::test]
async fn a_layer_is_around_what_is_there_so_far_and_not_around_health() {
    async fn refuse<B>(_: Request<B>) -> Result<Request<B>, StatusCode> {
        Err(StatusCode::FORBIDDEN)
    }
    let later = Router::new().route("/later", get(|| async { "later" }));
    let plugin = hello().layer(map_request(refuse)).router(later);
    let serving = Serving::start(plugin).await;
    let client = http(true);
    assert_eq!(
        text(&client, format!("{}/hello", serving.base)).await.0,
        403
    );
    assert_eq!(
        text(&client, format!("{}/later", serving.base)).await.1,
        "later"
    );
    let endpoint = Channel::from_shared(serving.base.clone()).unwrap();
    let mut health = HealthClient::new(within(endpoint.connect()).await.unwrap());
    let service = String::new();
    assert!(health.check(HealthCheckRequest { service }).await.is_ok());
    serving.end().await;
}

#[tokio::test]
async fn a_health_service_of_the_plugins_own_takes_the_place_of_that() {
    let (reporter, service) = tonic_health::server::health_reporter();
    let not = tonic_health::ServingStatus::NotServing;
    reporter.set_service_status("plugin", not).await;
    let serving = Serving::start(hello().service(service)).await;
    let endpoint = Channel::from_shared(serving.base.clone()).unwrap();
    let mut health = HealthClient::new(within(endpoint.connect()).await.unwrap());
    let service = "plugin".to_owned();
    let status = health.check(HealthCheckRequest { service }).await.unwrap();
    assert_eq!(status.into_inner().status().as_str_name(), "NOT_SERVING");
    serving.end().await;
}

#[tokio::test]
async fn typed_handlers_are_served_beside_the_rest_and_are_healthy() {
    let typed = tower_plugins_sdk::router::Router::new().method("greet", async || "good day");
    let plugin = Plugin::new("greeter", "1.0.0").router(typed);
    let serving = Serving::start(plugin.router(Router::new().route("/hello", get("hello")))).await;
    let client = http(false);
    assert_eq!(
        text(&client, format!("{}/hello", serving.base)).await.1,
        "hello"
    );
    assert_eq!(text(&client, format!("{}/info", serving.base)).await.0, 200);
    let endpoint = Channel::from_shared(serving.base.clone()).unwrap();
    let mut health = HealthClient::new(within(endpoint.connect()).await.unwrap());
    let service = "tower_plugins.v1.Plugin".to_owned();
    assert!(health.check(HealthCheckRequest { service }).await.is_ok());
    serving.end().await;
}

#[tokio::test]
async fn without_a_host_the_highest_version_is_served() {
    let of = |said: &'static str| {
        move |services: tower_plugins_sdk::Services| {
            services.router(Router::new().route("/version", get(said)))
        }
    };
    let plugin = hello()
        .protocol_version(5, of("five"))
        .protocol_version(10, of("ten"))
        .protocol_version(9, of("nine"));
    let serving = Serving::start(plugin).await;
    let client = http(false);
    let said = text(&client, format!("{}/version", serving.base)).await;
    assert_eq!(said.1, "ten");
    assert_eq!(
        text(&client, format!("{}/hello", serving.base)).await.1,
        "hello"
    );
    serving.end().await;
}

/// A path whose answer goes on until it is told what comes next, or that it is over.
fn streamed() -> (Router, mpsc::Sender<Bytes>) {
    let (pieces, sent) = mpsc::channel::<Bytes>(1);
    let sent = std::sync::Arc::new(tokio::sync::Mutex::new(Some(sent)));
    let stream = move || {
        let sent = sent.clone();
        async move {
            let sent = sent.lock().await.take().unwrap();
            let pieces = tonic::codegen::tokio_stream::wrappers::ReceiverStream::new(sent);
            let pieces = tonic::codegen::tokio_stream::StreamExt::map(pieces, Ok::<_, Infallible>);
            Response::new(Body::from_stream(pieces))
        }
    };
    (Router::new().route("/stream", get(stream)), pieces)
}

#[tokio::test]
async fn it_ends_after_the_last_byte_of_the_calls_under_way_and_takes_no_more() {
    let (router, pieces) = streamed();
    let ending = std::sync::Arc::new(Notify::new());
    let hook = ending.clone();
    let plugin = hello()
        .router(router)
        .on_shutdown(async move { hook.notify_one() });
    let serving = Serving::start(plugin).await;
    let client = http(false);
    let call = client.get(format!("{}/stream", serving.base).parse().unwrap());
    let mut body = within(call).await.unwrap().into_body();
    pieces.send("one".into()).await.unwrap();
    let frame = within(body.frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "one");

    let base = serving.base.clone();
    let ended = tokio::spawn(serving.end());
    within(ending.notified()).await;
    let refused = async {
        while let Ok(stream) = tokio::net::TcpStream::connect(&base["http://".len()..]).await {
            drop(stream);
        }
    };
    within(refused).await;
    assert!(!ended.is_finished());
    pieces.send("two".into()).await.unwrap();
    drop(pieces);
    let rest = within(body.collect()).await.unwrap().to_bytes();
    assert_eq!(rest, "two");
    within(ended).await.unwrap();
}

#[tokio::test]
async fn a_call_that_does_not_end_in_its_time_is_cut() {
    let (router, pieces) = streamed();
    let plugin = hello()
        .router(router)
        .drain_timeout(Duration::from_millis(50));
    let serving = Serving::start(plugin).await;
    let call = http(false).get(format!("{}/stream", serving.base).parse().unwrap());
    let body = within(call).await.unwrap().into_body();
    serving.end().await;
    assert!(within(body.collect()).await.is_err());
    drop(pieces);
}

#[cfg(feature = "subprocess")]
#[tokio::test]
async fn without_a_host_there_is_nobody_to_call() {
    let plugin = hello();
    let broker = plugin.broker();
    let serving = Serving::start(plugin).await;
    let error = within(broker.connect(1)).await.unwrap_err();
    assert!(error.to_string().contains("no host"), "{error}");
    serving.end().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_socket_that_was_left_is_replaced_and_one_in_use_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listen = Listen::Unix(path.clone());
    // As of a process that was killed: the file stays.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listener = Listener::bind(&listen).await.unwrap();
    let error = Listener::bind(&listen).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot listen on unix:/"), "{error}");
    drop(listener);
    assert!(!path.exists());
    std::fs::write(&path, "a file").unwrap();
    assert!(Listener::bind(&listen).await.is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
}

#[cfg(feature = "reflection")]
#[tokio::test]
async fn descriptors_that_are_none_are_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plugin = hello().descriptors(b"\xff\xff");
    let error = within(plugin.serve_on(listener)).await.unwrap_err();
    assert!(matches!(error, Error::Descriptors(_)), "{error}");
    assert_eq!(format!("{error:?}"), error.to_string());
}
