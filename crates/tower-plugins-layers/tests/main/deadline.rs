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
async fn it_ends_with_the_last_byte_of_a_response() {
    let layer = DeadlineLayer::new(secs(3));
    let body = answer(layer.clone(), request(), "text/plain", silent()).await;
    assert_eq!(ends(body).await, (Reason::DeadlineExceeded, secs(3)));

    // All bytes were read in time, and only the end is asked for later.
    let mut body = answer(layer.clone(), request(), "text/plain", Full::from("all")).await;
    body.frame().await.unwrap().unwrap();
    tokio::time::advance(secs(5)).await;
    assert!(body.frame().await.is_none());

    let mut body = answer(
        layer.clone(),
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
        let body = answer(layer.clone(), request(), content_type, silent()).await;
        assert_eq!(
            ends(body).await,
            (Reason::StreamIdle, secs(60)),
            "{content_type}"
        );
    }
    for content_type in ["text/plain", "application/json", "text/event", ""] {
        let body = answer(layer.clone(), request(), content_type, silent()).await;
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
    let mut body = answer(
        layer.clone(),
        request(),
        "text/event-stream",
        Received(body),
    )
    .await;
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
        let body = answer(layer.clone(), by(own), "text/event-stream", silent()).await;
        assert_eq!(ends(body).await, (Reason::DeadlineExceeded, secs(10)));
        let body = answer(
            layer.clone(),
            with_timeout("10S"),
            "application/grpc",
            silent(),
        )
        .await;
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

const SAID: &str = "x-request-timeout";

fn saying(name: &'static str, value: &str) -> Request<()> {
    Request::builder().header(name, value).body(()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_speak_grpc_says_in_a_header_how_long_it_waits() {
    for (name, value, timeout) in [
        (SAID, "2", Some(secs(2))),
        (SAID, "0.5", Some(millis(500))),
        (SAID, "250ms", Some(millis(250))),
        (SAID, " 250 ms ", Some(millis(250))),
        (SAID, "900us", Some(Duration::from_micros(900))),
        (SAID, "2m", Some(secs(120))),
        ("x-envoy-expected-rq-timeout-ms", "250", Some(millis(250))),
        ("x-envoy-expected-rq-timeout-ms", "2s", Some(secs(2))),
        (SAID, "", None),
        (SAID, "-1", None),
        (SAID, "1e3", None),
        (SAID, "1.2.3", None),
        (SAID, "soon", None),
        (SAID, "5 parsecs", None),
        (SAID, &"9".repeat(400), None),
    ] {
        let layer = DeadlineLayer::of_callers().header(name.parse().unwrap());
        let seen = seen_inside(layer.clone(), saying(name, value)).await;
        assert_eq!(seen, (timeout, timeout.is_some()), "{name}: {value:?}");
        // Only what was asked for is looked at.
        let seen = seen_inside(DeadlineLayer::of_callers(), saying(name, value)).await;
        assert_eq!(seen, (None, false));
    }
    // A caller shortens what the policy gives, and cannot lengthen it.
    let layer = DeadlineLayer::new(secs(3)).header(SAID.parse().unwrap());
    assert_eq!(lasts(layer.clone(), saying(SAID, "2")).await, secs(2));
    assert_eq!(lasts(layer.clone(), saying(SAID, "4")).await, secs(3));
}

/// Answers with the headers of the request.
async fn echo(request: Request<()>) -> Result<Response<String>, BoxError> {
    let mut response = Response::new(String::new());
    *response.headers_mut() = request.into_parts().0.headers;
    Ok(response)
}

/// What is written of `request`'s time after `waited` have gone by, in each of the two headers.
async fn written(
    outside: DeadlineLayer,
    waited: Duration,
    request: Request<()>,
) -> [Option<String>; 2] {
    let service = ServiceBuilder::new()
        .layer(outside)
        .layer(RateLimitLayer::new(1.0 / waited.as_secs_f64(), 1).max_wait(secs(600)))
        .layer(TimeLeftLayer::new().header(SAID.parse().unwrap()))
        .service(service_fn(echo));
    drop(service.clone().oneshot(self::request()).await);
    let response = service.oneshot(request).await.unwrap();
    ["grpc-timeout", SAID].map(|name| {
        let value = response.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    })
}

fn grpc(mut request: Request<()>) -> Request<()> {
    let kind = http::HeaderValue::from_static("application/grpc+proto");
    request.headers_mut().insert(CONTENT_TYPE, kind);
    request
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_the_time_is_passed_on() {
    let three = DeadlineLayer::new(secs(3)).header(SAID.parse().unwrap());
    let left = |text: &str| Some(text.to_owned());
    type Case = (fn() -> Request<()>, [Option<String>; 2]);
    let cases: [Case; 6] = [
        (request, [None, left("2.5")]),
        (|| saying(SAID, "1.25"), [None, left("0.75")]),
        (|| by(secs(2)), [None, left("1.5")]),
        // Of a gRPC call only the caller's own: it may be a stream.
        (|| grpc(request()), [None, None]),
        (|| grpc(by(secs(2))), [left("1500000u"), None]),
        (|| grpc(with_timeout("800m")), [left("300000u"), None]),
    ];
    for (request, expected) in cases {
        // Half a second is spent on a token.
        let seen = written(three.clone(), millis(500), request()).await;
        assert_eq!(seen, expected);
    }
    // Nobody has set a time: nothing is said.
    let seen = written(DeadlineLayer::of_callers(), millis(500), request()).await;
    assert_eq!(seen, [None, None]);
}

#[tokio::test(start_paused = true)]
async fn an_attempts_time_is_passed_on_where_it_is_shorter() {
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer::new(secs(3)))
        .layer(AttemptTimeoutLayer::new(secs(1)))
        .layer(TimeLeftLayer::new().header("x-left-ms".parse().unwrap()))
        .service(service_fn(echo));
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!(response.headers()["x-left-ms"], "1000");
}

proptest::proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same_time_to_the_millisecond(millis in 0_u64..10_000_000_000) {
        for name in [SAID, "x-left-ms"] {
            let header = TimeoutHeader::new(name.parse().unwrap());
            let time = Duration::from_millis(millis);
            let read = header.read(&header.write(time)).unwrap();
            let off = read.abs_diff(time);
            proptest::prop_assert!(off < Duration::from_micros(1), "{name}: {time:?} became {read:?}");
        }
    }

    #[test]
    fn a_grpc_timeout_that_is_written_is_never_longer_and_hardly_shorter(nanos in proptest::prelude::any::<u64>()) {
        let time = Duration::from_nanos(nanos);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let read = runtime.block_on(async {
            let service = ServiceBuilder::new()
                .layer(DeadlineLayer::of_callers())
                .layer(TimeLeftLayer::new())
                .service(service_fn(echo));
            let response = service.oneshot(grpc(by(time))).await.unwrap();
            let value = response.headers()["grpc-timeout"].to_str().unwrap().to_owned();
            assert!(value.len() <= 9, "{value}");
            seen_inside(DeadlineLayer::of_callers(), with_timeout(&value)).await.0.unwrap()
        });
        // Tokio's clock counts from its own start: what it lost of `time` is nothing.
        proptest::prop_assert!(read <= time, "{time:?} became {read:?}");
        proptest::prop_assert!(read.as_secs_f64() >= time.as_secs_f64() * 0.98, "{time:?} became {read:?}");
    }
}

#[test]
fn a_policy_is_read_from_text() {
    let text = r#"{"timeout":"2s","stream_idle":"30s","header":"x-request-timeout"}"#;
    let policy: DeadlinePolicy = serde_json::from_str(text).unwrap();
    let built = DeadlinePolicy::new()
        .timeout(secs(2))
        .stream_idle(secs(30))
        .header(SAID.parse().unwrap());
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
