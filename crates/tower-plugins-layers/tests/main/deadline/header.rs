//! Deadlines that callers send, and what of them is sent on.

use super::*;

pub(super) const SAID: &str = "x-request-timeout";

fn saying(name: &'static str, value: &str) -> Request<()> {
    Request::builder().header(name, value).body(()).unwrap()
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
