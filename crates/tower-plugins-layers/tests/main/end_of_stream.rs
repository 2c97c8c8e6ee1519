use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tower_plugins_layers::test_util::ScriptedBody;
use tower_plugins_layers::{BoxError, End, EndOfStream, OnEnd};

/// What became of a guard, in order.
type Log = Arc<Mutex<Vec<String>>>;

struct Guard(Log);

impl OnEnd for Guard {
    fn on_end(self, end: End<'_>) {
        let word = match end {
            End::Complete(None) => "complete".to_owned(),
            End::Complete(Some(trailers)) => format!("trailers {}", trailers.len()),
            End::Error(error) => format!("error {error}"),
            _ => "other".to_owned(),
        };
        self.0.lock().unwrap().push(word);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.lock().unwrap().push("released".to_owned());
    }
}

fn guarded<B: Body>(body: B) -> (EndOfStream<B, Guard>, Log) {
    let log = Log::default();
    (EndOfStream::new(body, Guard(Arc::clone(&log))), log)
}

fn seen(log: &Log) -> Vec<String> {
    log.lock().unwrap().clone()
}

fn trailers() -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("end", "here".parse().unwrap());
    Frame::trailers(trailers)
}

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

#[tokio::test]
async fn a_body_that_has_ended_lets_go_when_it_is_made() {
    let (body, log) = guarded(Full::new(Bytes::new()));
    assert_eq!(seen(&log), ["complete", "released"]);
    assert!(body.is_end_stream());
    body.collect().await.unwrap();
    assert_eq!(seen(&log).len(), 2);
}

#[tokio::test]
async fn trailers_are_the_end_and_are_handed_on() {
    let (mut body, log) = guarded(ScriptedBody::new([
        Some(Ok(data("one"))),
        Some(Ok(trailers())),
    ]));
    body.frame().await.unwrap().unwrap();
    assert!(seen(&log).is_empty());
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap()["end"], "here");
    assert_eq!(seen(&log), ["trailers 1", "released"]);
    assert!(body.frame().await.is_none());
    drop(body);
    assert_eq!(seen(&log).len(), 2);
}

#[tokio::test]
async fn the_frame_after_which_a_body_says_it_has_ended_is_the_end() {
    let (mut body, log) = guarded(Full::new(Bytes::from_static(b"all")));
    assert!(seen(&log).is_empty());
    body.frame().await.unwrap().unwrap();
    assert_eq!(seen(&log), ["complete", "released"]);
    assert!(body.frame().await.is_none());
    drop(body);
    assert_eq!(seen(&log).len(), 2);
}

#[tokio::test]
async fn the_end_is_the_end_of_a_body_that_does_not_say_so_before() {
    let (mut body, log) = guarded(ScriptedBody::frames(["one", "two"]));
    body.frame().await.unwrap().unwrap();
    body.frame().await.unwrap().unwrap();
    assert!(seen(&log).is_empty());
    assert!(body.frame().await.is_none());
    assert_eq!(seen(&log), ["complete", "released"]);
    assert!(body.frame().await.is_none());
    drop(body);
    assert_eq!(seen(&log).len(), 2);
}

#[tokio::test]
async fn an_error_is_the_end_and_is_handed_on() {
    let (mut body, log) = guarded(ScriptedBody::new([
        Some(Ok(data("one"))),
        Some(Err(BoxError::from("broke"))),
        Some(Err(BoxError::from("broke again"))),
    ]));
    body.frame().await.unwrap().unwrap();
    assert_eq!(
        body.frame().await.unwrap().unwrap_err().to_string(),
        "broke"
    );
    assert_eq!(seen(&log), ["error broke", "released"]);
    assert!(body.frame().await.unwrap().is_err());
    drop(body);
    assert_eq!(seen(&log).len(), 2);
}

#[tokio::test]
async fn a_body_that_is_dropped_lets_go_without_an_end() {
    let (body, log) = guarded(ScriptedBody::frames(["one"]));
    drop(body);
    assert_eq!(seen(&log), ["released"]);

    let (mut body, log) = guarded(ScriptedBody::frames(["one", "two"]));
    body.frame().await.unwrap().unwrap();
    assert!(seen(&log).is_empty());
    drop(body);
    assert_eq!(seen(&log), ["released"]);
}
