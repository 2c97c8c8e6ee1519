use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_plugins_layers::fallback::{FallbackBody, FallbackLayer, FallbackPolicy, FallbackUsed};
use tower_plugins_layers::test_util::{Answer, Probe, ScriptedBody};
use tower_plugins_layers::{BoxError, Reason, Refused};

use crate::support::{is_pending, millis, reason, request, secs, timed};

type Boxed = UnsyncBoxBody<Bytes, BoxError>;

fn fixed(policy: FallbackPolicy) -> FallbackLayer {
    let answer = Response::builder().header(CONTENT_TYPE, "application/json");
    FallbackLayer::answer(policy, answer.body("[]".into()).unwrap())
}

fn refusing(
    why: Reason,
) -> impl Service<Request<()>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send> + Clone
{
    service_fn(move |_: Request<()>| async move { Err(Refused::new(why).into()) })
}

async fn text<B>(response: Response<B>) -> String
where
    B: http_body::Body<Error: std::fmt::Debug>,
{
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn the_chosen_reasons_have_a_fallback_that_says_so_and_no_others_have() {
    for why in Reason::ALL {
        for policy in [
            FallbackPolicy::new(),
            FallbackPolicy::new().on([why]),
            FallbackPolicy::new().on([]).on_any_error(true),
        ] {
            let chosen = policy == FallbackPolicy::new().on([why]) && why != Reason::RequestBroken
                || policy == FallbackPolicy::new()
                    && matches!(
                        why,
                        Reason::BreakerOpen
                            | Reason::NoEndpoint
                            | Reason::RetryBudget
                            | Reason::ConnectFailed
                            | Reason::ConnectionLost
                            | Reason::PoolExhausted
                            | Reason::AttemptTimeout
                            | Reason::DeadlineExceeded
                            | Reason::ConcurrencyLimited
                            | Reason::Shed
                            | Reason::Panicked
                    );
            let result = fixed(policy).layer(refusing(why)).oneshot(request()).await;
            if !chosen {
                assert_eq!(reason(result), Some(why));
                continue;
            }
            let response = result.unwrap();
            assert_eq!(response.headers()["x-fallback"], why.as_str());
            assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
            assert_eq!(response.extensions().get(), Some(&FallbackUsed(why)));
            assert_eq!(text(response).await, "[]");
        }
    }
}

#[tokio::test]
async fn a_status_or_an_error_without_a_reason_may_be_chosen() {
    let answering = |status| {
        service_fn(move |_: Request<()>| async move {
            let answer = Response::builder().status(status);
            Ok::<_, BoxError>(answer.body(Full::<Bytes>::from("theirs")).unwrap())
        })
    };
    let policy = FallbackPolicy::new()
        .on_statuses([StatusCode::BAD_GATEWAY])
        .on_any_error(true)
        .header(None);
    let layer = fixed(policy);
    let response = layer
        .layer(answering(502))
        .oneshot(request())
        .await
        .unwrap();
    assert!(!response.headers().contains_key("x-fallback"));
    assert_eq!(
        response.extensions().get(),
        Some(&FallbackUsed(Reason::Status))
    );
    assert_eq!(text(response).await, "[]");
    let response = layer
        .layer(answering(503))
        .oneshot(request())
        .await
        .unwrap();
    assert_eq!(response.extensions().get::<FallbackUsed>(), None);
    assert_eq!(text(response).await, "theirs");

    let broken = layer.layer(Probe::new(Answer::Error("broke")));
    assert_eq!(text(broken.oneshot(request()).await.unwrap()).await, "[]");
    let broken = fixed(FallbackPolicy::new()).layer(Probe::new(Answer::Error("broke")));
    assert_eq!(
        broken.oneshot(request()).await.unwrap_err().to_string(),
        "broke"
    );
}

#[tokio::test]
async fn a_body_that_breaks_off_later_stays_broken() {
    let layer = fixed(FallbackPolicy::new().on_any_error(true));
    let response = layer
        .layer(Probe::new(Answer::BodyError("broke")))
        .oneshot(request())
        .await;
    assert!(response.unwrap().into_body().collect().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_asks_nobody_else() {
    let asked = Arc::new(AtomicUsize::new(0));
    let layer = FallbackLayer::service(FallbackPolicy::new().on_any_error(true), counted(&asked));
    let mut service = layer.layer(Probe::new(Answer::Never));
    std::future::poll_fn(|cx| Service::<Request<()>>::poll_ready(&mut service, cx))
        .await
        .unwrap();
    let mut call = service.call(request());
    assert!(is_pending(&mut call).await);
    drop(call);
    tokio::time::sleep(secs(10)).await;
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

/// Another service, and how often it was asked.
fn counted(
    asked: &Arc<AtomicUsize>,
) -> impl Service<
    Request<FallbackBody>,
    Response = Response<Full<Bytes>>,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send
+ Sync
+ 'static {
    let asked = Arc::clone(asked);
    service_fn(move |request: Request<FallbackBody>| {
        asked.fetch_add(1, Ordering::SeqCst);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let length = head.headers.contains_key(CONTENT_LENGTH);
            let body = String::from_utf8(body.to_vec())?;
            let seen = format!("{} {} {length} {body}", head.method, head.uri);
            Ok(Response::new(seen.into()))
        }
    })
}

/// Reads `read` frames of its request's body, and fails.
fn reading(
    read: usize,
) -> impl Service<Request<Boxed>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send> + Clone
{
    service_fn(move |request: Request<Boxed>| async move {
        let mut body = request.into_body();
        for _ in 0..read {
            body.frame().await;
        }
        Err(Refused::new(Reason::ConnectionLost).into())
    })
}

fn post() -> Request<Boxed> {
    let body = ScriptedBody::frames(["one", "two", "three"]);
    Request::builder()
        .method(Method::POST)
        .uri("/things")
        .header(CONTENT_LENGTH, 11)
        .body(body.boxed_unsync())
        .unwrap()
}

#[tokio::test]
async fn another_service_gets_the_head_and_as_much_of_the_body_as_is_kept() {
    let asked = Arc::new(AtomicUsize::new(0));
    let layer = FallbackLayer::service(FallbackPolicy::new(), counted(&asked));
    let response = layer.layer(reading(2)).oneshot(post()).await.unwrap();
    assert_eq!(text(response).await, "POST /things false ");

    for read in 0..4 {
        let keeping = layer.clone().keep_body(11, BodyExt::boxed_unsync);
        let response = keeping.layer(reading(read)).oneshot(post()).await.unwrap();
        assert_eq!(
            text(response).await,
            "POST /things true onetwothree",
            "{read}"
        );
    }
    // What was lost of a body leaves no fallback, and the call ends as it would have.
    let keeping = layer.keep_body(5, BodyExt::boxed_unsync);
    let result = keeping.layer(reading(2)).oneshot(post()).await;
    assert_eq!(reason(result), Some(Reason::ConnectionLost));
    assert_eq!(asked.load(Ordering::SeqCst), 5);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_fails_or_takes_too_long_leaves_what_there_was() {
    let slow = service_fn(|_: Request<FallbackBody>| async {
        std::future::pending::<Result<Response<Full<Bytes>>, BoxError>>().await
    });
    let policy = FallbackPolicy::new().timeout(millis(300));
    let service = FallbackLayer::service(policy, slow).layer(refusing(Reason::BreakerOpen));
    let (result, took) = timed(service.oneshot(request())).await;
    assert_eq!(
        (reason(result), took),
        (Some(Reason::BreakerOpen), millis(300))
    );

    let failing = service_fn(|_: Request<FallbackBody>| async {
        Err::<Response<Full<Bytes>>, BoxError>("away too".into())
    });
    let service = FallbackLayer::service(FallbackPolicy::new(), failing);
    let result = service
        .layer(refusing(Reason::BreakerOpen))
        .oneshot(request())
        .await;
    assert_eq!(reason(result), Some(Reason::BreakerOpen));
}

#[test]
fn a_policy_is_read_from_text_and_what_makes_no_sense_is_refused() {
    let policy = FallbackPolicy::new()
        .on([Reason::BreakerOpen, Reason::RateLimited])
        .on_statuses([StatusCode::BAD_GATEWAY])
        .timeout(millis(250));
    let text = serde_json::to_string(&policy).unwrap();
    assert_eq!(
        serde_json::from_str::<FallbackPolicy>(&text).unwrap(),
        policy
    );
    assert_eq!(
        serde_json::from_str::<FallbackPolicy>("{}").unwrap(),
        FallbackPolicy::new()
    );
    for wrong in [
        r#"{"on":["no_such"]}"#,
        r#"{"on":["request_broken"]}"#,
        r#"{"on_statuses":[7]}"#,
        r#"{"header":"a b"}"#,
        r#"{"timeout":"0s"}"#,
        r#"{"timeout":1}"#,
        r#"{"unknown":1}"#,
    ] {
        assert!(
            serde_json::from_str::<FallbackPolicy>(wrong).is_err(),
            "{wrong}"
        );
    }
}
