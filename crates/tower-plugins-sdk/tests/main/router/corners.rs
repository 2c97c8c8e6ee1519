//! What callers do that is no example.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use futures_util::{Stream, TryStreamExt, stream};
use http::Request;
use http::header::ALLOW;
use serde_json::json;
use tower_plugins_sdk::router::{BoxError, CallError, Caller, Input, Kind, Output, Router, State};
use tower_plugins_sdk::tonic::Status;
use tower_plugins_sdk::v1::ExecuteRequest;
use tower_plugins_sdk::v1::plugin_client::PluginClient;

use super::support::{post, read, router, send};

async fn call(app: &axum::Router, method: &str, path: &str) -> axum::response::Response {
    let request = Request::builder().method(method).uri(path);
    send(app, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let app = router().into_axum();
    let refused = call(&app, "PUT", "/version").await;
    let allowed = refused.headers()[ALLOW].to_str().unwrap().to_owned();
    assert!(
        allowed.contains("GET") && allowed.contains("POST"),
        "{allowed}"
    );
    let (status, body) = read(refused).await;
    assert_eq!(status, 405);
    let error = body["error"].as_str().unwrap();
    assert!(error.contains("GET"), "{error}");
    let refused = call(&app, "GET", "/divide").await;
    assert_eq!(refused.headers()[ALLOW], "POST");
    assert_eq!(read(refused).await.0, 405);
    assert_eq!(call(&app, "POST", "/health").await.status(), 405);
    assert_eq!(call(&app, "HEAD", "/version").await.status(), 200);
}

#[tokio::test]
async fn a_long_text_of_an_error_is_cut_between_characters() {
    let long = "ü".repeat(4_000);
    let app = Router::new()
        .method("long", move || {
            let long = long.clone();
            async move { Err::<Output<()>, _>(long) }
        })
        .into_axum();
    let (status, body) = read(call(&app, "POST", "/long").await).await;
    assert_eq!(status, 500);
    assert_eq!(body["error"].as_str().unwrap().len(), 4_096);
}

struct Store(Vec<String>);

impl Store {
    async fn of(&self, prefix: &str) -> io::Result<Vec<String>> {
        if prefix.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let of = self.0.iter().filter(|name| name.starts_with(prefix));
        Ok(of.cloned().collect())
    }
}

#[derive(Clone)]
struct App {
    store: Arc<Store>,
}

/// As programs have them.
fn handlers() -> Router<App> {
    async fn list(
        State(app): State<App>,
        caller: Caller,
        Input(prefix): Input<String>,
    ) -> Result<Vec<String>, BoxError> {
        drop(caller);
        Ok(app.store.of(&prefix).await?)
    }
    async fn count(
        State(app): State<App>,
        Input(prefix): Input<Option<String>>,
    ) -> Result<Option<usize>, CallError> {
        let Some(prefix) = prefix else {
            return Ok(None);
        };
        let found = app.store.of(&prefix).await.map_err(CallError::internal)?;
        Ok(Some(found.len()))
    }
    async fn nothing(Input(()): Input<()>) {}
    async fn status() -> Result<u32, Status> {
        Err(Status::already_exists("there is one"))
    }
    async fn names(
        State(app): State<App>,
        Input(prefix): Input<String>,
    ) -> Result<impl Stream<Item = Result<String, BoxError>>, CallError> {
        let none = |error| CallError::new(Kind::InvalidArgument, error);
        let found = app.store.of(&prefix).await.map_err(none)?;
        Ok(stream::iter(found.into_iter().map(Ok)))
    }
    let known = ["ann", "anton", "bob"].map(str::to_owned).into();
    let store = Arc::new(Store(known));
    let held = store.clone();
    Router::with_state(App { store })
        .method("list", list)
        .method("count", count)
        .method("nothing", nothing)
        .method("status", status)
        .method("names", names)
        .method("held", move |Input(prefix): Input<String>| {
            let held = held.clone();
            async move { held.of(&prefix).await }
        })
}

#[tokio::test]
async fn handlers_are_what_programs_have() {
    let app = handlers().into_axum();
    let two = json!(["ann", "anton"]);
    assert_eq!(
        read(post(&app, "/list", "\"an\"").await).await,
        (200, two.clone())
    );
    assert_eq!(read(post(&app, "/list", "\"\"").await).await.0, 500);
    assert_eq!(
        read(post(&app, "/count", "null").await).await,
        (200, json!(null))
    );
    assert_eq!(
        read(post(&app, "/count", "\"an\"").await).await,
        (200, json!(2))
    );
    assert_eq!(
        read(post(&app, "/nothing", "").await).await,
        (200, json!(null))
    );
    assert_eq!(read(post(&app, "/status", "").await).await.0, 409);
    assert_eq!(read(post(&app, "/held", "\"an\"").await).await, (200, two));
}

#[tokio::test]
async fn a_stream_of_answers_may_fail_before_it_begins() {
    let mut client = PluginClient::new(handlers().into_axum());
    let asked = |payload: &'static str| {
        let request = ExecuteRequest {
            method: "names".to_owned(),
            payload: payload.into(),
            ..ExecuteRequest::default()
        };
        stream::iter([request])
    };
    let answers = client.execute_stream(asked("\"an\"")).await.unwrap();
    let payloads = answers.into_inner().map_ok(|answer| answer.payload);
    let payloads: Vec<_> = payloads.try_collect().await.unwrap();
    assert_eq!(payloads, ["\"ann\"", "\"anton\""]);
    let failed = client.execute_stream(asked("\"\"")).await.unwrap_err();
    assert_eq!(
        failed.code(),
        tower_plugins_sdk::tonic::Code::InvalidArgument
    );
}
