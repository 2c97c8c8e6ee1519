use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, Request};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;
use tower::ServiceExt;
use tower_plugins_sdk::router::{
    BoxError, CallError, Caller, Info, Input, IntoCallError, Kind, Output, Router, State,
};

/// The state of the plugin of these tests.
#[derive(Clone)]
pub(crate) struct Desk {
    name: &'static str,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Division {
    pub(crate) dividend: i64,
    pub(crate) divisor: i64,
}

/// An error that says what kind it is.
#[derive(Debug)]
pub(crate) struct ByZero;

impl IntoCallError for ByZero {
    fn into_call_error(self) -> CallError {
        CallError::new(Kind::InvalidArgument, "division by zero").code("by_zero")
    }
}

async fn divide(Input(asked): Input<Division>) -> Result<Output<i64>, ByZero> {
    let quotient = asked.dividend.checked_div(asked.divisor);
    quotient.map(Output).ok_or(ByZero)
}

async fn whoami(State(desk): State<Desk>, caller: Caller) -> Result<Value, BoxError> {
    let limit = caller.time_left().ok_or("the caller sets no limit")?;
    Ok(serde_json::json!({
        "desk": desk.name,
        "request_id": caller.request_id(),
        "tenant": caller.header("x-tenant"),
        "hurried": limit < Duration::from_secs(31),
    }))
}

async fn parse(Input(text): Input<String>) -> Result<i64, BoxError> {
    Ok(text.parse::<i64>()?)
}

/// The plugin that is called over every wire.
pub(crate) fn router() -> Router<Desk> {
    Router::with_state(Desk { name: "front" })
        .timeout_header(HeaderName::from_static("x-timeout"))
        .info(Info::new("desk").version("1.2.0"))
        .method("divide", divide)
        .method("whoami", whoami)
        .method("parse", parse)
        .get("version", async || "1.2")
        .method("cached", async || Output(7).header("cache", "hit"))
        .method("busy", async || {
            Err::<(), _>(CallError::new(Kind::Unavailable, "not now"))
        })
        .method("panic", async |Input(()): Input<()>| -> &'static str {
            panic!("a secret")
        })
}

/// Tells when it is dropped.
pub(crate) struct Dropped(pub(crate) mpsc::Sender<&'static str>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.try_send("dropped");
    }
}

/// Waits for `work`, for as long as it may take on a machine under load.
pub(crate) async fn within<F: Future>(work: F) -> F::Output {
    let bounded = tokio::time::timeout(Duration::from_secs(30), work);
    bounded.await.expect("it took more than 30 seconds")
}

/// Has `app` answer `POST path` with `body`.
pub(crate) async fn post(app: &axum::Router, path: &str, body: &str) -> Response {
    let request = Request::post(path).header("content-type", "application/json");
    send(app, request.body(Body::from(body.to_owned())).unwrap()).await
}

pub(crate) async fn send(app: &axum::Router, request: Request<Body>) -> Response {
    app.clone().oneshot(request).await.unwrap()
}

/// The status and the body.
pub(crate) async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}
