use tower_plugins::Reason;
use tower_plugins::config::{Config, Format};

use super::stage::Answer::{Never, Status};
use super::stage::{SECOND, Stage, cancelled_after, refusals};
use crate::support::{config, get};

#[tokio::test]
async fn plugins_are_listed_with_their_names_or_stand_in_a_table_under_them() {
    for plugins in [
        "plugins: [{ name: a, transport: in-process, endpoint: one }]",
        "plugins: { a: { transport: in-process, endpoint: one } }",
    ] {
        let stage = Stage::start(plugins).await;
        assert_eq!(stage.plugins.names(), ["a"]);
        assert_eq!(stage.asked_by("a", 1).await, 1);
        let nobody = stage.send("b", get("/")).await;
        assert!(nobody.unwrap_err().is_not_found());
    }
}

#[tokio::test]
async fn allow_empty_lets_a_reload_take_every_plugin_away() {
    let stage = Stage::of("").await;
    for refused in ["plugins: []", "{ plugins: [], allow_empty: false }"] {
        assert!(Config::parse(refused, Format::Yaml).is_err());
    }
    assert_eq!(stage.asked(1).await, 1);
    let empty = config("{ plugins: [], allow_empty: true }");
    stage.plugins.reload(empty).await.unwrap();
    assert!(stage.call().await.unwrap_err().is_not_found());
}

#[tokio::test(start_paused = true)]
async fn drain_timeout_at_the_root_is_that_of_plugins_without_their_own() {
    assert_eq!(cancelled_after("", "").await, 30 * SECOND);
    let root = "drain_timeout: 7s,";
    assert_eq!(cancelled_after(root, "").await, 7 * SECOND);
    assert_eq!(
        cancelled_after(root, "drain_timeout: 9s,").await,
        9 * SECOND
    );
}

#[tokio::test(start_paused = true)]
async fn default_retry_holds_for_plugins_that_do_not_say_otherwise() {
    let root = "default_retry: { max_retries: 1 },";
    let stage = Stage::pair(root, "retry: { max_retries: 2 }").await;
    stage.answers(Status(503));
    assert_eq!(stage.asked(1).await, 2);
    assert_eq!(stage.asked_by("q", 1).await, 3);
}

#[tokio::test(start_paused = true)]
async fn default_circuit_breaker_holds_for_plugins_that_do_not_say_otherwise() {
    let root = "default_circuit_breaker: { failure_threshold: 2 },";
    let stage = Stage::pair(root, "circuit_breaker: { failure_threshold: 3 }").await;
    stage.answers(Status(500));
    assert_eq!(stage.asked(10).await, 2);
    assert_eq!(stage.asked_by("q", 10).await, 3);
}

#[tokio::test(start_paused = true)]
async fn default_connection_holds_for_plugins_that_do_not_say_otherwise() {
    let root = "default_connection: { request_timeout: 2s },";
    let stage = Stage::pair(root, "connection: { request_timeout: 3s }").await;
    stage.answers(Never);
    for (name, seconds) in [("p", 2), ("q", 3)] {
        let begun = tokio::time::Instant::now();
        let mut call = stage.at_once(name, 1);
        assert_eq!(refusals(&mut call, 1).await, [Reason::DeadlineExceeded]);
        assert_eq!(begun.elapsed(), seconds * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn default_rate_limit_holds_for_plugins_that_do_not_say_otherwise() {
    let root = "default_rate_limit: { requests_per_second: 2 },";
    let stage = Stage::pair(root, "rate_limit: { burst_size: 4 }").await;
    assert_eq!(stage.asked(10).await, 2);
    assert_eq!(stage.asked_by("q", 10).await, 4);
}

#[tokio::test(start_paused = true)]
async fn default_concurrency_holds_for_plugins_that_do_not_say_otherwise() {
    let root = "default_concurrency: { max_concurrent: 2 },";
    let stage = Stage::pair(root, "concurrency: { enabled: false }").await;
    stage.answers(Never);
    let mut calls = stage.at_once("p", 5);
    let refused = refusals(&mut calls, 3).await;
    assert_eq!(refused, [Reason::ConcurrencyLimited; 3]);
    assert_eq!(stage.seen().len(), 2);
    let mut calls = stage.at_once("q", 5);
    let refused = refusals(&mut calls, 5).await;
    assert_eq!(refused, [Reason::DeadlineExceeded; 5]);
    assert_eq!(stage.seen().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn default_load_balancing_holds_for_plugins_that_do_not_say_otherwise() {
    let stage = Stage::start(
        "{ default_load_balancing: { strategy: round-robin }, plugins: {
            p: { transport: in-process, endpoints: [one, slow] },
            q: { transport: in-process, endpoints: [one, slow], load_balancing: { strategy: peak-ewma } }
        } }",
    )
    .await;
    assert_eq!(stage.share_of_slow("p", 40).await, 20);
    assert!(stage.share_of_slow("q", 40).await < 10);
}

#[tokio::test]
async fn include_adds_the_plugins_of_other_files() {
    let dir = tempfile::tempdir().unwrap();
    let more = "plugins: { more: { transport: in-process, endpoint: one } }";
    std::fs::write(dir.path().join("more.yaml"), more).unwrap();
    let main = dir.path().join("plugins.yaml");
    std::fs::write(&main, "include: [more.yaml]").unwrap();
    let stage = Stage::start("allow_empty: true").await;
    assert!(stage.plugins.names().is_empty());
    stage
        .plugins
        .reload(Config::from_file(main).unwrap())
        .await
        .unwrap();
    assert_eq!(stage.plugins.names(), ["more"]);
}
