//! A panic in the user's own code is the error of the one call that met it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tower_plugins::config::Config;
use tower_plugins::{Blame, Body, Error, Plugins, Reason};
use tower_service::Service;

use crate::support::{call, causes, config, get, ours, text};

/// A service that panics where the path says.
#[derive(Clone)]
struct Rash;

impl Service<Request<Body>> for Rash {
    type Response = Response<RashBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<RashBody>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let place = request.uri().path().to_owned();
        assert_ne!(place, "/call", "no calls today");
        Box::pin(async move {
            tokio::task::yield_now().await;
            assert_ne!(place, "/future", "no future");
            let frames = 2;
            Ok(Response::new(RashBody { place, frames }))
        })
    }
}

struct RashBody {
    place: String,
    frames: u8,
}

impl http_body::Body for RashBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.frames == 0 {
            return Poll::Ready(None);
        }
        self.frames -= 1;
        assert!(self.frames > 0 || self.place != "/body", "no body");
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }

    fn is_end_stream(&self) -> bool {
        assert!(self.frames == 2 || self.place != "/end", "no end");
        false
    }

    fn size_hint(&self) -> SizeHint {
        assert_ne!(self.place, "/size", "no size");
        SizeHint::default()
    }
}

const LIMITED: &str = "plugins: { p: { transport: in-process, endpoint: rash, concurrency: { max_concurrent: 1 }, circuit_breaker: { enabled: false } } }";

async fn start() -> Plugins {
    Plugins::builder()
        .service("rash", Rash)
        .start(config(LIMITED))
        .await
        .unwrap()
}

fn assert_panicked(error: &Error, words: &str) {
    assert_eq!(error.reason(), Some(Reason::Panicked));
    assert_eq!((error.http_status().as_u16(), error.grpc_code()), (500, 13));
    assert_eq!((error.blame(), error.plugin()), (Blame::Here, Some("p")));
    assert!(!error.is_retryable());
    let said = causes(error);
    assert!(said.contains(words) && said.contains("rash"), "{said}");
}

#[tokio::test]
async fn a_panic_is_that_calls_error_and_the_next_call_is_answered() {
    let plugins = start().await;
    let p = plugins.plugin("p");
    for (path, words) in [("/call", "no calls today"), ("/future", "no future")] {
        let error = call(&p, get(path)).await.unwrap_err();
        assert_panicked(&error, words);
        assert_eq!(plugins.active_requests("p"), 0);
        // Its place is free, of which there is only one.
        assert_eq!(text(&p, get("/")).await.unwrap(), "xx");
    }
    let mut body = call(&p, get("/body")).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().is_ok());
    let error = body.frame().await.unwrap().unwrap_err();
    assert_panicked(ours(&*error), "no body");
    assert_eq!(plugins.active_requests("p"), 0, "the body has ended");
    assert!(body.frame().await.is_none());
    // What cannot be told about a body is not needed to read it.
    assert_eq!(text(&p, get("/end")).await.unwrap(), "xx");
    let body = call(&p, get("/size")).await.unwrap().into_body();
    let size = http_body::Body::size_hint(&body);
    assert_eq!((size.lower(), size.upper()), (0, None));
    drop(body);
    assert_eq!(plugins.active_requests("p"), 0);
}

#[tokio::test]
async fn calls_beside_one_that_panics_go_on() {
    let plugins = Plugins::builder()
        .service("rash", Rash)
        .start(config("plugins: { p: { transport: in-process, endpoint: rash, circuit_breaker: { enabled: false } } }"))
        .await
        .unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..300 {
        let p = plugins.plugin("p");
        calls.spawn(async move {
            match number % 3 {
                0 => assert!(call(&p, get("/call")).await.is_err()),
                1 => assert!(call(&p, get("/future")).await.is_err()),
                _ => assert_eq!(text(&p, get("/")).await.unwrap(), "xx"),
            }
        });
    }
    calls.join_all().await;
    assert_eq!(plugins.active_requests("p"), 0);
}

#[tokio::test]
async fn a_node_whose_calls_panicked_retires_like_any_other() {
    let plugins = start().await;
    let p = plugins.plugin("p");
    let _kept = call(&p, get("/body"))
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .map(drop);
    let _error = call(&p, get("/future")).await.unwrap_err();
    let report = plugins.reload(Config::default()).await.unwrap();
    let retired = report.retirement.wait().await;
    assert_eq!((retired[0].cancelled, retired[0].remaining), (0, 0));
}

#[tokio::test]
async fn panics_open_the_breaker_like_other_failures() {
    let plugins = Plugins::builder()
        .service("rash", Rash)
        .start(config("plugins: { p: { transport: in-process, endpoint: rash, circuit_breaker: { failure_threshold: 3 } } }"))
        .await
        .unwrap();
    let p = plugins.plugin("p");
    for _ in 0..3 {
        assert_panicked(&call(&p, get("/call")).await.unwrap_err(), "no calls today");
    }
    let error = call(&p, get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::BreakerOpen));
}
