use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::time::{Instant, advance, sleep};
use tower_plugins_layers::{BoxError, CallContext, Outcome, Reason, Refused};

use super::{Score, Tally};
use crate::Body;
use crate::config::{Config, Format, Policy};
use crate::node::{CallFuture, Node, Services};
use crate::transport::InProcess;

const SECOND: Duration = Duration::from_secs(1);

/// What follows a head, each frame a second after the one before it.
fn body(frames: Vec<Result<Frame<Bytes>, BoxError>>) -> Body {
    let frames = stream::iter(frames).then(|frame| async {
        sleep(SECOND).await;
        frame
    });
    Body::new(StreamBody::new(Box::pin(frames)))
}

fn data() -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from_static(b"data")))
}

fn trailers(code: &str) -> Result<Frame<Bytes>, BoxError> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse()?);
    Ok(Frame::trailers(trailers))
}

/// A service that answers after a second as its path says.
async fn answer(request: Request<Body>) -> Result<Response<Body>, BoxError> {
    sleep(SECOND).await;
    let path = request.uri().path();
    let mut parts = path.split('/').skip(1);
    let response = Response::builder();
    let grpc = Response::builder().header("content-type", "application/grpc");
    Ok(match (parts.next(), parts.next()) {
        (Some("status"), Some(status)) => response.status(status).body(body(vec![data()]))?,
        (Some("empty"), _) => response.body(Body::empty())?,
        (Some("events"), _) => response
            .header("content-type", "text/event-stream")
            .body(body(vec![data()]))?,
        (Some("broken"), _) => response.body(body(vec![data(), Err("broken".into())]))?,
        (Some("trailers"), Some(code)) => grpc.body(body(vec![data(), trailers(code)]))?,
        (Some("head"), Some(code)) => grpc.header("grpc-status", code).body(Body::empty())?,
        (Some("silent"), _) => grpc.body(body(vec![data()]))?,
        (Some("refused"), Some(word)) => {
            let mut all = Reason::ALL.into_iter();
            let reason = all.find(|reason| reason.as_str() == word);
            return Err(Refused::new(reason.ok_or("no such reason")?).into());
        }
        (Some("panic"), _) => panic!("as it was told to"),
        _ => return Err("an error".into()),
    })
}

/// A node with these keys, over [`answer`].
fn node(keys: &str) -> Arc<Node> {
    let comma = if keys.is_empty() { "" } else { ", " };
    let yaml = format!(
        "plugins: {{ p: {{ transport: in-process, endpoint: s, retry: off{comma}{keys} }} }}"
    );
    let config = Config::parse(&yaml, Format::Yaml).unwrap();
    let mut services = Services::default();
    services.insert(InProcess::new("s", tower::service_fn(answer)));
    let spec = config.plugins["p"].clone();
    Arc::new(
        Node::build(
            spec,
            None,
            super::super::Inherit::Shared,
            &Arc::new(services),
        )
        .unwrap(),
    )
}

fn scored(keys: &str) -> Arc<Node> {
    let node = node(keys);
    node.keep_score();
    node
}

fn begin(node: &Arc<Node>, path: &str) -> CallFuture {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().unwrap();
    CallContext::new().attach(&mut request);
    Arc::clone(node).call(request)
}

/// Calls it, and reads what it answers to the end.
async fn call(node: &Arc<Node>, path: &str) {
    if let Ok(response) = begin(node, path).await {
        let _ = response.into_body().collect().await;
    }
}

fn counts(node: &Node) -> (u64, u64) {
    let tally = node.tally().unwrap();
    (tally.calls(), tally.failures())
}

const SUCCESS: (u64, u64) = (1, 0);
const FAILURE: (u64, u64) = (1, 1);
const NOTHING: (u64, u64) = (0, 0);

#[tokio::test(start_paused = true)]
async fn a_call_is_a_failure_by_its_status_its_code_its_end_or_its_error() {
    for (path, counted) in [
        ("/status/200", SUCCESS),
        ("/status/404", SUCCESS),
        ("/status/429", SUCCESS),
        ("/status/500", FAILURE),
        ("/status/501", SUCCESS),
        ("/empty", SUCCESS),
        ("/events", SUCCESS),
        ("/broken", FAILURE),
        ("/trailers/0", SUCCESS),
        ("/trailers/5", SUCCESS),
        ("/trailers/14", FAILURE),
        ("/trailers/1", NOTHING),
        ("/head/14", FAILURE),
        ("/silent", FAILURE),
        ("/error", FAILURE),
        ("/panic", FAILURE),
        ("/refused/no_endpoint", FAILURE),
        ("/refused/pool_exhausted", FAILURE),
        ("/refused/credentials_failed", FAILURE),
        ("/refused/rate_limited", NOTHING),
        ("/refused/concurrency_limited", NOTHING),
        ("/refused/shed", NOTHING),
        ("/refused/forbidden", NOTHING),
        ("/refused/request_broken", NOTHING),
    ] {
        let node = scored("");
        call(&node, path).await;
        assert_eq!(counts(&node), counted, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_breaker_takes_for_failures_is_one() {
    let node = scored(
        "circuit_breaker: { failure_statuses: [404], failure_grpc_codes: [not-found], failure_threshold: 99 }",
    );
    for (path, failures) in [
        ("/status/500", 0),
        ("/status/404", 1),
        ("/trailers/14", 1),
        ("/trailers/5", 2),
    ] {
        call(&node, path).await;
        assert_eq!(counts(&node).1, failures, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_opens_does_not_hide_failures_nor_does_a_fallback() {
    let node = scored("circuit_breaker: { failure_threshold: 1 }, fallback: {}");
    call(&node, "/status/500").await;
    call(&node, "/status/200").await;
    assert_eq!(counts(&node), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_here_as_it_was_meant_to_be_is_not_counted() {
    let node = scored("rate_limit: { requests_per_second: 0.001, burst_size: 1, max_wait: 0s }");
    call(&node, "/status/200").await;
    call(&node, "/status/200").await;
    assert_eq!(counts(&node), SUCCESS);

    let node = scored("");
    node.drain().close();
    call(&node, "/status/200").await;
    assert_eq!(counts(&node), NOTHING);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_or_waits_for_next_to_nothing_is_not_counted() {
    let node = scored("connection: { timeout_header: x-timeout }");
    let mut waits = begin(&node, "/status/200");
    assert!(futures_util::poll!(&mut waits).is_pending());
    drop(waits);
    drop(begin(&node, "/status/200").await.unwrap());
    assert_eq!(counts(&node), NOTHING);

    for (time, counted) in [("99ms", NOTHING), ("200ms", FAILURE)] {
        let mut request = Request::new(Body::empty());
        let headers = request.headers_mut();
        headers.insert("x-timeout", time.parse().unwrap());
        CallContext::new().attach(&mut request);
        let error = Arc::clone(&node).call(request).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::DeadlineExceeded));
        assert_eq!(counts(&node), counted, "{time}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_takes_until_the_end_of_its_body_and_a_stream_until_its_head() {
    for (path, seconds) in [
        ("/status/200", 2),
        ("/empty", 1),
        ("/events", 1),
        ("/trailers/0", 1),
    ] {
        let node = scored("");
        call(&node, path).await;
        let (took, seconds) = (node.tally().unwrap().p99().unwrap(), seconds * SECOND);
        assert!(
            took > seconds && took <= seconds * 9 / 8,
            "{path}: {took:?}"
        );
    }
    // One that failed took no time.
    let node = scored("");
    call(&node, "/status/500").await;
    assert_eq!(node.tally().unwrap().p99(), None);
}

#[tokio::test(start_paused = true)]
async fn calls_count_from_when_somebody_asks_for_the_score() {
    let node = node("");
    call(&node, "/status/500").await;
    assert_eq!(node.tally(), None);
    assert_eq!(node.recent(), None);
    let mut before = begin(&node, "/status/500");
    assert!(futures_util::poll!(&mut before).is_pending());
    node.keep_score();
    drop(before.await);
    assert_eq!(counts(&node), NOTHING);
    call(&node, "/status/500").await;
    node.keep_score();
    assert_eq!(counts(&node), FAILURE);
}

fn score() -> Score {
    Score::of(&Policy::default())
}

#[tokio::test(start_paused = true)]
async fn recent_are_the_calls_of_this_minute_and_of_the_one_before_it() {
    let score = score();
    // The number of calls in a minute tells which it is: 1, 10, 100, 1000; none in the two after.
    for minute in 0..4 {
        for _ in 0..10_u64.pow(minute) {
            score.record(Outcome::Failure, SECOND, Instant::now());
        }
        let recent = [1, 11, 110, 1100][minute as usize];
        assert_eq!(score.recent().failures(), recent);
        advance(59 * SECOND).await;
        assert_eq!(score.recent().failures(), recent);
        advance(SECOND).await;
    }
    assert_eq!(score.recent().failures(), 1000);
    advance(60 * SECOND).await;
    assert_eq!(score.recent(), Tally::new());
    score.record(Outcome::Success, SECOND, Instant::now());
    assert_eq!(score.recent().calls(), 1);
    // Nobody looked for an hour.
    advance(3600 * SECOND).await;
    score.record(Outcome::Failure, SECOND, Instant::now());
    assert_eq!(score.recent(), Tally::of([], 1));
    assert_eq!(score.tally().calls(), 1113);
}

#[tokio::test]
async fn calls_that_end_at_once_on_many_threads_are_all_counted() {
    const THREADS: u64 = 8;
    const CALLS: u64 = 5_000;
    let score = score();
    let start = Instant::now();
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let score = &score;
            threads.spawn(move || {
                for call in 0..CALLS {
                    let outcome = match call % 5 {
                        0 => Outcome::Failure,
                        _ => Outcome::Success,
                    };
                    // Minutes pass meanwhile, a few for each thread.
                    let now = start + Duration::from_millis((thread + call) * 100);
                    score.record(outcome, Duration::from_micros(call), now);
                }
            });
        }
    });
    let tally = score.tally();
    assert_eq!(tally.calls(), THREADS * CALLS);
    assert_eq!(tally.failures(), THREADS * CALLS / 5);
    assert!(score.recent().calls() <= tally.calls());
}

#[test]
fn a_score_takes_twelve_kibibytes() {
    let tallies = 2 * size_of::<[u64; super::BUCKETS]>();
    assert!(size_of::<Score>() + tallies <= 12 << 10);
}
