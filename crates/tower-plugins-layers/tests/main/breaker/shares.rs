//! Shares of failures and of slow calls, in windows of time and of calls.

use super::*;

/// Opens at half of the last `calls`.
fn of_calls(calls: u32) -> BreakerPolicy {
    brittle()
        .consecutive_failures(None)
        .failure_rate(0.5)
        .window_calls(calls)
        .min_requests(4)
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_last_calls_opens_it_whenever_they_were() {
    let layer = BreakerLayer::new(of_calls(6));
    let mut changes = layer.handle().subscribe().expect("it is on");
    for call in [succeed, fail, succeed] {
        call(&layer);
        advance(Duration::from_secs(3600)).await;
    }
    assert_eq!(layer.handle().state(), BreakerState::Closed);
    fail(&layer);
    assert_eq!(layer.handle().state(), BreakerState::Open);
    let change = changes.try_recv().expect("a change");
    assert_eq!(change.reason, Some(Reason::FailureRate));
    assert_eq!(
        (change.from, change.to),
        (BreakerState::Closed, BreakerState::Open)
    );
}

#[tokio::test(start_paused = true)]
async fn calls_that_fell_out_of_the_window_do_not_count() {
    let layer = BreakerLayer::new(of_calls(4));
    for call in [fail, succeed, succeed, succeed, fail] {
        call(&layer);
        // The first failure has gone when the second comes.
        assert_eq!(layer.handle().state(), BreakerState::Closed);
    }
    fail(&layer);
    assert_eq!(layer.handle().state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_window_of_fewer_calls_than_the_minimum_counts_once_it_is_full() {
    let layer = BreakerLayer::new(of_calls(2).min_requests(100));
    fail(&layer);
    assert_eq!(layer.handle().state(), BreakerState::Closed);
    fail(&layer);
    assert_eq!(layer.handle().state(), BreakerState::Open);
}

/// Opens when half of the calls take more than 100 ms.
fn impatient() -> BreakerPolicy {
    brittle()
        .consecutive_failures(None)
        .slow_call(Duration::from_millis(100))
        .slow_rate(0.5)
        .min_requests(2)
}

async fn take(layer: &BreakerLayer, time: u64, reply: Reply) {
    let call = begin(layer).expect("let in");
    advance(Duration::from_millis(time)).await;
    drop(call.end(reply));
}

#[tokio::test(start_paused = true)]
async fn slow_calls_open_it_though_they_succeed() {
    let layer = BreakerLayer::new(impatient());
    let mut changes = layer.handle().subscribe().expect("it is on");
    take(&layer, 100, ok()).await;
    take(&layer, 101, response(404, ScriptedBody::new([]))).await;
    assert_eq!(layer.handle().state(), BreakerState::Open);
    assert_eq!(
        changes.try_recv().expect("a change").reason,
        Some(Reason::SlowCalls)
    );

    // A window of calls likewise.
    let layer = BreakerLayer::new(impatient().window_calls(10));
    take(&layer, 1, ok()).await;
    take(&layer, 101, ok()).await;
    assert_eq!(layer.handle().state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_slow_probe_is_a_failed_one() {
    let layer = BreakerLayer::new(impatient().consecutive_failures(1));
    fail(&layer);
    advance(Duration::from_secs(1)).await;
    take(&layer, 101, ok()).await;
    assert_eq!(layer.handle().state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_slow_to_the_end_of_its_body_and_a_stream_to_its_head() {
    for (kind, is_slow) in [("text/plain", true), ("application/grpc", false)] {
        let layer = BreakerLayer::new(impatient().min_requests(1));
        let call = begin(&layer).expect("let in");
        let trailers = Frame::trailers(HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )]));
        let body = ScriptedBody::new([Some(Ok(trailers))]);
        let head = Response::builder().header("content-type", kind);
        let answer = call
            .end(head.body(body).map_err(Into::into))
            .expect("a head");
        advance(Duration::from_secs(60)).await;
        answer.into_body().collect().await.expect("a body");
        assert_eq!(
            layer.handle().state() == BreakerState::Open,
            is_slow,
            "{kind}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_asks_to_be_left_alone_is_left_alone_as_long() {
    let layer = BreakerLayer::new(brittle());
    drop(begin(&layer).expect("let in").end(asking(30)));
    let breaker = layer.handle();
    assert_eq!(
        breaker.retry_after(Instant::now()),
        Some(Duration::from_secs(30))
    );
    advance(Duration::from_millis(29_999)).await;
    assert_eq!(reason(begin(&layer)), Some(Reason::BreakerOpen));
    advance(Duration::from_millis(1)).await;
    succeed(&layer);

    // gRPC asks in its trailers, and nobody may ask for more than five minutes.
    for (asked, waits) in [("90000", 90), ("86400000", 300), ("-1", 1)] {
        let layer = BreakerLayer::new(brittle());
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("14"));
        trailers.insert("grpc-retry-pushback-ms", HeaderValue::from_static(asked));
        let body = ScriptedBody::new([Some(Ok(Frame::trailers(trailers)))]);
        let head = Response::builder().header("content-type", "application/grpc");
        let call = begin(&layer).expect("let in");
        let answer = call
            .end(head.body(body).map_err(Into::into))
            .expect("a head");
        answer.into_body().collect().await.expect("a body");
        assert_eq!(
            layer.handle().retry_after(Instant::now()),
            Some(Duration::from_secs(waits)),
            "{asked}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_of_calls_survives_a_new_policy_of_the_same_length() {
    let history = std::sync::Arc::new(BreakerHistory::new());
    let old = BreakerLayer::with_history(of_calls(6), std::sync::Arc::clone(&history));
    for call in [succeed, fail, succeed] {
        call(&old);
    }
    let same =
        BreakerLayer::with_history(of_calls(6).min_requests(1), std::sync::Arc::clone(&history));
    let calls = |layer: &BreakerLayer| {
        let snapshot = layer.handle().snapshot(Instant::now()).expect("it is on");
        (snapshot.calls, snapshot.failures)
    };
    assert_eq!(calls(&same), (3, 1));
    let copy = BreakerLayer::with_history(of_calls(6), std::sync::Arc::new(history.copy()));
    assert_eq!(calls(&copy), (3, 1));
    let other = BreakerLayer::with_history(of_calls(7), history);
    assert_eq!(calls(&other), (0, 0));
}
