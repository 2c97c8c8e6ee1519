//! The look at the first frame of a gRPC response, in a call that is hedged.

use http::HeaderMap;
use http_body::Frame;
use tower_plugins_layers::test_util::{ScriptedBody, Step};

use super::*;

/// The first frame of a response.
#[derive(Clone, Copy)]
enum First {
    Message,
    Trailers(&'static str),
    /// Never.
    Silence,
}

impl First {
    fn step(self) -> Step {
        match self {
            Self::Message => Some(Ok(Frame::data(Bytes::from_static(b"one")))),
            Self::Trailers(code) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static(code));
                Some(Ok(Frame::trailers(trailers)))
            }
            Self::Silence => None,
        }
    }
}

/// When the attempts of a call began, when it was over, and the first frame of its answer.
async fn run(policy: HedgePolicy, attempts: &[(u64, First)]) -> (Vec<u64>, u64, Option<Step>) {
    let start = Instant::now();
    let begun = Arc::new(Mutex::new(Vec::new()));
    let inner = {
        let (begun, attempts) = (Arc::clone(&begun), attempts.to_vec());
        service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
            let mut begun = begun.lock().unwrap();
            let (millis, first) = attempts[begun.len()];
            begun.push(start.elapsed().as_millis() as u64);
            async move {
                request.into_body().collect().await?;
                sleep(ms(millis)).await;
                let response = Response::builder().header("content-type", "application/grpc");
                Ok::<_, BoxError>(response.body(ScriptedBody::new([first.step()]))?)
            }
        })
    };
    let response = hedged(policy).layer(inner).oneshot(get()).await.unwrap();
    let took = start.elapsed().as_millis() as u64;
    let mut body = response.into_body();
    let frame = tokio::time::timeout(ms(1), body.frame()).await.ok();
    let begun = begun.lock().unwrap().clone();
    (begun, took, frame)
}

fn status(frame: Option<Step>) -> String {
    let frame = frame.flatten().unwrap().unwrap();
    let trailers = frame.into_trailers().unwrap();
    trailers["grpc-status"].to_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn trailers_that_are_retried_begin_the_next_attempt_and_a_message_wins() {
    let (begun, took, frame) = run(
        after(50),
        &[(10, First::Trailers("14")), (10, First::Message)],
    )
    .await;
    assert_eq!((begun, took), (vec![0, 10], 20));
    assert_eq!(
        frame.flatten().unwrap().unwrap().into_data().unwrap(),
        "one"
    );
    // A status that would only come again ends the call.
    let (begun, took, frame) = run(after(50), &[(10, First::Trailers("13"))]).await;
    assert_eq!((begun, took), (vec![0], 10));
    assert_eq!(status(frame), "13");
}

#[tokio::test(start_paused = true)]
async fn a_head_without_a_frame_does_not_win_until_its_wait_is_over() {
    let silent_first = [(10, First::Silence), (10, First::Message)];
    let (begun, took, frame) = run(after(50), &silent_first).await;
    assert_eq!((begun, took), (vec![0, 50], 60));
    assert!(frame.is_some());
    // 100 ms after the head it is the answer, though another attempt is under way.
    let (begun, took, frame) = run(after(50), &[(10, First::Silence), (500, First::Message)]).await;
    assert_eq!((begun, took), (vec![0, 50], 110));
    assert!(frame.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_last_answer_there_can_be_is_not_held_up() {
    let (begun, took, frame) = run(
        after(50),
        &[(10, First::Trailers("14")), (10, First::Silence)],
    )
    .await;
    assert_eq!((begun, took), (vec![0, 10], 20));
    assert!(frame.is_none());
    let fails = [(60, First::Trailers("14")), (60, First::Trailers("14"))];
    let (begun, took, frame) = run(after(50), &fails).await;
    assert_eq!((begun, took), (vec![0, 50], 110));
    assert_eq!(status(frame), "14");
}

#[tokio::test(start_paused = true)]
async fn a_first_attempt_counts_with_the_time_to_its_head() {
    let latencies = Latencies::new();
    let policy = after(50)
        .quantile(0.5)
        .min_samples(1)
        .latencies(latencies.clone());
    run(policy, &[(10, First::Silence), (500, First::Message)]).await;
    let quantile = latencies.quantile(0.5, 1, Instant::now()).unwrap();
    assert!(quantile >= ms(10) && quantile < ms(12), "{quantile:?}");
}
