use http::Response;
use tower_plugins::{Body, Reason};

use super::stage::Answer::{Never, Status};
use super::stage::Stage;
use crate::support::{get, read};

/// The answer of a plugin with this `fallback`, whose service never answers.
async fn answer(keys: &str) -> Response<Body> {
    let keys = format!("connection: {{ request_timeout: 1s }}, fallback: {{ {keys} }}");
    let stage = Stage::of(&keys).await;
    stage.answers(Never);
    stage.send("p", get("/")).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn on_are_the_reasons_that_call_for_it() {
    let stage = Stage::of(
        "connection: { request_timeout: 1s }, authorize: { api_keys: { a: k } },
         fallback: { on: [unauthenticated] }",
    )
    .await;
    let response = stage.send("p", get("/")).await.unwrap();
    assert_eq!(response.headers()["x-fallback"], "unauthenticated");
    let mut known = get("/");
    known
        .headers_mut()
        .insert("x-api-key", "k".parse().unwrap());
    stage.answers(Never);
    let error = stage.send("p", known).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::DeadlineExceeded));

    // Unless it says otherwise it is for what cannot answer, and a status is an answer.
    let stage =
        Stage::of("fallback: {}, retry: off, circuit_breaker: { failure_threshold: 1 }").await;
    stage.answers(Status(500));
    assert_eq!(stage.call().await.unwrap(), 500);
    let response = stage.send("p", get("/")).await.unwrap();
    assert_eq!(response.headers()["x-fallback"], "breaker_open");
}

#[tokio::test(start_paused = true)]
async fn status_is_that_of_the_answer() {
    assert_eq!(answer("").await.status(), 200);
    assert_eq!(answer("status: 503").await.status(), 503);
}

#[tokio::test(start_paused = true)]
async fn body_is_that_of_the_answer() {
    assert_eq!(read(answer("").await).await, "");
    assert_eq!(read(answer("body: '[]'").await).await, "[]");
}

#[tokio::test(start_paused = true)]
async fn content_type_is_that_of_the_answer() {
    let of = |response: &Response<Body>| response.headers()["content-type"].clone();
    assert_eq!(of(&answer("").await), "text/plain; charset=utf-8");
    assert_eq!(
        of(&answer("content_type: application/json").await),
        "application/json"
    );
}
