use std::future::IntoFuture;
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tower_plugins::config::Config;
use tower_plugins::reload::{ReloadEvent, ReloadPhase, ReloadReport, Verdict};
use tower_plugins::{Error, Plugins, Reason};

use crate::reload::folder::{Folder, ONE, until};
use crate::reload::support::{Load, SECOND, p, services, who};
use crate::support::{Shelf, call, causes, channel, config, get, ours, text};

/// What comes of a plugin that is called a thousand times a second, when `service` takes the place of a good one under
/// `keys`; how long that takes, and who answers in the end.
async fn replaced(keys: &str, service: &str) -> (Result<ReloadReport, Error>, Duration, String) {
    let plugins = services().start(p(keys, "good")).await.unwrap();
    let _load = Load::on(plugins.plugin("p"));
    sleep(2 * SECOND).await;
    let begun = Instant::now();
    let report = plugins.reload(p(keys, service)).await;
    let took = begun.elapsed();
    // One that fails three calls of ten says who it is all the same.
    (report, took, who(&plugins, "p").await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn max_failure_increase_is_how_much_more_may_fail() {
    for (keys, serves) in [("", "good"), (", max_failure_increase: 0.5", "bad")] {
        let keys = format!("strategy: blue-green, observe_for: 10s{keys}");
        let (report, _, who) = replaced(&keys, "bad").await;
        assert_eq!(who, serves);
        assert_eq!(
            report.is_ok_and(|it| it.verdict == Verdict::Fine),
            who == "bad"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn max_latency_factor_is_how_much_slower_it_may_be() {
    for (keys, serves) in [("", "good"), (", max_latency_factor: 20", "slow")] {
        let keys = format!("strategy: blue-green, observe_for: 10s{keys}");
        let (report, _, who) = replaced(&keys, "slow").await;
        assert_eq!(who, serves);
        assert_eq!(
            report.is_ok_and(|it| it.verdict == Verdict::Fine),
            who == "slow"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn min_calls_are_needed_to_judge() {
    let keys = "strategy: blue-green, observe_for: 10s, min_calls: 1000000";
    let (report, took, who) = replaced(keys, "bad").await;
    assert_eq!(report.unwrap().verdict, Verdict::Unjudged);
    assert_eq!((took.as_secs(), &*who), (10, "bad"));
}

#[tokio::test(start_paused = true)]
async fn rollback_on_failure_is_whether_what_is_worse_is_taken_back() {
    let keys = "strategy: blue-green, observe_for: 10s, rollback_on_failure: false";
    let (report, _, who) = replaced(keys, "bad").await;
    assert!(matches!(report.unwrap().verdict, Verdict::Worse { .. }));
    assert_eq!(who, "bad");
}

#[tokio::test(start_paused = true)]
async fn canary_min_calls_are_what_a_step_waits_for() {
    for (calls, least) in [(10, 1), (5_000, 9)] {
        let keys = format!(
            "strategy: canary, canary_steps: [50], canary_step_time: 1s, observe_for: 30s,
             canary_min_calls: {calls}"
        );
        let (report, took, who) = replaced(&keys, "better").await;
        assert_eq!(report.unwrap().verdict, Verdict::Fine);
        // Half of a thousand a second, and then all for as long as they are observed.
        let step = took.checked_sub(30 * SECOND).unwrap().as_secs();
        assert!((least..=least + 2).contains(&step), "{step} s for {calls}");
        assert_eq!(who, "better");
    }
}

#[tokio::test(start_paused = true)]
async fn graceful_timeout_is_how_long_the_drains_of_a_reload_may_take() {
    for (keys, seconds) in [
        ("", 30),
        ("graceful_timeout: 7s", 7),
        ("graceful_timeout: 1h", 30),
    ] {
        let with = |hours: u32| {
            format!(
                "reload: {{ {keys} }}
plugins: {{ p: {{ transport: in-process, endpoint: shelf, connection: {{ request_timeout: {hours}h }} }} }}"
            )
        };
        let shelf = Shelf::default();
        let plugins = shelf.start(&with(1)).await;
        let (_frames, body) = channel();
        shelf.put(body);
        let response = call(&plugins.plugin("p"), get("/")).await.unwrap();
        let reader = tokio::spawn(response.into_body().collect());
        let report = plugins.reload(config(&with(2))).await.unwrap();
        let retired = report.retirement.wait().await;
        assert_eq!(
            (retired[0].cancelled, retired[0].elapsed.as_secs()),
            (1, seconds)
        );
        let error = reader.await.unwrap().unwrap_err();
        assert!(ours(&*error).is_drain_cancelled());
    }
}

#[tokio::test]
async fn validation_timeout_is_how_long_reading_the_files_may_take() {
    let folder = Folder::with(&format!("reload: {{ validation_timeout: 1ms }}\n{ONE}"));
    let plugins = folder.start(Plugins::builder()).await.unwrap();
    let mut large = "plugins:\n  two: { transport: in-process, endpoint: shelf }\n".to_owned();
    for n in 0..3_000 {
        large += &format!("  p{n}: {{ transport: in-process, endpoint: shelf, enabled: false }}\n");
    }
    folder.write("plugins.yaml", &large);
    let status = until(&plugins, |status| status.last_error.is_some()).await;
    let said = causes(&*status.last_error.unwrap());
    assert!(
        said.contains("within 1ms (reload.validation_timeout)"),
        "{said}"
    );
    // It is taken when it has been read; there are 10 seconds for the next.
    until(&plugins, |status| {
        status.last_error.is_none() && plugins.names() == ["two"]
    })
    .await;
    let rejected = plugins.status().rejected;
    folder.write("plugins.yaml", &large.replace("two", "three"));
    until(&plugins, |_| plugins.names() == ["three"]).await;
    assert_eq!(plugins.status().rejected, rejected);
}

/// The plugin `p` at `service`, with these keys of `reload` and of its own.
fn at(service: &str, reload: &str, keys: &str) -> Config {
    config(&format!(
        "reload: {{ {reload} }}
plugins: {{ p: {{ transport: in-process, endpoint: {service}, {keys} }} }}"
    ))
}

/// Plugins of `config`, in which `shelf` answers one call of `p` with a body that has no end.
async fn streaming(config: Config) -> (Plugins, Shelf, JoinHandle<bool>) {
    let shelf = Shelf::default();
    let builder = services().service("shelf", shelf.clone());
    let plugins = builder.start(config).await.unwrap();
    let stream = stream(&plugins, &shelf).await;
    (plugins, shelf, stream)
}

/// A call of `p` whose body has no end; whether it was cancelled.
async fn stream(plugins: &Plugins, shelf: &Shelf) -> JoinHandle<bool> {
    let (frames, body) = channel();
    shelf.put(body);
    let response = call(&plugins.plugin("p"), get("/")).await.unwrap();
    tokio::spawn(async move {
        let read = response.into_body().collect().await;
        drop(frames);
        read.is_err_and(|error| ours(&*error).is_drain_cancelled())
    })
}

#[tokio::test(start_paused = true)]
async fn reload_holds_for_the_reload_that_brings_it() {
    let plugins = services().start(p("", "good")).await.unwrap();
    let begun = Instant::now();
    let watched = "strategy: blue-green, observe_for: 3s";
    plugins.reload(p(watched, "better")).await.unwrap();
    assert_eq!(begun.elapsed(), 3 * SECOND);
    plugins.reload(p("", "good")).await.unwrap();
    assert_eq!(begun.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn strategy_is_how_the_new_takes_the_place_of_the_old() {
    for (strategy, seconds) in [("graceful", 9), ("immediate", 0)] {
        let keys = format!("strategy: {strategy}");
        let (plugins, _, cancelled) = streaming(at("shelf", &keys, "drain_timeout: 9s")).await;
        let begun = Instant::now();
        let report = plugins
            .reload(at("good", &keys, "drain_timeout: 9s"))
            .await
            .unwrap();
        assert_eq!(report.strategy.as_str(), strategy);
        assert!(cancelled.await.unwrap());
        assert_eq!(begun.elapsed().as_secs(), seconds, "{strategy}");
    }
}

#[tokio::test(start_paused = true)]
async fn health_check_timeout_is_how_long_the_new_may_take_to_be_ready() {
    for (keys, seconds) in [("", 10), (", health_check_timeout: 2s", 2)] {
        let plugins = services().start(p("", "good")).await.unwrap();
        let nowhere = config(&format!(
            "reload: {{ strategy: blue-green{keys} }}
plugins: {{ p: {{ transport: unix, endpoint: /nowhere/at/all.sock }} }}"
        ));
        let begun = Instant::now();
        let error = plugins.reload(nowhere).await.unwrap_err();
        assert_eq!(error.plugin(), Some("p"));
        assert_eq!(begun.elapsed().as_secs(), seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn max_concurrent_reloads_is_how_many_are_exchanged_at_a_time() {
    for (most, sizes) in [(1, &[1, 1, 1][..]), (2, &[2, 1])] {
        let three = |service: &str| {
            let one = |n| format!("p{n}: {{ transport: in-process, endpoint: {service} }}");
            let plugins: Vec<_> = (1..4).map(one).collect();
            config(&format!(
                "reload: {{ strategy: rolling, max_concurrent_reloads: {most} }}
plugins: {{ {} }}",
                plugins.join(", ")
            ))
        };
        let plugins = services().start(three("good")).await.unwrap();
        let mut events = plugins.events();
        plugins.reload(three("better")).await.unwrap();
        let mut waited = Vec::new();
        while let Ok(event) = events.try_recv() {
            if let ReloadEvent::Waiting(plugins) = event {
                waited.push(plugins.len());
            }
        }
        assert_eq!(waited, sizes);
    }
}

#[tokio::test(start_paused = true)]
async fn observe_for_is_how_long_the_new_is_watched() {
    for (keys, seconds) in [("", 60), (", observe_for: 7s", 7), (", observe_for: 0s", 0)] {
        let keys = format!("strategy: blue-green{keys}");
        let (report, took, _) = replaced(&keys, "better").await;
        assert_eq!(report.is_ok().then_some(took.as_secs()), Some(seconds));
    }
}

/// How long a canary takes with these keys, but for the time in which it has all calls.
async fn canary(keys: &str) -> u64 {
    let keys = format!("strategy: canary, observe_for: 1s, canary_min_calls: 1, {keys}");
    let (report, took, who) = replaced(&keys, "better").await;
    report.unwrap();
    assert_eq!(who, "better");
    took.as_secs() - 1
}

#[tokio::test(start_paused = true)]
async fn canary_steps_are_the_shares_that_the_new_gets_one_after_the_other() {
    assert_eq!(canary("canary_step_time: 2s").await, 6);
    assert_eq!(
        canary("canary_step_time: 2s, canary_steps: [10, 20, 30, 40]").await,
        8
    );
    assert_eq!(canary("canary_step_time: 2s, canary_steps: []").await, 0);
}

#[tokio::test(start_paused = true)]
async fn canary_step_time_is_how_long_a_step_lasts() {
    assert_eq!(canary("canary_steps: [50]").await, 10);
    assert_eq!(canary("canary_steps: [50], canary_step_time: 3s").await, 3);
}

#[tokio::test(start_paused = true)]
async fn stick_to_is_the_header_that_keeps_a_caller_on_its_side() {
    for (keys, sticks) in [("", false), (", stick_to: x-user", true)] {
        let keys = format!("strategy: canary, canary_steps: [50], canary_step_time: 1m{keys}");
        let plugins = services().start(p(&keys, "good")).await.unwrap();
        let plugin = plugins.plugin("p");
        let side = async |user: u32| {
            let mut request = get("/");
            let user = user.to_string().parse().unwrap();
            request.headers_mut().insert("x-user", user);
            text(&plugin, request).await.unwrap()
        };
        let look = async {
            sleep(SECOND).await;
            let mut same = 0;
            for user in 0..100 {
                same += u32::from(side(user).await == side(user).await);
            }
            same
        };
        let reload = plugins.reload(p(&keys, "better")).into_future();
        let (_, same) = tokio::join!(reload, look);
        assert_eq!(same == 100, sticks, "{same} of 100");
    }
}

#[tokio::test(start_paused = true)]
async fn history_is_how_many_generations_are_kept() {
    for (keys, kept) in [("history: 2", 2), ("history: 3", 3), ("", 5)] {
        let plugins = services().start(p(keys, "good")).await.unwrap();
        for service in ["better", "good", "better", "good"] {
            plugins.reload(p(keys, service)).await.unwrap();
        }
        assert_eq!(plugins.history().len(), kept);
    }
}

#[tokio::test(start_paused = true)]
async fn max_retiring_is_how_many_nodes_may_be_on_their_way_out() {
    for (keys, first_is_cut) in [("max_retiring: 1", true), ("max_retiring: 2", false)] {
        let after = |hours: u32| at("shelf", keys, &format!("drain_timeout: {hours}h"));
        let (plugins, shelf, first) = streaming(after(1)).await;
        plugins.reload(after(2)).await.unwrap();
        let second = stream(&plugins, &shelf).await;
        plugins.reload(after(3)).await.unwrap();
        sleep(5 * SECOND).await;
        assert_eq!(first.is_finished(), first_is_cut);
        assert!(!second.is_finished());
    }
}

/// Reloads `p`, which is exclusive, under a call that has no end; calls it twice while it is exchanged.
async fn exchanged(reload: &str) -> (Result<String, Error>, Result<String, Error>) {
    let keys = "exclusive: true, drain_timeout: 5s";
    let (plugins, ..) = streaming(at("shelf", reload, keys)).await;
    let calls = async {
        until(&plugins, |status| status.phase == ReloadPhase::Exchanging).await;
        tokio::join!(who(&plugins, "p"), async {
            sleep(SECOND).await;
            who(&plugins, "p").await
        })
    };
    let next = plugins.reload(at("good", reload, keys)).into_future();
    let (report, calls) = tokio::join!(next, calls);
    report.unwrap();
    calls
}

#[tokio::test(start_paused = true)]
async fn max_held_is_how_many_calls_wait_for_an_exclusive_plugin() {
    let (first, second) = exchanged("").await;
    assert_eq!(
        (first.unwrap(), second.unwrap()),
        ("good".into(), "good".into())
    );
    let (first, second) = exchanged("max_held: 1").await;
    assert_eq!(first.unwrap(), "good");
    assert_eq!(second.unwrap_err().reason(), Some(Reason::Draining));
}

#[tokio::test(start_paused = true)]
async fn exclusive_is_whether_the_old_one_ends_before_the_new_one_begins() {
    for (exclusive, seconds) in [(false, 0), (true, 5)] {
        let keys = format!("exclusive: {exclusive}, drain_timeout: 5s");
        let (plugins, _, cancelled) = streaming(at("shelf", "", &keys)).await;
        let begun = Instant::now();
        plugins.reload(at("good", "", &keys)).await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), seconds);
        assert!(cancelled.await.unwrap());
        assert_eq!(begun.elapsed().as_secs(), 5);
    }
}
