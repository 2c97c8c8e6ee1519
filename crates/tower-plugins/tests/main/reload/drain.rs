use std::time::Duration;

use http_body_util::BodyExt;
use tokio::time::{Instant, advance};
use tower_plugins::{Body, Plugins, Reason};
use tower_service::Service;

use crate::support::{Shelf, call, channel, config, data, get, ours, read, text};

const SECOND: Duration = Duration::from_secs(1);

fn with(drain_timeout: &str, generation: u32) -> String {
    format!(
        "plugins: {{ p: {{ transport: in-process, endpoint: shelf, drain_timeout: {drain_timeout}, connection: {{ request_timeout: {generation}h }} }} }}"
    )
}

async fn start(drain_timeout: &str) -> (Shelf, Plugins) {
    let shelf = Shelf::default();
    let plugins = shelf.start(&with(drain_timeout, 1)).await;
    (shelf, plugins)
}

#[tokio::test(start_paused = true)]
async fn a_node_that_left_ends_with_its_last_byte_by_notification() {
    let (shelf, plugins) = start("1h").await;
    let p = plugins.plugin("p");
    let (frames, body) = channel();
    shelf.put(body);
    let mut response = call(&p, get("/")).await.unwrap();
    assert_eq!(plugins.active_requests("p"), 1);
    let report = plugins.reload(config(&with("1h", 2))).await.unwrap();
    assert_eq!(report.retirement.len(), 1);
    assert_eq!(plugins.active_requests("p"), 0, "the new node's calls only");
    let retirement = tokio::spawn(report.retirement.wait());
    advance(10 * SECOND).await;
    frames.send(data("first")).unwrap();
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "first");
    assert_eq!(plugins.status().retiring, 1);
    assert!(!retirement.is_finished());
    drop(frames);
    assert!(response.body_mut().frame().await.is_none());
    // The caller still holds the response; what counts is that its body has ended.
    let retired = retirement.await.unwrap();
    assert_eq!((retired[0].cancelled, retired[0].remaining), (0, 0));
    assert_eq!(retired[0].elapsed, 10 * SECOND, "nobody looked at a clock");
    drop(response);
    plugins
        .subscribe()
        .wait_for(|status| status.retiring == 0)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_outlives_its_drain_is_cancelled_and_counted() {
    let (shelf, plugins) = start("5s").await;
    let p = plugins.plugin("p");
    let (frames, body) = channel();
    shelf.put(body);
    let response = call(&p, get("/")).await.unwrap();
    let reader = tokio::spawn(response.into_body().collect());
    let report = plugins.reload(config(&with("5s", 2))).await.unwrap();
    let retired = report.retirement.wait().await;
    assert_eq!((retired[0].cancelled, retired[0].remaining), (1, 0));
    assert_eq!(retired[0].elapsed, 5 * SECOND);
    let error = reader.await.unwrap().unwrap_err();
    let error = ours(&*error);
    assert!(error.is_drain_cancelled());
    assert_eq!(
        (
            error.plugin(),
            error.http_status().as_u16(),
            error.grpc_code()
        ),
        (Some("p"), 503, 14)
    );
    assert!(frames.is_closed(), "the plugin's side is let go of");
    let mut status = plugins.subscribe();
    let status = status
        .wait_for(|status| status.retiring == 0)
        .await
        .unwrap();
    assert_eq!(status.cancelled, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_head_is_cancelled_too() {
    let silent = tower::service_fn(|_: http::Request<Body>| {
        std::future::pending::<Result<http::Response<Body>, std::convert::Infallible>>()
    });
    let plugins = Plugins::builder()
        .service("shelf", silent)
        .start(config(&with("5s", 1)))
        .await
        .unwrap();
    let p = plugins.plugin("p");
    let waiting = tokio::spawn(tower::ServiceExt::oneshot(p, get("/")));
    tokio::task::yield_now().await;
    assert_eq!(plugins.active_requests("p"), 1);
    let report = plugins.reload(config(&with("5s", 2))).await.unwrap();
    assert_eq!(report.retirement.wait().await[0].cancelled, 1);
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::DrainCancelled));
    assert!(!error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_polls_holds_up_no_later_reload() {
    let (shelf, plugins) = start("5s").await;
    let p = plugins.plugin("p");
    let (frames, body) = channel();
    shelf.put(body);
    let response = call(&p, get("/")).await.unwrap();
    let begun = Instant::now();
    let first = plugins.reload(config(&with("5s", 2))).await.unwrap();
    for generation in 3..10 {
        plugins
            .reload(config(&with("5s", generation)))
            .await
            .unwrap();
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let retired = first.retirement.wait().await;
    assert_eq!((retired[0].cancelled, retired[0].remaining), (1, 1));
    assert_eq!(
        retired[0].elapsed,
        6 * SECOND,
        "the drain, and a second to notice"
    );
    drop(frames);
    assert_eq!(text(&p, get("/")).await.unwrap(), "hello");
    drop(response);
}

#[tokio::test(start_paused = true)]
async fn a_call_on_a_node_that_stays_is_never_touched() {
    let shelf = Shelf::default();
    let with = |other: u32| {
        format!(
            "plugins: {{ p: {{ transport: in-process, endpoint: shelf, drain_timeout: 1s, connection: {{ request_timeout: off }} }}, q{other}: {{ transport: in-process, endpoint: shelf }} }}"
        )
    };
    let plugins = shelf.start(&with(1)).await;
    let p = plugins.plugin("p");
    let (frames, body) = channel();
    shelf.put(body);
    let response = call(&p, get("/")).await.unwrap();
    for other in 2..20 {
        plugins
            .reload(config(&with(other)))
            .await
            .unwrap()
            .retirement
            .wait()
            .await;
        advance(10 * SECOND).await;
    }
    assert_eq!(plugins.active_requests("p"), 1);
    frames.send(data("late")).unwrap();
    drop(frames);
    assert_eq!(read(response).await, "late");
    assert_eq!(plugins.status().cancelled, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_made_before_a_reload_and_polled_after_it_is_answered() {
    let (_shelf, plugins) = start("5s").await;
    let mut p = plugins.plugin("p");
    let call = p.call(get("/"));
    let report = plugins
        .reload(config(
            "plugins: { q: { transport: in-process, endpoint: shelf } }",
        ))
        .await
        .unwrap();
    assert_eq!(read(call.await.unwrap()).await, "hello");
    let retired = report.retirement.wait().await;
    assert_eq!((retired[0].cancelled, retired[0].remaining), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_drain_timeout_longer_than_the_clock_is_none() {
    let shelf = Shelf::default();
    let plugins = shelf.start(&with("1h", 1)).await;
    let mut forever = config(&with("1h", 1));
    forever.plugins.get_mut("p").unwrap().policy.drain_timeout = Duration::MAX;
    plugins.reload(forever).await.unwrap();
    let (frames, body) = channel();
    shelf.put(body);
    let response = call(&plugins.plugin("p"), get("/")).await.unwrap();
    let report = plugins.reload(config(&with("1h", 2))).await.unwrap();
    advance(3600 * SECOND).await;
    drop(frames);
    read(response).await;
    let retired = report.retirement.wait().await;
    assert_eq!(retired.len(), 1);
    assert_eq!(retired[0].cancelled, 0);
}

#[tokio::test(start_paused = true)]
async fn fault_18_a_thousand_open_bodies_end_whole_on_the_node_they_began_on() {
    let (shelf, plugins) = start("1h").await;
    let p = plugins.plugin("p");
    let mut open = Vec::new();
    for _ in 0..1_000 {
        let (frames, body) = channel();
        shelf.put(body);
        open.push((frames, call(&p, get("/")).await.unwrap()));
    }
    let report = plugins.reload(config(&with("1h", 2))).await.unwrap();
    let retirement = tokio::spawn(report.retirement.wait());
    let last = open.pop().unwrap();
    for (frames, response) in open {
        for word in ["to ", "the ", "end"] {
            frames.send(data(word)).unwrap();
        }
        drop(frames);
        assert_eq!(read(response).await, "to the end");
    }
    advance(SECOND).await;
    assert!(!retirement.is_finished(), "one is left");
    drop(last.0);
    assert_eq!(read(last.1).await, "");
    let retired = retirement.await.unwrap();
    assert_eq!((retired[0].cancelled, retired[0].elapsed), (0, SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_lets_go_of_everything_at_once() {
    let (shelf, plugins) = start("1h").await;
    let p = plugins.plugin("p");
    let (frames, body) = channel();
    shelf.put(body);
    let response = call(&p, get("/")).await.unwrap();
    let report = plugins.reload(config(&with("1h", 2))).await.unwrap();
    drop(response);
    assert!(frames.is_closed());
    let retired = report.retirement.wait().await;
    assert_eq!(
        (retired[0].cancelled, retired[0].elapsed),
        (0, Duration::ZERO)
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_polled_only_after_its_node_has_closed_is_not_begun() {
    let (_shelf, plugins) = start("5s").await;
    let mut p = plugins.plugin("p");
    let call = p.call(get("/"));
    let report = plugins.reload(config(&with("5s", 2))).await.unwrap();
    let retired = report.retirement.wait().await;
    assert_eq!((retired[0].cancelled, retired[0].remaining), (0, 1));
    let error = call.await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Draining));
    assert!(
        error.is_refused() && error.is_retryable(),
        "the plugin was not asked"
    );
}
