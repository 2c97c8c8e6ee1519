//! Typed calls, through `tower_plugins.v1.Plugin`.

use std::error::Error as StdError;
use std::time::Duration;

use futures_util::stream;
use http::Method as HttpMethod;
use tonic::{Code, Status};
use tower_plugins::call::{Method, Protobuf};
use tower_plugins::{Blame, Error, Reason};
use tower_plugins_proto::v1::{ExecuteRequest, InfoRequest};

use super::server::{Server, WAYS, Way};
use crate::support::{causes, config, within};

static UPPER: Method<String, String> = Method::post("/words/upper");
static READ: Method<String, String> = Method::post("/words/upper").idempotent();
static SLOW: Method<(), ()> = Method::post("/slow");
static ZEROS: Method<usize, String> = Method::post("/zeros");

#[tokio::test]
async fn a_typed_call_is_an_execute_with_the_codecs_bytes() {
    for way in WAYS {
        let server = Server::start(way).await;
        let plugin = server.plugin("auth: { method: bearer, token: t }").await;
        let word = "word".to_owned();
        let call = plugin
            .invoke(&UPPER, &word)
            .request_id("r-1")
            .header("x-tenant", "one")
            .header("x-tenant", "two")
            .header("cookie", "secret");
        assert_eq!(within(call.into_future()).await.unwrap(), "WORD");
        let (metadata, message) = server.desk.seen().pop().unwrap();
        let sent = ExecuteRequest {
            method: "words/upper".into(),
            payload: r#""word""#.into(),
            content_type: "application/json".into(),
            metadata: [("x-tenant".into(), "one, two".into())].into(),
            request_id: "r-1".into(),
        };
        assert_eq!(message, Some(sent), "{way:?}");
        assert_eq!(metadata.get("authorization").unwrap(), "Bearer t");
        assert_eq!(metadata.get("x-request-id").unwrap(), "r-1");
        assert_eq!(metadata.get_all("x-tenant").iter().count(), 2);
    }
}

#[tokio::test]
async fn a_payload_may_be_protobuf() {
    let server = Server::start(Way::Tcp).await;
    let plugin = server.plugin("").await;
    let echo: Method<ExecuteRequest, ExecuteRequest, Protobuf> =
        Method::with_codec(HttpMethod::POST, "/echo", Protobuf);
    let value = ExecuteRequest {
        method: "any message".into(),
        ..Default::default()
    };
    let answer = within(plugin.invoke(&echo, &value).into_future()).await;
    assert_eq!(answer.unwrap(), value);
    let (_, message) = server.desk.seen().pop().unwrap();
    assert_eq!(message.unwrap().content_type, "application/protobuf");
    let broken: Method<InfoRequest, ExecuteRequest, Protobuf> =
        Method::with_codec(HttpMethod::POST, "/zeros", Protobuf);
    let answer = within(plugin.invoke(&broken, &InfoRequest {}).into_future());
    assert!(answer.await.is_err());
}

fn status_of(error: &Error) -> &Status {
    error.source().unwrap().downcast_ref().unwrap()
}

#[tokio::test]
async fn the_plugins_own_status_is_the_error() {
    let server = Server::start(Way::Tcp).await;
    let plugin = server.plugin("retry: off, circuit_breaker: off").await;
    let word = String::new();
    for code in (1..=16).map(Code::from_i32) {
        server
            .desk
            .fail(Status::with_details(code, "so it is", "details".into()));
        let error = within(plugin.invoke(&UPPER, &word).into_future()).await;
        let error = error.unwrap_err();
        assert!(error.is_answer() && !error.is_codec() && !error.is_refused());
        assert_eq!(error.answered_code(), Some(code as i32));
        assert_eq!(
            (error.grpc_code(), error.http_status().as_u16()),
            (code as i32, 502)
        );
        assert_eq!(error.is_retryable(), code == Code::Unavailable);
        assert_eq!(error.is_timeout(), code == Code::DeadlineExceeded);
        assert_eq!((error.blame(), error.plugin()), (Blame::Plugin, Some("p")));
        assert_eq!(error.reason(), None);
        let status = status_of(&error);
        assert_eq!(
            (status.message(), status.details()),
            ("so it is", &b"details"[..])
        );
    }
    let error = within(plugin.invoke(&ZEROS, &5).into_future()).await;
    assert_eq!(error.unwrap(), "00000");
    static NONE: Method<(), ()> = Method::post("/none");
    let error = within(plugin.invoke(&NONE, &()).into_future()).await;
    let error = error.unwrap_err();
    assert_eq!(error.answered_code(), Some(12));
    assert!(causes(&error).contains("no method none"), "{error:?}");
}

#[tokio::test]
async fn what_may_be_repeated_is_retried_and_nothing_else() {
    let server = Server::start(Way::Tcp).await;
    let quick = "retry: { initial_interval: 1ms, max_interval: 1ms }";
    let plugin = server.plugin(quick).await;
    let word = "w".to_owned();
    server.desk.fail(Status::unavailable("not now"));
    let error = within(plugin.invoke(&UPPER, &word).into_future()).await;
    assert_eq!(error.unwrap_err().answered_code(), Some(14));
    assert_eq!(server.desk.seen().len(), 1);
    server.desk.fail(Status::unavailable("not now"));
    let answer = within(plugin.invoke(&READ, &word).into_future()).await;
    assert_eq!(answer.unwrap(), "W");
    assert_eq!(server.desk.seen().len(), 2);
}

#[tokio::test]
async fn a_time_limit_ends_a_typed_call_whoever_sets_it() {
    let server = Server::start(Way::Tcp).await;
    let plugins = server.plugins("").await;
    let plugin = plugins.plugin("p");
    let call = plugin.invoke(&SLOW, &()).timeout(Duration::from_millis(50));
    let error = within(call.into_future()).await.unwrap_err();
    assert!(error.is_timeout() && !error.is_answer(), "{error:?}");
    assert_eq!(error.reason(), Some(Reason::DeadlineExceeded));
    let (metadata, _) = server.desk.seen().pop().unwrap();
    assert!(metadata.contains_key("grpc-timeout"));

    let short = server.config("connection: { request_timeout: 50ms }");
    plugins.reload(short).await.unwrap();
    let error = within(plugin.invoke(&SLOW, &()).into_future()).await;
    assert_eq!(error.unwrap_err().reason(), Some(Reason::DeadlineExceeded));
    assert_eq!(plugins.active_requests("p"), 0);
}

#[tokio::test]
async fn no_more_is_read_of_an_answer_than_allowed() {
    let server = Server::start(Way::Tcp).await;
    for keys in ["", "grpc: { compression: gzip }"] {
        let plugin = server.plugin(keys).await;
        let call = plugin.invoke(&ZEROS, &100_000).max_response(200_000);
        assert_eq!(within(call.into_future()).await.unwrap().len(), 100_000);
        let call = plugin.invoke(&ZEROS, &100_000).max_response(50_000);
        let error = within(call.into_future()).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::ResponseTooLarge), "{error:?}");
    }
    let plugin = server.plugin("grpc: { max_response_message: 1KiB }").await;
    let error = within(plugin.invoke(&ZEROS, &2_000).into_future()).await;
    let error = error.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ResponseTooLarge));
    assert!(
        causes(&error).contains("grpc.max_response_message"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_refusal_of_this_side_keeps_its_reason() {
    let server = Server::start(Way::Tcp).await;
    let limit = "rate_limit: { requests_per_second: 0.001, burst_size: 1 }";
    let plugin = server.plugin(limit).await;
    let word = "w".to_owned();
    within(plugin.invoke(&UPPER, &word).into_future())
        .await
        .unwrap();
    let error = within(plugin.invoke(&UPPER, &word).into_future()).await;
    let error = error.unwrap_err();
    assert!(error.is_refused() && error.retry_after().is_some());
    assert_eq!(
        (error.reason(), error.plugin()),
        (Some(Reason::RateLimited), Some("p"))
    );
}

#[tokio::test]
async fn a_typed_stream_is_answered_message_by_message() {
    for way in WAYS {
        let mut server = Server::start(way).await;
        let plugins = server.plugins("").await;
        let plugin = plugins.plugin("p");
        let words = stream::iter(["one", "two", "three"].map(str::to_owned));
        let opened = plugin.invoke_stream(&UPPER, words).request_id("r-2");
        let mut answers = within(opened.into_future()).await.unwrap();
        for word in ["ONE", "TWO", "THREE"] {
            assert_eq!(within(answers.next()).await.unwrap().unwrap(), word);
        }
        assert!(within(answers.next()).await.is_none());
        server.ended().await;
        let seen = server.desk.seen();
        let messages: Vec<_> = seen
            .iter()
            .map(|(_, message)| message.as_ref().unwrap())
            .collect();
        assert_eq!(messages[0].method, "words/upper");
        assert_eq!(messages[0].request_id, "r-2");
        assert!(messages[1..].iter().all(|later| later.method.is_empty()));
        assert_eq!(plugins.active_requests("p"), 0);
    }
}

#[tokio::test]
async fn a_typed_stream_ends_with_its_error() {
    let mut server = Server::start(Way::Tcp).await;
    let plugin = server.plugin("").await;
    let words = stream::iter(["one", "fail", "three"].map(str::to_owned));
    let mut answers = within(plugin.invoke_stream(&UPPER, words).into_future())
        .await
        .unwrap();
    assert_eq!(within(answers.next()).await.unwrap().unwrap(), "ONE");
    let error = within(answers.next()).await.unwrap().unwrap_err();
    assert_eq!(
        (error.answered_code(), error.plugin()),
        (Some(15), Some("p"))
    );
    assert!(within(answers.next()).await.is_none());
    server.ended().await;

    // A request that cannot be encoded is the caller's, and no end that the plugin would take for one.
    type Odd = std::collections::HashMap<Vec<u8>, u8>;
    static ODD: Method<Odd, String> = Method::post("/words/upper");
    let odd = stream::iter([Odd::new(), [(vec![1], 1)].into()]);
    let opened = within(plugin.invoke_stream(&ODD, odd).into_future()).await;
    let error = match opened {
        Err(error) => error,
        Ok(mut answers) => loop {
            // The first one is answered, maybe, by what is no text.
            match within(answers.next()).await.unwrap() {
                Err(error) if error.blame() == Blame::Plugin => return,
                Err(error) => break error,
                Ok(_) => {}
            }
        },
    };
    assert!(
        error.is_codec() && error.blame() == Blame::Caller,
        "{error:?}"
    );
}

#[tokio::test]
async fn a_typed_stream_takes_a_plugin_that_speaks_grpc() {
    let plain = config("plugins: { p: { transport: http, endpoint: 'http://127.0.0.1:1' } }");
    let plugins = tower_plugins::Plugins::builder()
        .start(plain)
        .await
        .unwrap();
    let plugin = plugins.plugin("p");
    let words = stream::iter([String::new()]);
    let error = within(plugin.invoke_stream(&UPPER, words).into_future()).await;
    let error = error.unwrap_err();
    assert!(error.is_codec(), "{error:?}");
    assert!(
        causes(&error).contains("takes transport: grpc"),
        "{error:?}"
    );
}
