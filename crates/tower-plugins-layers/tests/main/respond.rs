//! Errors of layers as responses, around services and in a real axum router.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::test_util::{Answer, Probe};
use tower_plugins_layers::{
    BoxError, BreakerLayer, ConcurrencyLayer, DeadlineLayer, DrainHandle, DrainLayer,
    RateLimitLayer, Reason, Refused, RespondLayer, TraceLayer,
};

use crate::support::{millis, secs};

fn ask() -> Request<Full<Bytes>> {
    Request::new(Full::default())
}

fn grpc() -> Request<Full<Bytes>> {
    let request = Request::builder().header("content-type", "application/grpc+proto");
    request.body(Full::default()).unwrap()
}

/// The answer to `request` where the service inside ends in `error`.
async fn answer_to(
    request: Request<Full<Bytes>>,
    layer: RespondLayer,
    error: impl Into<BoxError>,
) -> Response<String> {
    let mut error = Some(error.into());
    let service = service_fn(move |_: Request<Full<Bytes>>| {
        std::future::ready(Err::<Response<Full<Bytes>>, _>(error.take().unwrap()))
    });
    let service = ServiceBuilder::new().layer(layer).service(service);
    let (parts, body) = service.oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Response::from_parts(parts, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn a_refusal_is_a_status_and_a_line_and_says_no_causes() {
    let refused = Refused::new(Reason::RateLimited)
        .retry_after(millis(1200))
        .caused_by("10.0.0.7 said so");
    let response = answer_to(ask(), RespondLayer::new(), refused).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "2");
    assert_eq!(response.headers().len(), 2);
    assert_eq!(response.body(), "rate limit reached\n");
}

#[tokio::test]
async fn a_grpc_caller_gets_a_grpc_status() {
    let refused = Refused::new(Reason::DeadlineExceeded);
    let response = answer_to(grpc(), RespondLayer::new(), refused).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.headers()["grpc-status"], "4");
    assert_eq!(response.headers()["grpc-message"], "deadline exceeded");
    assert_eq!(response.body(), "");
}

#[tokio::test]
async fn the_reason_stands_in_a_header_only_where_that_is_switched_on() {
    let name = HeaderName::from_static("x-refused-reason");
    let on = RespondLayer::new().reason_header(name.clone());
    for reason in Reason::ALL {
        let response = answer_to(ask(), on.clone(), Refused::new(reason)).await;
        assert_eq!(response.status(), reason.http_status());
        assert_eq!(response.headers()[&name], reason.as_str());
        let response = answer_to(ask(), RespondLayer::new(), Refused::new(reason)).await;
        assert!(!response.headers().contains_key(&name));
    }
    let response = answer_to(ask(), on, "it broke at 10.0.0.7").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(response.body(), "internal error\n");
}

#[tokio::test]
async fn an_error_of_readiness_is_answered_by_the_call() {
    let mut service = ServiceBuilder::new()
        .layer(RespondLayer::new())
        .service(Probe::never_ready("not today"));
    for _ in 0..2 {
        let ready = ServiceExt::<Request<Full<Bytes>>>::ready(&mut service);
        let response = ready.await.unwrap().call(ask()).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}

#[tokio::test]
async fn what_does_not_fail_comes_through() {
    let service = ServiceBuilder::new()
        .layer(RespondLayer::new())
        .service(Probe::new(Answer::Frames));
    let response = service.oneshot(ask()).await.unwrap();
    let whole = response.into_body().collect().await.unwrap();
    assert_eq!(whole.trailers().unwrap()["end"], "here");
    assert_eq!(whole.to_bytes(), "onetwo");
}

/// What axum makes of `layer` around a handler that takes a second.
macro_rules! router {
    ($layer:expr) => {
        Router::new()
            .route(
                "/",
                get(|| async {
                    tokio::time::sleep(secs(1)).await;
                    "hello"
                }),
            )
            .route(
                "/broken",
                get(|| async { StatusCode::INTERNAL_SERVER_ERROR }),
            )
            .layer(
                ServiceBuilder::new()
                    .layer(RespondLayer::new())
                    .layer($layer),
            )
    };
}

async fn status(app: &Router, path: &str) -> StatusCode {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response: Result<_, Infallible> = app.clone().oneshot(request).await;
    response.unwrap().status()
}

// A router without `with_state` applies its layers anew for each request.

#[tokio::test(start_paused = true)]
async fn a_router_keeps_one_bucket() {
    let app = router!(RateLimitLayer::new(0.01, 2));
    assert_eq!(status(&app, "/").await, 200);
    assert_eq!(status(&app, "/").await, 200);
    assert_eq!(status(&app, "/").await, 429);
}

#[tokio::test(start_paused = true)]
async fn a_router_keeps_one_bulkhead() {
    let app = router!(ConcurrencyLayer::new(1));
    let (first, second) = tokio::join!(status(&app, "/"), status(&app, "/"));
    assert_eq!((first.as_u16(), second.as_u16()), (200, 503));
    assert_eq!(status(&app, "/").await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_router_keeps_one_circuit() {
    let app = router!(BreakerLayer::new(
        BreakerPolicy::new().consecutive_failures(Some(2))
    ));
    assert_eq!(status(&app, "/broken").await, 500);
    assert_eq!(status(&app, "/broken").await, 500);
    assert_eq!(status(&app, "/").await, 503);
}

#[tokio::test(start_paused = true)]
async fn a_router_has_deadlines_and_drains() {
    let drain = DrainHandle::new();
    let app = router!(
        ServiceBuilder::new()
            .layer(TraceLayer::new("app"))
            .layer(DrainLayer::new(drain.clone()))
            .layer(DeadlineLayer::new(Duration::from_millis(100)))
    );
    assert_eq!(status(&app, "/").await, 504);
    assert_eq!(drain.active(), 0);
    drain.close();
    assert_eq!(status(&app, "/").await, 503);
    drain.drained().await;
}
