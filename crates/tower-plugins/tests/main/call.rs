//! Typed calls, as a server sees them and as their callers do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use http::{HeaderMap, HeaderValue, Method as HttpMethod, Response, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use tower_plugins::call::{Codec, DecodeError, Envelope, Method};
use tower_plugins::{Blame, Body, Error, Plugin, Plugins, Reason};

use crate::support::{causes, channel, config, within};

#[derive(Serialize)]
struct Check {
    token: &'static str,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Verdict {
    allowed: bool,
}

static CHECK: Method<Check, Verdict> = Method::post("/v1/check");
static IDEMPOTENT: Method<Check, Verdict> = Method::post("/v1/check").idempotent();
static PING: Method<(), ()> = Method::get("/ping?deep=1");

fn enveloped<Req, Res>() -> Method<Req, Res, Envelope>
where
    Envelope: Codec<Req, Res>,
{
    Method::with_codec(HttpMethod::POST, "/run", Envelope)
}

static TOKEN: Check = Check { token: "t" };

struct Seen {
    method: HttpMethod,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

#[derive(Clone, Default)]
struct Desk {
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Mutex<VecDeque<Response<Body>>>>,
}

/// An axum server that answers as it is told, and otherwise with an empty 200.
struct Served {
    desk: Desk,
    plugins: Plugins,
    plugin: Plugin,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Served {
    async fn start(keys: &str) -> Self {
        async fn answer(
            State(desk): State<Desk>,
            method: HttpMethod,
            uri: Uri,
            headers: HeaderMap,
            body: Bytes,
        ) -> Response<Body> {
            desk.seen.lock().unwrap().push(Seen {
                method,
                uri,
                headers,
                body,
            });
            let answer = desk.answers.lock().unwrap().pop_front();
            answer.unwrap_or_default()
        }
        let desk = Desk::default();
        let app = Router::new().fallback(answer).with_state(desk.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let config = config(&format!(
            "plugins: {{ p: {{ transport: http, endpoint: \"http://{address}\", {keys} }} }}"
        ));
        let plugins = Plugins::builder().start(config).await.unwrap();
        let plugin = plugins.plugin("p");
        Self {
            desk,
            plugins,
            plugin,
            server,
        }
    }

    fn answers(&self, status: u16, body: impl Into<Body>) -> &Self {
        let mut answer = Response::new(body.into());
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        self.desk.answers.lock().unwrap().push_back(answer);
        self
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.desk.seen.lock().unwrap())
    }

    async fn check(&self) -> Result<Verdict, Error> {
        within(self.plugin.invoke(&CHECK, &TOKEN).into_future()).await
    }
}

#[tokio::test]
async fn json_is_written_and_read_in_these_bytes() {
    let served = Served::start("").await;
    served.answers(200, r#" {"allowed": true, "later": 1} "#);
    let verdict = served.check().await.unwrap();
    assert_eq!(verdict, Verdict { allowed: true });
    let seen = served.seen();
    let [seen] = seen.as_slice() else {
        panic!("one request")
    };
    assert_eq!(
        (&seen.method, seen.uri.path()),
        (&HttpMethod::POST, "/v1/check")
    );
    assert_eq!(seen.body, r#"{"token":"t"}"#);
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(seen.header("content-length"), "13");
}

#[tokio::test]
async fn nothing_is_an_empty_body_both_ways() {
    let served = Served::start("").await;
    within(served.plugin.invoke(&PING, &()).into_future())
        .await
        .unwrap();
    let seen = served.seen().pop().unwrap();
    assert_eq!(seen.method, HttpMethod::GET);
    assert_eq!(seen.uri.path_and_query().unwrap(), "/ping?deep=1");
    assert!(seen.body.is_empty());
    assert_eq!(
        (seen.header("content-type"), seen.header("content-length")),
        ("", "")
    );
    served.answers(204, "");
    within(served.plugin.invoke(&PING, &()).into_future())
        .await
        .unwrap();
    served.answers(200, "null");
    within(served.plugin.invoke(&PING, &()).into_future())
        .await
        .unwrap();
    let maybe: Method<(), Option<u32>> = Method::post("/maybe");
    let none = within(served.plugin.invoke(&maybe, &()).into_future())
        .await
        .unwrap();
    assert_eq!(none, None);
    let error = served.check().await.unwrap_err();
    assert!(error.is_codec(), "nothing is no verdict");
}

#[tokio::test]
async fn an_envelope_is_written_and_read_in_these_bytes() {
    let served = Served::start("").await;
    let run = enveloped::<Check, Verdict>();
    served.answers(200, r#"{"data":{"allowed":true},"request_id":"r-1"}"#);
    let call = served
        .plugin
        .invoke(&run, &TOKEN)
        .request_id("r-1")
        .timeout(Duration::from_millis(1_500));
    assert!(within(call.into_future()).await.unwrap().allowed);
    let seen = served.seen().pop().unwrap();
    assert_eq!(
        seen.body,
        r#"{"data":{"token":"t"},"request_id":"r-1","timeout":"1.5s"}"#
    );
    assert_eq!(seen.header("x-request-id"), "r-1");
    assert_eq!(seen.header("content-type"), "application/json");

    served.answers(200, r#"{"error":"no such user","request_id":""}"#);
    let error = within(served.plugin.invoke(&run, &TOKEN).into_future())
        .await
        .unwrap_err();
    assert!(error.is_answer() && error.answered_status().is_none());
    assert!(causes(&error).contains("no such user"));
    assert_eq!(
        served.seen().pop().unwrap().body,
        r#"{"data":{"token":"t"},"request_id":"","timeout":"0s"}"#
    );

    served.answers(200, "{}");
    let nothing = enveloped::<(), ()>();
    within(served.plugin.invoke(&nothing, &()).into_future())
        .await
        .unwrap();
    assert_eq!(
        served.seen().pop().unwrap().body,
        r#"{"data":null,"request_id":"","timeout":"0s"}"#
    );
    served.answers(200, "{}");
    let error = within(served.plugin.invoke(&run, &TOKEN).into_future())
        .await
        .unwrap_err();
    assert!(error.is_codec());
}

#[tokio::test]
async fn a_status_that_is_no_success_is_the_error_with_the_answers_beginning() {
    let served = Served::start("retry: { enabled: false }").await;
    for status in [301, 400, 404, 418, 500, 503] {
        served.answers(status, "it is down: ".repeat(100));
        let error = served.check().await.unwrap_err();
        assert_eq!(error.answered_status().unwrap().as_u16(), status);
        assert!(error.is_answer() && !error.is_retryable() && !error.is_codec());
        assert_eq!((error.http_status().as_u16(), error.grpc_code()), (502, 2));
        assert_eq!((error.blame(), error.plugin()), (Blame::Plugin, Some("p")));
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        let said = causes(&error);
        assert!(said.contains("it is down") && said.len() < 2_000, "{said}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_what_was_asked_for_cannot_be_decoded() {
    let served = Served::start("").await;
    for answer in ["{", "<html>", r#"{"allowed":"yes"}"#, "{} trailing"] {
        served.answers(200, answer);
        let error = served.check().await.expect_err(answer);
        assert!(error.is_codec() && !error.is_answer());
        assert_eq!((error.http_status().as_u16(), error.grpc_code()), (502, 13));
        assert_eq!(error.blame(), Blame::Plugin);
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_made_is_the_callers_error_and_is_not_sent() {
    let served = Served::start("").await;
    let bad = [
        served
            .plugin
            .invoke(&CHECK, &TOKEN)
            .header("no header", "v"),
        served
            .plugin
            .invoke(&CHECK, &TOKEN)
            .header("name", "line\r\nbreak"),
        served
            .plugin
            .invoke(&CHECK, &TOKEN)
            .request_id("line\nbreak"),
        served.plugin.invoke(&CHECK, &TOKEN).idempotency_key("\0"),
    ];
    for call in bad {
        let error = call.await.unwrap_err();
        assert!(error.is_codec());
        assert_eq!((error.http_status().as_u16(), error.grpc_code()), (400, 3));
        assert_eq!((error.blame(), error.plugin()), (Blame::Caller, Some("p")));
    }
    static NO_PATH: Method<(), ()> = Method::get("ping");
    assert!(
        served
            .plugin
            .invoke(&NO_PATH, &())
            .await
            .unwrap_err()
            .is_codec()
    );
    let odd: Method<std::collections::HashMap<Vec<u8>, u8>, ()> = Method::post("/");
    let keyed_by_lists = [(vec![1], 1)].into();
    assert!(
        served
            .plugin
            .invoke(&odd, &keyed_by_lists)
            .await
            .unwrap_err()
            .is_codec()
    );
    assert!(served.seen().is_empty());
}

#[tokio::test]
async fn headers_are_sent_as_they_were_given() {
    let served = Served::start("auth: { method: bearer, token: from-config }").await;
    let call = served
        .plugin
        .invoke(&PING, &())
        .header("x-tenant", "one")
        .header("x-tenant", "two")
        .header(
            http::header::ACCEPT,
            HeaderValue::from_static("application/json"),
        )
        .request_id("first")
        .request_id("r-7");
    within(call.into_future()).await.unwrap();
    let seen = served.seen().pop().unwrap();
    let tenants: Vec<_> = seen.headers.get_all("x-tenant").iter().collect();
    assert_eq!(tenants, ["one", "two"]);
    let ids: Vec<_> = seen.headers.get_all("x-request-id").iter().collect();
    assert_eq!(ids, ["r-7"], "a request has one name");
    assert_eq!(seen.header("accept"), "application/json");
    assert_eq!(seen.header("authorization"), "Bearer from-config");
}

const QUICK: &str = "retry: { initial_interval: 1ms, max_interval: 1ms }";

#[tokio::test]
async fn what_may_be_repeated_is_retried_and_nothing_else() {
    let served = Served::start(QUICK).await;
    let ok = r#"{"allowed":true}"#;
    served.answers(503, "").answers(200, ok);
    let error = served.check().await.unwrap_err();
    assert_eq!(
        error.answered_status(),
        Some(StatusCode::SERVICE_UNAVAILABLE)
    );
    assert_eq!(served.seen().len(), 1, "a POST may have been processed");
    assert!(served.check().await.unwrap().allowed);
    served.seen();

    served.answers(503, "").answers(503, "").answers(200, ok);
    let call = served.plugin.invoke(&CHECK, &TOKEN).idempotency_key("k-1");
    assert!(within(call.into_future()).await.unwrap().allowed);
    let seen = served.seen();
    assert_eq!(seen.len(), 3);
    for seen in &seen {
        assert_eq!(
            (seen.header("idempotency-key"), &seen.body[..]),
            ("k-1", &br#"{"token":"t"}"#[..])
        );
    }

    served.answers(503, "").answers(200, ok);
    assert!(
        within(served.plugin.invoke(&IDEMPOTENT, &TOKEN).into_future())
            .await
            .unwrap()
            .allowed
    );
    assert_eq!(served.seen().len(), 2);
    served.answers(503, "").answers(200, "");
    within(served.plugin.invoke(&PING, &()).into_future())
        .await
        .unwrap();
    assert_eq!(served.seen().len(), 2);
}

#[tokio::test]
async fn the_callers_own_time_bounds_the_whole_call() {
    let served = Served::start("").await;
    let (_frames, silent) = channel();
    served.answers(200, silent);
    let call = served
        .plugin
        .invoke(&CHECK, &TOKEN)
        .timeout(Duration::from_millis(50));
    let error = within(call.into_future()).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(error.reason(), Some(Reason::DeadlineExceeded));
    assert_eq!((error.http_status().as_u16(), error.grpc_code()), (504, 4));
    assert_eq!(error.plugin(), Some("p"));
    assert_eq!(served.plugins.active_requests("p"), 0);
    // Time that nobody can count is no limit.
    served.answers(200, r#"{"allowed":true}"#);
    let call = served.plugin.invoke(&CHECK, &TOKEN).timeout(Duration::MAX);
    assert!(within(call.into_future()).await.unwrap().allowed);
}

#[tokio::test]
async fn the_configs_time_holds_if_it_is_shorter() {
    let served = Served::start("connection: { request_timeout: 50ms }").await;
    let (_frames, silent) = channel();
    served.answers(200, silent);
    let call = served
        .plugin
        .invoke(&CHECK, &TOKEN)
        .timeout(Duration::from_secs(3600));
    assert!(within(call.into_future()).await.unwrap_err().is_timeout());
}

#[tokio::test]
async fn no_more_is_read_of_a_response_than_allowed() {
    let served = Served::start("").await;
    let four: Method<(), String> = Method::post("/four");
    served.answers(200, r#""1234""#);
    let call = served.plugin.invoke(&four, &()).max_response(6);
    assert_eq!(within(call.into_future()).await.unwrap(), "1234");
    served.answers(200, r#""1234""#);
    let call = served.plugin.invoke(&four, &()).max_response(5);
    let error = within(call.into_future()).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ResponseTooLarge));
    assert_eq!((error.http_status().as_u16(), error.grpc_code()), (502, 8));
    // So too if it has no end.
    let (frames, endless) = channel();
    for _ in 0..10 {
        frames.send(crate::support::data("0123456789")).unwrap();
    }
    served.answers(200, endless);
    let call = served.plugin.invoke(&four, &()).max_response(50);
    let error = within(call.into_future()).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ResponseTooLarge));
    assert_eq!(served.plugins.active_requests("p"), 0);
}

#[tokio::test]
async fn a_call_that_is_dropped_is_over() {
    let served = Served::start("").await;
    let (frames, silent) = channel();
    served.answers(200, silent);
    let call = served.plugin.invoke(&CHECK, &TOKEN).into_future();
    tokio::select! {
        _ = call => panic!("there is no answer"),
        () = within(async {
            while served.desk.seen.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            assert_eq!(served.plugins.active_requests("p"), 1);
        }) => {}
    }
    assert_eq!(served.plugins.active_requests("p"), 0);
    within(frames.closed()).await;
}

#[tokio::test]
async fn a_plugin_that_is_not_there_is_named_in_the_error() {
    let served = Served::start("").await;
    let error = served
        .plugins
        .plugin("q")
        .invoke(&CHECK, &TOKEN)
        .await
        .unwrap_err();
    assert!(error.is_not_found() && !error.is_retryable());
    assert_eq!((error.http_status().as_u16(), error.grpc_code()), (404, 12));
    assert!(error.to_string().contains("`q`"));
}

#[tokio::test]
async fn a_plugin_that_cannot_be_reached_says_where_it_should_be() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let config = config(&format!(
        "plugins: {{ p: {{ transport: http, endpoint: \"http://{address}\", {QUICK} }} }}"
    ));
    let plugins = Plugins::builder().start(config).await.unwrap();
    let error = within(plugins.plugin("p").invoke(&CHECK, &TOKEN).into_future())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ConnectFailed));
    assert!(error.is_retryable() && error.blame() == Blame::Plugin);
    assert_eq!((error.http_status().as_u16(), error.grpc_code()), (502, 14));
    let said = causes(&error);
    assert!(
        said.contains(&address.to_string()) && said.contains("plugin `p`"),
        "{said}"
    );
}

/// A codec of a user's own.
#[derive(Clone, Copy, Debug)]
struct Upper;

impl Codec<str, String> for Upper {
    fn encode(
        &self,
        value: &str,
        request: &mut http::Request<Body>,
        _: Option<Duration>,
    ) -> Result<(), tower_plugins_layers::BoxError> {
        *request.body_mut() = value.to_uppercase().into();
        Ok(())
    }

    fn decode(&self, response: Response<Bytes>) -> Result<String, DecodeError> {
        String::from_utf8(response.into_body().to_vec())
            .map_err(|error| DecodeError::Invalid(error.into()))
    }
}

#[tokio::test]
async fn a_codec_may_be_the_users_own() {
    let served = Served::start("").await;
    served.answers(200, "answer");
    let shout = Method::with_codec(HttpMethod::PUT, "/shout", Upper);
    let answer = within(served.plugin.invoke(&shout, "hey").into_future())
        .await
        .unwrap();
    assert_eq!(answer, "answer");
    assert_eq!(served.seen().pop().unwrap().body, "HEY");
}
