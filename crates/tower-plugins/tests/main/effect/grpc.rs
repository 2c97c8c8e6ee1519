use tower_plugins::call::Method;
use tower_plugins::{Error, Plugins, Reason};

use crate::grpc::server::{Server, Way};
use crate::support::within;

static ZEROS: Method<usize, String> = Method::post("/zeros");
static ECHO: Method<String, String> = Method::post("/echo");

/// The plugin's answer of so many bytes, and two quotes.
async fn zeros(plugins: &Plugins, count: usize) -> Result<(), Error> {
    let plugin = plugins.plugin("p");
    within(plugin.invoke(&ZEROS, &count).into_future())
        .await
        .map(drop)
}

async fn answers_up_to(root: &str, keys: &str, limit: usize) {
    let server = Server::start(Way::Tcp).await;
    let config = server.config_with(root, keys);
    let plugins = Plugins::builder().start(config).await.unwrap();
    // Around the payload, a message has a few bytes of its own.
    zeros(&plugins, limit - 16).await.unwrap();
    let error = zeros(&plugins, limit + 1).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ResponseTooLarge), "{error:?}");
}

#[tokio::test]
async fn max_response_message_is_the_largest_that_is_received() {
    answers_up_to("", "", 4 << 20).await;
    answers_up_to("", "grpc: { max_response_message: 8MiB }", 8 << 20).await;
    answers_up_to("", "grpc: { max_response_message: 1KiB }", 1 << 10).await;
}

#[tokio::test]
async fn default_grpc_holds_for_plugins_that_do_not_say_otherwise() {
    let root = "default_grpc: { max_response_message: 1KiB },";
    answers_up_to(root, "", 1 << 10).await;
    answers_up_to(root, "grpc: { compression: off }", 1 << 10).await;
    answers_up_to(root, "grpc: { max_response_message: 2KiB }", 2 << 10).await;
}

#[tokio::test]
async fn grpc_is_of_one_plugin() {
    let root = "default_grpc: { max_response_message: 1KiB },";
    answers_up_to(root, "grpc: default", 4 << 20).await;
}

#[tokio::test]
async fn max_request_message_is_the_largest_that_is_sent() {
    for (keys, limit) in [
        ("", 4 << 20),
        ("grpc: { max_request_message: 1KiB }", 1 << 10),
    ] {
        let server = Server::start(Way::Tcp).await;
        let plugin = server.plugin(keys).await;
        let (fits, long) = ("x".repeat(limit - 100), "x".repeat(limit));
        let answer = within(plugin.invoke(&ECHO, &fits).into_future()).await;
        // The answer has what the request had.
        assert_eq!(answer.unwrap(), fits);
        assert_eq!(server.desk.seen().len(), 1);
        let answer = within(plugin.invoke(&ECHO, &long).into_future()).await;
        let error = answer.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::RequestTooLarge), "{error:?}");
        assert_eq!((error.http_status().as_u16(), error.grpc_code()), (413, 8));
        assert!(server.desk.seen().is_empty());
    }
}

#[tokio::test]
async fn compression_is_how_typed_calls_are_sent() {
    for (keys, encoding) in [
        ("", None),
        ("grpc: { compression: off }", None),
        ("grpc: { compression: gzip }", Some("gzip")),
    ] {
        let server = Server::start(Way::Tcp).await;
        let plugin = server.plugin(keys).await;
        let long = "x".repeat(10_000);
        let answer = within(plugin.invoke(&ECHO, &long).into_future()).await;
        assert_eq!(answer.unwrap(), long);
        let (metadata, _) = server.desk.seen().pop().unwrap();
        let of = |name| metadata.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(of("grpc-encoding"), encoding);
        assert_eq!(of("grpc-accept-encoding").is_some(), encoding.is_some());
    }
    // A length is that of what is sent.
    let server = Server::start(Way::Tcp).await;
    let keys = "grpc: { compression: gzip, max_request_message: 1KiB }";
    let plugin = server.plugin(keys).await;
    let long = "x".repeat(10_000);
    within(plugin.invoke(&ECHO, &long).into_future())
        .await
        .unwrap();
}
