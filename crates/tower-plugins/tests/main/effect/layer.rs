use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::{HeaderValue, Request};
use serde::Deserialize;
use tower::util::MapRequestLayer;
use tower_plugins::Body;

use super::stage::Answer::Status;
use super::stage::{Seen, Stage};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    #[serde(default = "mark_itself")]
    word: String,
}

fn mark_itself() -> String {
    "mark".to_owned()
}

/// Appends the word to a header, and how many requests were seen before.
pub(super) fn mark(
    Mark { word }: Mark,
) -> Result<MapRequestLayer<impl Fn(Request<Body>) -> Request<Body> + Clone + Send + Sync>, String>
{
    let count = Arc::new(AtomicU32::new(0));
    if word.contains(' ') {
        return Err(format!("{word:?} is no word"));
    }
    Ok(MapRequestLayer::new(move |mut request: Request<Body>| {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let mark = HeaderValue::try_from(format!("{word}-{before}")).unwrap();
        request.headers_mut().append("mark", mark);
        request
    }))
}

/// The marks of each request.
pub(super) fn marks(seen: &[Seen]) -> Vec<String> {
    let marks = |seen: &Seen| {
        let marks = seen.request.headers().get_all("mark").iter();
        let marks: Vec<_> = marks.map(|mark| mark.to_str().unwrap()).collect();
        marks.join(" ")
    };
    seen.iter().map(marks).collect()
}

#[tokio::test(start_paused = true)]
async fn name_is_that_of_the_layer_that_acts() {
    let stage = Stage::of("layers: [{ name: mark }]").await;
    assert_eq!(stage.call().await.unwrap(), 200);
    assert_eq!(marks(&stage.seen()), ["mark-0"]);
}

#[tokio::test(start_paused = true)]
async fn at_says_whether_it_acts_on_calls_or_on_attempts() {
    for (at, marked) in [
        ("", ["mark-0", "mark-0"]),
        ("at: call", ["mark-0", "mark-0"]),
        ("at: attempt", ["mark-0", "mark-1"]),
    ] {
        let stage = Stage::of(&format!("layers: [{{ name: mark, {at} }}]")).await;
        stage.next([Status(503)]);
        assert_eq!(stage.call().await.unwrap(), 200);
        assert_eq!(marks(&stage.seen()), marked, "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn options_are_what_the_layer_is_made_of() {
    let stage = Stage::of("layers: [{ name: mark, options: { word: other } }]").await;
    assert_eq!(stage.call().await.unwrap(), 200);
    assert_eq!(marks(&stage.seen()), ["other-0"]);
}
