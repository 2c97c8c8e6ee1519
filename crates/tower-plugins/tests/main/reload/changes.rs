//! Changes by the program, over what the file says.

use std::future::IntoFuture;

use tokio::time::{Instant, sleep};
use tower_plugins::config::{Config, PluginSpec};
use tower_plugins::reload::{OverlayKind, ReloadEvent, ReloadOptions, Strategy};
use tower_plugins::{Change, Plugins};

use super::support::{SECOND, p, services, who};
use crate::support::{causes, config};

fn in_process(name: &str, service: &str) -> PluginSpec {
    PluginSpec::in_process(name, service).unwrap()
}

fn two(a: &str, b: &str) -> Config {
    config(&format!(
        "plugins:
  a: {{ transport: in-process, endpoint: {a} }}
  b: {{ transport: in-process, endpoint: {b} }}
  off: {{ transport: in-process, endpoint: good, enabled: false }}
"
    ))
}

async fn start() -> Plugins {
    services().start(two("good", "good")).await.unwrap()
}

fn overlay(plugins: &Plugins) -> Vec<(String, OverlayKind)> {
    let overlay = plugins.status().overlay;
    let entries = overlay.iter();
    entries
        .map(|(name, kind)| (name.to_string(), *kind))
        .collect()
}

#[tokio::test]
async fn an_update_stands_over_the_file_until_that_says_something_else_of_the_plugin() {
    let plugins = start().await;
    plugins.update(in_process("a", "better")).await.unwrap();
    assert_eq!(overlay(&plugins), [("a".to_owned(), OverlayKind::Updated)]);
    let report = plugins.reload(two("good", "slow")).await.unwrap();
    assert_eq!(
        report.to_string(),
        "generation 3: replace b (endpoints); changed by the program: a (updated)"
    );
    assert_eq!(who(&plugins, "a").await.unwrap(), "better");
    let report = plugins.reload(two("slow", "slow")).await.unwrap();
    let ended: Vec<_> = report
        .overlay_ended
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!((ended, report.overlay.len()), (vec!["a".to_owned()], 0));
    assert_eq!(who(&plugins, "a").await.unwrap(), "slow");
    assert!(overlay(&plugins).is_empty());
}

#[tokio::test]
async fn an_overlay_that_is_cleared_leaves_what_the_file_says() {
    let plugins = start().await;
    plugins.update(in_process("a", "better")).await.unwrap();
    plugins.update(in_process("new", "better")).await.unwrap();
    plugins.remove("b").await.unwrap();
    assert_eq!(plugins.names(), ["a", "new"]);
    for name in ["a", "b", "new"] {
        plugins.clear_overlay(name).await.unwrap();
    }
    assert_eq!(plugins.names(), ["a", "b"]);
    assert_eq!(who(&plugins, "a").await.unwrap(), "good");
    let error = plugins.clear_overlay("a").await.unwrap_err();
    assert!(error.is_not_found() && causes(&error).contains("has not changed it"));
}

#[tokio::test]
async fn what_is_removed_stays_away_over_reloads() {
    let plugins = start().await;
    plugins.remove("a").await.unwrap();
    plugins.reload(two("good", "slow")).await.unwrap();
    assert_eq!(plugins.names(), ["b"]);
    let error = plugins.enable("a").await.unwrap_err();
    assert!(
        causes(&error).contains("it was removed"),
        "{}",
        causes(&error)
    );
    for error in [
        plugins.remove("a").await.unwrap_err(),
        plugins.remove("nobody").await.unwrap_err(),
        plugins.remove("no name").await.unwrap_err(),
    ] {
        assert!(error.is_not_found(), "{error}");
    }
    plugins.update(in_process("a", "good")).await.unwrap();
    // What only the program has leaves no trace.
    plugins.update(in_process("own", "good")).await.unwrap();
    plugins.remove("own").await.unwrap();
    assert_eq!(overlay(&plugins), [("a".to_owned(), OverlayKind::Updated)]);
}

#[tokio::test]
async fn what_is_disabled_comes_back_as_it_was() {
    let plugins = start().await;
    plugins.update(in_process("a", "better")).await.unwrap();
    plugins.disable("a").await.unwrap();
    assert!(who(&plugins, "a").await.unwrap_err().is_not_found());
    assert_eq!(overlay(&plugins), [("a".to_owned(), OverlayKind::Disabled)]);
    plugins.enable("a").await.unwrap();
    assert_eq!(who(&plugins, "a").await.unwrap(), "better");
    // Of the file alone nothing is left to say.
    plugins.disable("b").await.unwrap();
    plugins.enable("b").await.unwrap();
    assert_eq!(overlay(&plugins), [("a".to_owned(), OverlayKind::Updated)]);
}

#[tokio::test]
async fn what_the_file_has_disabled_can_be_enabled() {
    let plugins = start().await;
    assert_eq!(plugins.names(), ["a", "b"]);
    plugins.enable("off").await.unwrap();
    assert_eq!(who(&plugins, "off").await.unwrap(), "good");
    assert!(plugins.enable("nobody").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_touches_nothing() {
    let plugins = start().await;
    let report = plugins.reload(two("slow", "good")).dry_run().await.unwrap();
    assert_eq!(report.plan.to_string(), "replace a (endpoints)");
    assert!(matches!(
        report.plan.changes().values().next(),
        Some(Change::Replace { .. })
    ));
    assert_eq!((report.generation.get(), plugins.history().len()), (1, 1));
    assert_eq!(who(&plugins, "a").await.unwrap(), "good");
    let removed = plugins.remove("b").dry_run().await.unwrap();
    assert_eq!(removed.plan.to_string(), "remove b");
    assert!(overlay(&plugins).is_empty());
    // What could not be built is planned all the same: nothing is built.
    plugins
        .reload(two("nobody", "good"))
        .dry_run()
        .await
        .unwrap();
}

#[tokio::test]
async fn generations_can_be_gone_back_to_whole() {
    let plugins = start().await;
    plugins.update(in_process("a", "better")).await.unwrap();
    plugins.reload(two("slow", "slow")).await.unwrap();
    let history = plugins.history();
    let numbers: Vec<_> = history.iter().map(|entry| entry.generation.get()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(history[1].plan.to_string(), "replace a (endpoints)");
    plugins.rollback(history[1].generation).await.unwrap();
    assert_eq!(who(&plugins, "a").await.unwrap(), "better");
    assert_eq!(who(&plugins, "b").await.unwrap(), "good");
    assert_eq!(overlay(&plugins), [("a".to_owned(), OverlayKind::Updated)]);
}

#[tokio::test]
async fn history_is_as_long_as_it_may_be_and_shows_no_secret() {
    let with = |token: &str| {
        config(&format!(
            "
            reload: {{ history: 2 }}
            plugins: {{ a: {{ transport: in-process, endpoint: good, auth: {{ method: bearer, token: {token} }} }} }}
            "
        ))
    };
    let plugins = services().start(with("hush-1")).await.unwrap();
    plugins.reload(with("hush-2")).await.unwrap();
    let report = plugins.reload(with("hush-3")).await.unwrap();
    assert_eq!(report.plan.to_string(), "restack a (auth)");
    let history = plugins.history();
    assert_eq!(history.len(), 2);
    for shown in [
        format!("{history:?}"),
        format!("{report:?}"),
        format!("{:?}", plugins.status()),
    ] {
        assert!(!shown.contains("hush"), "{shown}");
    }
    let error = plugins
        .rollback(tower_plugins::Generation::default())
        .await
        .unwrap_err();
    assert!(error.is_not_found() && causes(&error).contains("not in the history"));
    plugins.rollback(history[0].generation).await.unwrap();
}

#[tokio::test]
async fn what_generations_say_alike_they_have_in_common() {
    let plugins = start().await;
    // As if it were read again: nothing of it is in common with the first.
    plugins.reload(two("good", "better")).await.unwrap();
    let history = plugins.history();
    let same = |what: fn(&PluginSpec) -> *const ()| {
        ["a", "b"].map(|name| {
            let [one, two] = [0, 1].map(|n: usize| what(&history[n].config.plugins[name]));
            std::ptr::eq(one, two)
        })
    };
    let policies = same(|spec| std::ptr::from_ref(&*spec.policy).cast());
    assert_eq!(policies, [true, true]);
    let upstreams = same(|spec| std::ptr::from_ref(&*spec.upstream).cast());
    assert_eq!(upstreams, [true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_config_that_waits_and_is_overtaken_is_not_built() {
    // The first waits for its plugin for a minute, and the others wait for that.
    let waiting = config(
        "
        plugins: { p: { transport: unix, endpoint: /nowhere.sock, start: ready, start_timeout: 1m } }
        ",
    );
    let plugins = services().start(p("", "good")).await.unwrap();
    let begun = Instant::now();
    let (one, two, three, four) = tokio::join!(
        plugins.reload(waiting).into_future(),
        plugins.reload(p("", "nobody")).into_future(),
        plugins.update(in_process("q", "good")).into_future(),
        plugins.reload(p("", "better")).into_future(),
    );
    assert!(one.unwrap_err().is_superseded(), "it was waited for");
    assert!(
        two.unwrap_err().is_superseded(),
        "it could not have been built"
    );
    three.unwrap();
    four.unwrap();
    assert!(begun.elapsed() < SECOND);
    assert_eq!(plugins.names(), ["p", "q"]);
    assert_eq!(who(&plugins, "p").await.unwrap(), "better");
    assert_eq!(plugins.status().rejected, 0);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_one_plugin_waits_for_a_reload_that_waits() {
    let waiting = config(
        "
        plugins: { p: { transport: unix, endpoint: /nowhere.sock, start: ready, start_timeout: 1m } }
        ",
    );
    let plugins = services().start(p("", "good")).await.unwrap();
    let (one, two) = tokio::join!(
        plugins.reload(waiting).into_future(),
        plugins.update(in_process("q", "good")).into_future(),
    );
    assert!(one.unwrap_err().is_config());
    two.unwrap();
    assert_eq!(plugins.names(), ["p", "q"]);
}

#[tokio::test(start_paused = true)]
async fn what_happens_is_told_in_its_order() {
    let plugins = services().start(p("", "good")).await.unwrap();
    let mut events = plugins.events();
    plugins.reload(p("", "better")).await.unwrap();
    plugins.reload(p("", "nobody")).await.unwrap_err();
    let mut status = plugins.subscribe();
    status
        .wait_for(|status| status.retiring == 0)
        .await
        .unwrap();
    sleep(SECOND).await;
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        told.push(match event {
            ReloadEvent::Planned(plan) => plan.to_string(),
            ReloadEvent::Building => "building".to_owned(),
            ReloadEvent::Published { generation, .. } => format!("published {generation}"),
            ReloadEvent::Draining { plugin, active } => format!("draining {plugin}: {active}"),
            ReloadEvent::Retired(retired) => format!("retired {}", retired.plugin),
            ReloadEvent::Rejected(error) => format!("rejected: {}", error.plugin().unwrap_or("")),
            other => panic!("{other:?}"),
        });
    }
    let ends = told.split_off(3);
    assert_eq!(told, ["replace p (endpoints)", "building", "published 2"]);
    for one in ["retired p", "rejected: p"] {
        assert!(ends.iter().any(|told| told == one), "{ends:?}");
    }
}

#[tokio::test]
async fn options_of_one_reload_go_before_the_config() {
    let plugins = services()
        .start(p("strategy: immediate", "good"))
        .await
        .unwrap();
    let options = ReloadOptions::new().strategy(Strategy::Rolling);
    let report = plugins
        .reload(p("strategy: immediate", "better"))
        .options(options)
        .await
        .unwrap();
    assert_eq!(report.strategy, Strategy::Rolling);
    let report = plugins
        .reload(p("strategy: immediate", "good"))
        .await
        .unwrap();
    assert_eq!(report.strategy, Strategy::Immediate);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_finds_what_can_be_found_without_building() {
    let with = |plugins: &str| config(&format!("plugins: {{ {plugins} }}"));
    let b = "b: { transport: in-process, endpoint: good }";
    let a = "a: { transport: in-process, endpoint: good, split: { to: b, percent: 10 } }";
    let plugins = services().start(with(&format!("{a}, {b}"))).await.unwrap();
    let real = plugins.remove("b").await.unwrap_err();
    let dry = plugins.remove("b").dry_run().await.unwrap_err();
    assert!(dry.is_config() && causes(&dry).contains("split"));
    assert_eq!(dry.plugin(), real.plugin());
    assert_eq!(plugins.status().rejected, 1, "the real one");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_finds_what_was_taken_back() {
    let watched = "strategy: blue-green, observe_for: 60s";
    let plugins = services().start(p(watched, "good")).await.unwrap();
    let load = super::support::Load::on(plugins.plugin("p"));
    sleep(SECOND).await;
    plugins.reload(p(watched, "dead")).await.unwrap_err();
    drop(load);
    let dry = plugins.reload(p(watched, "dead")).dry_run().await;
    assert!(dry.unwrap_err().is_frozen());
    let forced = ReloadOptions::new().force().dry_run();
    let dry = plugins.reload(p(watched, "dead")).options(forced).await;
    assert_eq!(dry.unwrap().plan.to_string(), "replace p (endpoints)");
}

#[test]
fn a_plan_says_each_key_that_differs() {
    let with = |keys: &str| {
        config(&format!(
            "plugins: {{ p: {{ transport: grpc, endpoint: 'http://127.0.0.1:1', {keys} }} }}"
        ))
    };
    for (before, after, key) in [
        ("", "grpc: { max_response_message: 1MiB }", "grpc"),
        (
            "",
            "connection: { stream_idle_timeout: 7s }",
            "connection.stream_idle_timeout",
        ),
        (
            "",
            "connection: { timeout_header: x-time }",
            "connection.timeout_header",
        ),
        ("", "connection: { connection_timeout: 7s }", "connection"),
        ("", "drain_timeout: 7s", "drain_timeout"),
        ("", "start: ready", "start"),
        ("", "exclusive: true", "exclusive"),
        ("", "health_check: {}", "health_check"),
    ] {
        let plan = tower_plugins::Plan::between(&with(before), &with(after));
        let change = &plan.changes()[&tower_plugins::config::PluginName::new("p").unwrap()];
        assert_eq!(change.keys(), [key]);
    }
}

#[tokio::test]
async fn what_is_disabled_can_be_removed() {
    let plugins = start().await;
    plugins.update(in_process("own", "good")).await.unwrap();
    for name in ["a", "own"] {
        plugins.disable(name).await.unwrap();
        plugins.remove(name).await.unwrap();
        assert!(plugins.enable(name).await.unwrap_err().is_not_found());
    }
    assert_eq!(overlay(&plugins), [("a".to_owned(), OverlayKind::Removed)]);
}
