use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_plugins_layers::test_util::{Answer, Probe, ScriptedBody};
use tower_plugins_layers::{
    BoxError, CallContext, ConcurrencyLayer, DeadlineLayer, RateLimitLayer, Reason,
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
    assert_eq!(lasts(layer, request()).await, secs(3));
    assert_eq!(lasts(layer, by(secs(2))).await, secs(2));
    assert_eq!(lasts(layer, by(secs(4))).await, secs(3));
    assert_eq!(lasts(layer, with_timeout("2S")).await, secs(2));
    assert_eq!(lasts(layer, with_timeout("4S")).await, secs(3));
    assert_eq!(
        lasts(DeadlineLayer::of_callers(), by(secs(4))).await,
        secs(4)
    );

    let mut all = by(secs(2));
    all.headers_mut()
        .insert("grpc-timeout", "1S".parse().unwrap());
    assert_eq!(lasts(layer, all).await, secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_grpc_timeout_is_read_as_the_protocol_says() {
    for (value, timeout) in [
        ("1H", Some(secs(3600))),
        ("2M", Some(secs(120))),
        ("3S", Some(secs(3))),
        ("4m", Some(millis(4))),
        ("5u", Some(Duration::from_micros(5))),
        ("6n", Some(Duration::from_nanos(6))),
        ("00000001S", Some(secs(1))),
        ("99999999H", Some(secs(99_999_999 * 3600))),
        ("123456789n", None),
        ("", None),
        ("S", None),
        ("1", None),
        ("1s", None),
        ("-1S", None),
        ("+1S", None),
        ("1.5S", None),
        (" 1S", None),
        ("1 S", None),
        ("0x1S", None),
    ] {
        let seen = seen_inside(DeadlineLayer::of_callers(), with_timeout(value)).await;
        assert_eq!(seen, (timeout, timeout.is_some()), "{value:?}");
    }
    let mut request = request();
    let bytes = http::HeaderValue::from_bytes(b"1\xffS").unwrap();
    request.headers_mut().insert("grpc-timeout", bytes);
    assert_eq!(
        seen_inside(DeadlineLayer::of_callers(), request).await.0,
        None
    );
}

#[tokio::test(start_paused = true)]
async fn layers_further_in_see_the_deadline_and_whose_it_is() {
    let layer = DeadlineLayer::new(secs(3));
    assert_eq!(seen_inside(layer, request()).await, (Some(secs(3)), false));
    assert_eq!(seen_inside(layer, by(secs(2))).await, (Some(secs(2)), true));
    assert_eq!(seen_inside(layer, by(secs(9))).await, (Some(secs(3)), true));
    assert_eq!(
        seen_inside(layer, with_timeout("9S")).await,
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
    let body = answer(layer, request(), "text/plain", Full::from("all")).await;
    assert_eq!(body.collect().await.unwrap().to_bytes(), "all");
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_last_byte_of_a_response() {
    let layer = DeadlineLayer::new(secs(3));
    let body = answer(layer, request(), "text/plain", silent()).await;
    assert_eq!(ends(body).await, (Reason::DeadlineExceeded, secs(3)));

    // All bytes were read in time, and only the end is asked for later.
    let mut body = answer(layer, request(), "text/plain", Full::from("all")).await;
    body.frame().await.unwrap().unwrap();
    tokio::time::advance(secs(5)).await;
    assert!(body.frame().await.is_none());

    let mut body = answer(
        layer,
        request(),
        "text/plain",
        ScriptedBody::frames(["all"]),
    )
    .await;
    body.frame().await.unwrap().unwrap();
    assert!(body.frame().await.is_none());
    tokio::time::advance(secs(5)).await;
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_always_has_frames_does_not_outrun_it() {
    let mut body = answer(
        DeadlineLayer::new(secs(3)),
        request(),
        "text/plain",
        Endless,
    )
    .await;
    for _ in 0..3 {
        body.frame().await.unwrap().unwrap();
        tokio::time::advance(secs(1)).await;
    }
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(Reason::of(&*error), Some(Reason::DeadlineExceeded));
}

/// On the real clock: a paused one stands still while the task is busy.
#[tokio::test]
async fn a_reader_that_never_lets_go_does_not_outrun_it() {
    let mut body = answer(
        DeadlineLayer::new(millis(50)),
        request(),
        "text/plain",
        Endless,
    )
    .await;
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < secs(30), "still reading");
        let frame = tokio::task::coop::unconstrained(body.frame())
            .await
            .unwrap();
        let Err(error) = frame else { continue };
        assert_eq!(Reason::of(&*error), Some(Reason::DeadlineExceeded));
        return;
    }
}

/// On the real clock: a paused one stands still while the task is busy.
#[tokio::test]
async fn a_call_that_is_always_busy_does_not_outrun_it() {
    let start = Instant::now();
    let service = DeadlineLayer::new(millis(50)).layer(service_fn(async |_| {
        while start.elapsed() < secs(30) {
            tokio::task::coop::consume_budget().await;
        }
        Ok::<_, BoxError>(Response::new(String::new()))
    }));
    assert_eq!(
        reason(service.oneshot(request()).await),
        Some(Reason::DeadlineExceeded)
    );
}

#[tokio::test(start_paused = true)]
async fn a_policys_deadline_ends_at_the_head_of_a_stream() {
    let layer = DeadlineLayer::new(secs(3)).stream_idle(secs(60));
    for content_type in [
        "text/event-stream",
        "text/event-stream; charset=utf-8",
        "Text/Event-Stream",
        "application/grpc",
        "application/grpc+proto",
    ] {
        let body = answer(layer, request(), content_type, silent()).await;
        assert_eq!(
            ends(body).await,
            (Reason::StreamIdle, secs(60)),
            "{content_type}"
        );
    }
    for content_type in ["text/plain", "application/json", "text/event", ""] {
        let body = answer(layer, request(), content_type, silent()).await;
        let end = (Reason::DeadlineExceeded, secs(3));
        assert_eq!(ends(body).await, end, "{content_type}");
    }
    let upgrade = layer.layer(service_fn(async |_| {
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        response.body(silent()).map_err(BoxError::from)
    }));
    let body = upgrade.oneshot(request()).await.unwrap().into_body();
    assert_eq!(ends(body).await, (Reason::StreamIdle, secs(60)));
}

#[tokio::test(start_paused = true)]
async fn idle_time_is_counted_from_frame_to_frame() {
    let layer = DeadlineLayer::new(secs(3)).stream_idle(secs(60));
    let (frames, body) = tokio::sync::mpsc::channel::<Bytes>(1);
    let mut body = answer(layer, request(), "text/event-stream", Received(body)).await;
    let writer = tokio::spawn(async move {
        for _ in 0..5 {
            tokio::time::sleep(secs(59)).await;
            frames.send(Bytes::from_static(b"tick")).await.unwrap();
        }
        frames
    });
    for _ in 0..5 {
        body.frame().await.unwrap().unwrap();
    }
    let _open = writer.await.unwrap();
    assert_eq!(ends(body).await, (Reason::StreamIdle, secs(60)));
}

#[tokio::test(start_paused = true)]
async fn the_callers_own_deadline_binds_streams_too() {
    for (policy, own) in [(secs(20), secs(10)), (secs(3), secs(10))] {
        let layer = DeadlineLayer::new(policy).stream_idle(secs(60));
        let body = answer(layer, by(own), "text/event-stream", silent()).await;
        assert_eq!(ends(body).await, (Reason::DeadlineExceeded, secs(10)));
        let body = answer(layer, with_timeout("10S"), "application/grpc", silent()).await;
        assert_eq!(ends(body).await, (Reason::DeadlineExceeded, secs(10)));
    }
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

/// A body of what comes through a channel.
struct Received(tokio::sync::mpsc::Receiver<Bytes>);

impl Body for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0
            .poll_recv(cx)
            .map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}
