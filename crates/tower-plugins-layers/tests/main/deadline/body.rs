//! Until a response's last byte, and in streams.

use super::*;

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
