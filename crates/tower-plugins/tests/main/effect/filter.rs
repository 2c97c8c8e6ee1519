use std::time::Duration;

use http::{HeaderValue, StatusCode};
use tokio::time::Instant;
use tower_plugins::{Plugins, Reason};

use super::stage::Answer::Status;
use super::stage::{SECOND, Stage};
use crate::support::{config, get};

/// A call with two headers.
fn marked() -> http::Request<tower_plugins::Body> {
    let mut request = get("/the/path");
    let headers = request.headers_mut();
    headers.insert("x-seen", HeaderValue::from_static("seen"));
    headers.insert("x-user", HeaderValue::from_static("forged"));
    request
}

#[tokio::test]
async fn filter_is_asked_about_this_plugins_calls_alone() {
    let stage = Stage::pair("", "filter: { service: two }").await;
    assert_eq!(stage.asked(1).await, 1);
    assert_eq!(stage.asked_by("q", 1).await, 2);
}

#[tokio::test]
async fn service_is_who_is_asked_and_whose_word_counts() {
    let stage = Stage::of(
        "filter: { service: two }, retry: off,
         rate_limit: { requests_per_second: 0.001, burst_size: 1 }",
    )
    .await;
    // What it refuses costs no token.
    stage.next([Status(403)]);
    assert_eq!(stage.call().await.unwrap(), StatusCode::FORBIDDEN);
    let seen = stage.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].service, seen[0].request.uri().path()),
        ("two", "/")
    );
    assert_eq!(stage.call().await.unwrap(), StatusCode::OK);
    let asked: Vec<_> = stage.seen().iter().map(|seen| seen.service).collect();
    assert_eq!(asked, ["two", "one"]);

    let unknown =
        "plugins: { p: { transport: in-process, endpoint: one, filter: { service: x } } }";
    let one = tower::service_fn(async |_| {
        Ok::<_, std::convert::Infallible>(http::Response::new(tower_plugins::Body::empty()))
    });
    let started = Plugins::builder().service("one", one);
    let error = started.start(config(unknown)).await.unwrap_err();
    let said = format!("{error:?}");
    assert!(said.contains("no service `x` is registered"), "{said}");
}

#[tokio::test]
async fn headers_are_all_that_it_sees_of_them() {
    let stage = Stage::of("filter: { service: two, headers: [X-Seen] }").await;
    stage.send("p", marked()).await.unwrap();
    let seen = stage.seen();
    assert_eq!(seen[0].request.headers()["x-seen"], "seen");
    assert!(!seen[0].request.headers().contains_key("x-user"));
    assert_eq!(seen[1].request.headers()["x-user"], "forged");
}

#[tokio::test]
async fn copy_headers_go_from_its_answer_to_the_plugin_in_the_place_of_the_callers() {
    // The stage's services answer with the header `x-service`, their name.
    let stage = Stage::of("filter: { service: two, copy_headers: [x-service, x-user] }").await;
    stage.send("p", marked()).await.unwrap();
    let seen = stage.seen();
    assert_eq!(seen[1].request.headers()["x-service"], "two");
    assert!(!seen[1].request.headers().contains_key("x-user"));
}

#[tokio::test(start_paused = true)]
async fn timeout_is_how_long_it_has() {
    for (key, expected) in [("", 1000), ("timeout: 200ms", 200)] {
        let stage = Stage::of(&format!("filter: {{ service: never, {key} }}")).await;
        let before = Instant::now();
        assert_eq!(stage.refusal().await, Some(Reason::FilterFailed));
        assert_eq!(before.elapsed(), Duration::from_millis(expected));
    }
    // The plugin's own time goes on meanwhile.
    let stage =
        Stage::of("filter: { service: slow, timeout: 5s }, connection: { request_timeout: 500ms }")
            .await;
    let before = Instant::now();
    assert_eq!(stage.refusal().await, Some(Reason::DeadlineExceeded));
    assert_eq!(before.elapsed(), SECOND / 2);
}

#[tokio::test]
async fn fail_open_lets_calls_go_on_that_it_could_not_judge() {
    for (key, expected) in [("", None), ("fail_open: true", Some(StatusCode::OK))] {
        let stage = Stage::of(&format!("filter: {{ service: two, {key} }}")).await;
        stage.next([Status(500)]);
        let outcome = stage.call().await;
        assert_eq!(outcome.as_ref().ok(), expected.as_ref());
        let reason = outcome.err().and_then(|error| error.reason());
        assert_eq!(reason, expected.is_none().then_some(Reason::FilterFailed));
    }
}
