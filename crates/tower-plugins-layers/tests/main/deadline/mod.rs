//! The time of a whole call.

mod body;
mod header;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_plugins_layers::deadline::{DeadlinePolicy, TimeoutHeader};
use tower_plugins_layers::test_util::{Answer, Probe, ScriptedBody};
use tower_plugins_layers::{
    AttemptTimeoutLayer, BoxError, CallContext, ConcurrencyLayer, DeadlineLayer, RateLimitLayer,
    Reason, TimeLeftLayer,
};

use crate::support::{Endless, is_pending, millis, reason, request, secs, timed};

fn with_timeout(value: &str) -> Request<()> {
    let request = Request::builder().header("grpc-timeout", value);
    request.body(()).unwrap()
}

/// A request whose caller has set a deadline.
fn by(own: Duration) -> Request<()> {
    let mut request = request();
    let context = CallContext::new().own_deadline(Instant::now() + own);
    request.extensions_mut().insert(context);
    request
}

/// The time that the layers further in are told, and whether it is the caller's own.
async fn seen_inside(layer: DeadlineLayer, request: Request<()>) -> (Option<Duration>, bool) {
    let seen = Arc::new(Mutex::new(None));
    let inside = Arc::clone(&seen);
    let service = layer.layer(service_fn(move |request: Request<()>| {
        *inside.lock().unwrap() = CallContext::of(&request).cloned();
        async { Ok::<_, BoxError>(Response::new(String::new())) }
    }));
    let start = Instant::now();
    service.oneshot(request).await.unwrap();
    let context = seen.lock().unwrap().take();
    context.map_or((None, false), |context| {
        let left = context.deadline().map(|at| at - start);
        (left, context.has_own_deadline())
    })
}

/// How long a call without an answer lasts.
async fn lasts(layer: DeadlineLayer, request: Request<()>) -> Duration {
    let call = layer.layer(Probe::new(Answer::Never)).oneshot(request);
    let (result, took) = timed(call).await;
    assert_eq!(reason(result), Some(Reason::DeadlineExceeded));
    took
}

/// A response with `body`, of type `content_type`.
async fn answer<B>(
    layer: DeadlineLayer,
    request: Request<()>,
    content_type: &'static str,
    body: B,
) -> impl Body<Data = Bytes, Error = BoxError> + Unpin
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let mut body = Some(body);
    let service = layer.layer(service_fn(move |_| {
        let response = Response::builder().header(CONTENT_TYPE, content_type);
        let response = response.body(body.take().expect("one call"));
        async { response.map_err(BoxError::from) }
    }));
    service.oneshot(request).await.unwrap().into_body()
}

fn silent() -> ScriptedBody {
    ScriptedBody::new([Some(Ok(Frame::data(Bytes::from_static(b"one")))), None])
}

/// Reads up to an error, and says why and when it came.
async fn ends(mut body: impl Body<Data = Bytes, Error = BoxError> + Unpin) -> (Reason, Duration) {
    let start = Instant::now();
    loop {
        let frame = body.frame().await.expect("an error before the end");
        let Err(error) = frame else { continue };
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());
        return (Reason::of(&*error).expect("a reason"), start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn the_earliest_deadline_wins() {
    let layer = DeadlineLayer::new(secs(3));
    assert_eq!(lasts(layer.clone(), request()).await, secs(3));
    assert_eq!(lasts(layer.clone(), by(secs(2))).await, secs(2));
    assert_eq!(lasts(layer.clone(), by(secs(4))).await, secs(3));
    assert_eq!(lasts(layer.clone(), with_timeout("2S")).await, secs(2));
    assert_eq!(lasts(layer.clone(), with_timeout("4S")).await, secs(3));
    assert_eq!(
        lasts(DeadlineLayer::of_callers(), by(secs(4))).await,
        secs(4)
    );

    let mut all = by(secs(2));
    all.headers_mut()
        .insert("grpc-timeout", "1S".parse().unwrap());
    assert_eq!(lasts(layer.clone(), all).await, secs(1));
}

#[tokio::test(start_paused = true)]
async fn layers_further_in_see_the_deadline_and_whose_it_is() {
    let layer = DeadlineLayer::new(secs(3));
    assert_eq!(
        seen_inside(layer.clone(), request()).await,
        (Some(secs(3)), false)
    );
    assert_eq!(
        seen_inside(layer.clone(), by(secs(2))).await,
        (Some(secs(2)), true)
    );
    assert_eq!(
        seen_inside(layer.clone(), by(secs(9))).await,
        (Some(secs(3)), true)
    );
    assert_eq!(
        seen_inside(layer.clone(), with_timeout("9S")).await,
        (Some(secs(3)), true)
    );
    assert_eq!(
        seen_inside(DeadlineLayer::of_callers(), request()).await,
        (None, false)
    );
}

#[tokio::test(start_paused = true)]
async fn time_that_went_by_before_the_layer_counts() {
    let mut request = request();
    request.extensions_mut().insert(CallContext::new());
    tokio::time::advance(secs(2)).await;
    assert_eq!(lasts(DeadlineLayer::new(secs(3)), request).await, secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_time_too_far_for_the_clock_is_no_deadline() {
    let layer = DeadlineLayer::new(Duration::MAX);
    let mut call = layer.layer(Probe::new(Answer::Never)).oneshot(request());
    assert!(
        tokio::time::timeout(secs(1_000_000), &mut call)
            .await
            .is_err()
    );
    assert!(is_pending(&mut call).await);

    let idle = DeadlineLayer::of_callers().stream_idle(Duration::MAX);
    let mut body = answer(idle, request(), "text/event-stream", silent()).await;
    body.frame().await.unwrap().unwrap();
    assert!(
        tokio::time::timeout(secs(1_000_000), body.frame())
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn no_time_at_all_leaves_room_for_what_is_there() {
    assert!(lasts(DeadlineLayer::new(Duration::ZERO), request()).await <= millis(1));
    let layer = DeadlineLayer::new(Duration::ZERO);
    let body = answer(layer.clone(), request(), "text/plain", Full::from("all")).await;
    assert_eq!(body.collect().await.unwrap().to_bytes(), "all");
}

#[tokio::test(start_paused = true)]
async fn waits_of_the_layers_inside_are_within_it() {
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(secs(3)))
        .layer(RateLimitLayer::new(0.1, 1).max_wait(secs(60)))
        .service(Probe::new(Answer::Frames));
    stack.clone().oneshot(request()).await.unwrap();
    let (result, took) = timed(stack.oneshot(request())).await;
    assert_eq!(
        (reason(result), took),
        (Some(Reason::DeadlineExceeded), secs(3))
    );

    let bulkhead = tower_plugins_layers::Bulkhead::new(1).queue(8, secs(60));
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(secs(3)))
        .layer(ConcurrencyLayer::with_bulkhead(bulkhead.into()))
        .service(Probe::new(Answer::Silence));
    let _held = stack.clone().oneshot(request()).await.unwrap();
    let (result, took) = timed(stack.oneshot(request())).await;
    assert_eq!(
        (reason(result), took),
        (Some(Reason::DeadlineExceeded), secs(3))
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_past_its_deadline_is_dropped_inside() {
    let probe = Probe::new(Answer::Never);
    let journal = probe.journal();
    lasts_with(probe).await;
    assert_eq!((journal.calls(), journal.under_way()), (1, 0));
}

async fn lasts_with(probe: Probe) {
    let call = DeadlineLayer::new(secs(1)).layer(probe).oneshot(request());
    assert_eq!(reason(call.await), Some(Reason::DeadlineExceeded));
}

#[test]
fn a_policy_is_read_from_text() {
    let text = r#"{"timeout":"2s","stream_idle":"30s","header":"x-request-timeout"}"#;
    let policy: DeadlinePolicy = serde_json::from_str(text).unwrap();
    let built = DeadlinePolicy::new()
        .timeout(secs(2))
        .stream_idle(secs(30))
        .header(header::SAID.parse().unwrap());
    assert_eq!(policy, built);
    assert_eq!(serde_json::to_string(&policy).unwrap(), text);
    assert_eq!(
        serde_json::from_str::<DeadlinePolicy>("{}").unwrap(),
        DeadlinePolicy::new()
    );
    for wrong in [
        r#"{"timeout":2}"#,
        r#"{"header":"two words"}"#,
        r#"{"timeouts":"2s"}"#,
    ] {
        assert!(
            serde_json::from_str::<DeadlinePolicy>(wrong).is_err(),
            "{wrong}"
        );
    }
}

/// A body that breaks off when its time has come.
struct Breaks(std::pin::Pin<Box<tokio::time::Sleep>>);

impl Body for Breaks {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let broken = |()| Some(Err("cut off".into()));
        self.0.as_mut().poll(cx).map(broken)
    }
}

/// It knows of the deadline too, and may be the first to act on it.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_cuts_a_call_off_at_its_deadline_is_no_other_failure() {
    let layer = DeadlineLayer::new(secs(2));
    for (after, expected) in [(secs(1), None), (secs(2), Some(Reason::DeadlineExceeded))] {
        let service = layer.layer(service_fn(move |_: Request<()>| async move {
            tokio::time::sleep(after).await;
            Err::<Response<Full<Bytes>>, BoxError>("cut off".into())
        }));
        assert_eq!(reason(service.oneshot(request()).await), expected);

        let body = Breaks(Box::pin(tokio::time::sleep(after)));
        let mut body = answer(layer.clone(), request(), "text/plain", body).await;
        let frame = body.frame().await;
        assert_eq!(reason(frame.unwrap()), expected);
    }
}
