//! What comes in the middle of a reload.

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::{Request, Response};
use tokio::runtime::Handle;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep};
use tower_plugins::config::{Config, PluginSpec};
use tower_plugins::reload::{ReloadEvent, ReloadPhase, ReloadReport, Strategy, Verdict};
use tower_plugins::transport::{EndpointArgs, ProbeFuture, ResponseFuture, Transport};
use tower_plugins::{Body, Error, Plugins, Reason};

use super::support::{Load, MS, SECOND, p, services, who};
use crate::support::{causes, config, within};

const CANARY: &str =
    "strategy: canary, canary_steps: [50], canary_step_time: 10s, observe_for: 10s";
const WATCHED: &str = "strategy: blue-green, observe_for: 60s";

/// A reload on its way, whose caller waits elsewhere.
fn spawn(
    plugins: &Plugins,
    config: Config,
) -> tokio::task::JoinHandle<Result<ReloadReport, Error>> {
    let plugins = plugins.clone();
    tokio::spawn(async move { plugins.reload(config).await })
}

/// Begins a reload that nobody waits for.
async fn begin(plugins: &Plugins, config: Config) {
    tokio::select! {
        biased;
        _ = plugins.reload(config) => panic!("the task had no turn yet"),
        () = std::future::ready(()) => {}
    }
}

async fn until(plugins: &Plugins, phase: ReloadPhase) {
    let mut status = plugins.subscribe();
    let reached = status.wait_for(|status| status.phase == phase);
    within(reached).await.unwrap();
}

/// A config that waits for ever before it serves.
fn unready() -> Config {
    config(
        "
        reload: { strategy: blue-green, health_check_timeout: 1h }
        plugins: { p: { transport: unix, endpoint: /nowhere.sock } }
        ",
    )
}

fn exclusive(service: &str) -> Config {
    config(&format!(
        "plugins: {{ p: {{ transport: in-process, endpoint: {service}, exclusive: true, drain_timeout: 1h, connection: {{ request_timeout: off }} }} }}"
    ))
}

/// Each phase, what runs before, and what leads there.
fn phases() -> [(ReloadPhase, Config, Config); 4] {
    let old = || p("", "good");
    [
        (ReloadPhase::Waiting, old(), unready()),
        (
            ReloadPhase::Watching { share: 0.5 },
            old(),
            p(CANARY, "better"),
        ),
        (
            ReloadPhase::Watching { share: 1.0 },
            old(),
            p(WATCHED, "better"),
        ),
        (
            ReloadPhase::Exchanging,
            exclusive("never"),
            exclusive("good"),
        ),
    ]
}

/// A set in that phase, of which a call is under way.
async fn in_phase(phase: ReloadPhase, old: Config, new: Config) -> Plugins {
    let never = tower::service_fn(|_: Request<Body>| {
        std::future::pending::<Result<Response<Body>, std::convert::Infallible>>()
    });
    let plugins = services().service("never", never).start(old).await.unwrap();
    if phase == ReloadPhase::Exchanging {
        let plugin = plugins.plugin("p");
        tokio::spawn(tower::ServiceExt::oneshot(plugin, crate::support::get("/")));
        tokio::task::yield_now().await;
    }
    begin(&plugins, new).await;
    until(&plugins, phase).await;
    plugins
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

async fn until_tasks(count: usize) {
    within(async {
        while tasks() > count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_a_reload_in_each_phase() {
    for (phase, old, new) in phases() {
        let before = tasks();
        let plugins = in_phase(phase, old, new).await;
        let second = spawn(&plugins, p("", "slow"));
        let begun = Instant::now();
        let report = plugins.shutdown(SECOND).await.unwrap();
        assert!(begun.elapsed() <= SECOND, "{phase:?}");
        assert!(!report.retired.is_empty(), "{phase:?}");
        assert!(second.await.unwrap().is_err(), "{phase:?}");
        assert!(
            who(&plugins, "p").await.unwrap_err().is_shutdown(),
            "{phase:?}"
        );
        let status = plugins.status();
        assert_eq!((status.phase, status.retiring), (ReloadPhase::Idle, 0));
        drop(plugins);
        until_tasks(before).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_that_is_dropped_in_any_phase_leaves_no_task_and_no_call_that_hangs() {
    for (phase, old, new) in phases() {
        let before = tasks();
        let plugins = in_phase(phase, old, new).await;
        let plugin = plugins.plugin("p");
        let waiting = tokio::spawn(tower::ServiceExt::oneshot(
            plugin.clone(),
            crate::support::get("/"),
        ));
        tokio::task::yield_now().await;
        drop(plugins);
        let early = within(waiting).await.unwrap();
        let late = crate::support::call(&plugin, crate::support::get("/")).await;
        if phase == ReloadPhase::Exchanging {
            for refused in [early, late] {
                assert_eq!(refused.unwrap_err().reason(), Some(Reason::Draining));
            }
            // The call that never ends.
            until_tasks(before + 1).await;
            continue;
        }
        assert!(early.is_ok() && late.is_ok(), "{phase:?}");
        drop((early, late));
        until_tasks(before).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_behind_a_full_queue() {
    let plugins = services().start(p("", "good")).await.unwrap();
    let slow = config(
        "plugins: { q: { transport: unix, endpoint: /nowhere.sock, start: ready, start_timeout: 1h } }",
    );
    let mut asked = Vec::new();
    for _ in 0..40 {
        let (plugins, spec) = (plugins.clone(), slow.plugins["q"].clone());
        asked.push(tokio::spawn(async move { plugins.update(spec).await }));
    }
    until(&plugins, ReloadPhase::Waiting).await;
    let begun = Instant::now();
    plugins.shutdown(SECOND).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 0);
    for asked in asked {
        assert!(within(asked).await.unwrap().unwrap_err().is_shutdown());
    }
}

#[tokio::test(start_paused = true)]
async fn what_changes_nothing_or_cannot_be_made_ends_no_watch() {
    let plugins = services().start(p("", "good")).await.unwrap();
    let mut events = plugins.events();
    let reload = spawn(&plugins, p(CANARY, "better"));
    until(&plugins, ReloadPhase::Watching { share: 0.5 }).await;
    let dry = plugins.reload(p("", "slow")).dry_run().await.unwrap();
    assert_eq!(dry.plan.to_string(), "replace p (endpoints)");
    for error in [
        plugins.remove("nobody").await.unwrap_err(),
        plugins.clear_overlay("p").await.unwrap_err(),
        plugins.enable("nobody").dry_run().await.unwrap_err(),
    ] {
        assert!(error.is_not_found(), "{error}");
    }
    assert_eq!(reload.await.unwrap().unwrap().verdict, Verdict::Unjudged);
    assert_eq!(who(&plugins, "p").await.unwrap(), "better");
    let mut judged = 0;
    while let Ok(event) = events.try_recv() {
        judged += usize::from(matches!(event, ReloadEvent::Judged(Verdict::Unjudged)));
    }
    assert_eq!(judged, 1);
}

#[tokio::test(start_paused = true)]
async fn a_plugin_can_be_removed_while_its_canary_runs() {
    let plugins = services().start(p(CANARY, "good")).await.unwrap();
    let first = spawn(&plugins, p(CANARY, "better"));
    until(&plugins, ReloadPhase::Watching { share: 0.5 }).await;
    let second = plugins.remove("p").await.unwrap();
    assert!(first.await.unwrap().unwrap_err().is_superseded());
    assert_eq!(second.plan.to_string(), "remove p");
    assert!(plugins.names().is_empty());
    assert!(
        second
            .retirement
            .wait()
            .await
            .iter()
            .all(|retired| retired.cancelled == 0)
    );
    within(plugins.subscribe().wait_for(|status| status.retiring == 0))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_replaced_finds_what_is_new_in_each_step() {
    let with = |reload: &str, to: &str| {
        config(&format!(
            "
            reload: {{ {reload} }}
            plugins:
              a: {{ transport: in-process, endpoint: good, split: {{ to: {to}, percent: 100 }} }}
              b: {{ transport: in-process, endpoint: good, shadow: {{ to: {to}, percent: 100 }} }}
              {to}: {{ transport: hesitant, endpoint: one }}
            "
        ))
    };
    for reload in [CANARY, "strategy: rolling, max_concurrent_reloads: 1"] {
        let plugins = hesitant().start(with(reload, "y")).await.unwrap();
        let load = Load::on(plugins.plugin("b"));
        let reload = spawn(&plugins, with(reload, "z"));
        while !reload.is_finished() {
            assert_eq!(who(&plugins, "a").await.unwrap(), "one", "of `y` or of `z`");
            sleep(10 * MS).await;
        }
        reload.await.unwrap().unwrap();
        assert_eq!(who(&plugins, "a").await.unwrap(), "one");
        assert_eq!(load.so_far().failures, 0, "{:?}", load.so_far());
        assert_eq!(plugins.names(), ["a", "b", "z"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_was_drained_while_it_is_watched_can_be_enabled() {
    for reload in [WATCHED, CANARY] {
        let plugins = services().start(p("", "good")).await.unwrap();
        let first = spawn(&plugins, p(reload, "better"));
        sleep(SECOND).await;
        let drain = plugins.drain("p");
        assert_eq!(drain.active(), 0);
        drain.await.unwrap();
        for _ in 0..20 {
            // Whichever side a call goes to.
            let error = who(&plugins, "p").await.unwrap_err();
            assert_eq!(error.reason(), Some(Reason::Draining));
        }
        plugins.enable("p").await.unwrap();
        let served = who(&plugins, "p").await.unwrap();
        match first.await.unwrap() {
            Ok(report) => assert_eq!((report.verdict, &*served), (Verdict::Overtaken, "better")),
            Err(error) => assert_eq!((error.is_superseded(), &*served), (true, "good")),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_of_a_plugin_during_its_canary_is_of_what_was_there() {
    let with = |service: &str| {
        config(&format!(
            "
            reload: {{ {CANARY} }}
            plugins: {{ p: {{ transport: in-process, endpoint: {service}, circuit_breaker: {{}} }} }}
            "
        ))
    };
    let plugins = services().start(with("good")).await.unwrap();
    let reload = spawn(&plugins, with("better"));
    until(&plugins, ReloadPhase::Watching { share: 0.5 }).await;
    let addresses = |plugins: &Plugins| {
        let breakers = plugins.breakers("p").into_iter();
        breakers
            .map(|(address, _)| address.to_string())
            .collect::<Vec<_>>()
    };
    let health = |plugins: &Plugins| {
        plugins.health().plugin("p").unwrap().endpoints[0]
            .address
            .to_string()
    };
    assert_eq!(addresses(&plugins), ["in-process:good"]);
    assert_eq!(health(&plugins), "in-process:good");
    reload.await.unwrap().unwrap();
    assert_eq!(addresses(&plugins), ["in-process:better"]);
    assert_eq!(health(&plugins), "in-process:better");
}

#[tokio::test(start_paused = true)]
async fn as_many_configs_stay_refused_as_are_remembered() {
    let canary = |n: u32| p(&format!("{CANARY}, min_calls: {n}"), "dead");
    let plugins = services().start(p(CANARY, "good")).await.unwrap();
    let _load = Load::on(plugins.plugin("p"));
    sleep(SECOND).await;
    for n in 1..=17 {
        assert!(
            plugins
                .reload(canary(n))
                .await
                .unwrap_err()
                .is_rolled_back()
        );
    }
    for n in 2..=17 {
        assert!(plugins.reload(canary(n)).await.unwrap_err().is_frozen());
    }
    // The first is forgotten, and tried again.
    assert!(
        plugins
            .reload(canary(1))
            .await
            .unwrap_err()
            .is_rolled_back()
    );
}

#[tokio::test(start_paused = true)]
async fn who_does_not_listen_loses_the_oldest_events_and_holds_nobody_up() {
    let plugins = services().start(p("", "good")).await.unwrap();
    let mut events = plugins.events();
    for n in 0..400 {
        let service = ["better", "good"][n % 2];
        plugins.reload(p("", service)).await.unwrap();
    }
    within(plugins.subscribe().wait_for(|status| status.retiring == 0))
        .await
        .unwrap();
    assert!(matches!(events.recv().await, Err(RecvError::Lagged(_))));
    let mut last = 0;
    while let Ok(event) = events.try_recv() {
        if let ReloadEvent::Published { generation, .. } = event {
            last = generation.get();
        }
    }
    assert_eq!(last, plugins.status().generation.get());
}

/// An endpoint that takes its time to say that it is there, and fails if it is `bad`; `broken` cannot be made.
struct Hesitant {
    endpoint: String,
}

impl Transport for Hesitant {
    fn call(&self, _: Request<Body>) -> ResponseFuture<'_> {
        let status = if self.endpoint == "bad" { 500 } else { 200 };
        let response = Response::builder().status(status);
        let answer = response.body(Body::from(self.endpoint.clone()));
        Box::pin(std::future::ready(Ok(answer.unwrap())))
    }

    fn probe(&self) -> ProbeFuture<'_> {
        Box::pin(async {
            sleep(300 * MS).await;
            Ok(())
        })
    }
}

fn hesitant() -> tower_plugins::Builder {
    services().transport("hesitant", |args: EndpointArgs<()>| {
        let endpoint = args.endpoint;
        Ok::<_, std::convert::Infallible>(Hesitant { endpoint })
    })
}

fn q(endpoint: &str) -> Config {
    config(&format!(
        "
        reload: {{ {WATCHED} }}
        plugins: {{ q: {{ transport: hesitant, endpoint: {endpoint}, circuit_breaker: off, retry: off }} }}
        "
    ))
}

#[tokio::test(start_paused = true)]
async fn what_is_known_to_be_worse_goes_back_though_something_newer_waits() {
    let plugins = hesitant().start(q("one")).await.unwrap();
    let _load = Load::on(plugins.plugin("q"));
    sleep(SECOND).await;
    let reload = spawn(&plugins, q("bad"));
    until(&plugins, ReloadPhase::Watching { share: 1.0 }).await;
    // It is seen to be worse, and the old one is asked whether it is there.
    sleep(250 * MS).await;
    let newer = PluginSpec::in_process("newer", "good").unwrap();
    let update = plugins
        .update(newer)
        .strategy(Strategy::Graceful)
        .into_future();
    let (first, second) = tokio::join!(reload, update);
    assert!(first.unwrap().unwrap_err().is_rolled_back());
    second.unwrap();
    assert_eq!(who(&plugins, "q").await.unwrap(), "one");
    assert_eq!(plugins.names(), ["newer", "q"]);
}

#[tokio::test(start_paused = true)]
async fn transports_of_the_program_are_ready_by_their_own_probe() {
    let plugins = hesitant().start(q("one")).await.unwrap();
    let begun = Instant::now();
    spawn(&plugins, q("two"));
    until(&plugins, ReloadPhase::Watching { share: 1.0 }).await;
    assert_eq!(begun.elapsed(), 300 * MS);
    assert_eq!(who(&plugins, "q").await.unwrap(), "two");
}

#[tokio::test(start_paused = true)]
async fn one_that_could_not_be_started_again_is_there_with_the_next_change() {
    let broken = Arc::<AtomicUsize>::default();
    let is_broken = Arc::clone(&broken);
    let with = |endpoint: &str| {
        config(&format!(
            "plugins: {{ p: {{ transport: device, endpoint: {endpoint}, exclusive: true }} }}"
        ))
    };
    let plugins = services()
        .transport("device", move |args: EndpointArgs<()>| {
            if is_broken.load(SeqCst) > 0 {
                return Err("no such device");
            }
            Ok(Hesitant {
                endpoint: args.endpoint,
            })
        })
        .start(with("one"))
        .await
        .unwrap();
    broken.store(1, SeqCst);
    let error = plugins.reload(with("two")).await.unwrap_err();
    assert!(
        causes(&error).contains("p did not start again"),
        "{}",
        causes(&error)
    );
    assert!(who(&plugins, "p").await.unwrap_err().is_not_found());
    // As long as it cannot be made, no config that has it is taken for one that runs; others can be changed.
    let other = PluginSpec::in_process("other", "good").unwrap();
    plugins.update(other).await.unwrap();
    assert!(plugins.reload(with("one")).await.unwrap_err().is_config());
    broken.store(0, SeqCst);
    let report = plugins.reload(with("one")).await.unwrap();
    assert_eq!(report.plan.to_string(), "restack p");
    assert_eq!(who(&plugins, "p").await.unwrap(), "one");
}

#[tokio::test(start_paused = true)]
async fn what_could_only_be_made_of_what_served_before_ends_no_watch() {
    let both = |reload: &str, service: &str, more: &str| {
        config(&format!(
            "
            reload: {{ {reload} }}
            plugins: {{ p: {{ transport: in-process, endpoint: {service} }}, {more} }}
            "
        ))
    };
    let q = "q: { transport: in-process, endpoint: good }";
    let plugins = services().start(both("", "good", q)).await.unwrap();
    let change = spawn(&plugins, both(WATCHED, "better", ""));
    sleep(SECOND).await;
    assert!(plugins.disable("q").await.unwrap_err().is_not_found());
    assert_eq!(change.await.unwrap().unwrap().verdict, Verdict::Unjudged);
    assert_eq!(who(&plugins, "p").await.unwrap(), "better");
}

/// An endpoint that is asked how it is, and from some time on is not well.
struct Failing(Arc<AtomicUsize>);

impl Transport for Failing {
    fn call(&self, _: Request<Body>) -> ResponseFuture<'_> {
        Box::pin(std::future::ready(Ok(Response::new(Body::empty()))))
    }

    fn probe(&self) -> ProbeFuture<'_> {
        let is_failing = self.0.load(SeqCst) > 0;
        let said = if is_failing {
            Err("not well".into())
        } else {
            Ok(())
        };
        Box::pin(std::future::ready(said))
    }
}

#[tokio::test(start_paused = true)]
async fn while_old_and_new_ask_the_same_endpoint_no_failure_counts_twice() {
    let failing = Arc::<AtomicUsize>::default();
    let with = |limit: u32| {
        config(&format!(
            "
            reload: {{ {WATCHED} }}
            plugins:
              p:
                transport: failing
                endpoint: there
                health_check: {{ kind: tcp, interval: 1s, jitter: 0, failure_limit: {limit} }}
            "
        ))
    };
    let shown = Arc::clone(&failing);
    let plugins = services()
        .transport("failing", move |_: EndpointArgs<()>| {
            Ok::<_, std::convert::Infallible>(Failing(Arc::clone(&shown)))
        })
        .start(with(100))
        .await
        .unwrap();
    sleep(3 * SECOND).await;
    spawn(&plugins, with(101));
    until(&plugins, ReloadPhase::Watching { share: 1.0 }).await;
    failing.store(1, SeqCst);
    sleep(10 * SECOND).await;
    let health = plugins.health();
    let failures = health.plugin("p").unwrap().endpoints[0].failures;
    assert!((9..=11).contains(&failures), "{failures} in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn whom_too_few_call_to_tell_goes_back_if_its_health_says_so() {
    let with = |reload: &str, endpoint: &str| {
        config(&format!(
            "
            reload: {{ {reload} }}
            plugins:
              p:
                transport: failing
                endpoint: {endpoint}
                health_check: {{ kind: tcp, interval: 1s, jitter: 0, failure_limit: 2 }}
            "
        ))
    };
    for reload in [WATCHED, CANARY] {
        let failing = Arc::<AtomicUsize>::default();
        let shown = Arc::clone(&failing);
        let plugins = services()
            .transport("failing", move |args: EndpointArgs<()>| {
                let is_new = args.endpoint == "two";
                let shown = if is_new {
                    Arc::clone(&shown)
                } else {
                    Arc::default()
                };
                Ok::<_, std::convert::Infallible>(Failing(shown))
            })
            .start(with("", "one"))
            .await
            .unwrap();
        let change = spawn(&plugins, with(reload, "two"));
        sleep(SECOND).await;
        failing.store(1, SeqCst);
        let error = change.await.unwrap().unwrap_err();
        assert!(error.is_rolled_back(), "{error}");
        assert!(causes(&error).contains("p is "), "{}", causes(&error));
        let health = plugins.health();
        let address = &health.plugin("p").unwrap().endpoints[0].address;
        assert!(address.to_string().contains("one"), "{address}");
    }
}
