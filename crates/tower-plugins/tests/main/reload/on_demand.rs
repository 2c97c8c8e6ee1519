//! Drains of one plugin, on demand.

use http_body_util::BodyExt;
use tokio::time::{Instant, sleep};
use tower_plugins::Plugins;
use tower_plugins::reload::Drained;

use super::support::{MS, SECOND};
use crate::support::{Shelf, call, causes, channel, data, get, ours, text};

async fn start() -> (Shelf, Plugins) {
    let shelf = Shelf::default();
    let plugins = shelf
        .start("plugins: { p: { transport: in-process, endpoint: shelf }, q: { transport: in-process, endpoint: shelf } }")
        .await;
    (shelf, plugins)
}

#[tokio::test(start_paused = true)]
async fn a_drain_of_nothing_is_over_at_once() {
    let (_, plugins) = start().await;
    let begun = Instant::now();
    let drained = plugins.drain("p").await.unwrap();
    assert!(matches!(drained, Drained { calls: 0, .. }));
    assert!(begun.elapsed().is_zero());
}

#[tokio::test(start_paused = true)]
async fn it_refuses_new_calls_and_ends_with_the_last_byte() {
    let (shelf, plugins) = start().await;
    let p = plugins.plugin("p");
    let (frames, body) = channel();
    shelf.put(body);
    let response = call(&p, get("/")).await.unwrap();
    let reader = tokio::spawn(response.into_body().collect());
    let drain = plugins.drain("p");
    let mut progress = drain.progress().unwrap();
    assert_eq!(progress.next().await.unwrap().calls, 1);
    let error = text(&p, get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(tower_plugins::Reason::Draining));
    text(&plugins.plugin("q"), get("/")).await.unwrap();
    let drained = tokio::spawn(drain.into_future());
    sleep(3 * SECOND).await;
    frames.send(data("end")).unwrap();
    drop(frames);
    let drained = drained.await.unwrap().unwrap();
    assert_eq!((drained.calls, drained.elapsed), (1, 3 * SECOND));
    assert_eq!(progress.next().await.unwrap().calls, 0);
    assert!(progress.next().await.is_none());
    assert_eq!(reader.await.unwrap().unwrap().to_bytes(), "end");
}

#[tokio::test(start_paused = true)]
async fn what_outlives_it_is_counted_and_cancelled_if_asked() {
    let (shelf, plugins) = start().await;
    let (_frames, body) = channel();
    shelf.put(body);
    let response = call(&plugins.plugin("p"), get("/")).await.unwrap();
    let reader = tokio::spawn(response.into_body().collect());
    let error = plugins.drain("p").timeout(SECOND).await.unwrap_err();
    let left = error.drain_timeout().unwrap();
    assert_eq!(
        (left.remaining, left.cancelled, left.elapsed),
        (1, 0, SECOND)
    );
    assert!(
        !reader.is_finished() && error.plugin() == Some("p"),
        "{}",
        causes(&error)
    );
    let drain = plugins.drain("p").timeout(SECOND).cancel_after_timeout();
    let left = *drain.await.unwrap_err().drain_timeout().unwrap();
    assert_eq!((left.remaining, left.cancelled), (0, 1));
    let error = reader.await.unwrap().unwrap_err();
    assert!(ours(&*error).is_drain_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_was_drained_serves_again_when_it_is_enabled() {
    let (shelf, plugins) = start().await;
    plugins.drain("p").await.unwrap();
    let report = plugins.enable("p").await.unwrap();
    assert!(report.plan.is_empty(), "the same node");
    text(&plugins.plugin("p"), get("/")).await.unwrap();
    // One whose calls were cancelled needs another node.
    let (_frames, body) = channel();
    shelf.put(body);
    let _response = call(&plugins.plugin("p"), get("/")).await.unwrap();
    let drain = plugins.drain("p").timeout(MS).cancel_after_timeout();
    drain.await.unwrap_err();
    let report = plugins.enable("p").await.unwrap();
    assert_eq!(report.plan.to_string(), "restack p");
    text(&plugins.plugin("p"), get("/")).await.unwrap();
}

#[tokio::test]
async fn nobody_is_not_drained() {
    let (_, plugins) = start().await;
    let error = plugins.drain("nobody").await.unwrap_err();
    assert!(error.is_not_found() && error.plugin() == Some("nobody"));
}
