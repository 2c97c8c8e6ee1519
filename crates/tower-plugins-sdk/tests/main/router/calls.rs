//! What is made of a call, and what of its answer.

use axum::Extension;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceBuilder;
use tower_plugins_layers::RespondLayer;
use tower_plugins_layers::authorize::{AuthorizeLayer, Callers, Principal};
use tower_plugins_sdk::router::{
    Call, CallError, Caller, FromCall, Input, Kind, Output, Raw, Router,
};
use tower_plugins_sdk::v1::ExecuteRequest;
use tower_plugins_sdk::v1::plugin_client::PluginClient;

use super::support::{post, read, router, send};

async fn error(response: axum::response::Response) -> (u16, String) {
    let (status, body) = read(response).await;
    (status, body["error"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_failure_says_its_kind_its_code_and_when_to_ask_again() {
    let later = std::time::Duration::from_millis(1500);
    let full = CallError::new(Kind::ResourceExhausted, "the disk is full")
        .code("disk")
        .retry_after(later);
    let app = Router::new()
        .method("save", move || {
            std::future::ready(Err::<(), _>(full.clone()))
        })
        .into_axum();
    let request = Request::post("/save").header("x-request-id", "r-7");
    let response = send(&app, request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["retry-after"], "2");
    assert_eq!(response.headers()["x-request-id"], "r-7");
    let body = json!({
        "error": "the disk is full", "kind": "resource_exhausted", "code": "disk", "request_id": "r-7",
    });
    assert_eq!(read(response).await, (429, body));
}

#[tokio::test]
async fn an_answer_has_the_headers_it_is_given_over_http_and_in_an_envelope() {
    let app = router().into_axum();
    let response = post(&app, "/cached", "").await;
    assert_eq!(response.headers()["cache"], "hit");
    assert_eq!(read(response).await, (200, json!(7)));
    let envelope = r#"{"data":null,"request_id":"r-1","timeout":"0s"}"#;
    let body = json!({ "data": 7, "request_id": "r-1", "metadata": { "cache": "hit" } });
    assert_eq!(
        read(post(&app, "/cached", envelope).await).await,
        (200, body)
    );
}

#[tokio::test]
async fn an_envelope_carries_an_error_with_its_kind_and_code() {
    let asked =
        json!({ "data": { "dividend": 1, "divisor": 0 }, "request_id": "r-1", "timeout": "1s" });
    let response = post(&router().into_axum(), "/divide", &asked.to_string()).await;
    let body = json!({
        "error": "division by zero", "request_id": "r-1",
        "metadata": { "kind": "invalid_argument", "code": "by_zero" },
    });
    assert_eq!(read(response).await, (200, body));
}

#[tokio::test]
async fn what_only_looks_like_an_envelope_is_data() {
    let echo = async |Input(value): Input<Value>| value;
    let app = Router::new().method("echo", echo).into_axum();
    let envelope = json!({ "data": 1, "request_id": "r", "timeout": "1s" });
    for text in [
        json!({ "data": 1 }),
        json!({ "data": 1, "request_id": "r" }),
        json!({ "data": 1, "request_id": "r", "timeout": "1s", "other": 2 }),
        json!({ "data": 1, "request_id": "r", "timeout": 1 }),
        json!([envelope]),
        json!([1, "r", "1s"]),
    ] {
        let answer = read(post(&app, "/echo", &text.to_string()).await).await;
        assert_eq!(answer, (200, text));
    }
    let app = Router::new()
        .envelopes(false)
        .method("echo", echo)
        .into_axum();
    let answer = read(post(&app, "/echo", &envelope.to_string()).await).await;
    assert_eq!(answer, (200, envelope));
}

#[tokio::test]
async fn a_call_without_a_path_names_its_method_or_needs_no_name() {
    let app = router().into_axum();
    let asked = json!({ "operation": "divide", "dividend": 6, "divisor": 3 }).to_string();
    assert_eq!(read(post(&app, "/", &asked).await).await, (200, json!(2)));
    let envelope = format!(r#"{{"data":{asked},"request_id":"","timeout":"0s"}}"#);
    let (_, answer) = read(post(&app, "/", &envelope).await).await;
    assert_eq!(answer["data"], 2);
    let (status, text) = error(post(&app, "/", r#"{"operation":"divided"}"#).await).await;
    assert_eq!(status, 404);
    assert_eq!(text, "there is no method divided: the nearest is divide");
    let (status, text) = error(post(&app, "/", r#"["divide"]"#).await).await;
    assert_eq!(status, 400);
    assert!(
        text.contains("x-operation") && text.ends_with("version, whoami"),
        "{text}"
    );

    let echo = async |Input(value): Input<Value>| value;
    let app = Router::new().method("echo", echo).into_axum();
    for text in ["7", r#"{"operation":"list"}"#] {
        let answer = read(post(&app, "/", text).await).await;
        assert_eq!(answer, (200, serde_json::from_str(text).unwrap()));
    }
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_before_the_handler() {
    let app = router().max_request(16).into_axum();
    let (status, text) = error(post(&app, "/parse", &"7".repeat(17)).await).await;
    assert_eq!(status, 413);
    assert_eq!(
        text,
        "the request is larger than 16 bytes, the most that is read"
    );
    let (status, text) = error(post(&app, "/divide", "{\"divisor\":1}").await).await;
    assert_eq!(status, 400);
    assert!(text.contains("missing field `dividend`"), "{text}");
    let xml = Request::post("/parse").header("content-type", "text/xml; charset=utf-8");
    let (status, text) = error(send(&app, xml.body(Body::from("7")).unwrap()).await).await;
    assert_eq!(status, 415);
    assert_eq!(text, "this method takes application/json, and not text/xml");
    let json = Request::post("/parse").header("content-type", "application/problem+JSON");
    let answer = read(send(&app, json.body(Body::from("\"7\"")).unwrap()).await).await;
    assert_eq!(answer, (200, json!(7)));
    let response = send(&app, Request::get("/divide").body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["allow"], "POST");
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    let (status, text) = error(post(&app, "/nothing/like/it", "").await).await;
    assert_eq!(status, 404);
    assert!(text.contains("there are busy, cached, divide"), "{text}");
}

struct Tenant(String);

impl<S> FromCall<S> for Tenant {
    fn from_call(call: &mut Call, _: &S) -> Result<Self, CallError> {
        let tenant = call.caller().header("x-tenant").map(str::to_owned);
        let missing = || CallError::new(Kind::Unauthenticated, "x-tenant says who calls");
        tenant.map(Self).ok_or_else(missing)
    }
}

#[tokio::test]
async fn an_argument_may_be_the_programs_own_or_of_a_layer() {
    let app = Router::new()
        .method("tenant", async |Tenant(name): Tenant| name)
        .method(
            "colour",
            async |Extension(colour): Extension<&'static str>| colour,
        )
        .method("count", async |Extension(count): Extension<u32>| {
            Output(count)
        })
        .method("echo", async |given: Bytes| Raw::new("text/plain", given))
        .layer(ServiceBuilder::new().layer(Extension("red")))
        .into_axum();
    assert_eq!(error(post(&app, "/tenant", "").await).await.0, 401);
    let request = Request::post("/tenant").header("x-tenant", "seven");
    let answer = read(send(&app, request.body(Body::empty()).unwrap()).await).await;
    assert_eq!(answer, (200, json!("seven")));
    assert_eq!(
        read(post(&app, "/colour", "").await).await,
        (200, json!("red"))
    );
    let (status, text) = error(post(&app, "/count", "").await).await;
    assert_eq!(
        (status, &*text),
        (500, "no layer of this plugin provides a u32")
    );
    let response = post(&app, "/echo", "7").await;
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(read(response).await, (200, json!(7)));
}

#[tokio::test]
async fn a_header_says_how_long_the_caller_waits() {
    let waits = async |caller: Caller| Output(caller.time_left().map(|left| left.as_secs() + 1));
    let router = || Router::new().method("waits", waits);
    let header = HeaderName::from_static("x-timeout");
    let ask = async |app: axum::Router, name: &str, value: &str| {
        let request = Request::post("/waits").header(name, HeaderValue::from_str(value).unwrap());
        read(send(&app, request.body(Body::empty()).unwrap()).await)
            .await
            .1
    };
    assert_eq!(
        ask(router().into_axum(), "x-timeout", "5").await,
        json!(null)
    );
    assert_eq!(
        ask(router().into_axum(), "grpc-timeout", "5S").await,
        json!(5)
    );
    let app = router().timeout_header(header).into_axum();
    assert_eq!(ask(app, "x-timeout", "5").await, json!(5));
}

#[tokio::test]
async fn it_is_part_of_an_axum_program() {
    let inner: axum::Router = router().into();
    let app = axum::Router::new()
        .route("/", axum::routing::get(async || "home"))
        .nest("/plugin", inner);
    assert_eq!(
        read(post(&app, "/plugin/version", "").await).await,
        (200, json!("1.2"))
    );
    let (status, text) = error(post(&app, "/plugin/versio", "").await).await;
    assert_eq!(
        (status, &*text),
        (404, "there is no method versio: the nearest is version")
    );
}

#[test]
#[should_panic(expected = "there are two methods \"a\"")]
fn two_methods_of_one_name_are_refused() {
    let _ = Router::new()
        .method("a", async || "")
        .method("a", async || "");
}

#[test]
#[should_panic(expected = "is no name for a method")]
fn a_name_that_is_no_path_is_refused() {
    let _ = Router::new().method("/a/{b}", async || "");
}

#[tokio::test]
async fn hosts_are_known_by_their_key_over_every_wire() {
    let known = Callers::new().api_key("billing", "k3y-of-b1lling");
    let layers = ServiceBuilder::new()
        .layer(RespondLayer::new())
        .layer(AuthorizeLayer::new(known));
    let router = || {
        let who = async |Extension(caller): Extension<Principal>| caller.name().to_owned();
        Router::new().method("who", who).layer(layers.clone())
    };
    let app = router().into_axum();
    for (key, status) in [("k3y-of-b1lling", 200), ("other", 401)] {
        let request = Request::post("/who").header("x-api-key", key);
        let response = send(&app, request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), status);
        let mut client = PluginClient::with_origin(app.clone(), "http://plugin".parse().unwrap());
        let mut request = tonic::Request::new(ExecuteRequest {
            method: "who".to_owned(),
            ..ExecuteRequest::default()
        });
        request
            .metadata_mut()
            .insert("x-api-key", key.parse().unwrap());
        let code = client
            .execute(request)
            .await
            .map_or_else(|status| status.code(), |_| tonic::Code::Ok);
        assert_eq!(code == tonic::Code::Ok, status == 200, "{code:?}");
        assert!(code == tonic::Code::Ok || code == tonic::Code::Unauthenticated);
        let line =
            json!({ "id": "r", "payload": null, "context": { "headers": { "x-api-key": key } } });
        let (line, mut output) = (line.to_string(), Vec::new());
        router()
            .serve_lines(line.as_bytes(), &mut output)
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&output).unwrap();
        assert_eq!(answer["result"] == "billing", status == 200, "{answer}");
        assert_eq!(answer["error"].is_string(), status == 401, "{answer}");
    }
}
