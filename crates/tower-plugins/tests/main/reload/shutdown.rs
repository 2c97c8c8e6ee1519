use std::time::Duration;

use http_body_util::BodyExt;
use tokio::time::{Instant, advance};

use crate::support::{Shelf, call, channel, config, data, get, ours, read, text};

const SECOND: Duration = Duration::from_secs(1);

const ONE: &str = "plugins: { p: { transport: in-process, endpoint: shelf, drain_timeout: 30s } }";
const TWO: &str = "plugins: { p: { transport: in-process, endpoint: shelf, drain_timeout: 31s } }";

#[tokio::test(start_paused = true)]
async fn fault_58_a_shutdown_refuses_new_calls_and_waits_for_bodies() {
    let shelf = Shelf::default();
    let plugins = shelf.start(ONE).await;
    let p = plugins.plugin("p");
    let (frames, body) = channel();
    shelf.put(body);
    let response = call(&p, get("/")).await.unwrap();
    let for_shutdown = plugins.clone();
    let shutdown = tokio::spawn(async move { for_shutdown.shutdown(20 * SECOND).await });
    tokio::task::yield_now().await;
    advance(3 * SECOND).await;
    let error = text(&p, get("/")).await.unwrap_err();
    assert!(error.is_shutdown() && !error.is_not_found());
    assert_eq!(error.http_status(), 503);
    assert!(!shutdown.is_finished());
    frames.send(data("last")).unwrap();
    drop(frames);
    assert_eq!(read(response).await, "last");
    let report = shutdown.await.unwrap().unwrap();
    assert_eq!(report.elapsed, 3 * SECOND);
    assert_eq!(report.retired.len(), 1);
    assert_eq!(
        (
            report.retired[0].plugin.as_str(),
            report.retired[0].cancelled
        ),
        ("p", 0)
    );
    assert_eq!(plugins.status().plugins, 0);
    assert!(plugins.names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_cancels_what_outlives_its_timeout() {
    let shelf = Shelf::default();
    let plugins = shelf.start(ONE).await;
    let (frames, body) = channel();
    shelf.put(body);
    let response = call(&plugins.plugin("p"), get("/")).await.unwrap();
    let reader = tokio::spawn(response.into_body().collect());
    let report = plugins.shutdown(2 * SECOND).await.unwrap();
    assert_eq!(report.elapsed, 2 * SECOND);
    assert_eq!(
        (report.retired[0].cancelled, report.retired[0].remaining),
        (1, 0)
    );
    let error = reader.await.unwrap().unwrap_err();
    assert!(ours(&*error).is_drain_cancelled());
    drop(frames);
    assert_eq!(plugins.status().cancelled, 1);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_longer_for_nodes_that_left_before() {
    let shelf = Shelf::default();
    let plugins = shelf.start(ONE).await;
    let (frames, body) = channel();
    shelf.put(body);
    let response = call(&plugins.plugin("p"), get("/")).await.unwrap();
    let reader = tokio::spawn(response.into_body().collect());
    plugins.reload(config(TWO)).await.unwrap();
    let begun = Instant::now();
    let report = plugins.shutdown(2 * SECOND).await.unwrap();
    assert_eq!(begun.elapsed(), 2 * SECOND);
    let cancelled: usize = report.retired.iter().map(|retired| retired.cancelled).sum();
    assert_eq!((report.retired.len(), cancelled), (2, 1), "{report:?}");
    assert!(reader.await.unwrap().is_err());
    drop(frames);
}

#[tokio::test(start_paused = true)]
async fn an_idle_set_shuts_down_at_once_and_only_once() {
    let plugins = Shelf::default().start(ONE).await;
    let p = plugins.plugin("p");
    let report = plugins.shutdown(Duration::MAX).await.unwrap();
    assert_eq!(report.elapsed, Duration::ZERO);
    assert!(plugins.shutdown(SECOND).await.unwrap_err().is_shutdown());
    assert!(plugins.reload(config(ONE)).await.unwrap_err().is_shutdown());
    assert!(text(&p, get("/")).await.unwrap_err().is_shutdown());
    assert!(
        text(&plugins.plugin("other"), get("/"))
            .await
            .unwrap_err()
            .is_shutdown()
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_that_waited_behind_a_shutdown_brings_the_plugins_back() {
    let plugins = Shelf::default().start(ONE).await;
    // All are in the queue before the first is looked at.
    let (first, reload, second) = tokio::join!(
        plugins.shutdown(SECOND),
        plugins.reload(config(TWO)),
        plugins.shutdown(SECOND),
    );
    first.unwrap();
    assert!(reload.unwrap_err().is_shutdown());
    assert!(second.unwrap_err().is_shutdown());
    assert!(
        text(&plugins.plugin("p"), get("/"))
            .await
            .unwrap_err()
            .is_shutdown()
    );
}
