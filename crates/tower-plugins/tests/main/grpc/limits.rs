//! How large messages may be, whatever the client.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tonic::{Code, Status};
use tower_plugins::config::{Address, Protocol};
use tower_plugins::{Body, Plugin, Plugins, Reason};
use tower_plugins_proto::v1::ExecuteRequest;
use tower_plugins_proto::v1::plugin_client::PluginClient;

use super::server::{Server as Grpc, WAYS, Way};
use crate::support::{Server, Socket, call, causes, channel, config, ours, within};

/// A client without a limit of its own.
fn client(plugin: Plugin) -> PluginClient<Plugin> {
    PluginClient::with_origin(plugin, "http://plugin".parse().unwrap())
        .max_decoding_message_size(usize::MAX)
}

async fn ask(client: &mut PluginClient<Plugin>, method: &str, payload: String) -> Option<Status> {
    let request = ExecuteRequest {
        method: method.to_owned(),
        payload: payload.into(),
        ..Default::default()
    };
    within(client.execute(request)).await.err()
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_a_generated_clients_call() {
    for way in WAYS {
        let server = Grpc::start(way).await;
        let limits = "grpc: { max_request_message: 2KiB, max_response_message: 1KiB }";
        let plugins = server.plugins(limits).await;
        let mut client = client(plugins.plugin("p"));
        assert!(ask(&mut client, "zeros", "1000".into()).await.is_none());
        let status = ask(&mut client, "zeros", "1100".into()).await.unwrap();
        assert_eq!(
            status.code(),
            Code::ResourceExhausted,
            "{way:?}: {status:?}"
        );
        assert!(
            causes(&status).contains("max_response_message"),
            "{status:?}"
        );

        server.desk.seen();
        let status = ask(&mut client, "echo", "x".repeat(2_100)).await.unwrap();
        assert_eq!(
            status.code(),
            Code::ResourceExhausted,
            "{way:?}: {status:?}"
        );
        assert!(
            causes(&status).contains("max_request_message"),
            "{status:?}"
        );
        assert!(server.desk.seen().is_empty(), "nothing of it is passed on");
        assert_eq!(plugins.active_requests("p"), 0);
        assert!(ask(&mut client, "echo", "x".into()).await.is_none());
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_is_nothing_against_the_plugin() {
    let server = Grpc::start(Way::Tcp).await;
    let keys = "grpc: { max_request_message: 1KiB }, circuit_breaker: { failure_threshold: 1 }";
    let mut client = client(server.plugin(keys).await);
    for _ in 0..3 {
        let status = ask(&mut client, "echo", "x".repeat(2_000)).await.unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted);
    }
    assert!(ask(&mut client, "echo", "x".into()).await.is_none());
}

/// A message of `length` bytes, of which there are so many.
fn begun(length: u32, there: usize) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend(length.to_be_bytes());
    bytes.resize(bytes.len() + there, 7);
    bytes.into()
}

async fn raw(
    content_type: &'static str,
    body: impl Fn() -> Body + Send + Sync + 'static,
) -> (Server, Plugins) {
    let server = Server::start(Socket::Tcp, Protocol::Http2, move |_: Request<Body>| {
        let response = Response::builder().header("content-type", content_type);
        let response = response.body(body()).unwrap();
        async move { response }
    })
    .await;
    let Address::Http { authority, .. } = &server.address else {
        panic!("not over TCP")
    };
    let config = config(&format!(
        "plugins: {{ p: {{ transport: grpc, endpoint: '{authority}' }} }}"
    ));
    (server, Plugins::builder().start(config).await.unwrap())
}

#[tokio::test]
async fn a_length_is_enough_to_end_a_call_and_nothing_is_kept_of_its_message() {
    let (_server, plugins) = raw("application/grpc+proto", || {
        let (frames, body) = channel();
        let small = begun(3, 3);
        let huge = begun(u32::MAX, 0);
        frames
            .send(Frame::data([small, huge].concat().into()))
            .unwrap();
        // It never comes, and has no end.
        tokio::spawn(async move { frames.closed().await });
        body
    })
    .await;
    let request = Request::post("/a/b").body(Body::empty()).unwrap();
    let response = call(&plugins.plugin("p"), request).await.unwrap();
    let mut body = response.into_body();
    let before = within(body.frame()).await.unwrap().unwrap();
    assert_eq!(
        before.into_data().unwrap(),
        begun(3, 3),
        "what came before it"
    );
    let error = within(body.frame()).await.unwrap().unwrap_err();
    let error = ours(&*error);
    assert_eq!(error.reason(), Some(Reason::ResponseTooLarge));
    assert_eq!((error.http_status().as_u16(), error.grpc_code()), (502, 8));
    assert_eq!(plugins.active_requests("p"), 0);
}

/// A client of gRPC reads messages whatever the answer calls itself.
#[tokio::test]
async fn an_answer_to_a_grpc_call_is_held_to_its_limit_whatever_it_calls_itself() {
    for kind in ["Application/gRPC", "application/octet-stream"] {
        let (_server, plugins) = raw(kind, || begun(5 << 20, 5 << 20).into()).await;
        let status = ask(&mut client(plugins.plugin("p")), "echo", "x".into()).await;
        let status = status.unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted, "{kind}: {status:?}");
    }
}

#[tokio::test]
async fn a_page_in_place_of_an_answer_is_no_message() {
    let (_server, plugins) = raw("text/html", || "<h1>a proxy says hello</h1>".into()).await;
    let status = ask(&mut client(plugins.plugin("p")), "echo", "x".into()).await;
    assert_eq!(status.unwrap().code(), Code::Internal);
}

/// Its frames are in base64, and its lengths with them.
#[tokio::test]
async fn grpc_web_as_text_goes_through() {
    const TEXT: &str = "AAAAAAFh";
    let (_server, plugins) = raw("application/grpc-web-text+proto", || TEXT.into()).await;
    let request = Request::post("/a/b").header("content-type", "application/grpc-web-text");
    let request = request.body(TEXT.into()).unwrap();
    let response = call(&plugins.plugin("p"), request).await.unwrap();
    let bytes = within(response.into_body().collect()).await.unwrap();
    assert_eq!(bytes.to_bytes(), TEXT);
}

#[tokio::test]
async fn what_is_no_grpc_is_not_looked_at() {
    let (_server, plugins) = raw("text/plain", || begun(u32::MAX, 9).into()).await;
    let request = Request::get("/").body(Body::empty()).unwrap();
    let response = call(&plugins.plugin("p"), request).await.unwrap();
    let bytes = within(response.into_body().collect()).await.unwrap();
    assert_eq!(bytes.to_bytes(), begun(u32::MAX, 9));
}
