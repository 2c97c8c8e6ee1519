//! The look at the first frame of a gRPC response.

use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::BodyExt;
use tower_plugins_layers::test_util::{ScriptedBody, Step};

use super::*;

fn trailers(code: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    Frame::trailers(trailers)
}

fn data(text: &'static str) -> Step {
    Some(Ok(Frame::data(Bytes::from_static(text.as_bytes()))))
}

fn grpc(script: impl IntoIterator<Item = Step>) -> Result<Response<ScriptedBody>, BoxError> {
    Ok(Response::builder()
        .header("content-type", "application/grpc+proto")
        .body(ScriptedBody::new(script))
        .unwrap())
}

#[tokio::test(start_paused = true)]
async fn trailers_that_come_first_are_a_failed_attempt_and_a_message_commits() {
    let run = run(policy(), request(Method::PUT), |n, _| async move {
        match n {
            0 => grpc([Some(Ok(trailers("14")))]),
            _ => grpc([data("one"), data("two"), Some(Ok(trailers("14")))]),
        }
    })
    .await;
    // What was looked at is handed on, whole and in order, and no frame after it was.
    assert_eq!(run.attempts, [ms(0), ms(100)]);
    let mut body = run.outcome.unwrap().into_body();
    for expected in ["one", "two"] {
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), expected);
    }
    let last = body
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_trailers()
        .unwrap();
    assert_eq!(last["grpc-status"], "14");
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn trailers_that_are_not_retried_or_out_of_retries_are_handed_on() {
    for (code, max_retries, attempts) in [("14", 1, 2), ("13", 3, 1), ("0", 3, 1)] {
        let policy = policy().max_retries(max_retries);
        let run = run(policy, request(Method::PUT), move |_, _| async move {
            grpc([Some(Ok(trailers(code)))])
        })
        .await;
        assert_eq!(run.attempts.len(), attempts, "{code}");
        let body = run.outcome.unwrap().into_body();
        assert!(!body.is_end_stream());
        let collected = body.collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], code);
    }
}

#[tokio::test(start_paused = true)]
async fn the_codes_and_the_pushback_in_trailers_are_heeded() {
    for (pushback, attempts) in [("70", vec![ms(0), ms(70)]), ("-1", vec![ms(0)])] {
        let policy = policy().max_retries(1).on([RetryOn::Grpc(8)]);
        let run = run(policy, request(Method::PUT), move |_, _| async move {
            let mut frame = trailers("8").into_trailers().unwrap();
            frame.insert("grpc-retry-pushback-ms", HeaderValue::from_static(pushback));
            grpc([Some(Ok(Frame::trailers(frame)))])
        })
        .await;
        assert_eq!(run.attempts, attempts);
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_could_be_repeated_is_held_up() {
    let silent = |content_type: &'static str| {
        let mut response = grpc([None]).unwrap();
        let kind = HeaderValue::from_static(content_type);
        response.headers_mut().insert("content-type", kind);
        Ok(response)
    };
    let held_up = async |policy: RetryPolicy, method, content_type| {
        let call = run(policy, request(method), move |_, _| async move {
            silent(content_type)
        });
        tokio::time::timeout(ms(1), call).await.is_err()
    };
    let grpc = "application/grpc";
    assert!(held_up(policy(), Method::PUT, grpc).await);
    assert!(!held_up(policy(), Method::POST, grpc).await);
    assert!(!held_up(policy().max_retries(0), Method::PUT, grpc).await);
    assert!(!held_up(policy().max_replay(2), Method::PUT, grpc).await);
    assert!(!held_up(policy().never(["*"]), Method::PUT, grpc).await);
    assert!(!held_up(policy().on([RetryOn::GatewayError]), Method::PUT, grpc).await);
    assert!(!held_up(policy(), Method::PUT, "application/json").await);
}

#[tokio::test(start_paused = true)]
async fn a_response_to_a_request_that_is_still_being_sent_is_not_held_up() {
    // The other side may wait for the rest of the request before its first frame.
    let (_sender, unfinished) = tokio::sync::mpsc::channel::<Bytes>(1);
    struct Unfinished(tokio::sync::mpsc::Receiver<Bytes>);
    impl Body for Unfinished {
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
    let request = Request::put("/").body(Unfinished(unfinished)).unwrap();
    let call = run(policy(), request, |_, _| async { grpc([None]) });
    assert!(tokio::time::timeout(ms(1), call).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_fails_or_ends_at_once_is_handed_on() {
    let run = run(policy(), request(Method::PUT), |_, _| async {
        grpc([Some(Err("body broke".into()))])
    })
    .await;
    let error = run
        .outcome
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "body broke");
    let run = super::run(policy(), request(Method::PUT), |_, _| async { grpc([]) }).await;
    assert_eq!(run.attempts.len(), 1);
    let mut body = run.outcome.unwrap().into_body();
    assert!(body.is_end_stream());
    assert!(body.frame().await.is_none() && body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_head_of_a_stream_that_is_silent_at_first_is_held_up_for_a_moment_only() {
    let took = async |policy: RetryPolicy| {
        let run = run(policy, request(Method::PUT), |_, _| async { grpc([None]) }).await;
        assert!(run.outcome.is_ok());
        assert_eq!(run.attempts, [ms(0)]);
        run.took
    };
    assert_eq!(took(policy()).await, ms(100));
    assert_eq!(took(policy().first_frame_wait(ms(30))).await, ms(30));
    assert_eq!(took(policy().first_frame_wait(ms(0))).await, ms(0));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_at_its_first_frame_costs_a_token() {
    for (broken, attempts) in [(false, 2), (true, 1)] {
        let policy = policy().max_retries(1).budget(Budget::tokens(4, 1.0));
        let first: Step = if broken {
            Some(Err("body broke".into()))
        } else {
            data("one")
        };
        let script = Mutex::new(Some([first]));
        let script = Arc::new(script);
        run(policy.clone(), request(Method::PUT), move |_, _| {
            let script = script.lock().unwrap().take();
            async move { grpc(script.unwrap()) }
        })
        .await;
        // What fails now costs one of four; with less than three there is no retry.
        let run = run_all(policy, request(Method::PUT), || status(503)).await;
        assert_eq!(run.attempts.len(), attempts, "{broken}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_may_still_fail_gives_tokens_back_at_its_end() {
    // Neither is repeated: of one the first frame is not looked at, of the other it is a message.
    for method in [Method::POST, Method::GET] {
        for (code, kept) in [("14", false), ("13", false), ("0", true)] {
            let budget = Budget::tokens(4, 1.0);
            budget.failed();
            budget.failed();
            let policy = policy().budget(budget.clone());
            let service = RetryLayer::new(policy).layer(service_fn(move |_| async move {
                grpc([data("one"), Some(Ok(trailers(code)))])
            }));
            let call = service.oneshot(request(method.clone()));
            let mut body = call.await.unwrap().into_body();
            assert!(budget.withdraw(Instant::now()).is_none());
            while body.frame().await.is_some() {}
            let is_kept = budget.withdraw(Instant::now()).is_some();
            assert_eq!(is_kept, kept, "{method} {code}");
        }
    }
}
