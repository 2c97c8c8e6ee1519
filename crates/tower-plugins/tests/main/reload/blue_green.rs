use std::future::IntoFuture;
use std::sync::Arc;

use tokio::time::{Instant, sleep};
use tower_plugins::config::Protocol;
use tower_plugins::reload::{
    ReloadEvent, ReloadOptions, ReloadPhase, ReloadStatus, Strategy, Verdict,
};

use super::support::{Load, MS, SECOND, p, services, who};
use crate::support::{Server, Socket, causes, config, echo, get, text, within};

const WATCHED: &str = "strategy: blue-green, observe_for: 60s";

#[tokio::test(start_paused = true)]
async fn what_is_no_worse_stays_and_no_call_fails() {
    let plugins = services().start(p(WATCHED, "good")).await.unwrap();
    let load = Load::on(plugins.plugin("p"));
    sleep(2 * SECOND).await;
    let begun = Instant::now();
    let mut events = plugins.events();
    let report = plugins.reload(p(WATCHED, "better")).await.unwrap();
    let told = std::iter::from_fn(|| events.try_recv().ok());
    let told: Vec<_> = told
        .filter(|it| matches!(it, ReloadEvent::Judged(_)))
        .collect();
    assert!(
        matches!(told[..], [ReloadEvent::Judged(Verdict::Fine)]),
        "{told:?}"
    );
    assert_eq!(begun.elapsed().as_secs(), 60);
    assert_eq!(
        (report.verdict, report.strategy),
        (Verdict::Fine, Strategy::BlueGreen)
    );
    assert_eq!(report.retirement.wait().await.len(), 1);
    assert_eq!(who(&plugins, "p").await.unwrap(), "better");
    assert_eq!(load.so_far().failures, 0);
    assert_eq!(plugins.status().phase, ReloadPhase::Idle);
}

#[tokio::test(start_paused = true)]
async fn fault_15_what_fails_more_often_is_taken_back_within_two_seconds() {
    let plugins = services().start(p(WATCHED, "good")).await.unwrap();
    let load = Load::on(plugins.plugin("p"));
    sleep(2 * SECOND).await;
    let begun = Instant::now();
    let error = plugins.reload(p(WATCHED, "bad")).await.unwrap_err();
    let took = begun.elapsed();
    assert!(took < 2 * SECOND, "{took:?}");
    assert!(error.is_rolled_back(), "{error}");
    assert!(causes(&error).contains("p fails"), "{}", causes(&error));
    // What was answered while the bad one served, and not more.
    let failed = load.so_far().failures;
    assert!((1..=600).contains(&failed), "{failed}");
    sleep(SECOND).await;
    assert!(load.so_far().failures <= failed + 3, "those under way");
    assert_eq!(who(&plugins, "p").await.unwrap(), "good");
    let status = plugins.status();
    assert_eq!((status.rolled_back, status.phase), (1, ReloadPhase::Idle));
    assert!(status.last_error.as_ref().unwrap().is_rolled_back());
    let history = plugins.history();
    let why = history.last().unwrap().rolled_back.clone();
    assert!(why.is_some_and(|why| why.contains("p fails")));
    assert_eq!(plugins.names(), ["p"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_back_is_refused_until_it_says_something_else() {
    let plugins = services().start(p(WATCHED, "good")).await.unwrap();
    let _load = Load::on(plugins.plugin("p"));
    sleep(SECOND).await;
    plugins.reload(p(WATCHED, "bad")).await.unwrap_err();
    let error = plugins.reload(p(WATCHED, "bad")).await.unwrap_err();
    assert!(error.is_frozen(), "{error}");
    assert_eq!(who(&plugins, "p").await.unwrap(), "good");
    // The same as what runs is no change, and another one is taken.
    plugins.reload(p(WATCHED, "good")).await.unwrap();
    plugins.reload(p(WATCHED, "better")).await.unwrap();
    let forced = ReloadOptions::new().force().strategy(Strategy::Graceful);
    plugins
        .reload(p(WATCHED, "bad"))
        .options(forced)
        .await
        .unwrap();
    assert_eq!(plugins.history().last().unwrap().rolled_back, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_much_slower_is_taken_back() {
    let plugins = services().start(p(WATCHED, "good")).await.unwrap();
    let _load = Load::on(plugins.plugin("p"));
    sleep(2 * SECOND).await;
    let error = plugins.reload(p(WATCHED, "slow")).await.unwrap_err();
    assert!(
        error.is_rolled_back() && causes(&error).contains("p99"),
        "{}",
        causes(&error)
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_called_too_seldom_to_tell_stays_unjudged() {
    let plugins = services().start(p(WATCHED, "good")).await.unwrap();
    let _load = Load::every(10 * SECOND, plugins.plugin("p"));
    let report = plugins.reload(p(WATCHED, "better")).await.unwrap();
    assert_eq!(report.verdict, Verdict::Unjudged);
    assert!(report.to_string().ends_with("; unjudged"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn where_all_calls_fail_nothing_to_compare_with_is_needed() {
    let plugins = services().start(p("", "good")).await.unwrap();
    let load = Load::on(plugins.plugin("p"));
    let error = plugins.reload(p(WATCHED, "dead")).await.unwrap_err();
    assert!(error.is_rolled_back(), "{error}");
    assert!(load.so_far().failures < 300, "{:?}", load.so_far());
}

#[tokio::test(start_paused = true)]
async fn without_rollback_on_failure_it_is_only_told() {
    let plugins = services().start(p(WATCHED, "good")).await.unwrap();
    let _load = Load::on(plugins.plugin("p"));
    sleep(SECOND).await;
    let options = ReloadOptions::new().rollback_on_failure(false);
    let report = plugins
        .reload(p(WATCHED, "bad"))
        .options(options)
        .await
        .unwrap();
    assert!(matches!(&report.verdict, Verdict::Worse { why, .. } if why.contains("p fails")));
    assert_eq!(who(&plugins, "p").await.unwrap(), "bad");
}

#[tokio::test(start_paused = true)]
async fn fault_16_nothing_is_taken_back_twice_in_ten_minutes() {
    let plugins = services().start(p(WATCHED, "good")).await.unwrap();
    let load = Load::on(plugins.plugin("p"));
    sleep(SECOND).await;
    plugins.reload(p(WATCHED, "bad")).await.unwrap_err();
    let report = plugins.reload(p(WATCHED, "dead")).await.unwrap();
    let Verdict::Worse { kept, .. } = &report.verdict else {
        panic!("{:?}", report.verdict);
    };
    assert!(kept.contains("10 minutes"), "{kept}");
    drop(load);
    sleep(600 * SECOND).await;
    plugins.reload(p(WATCHED, "good")).await.unwrap();
    let _load = Load::on(plugins.plugin("p"));
    sleep(3 * SECOND).await;
    assert!(
        plugins
            .reload(p(WATCHED, "slow"))
            .await
            .unwrap_err()
            .is_rolled_back()
    );
}

#[tokio::test]
async fn fault_16_the_new_one_stays_when_the_old_one_is_gone_too() {
    let old = Server::start(Socket::Tcp, Protocol::Http1, echo).await;
    let reload = "reload: { strategy: blue-green, observe_for: 60s }";
    let with = |endpoint: &str| {
        config(&format!(
            "{{ {reload}, plugins: {{ p: {{ {endpoint}, circuit_breaker: off, retry: off }} }} }}"
        ))
    };
    let http = format!("transport: http, endpoint: '{}'", old.address);
    let plugins = services().start(with(&http)).await.unwrap();
    let p = plugins.plugin("p");
    text(&p, get("/")).await.unwrap();
    let reload = plugins.reload(with("transport: in-process, endpoint: dead"));
    let calls = async {
        let mut phases = plugins.subscribe();
        let watching = |status: &ReloadStatus| matches!(status.phase, ReloadPhase::Watching { .. });
        phases.wait_for(watching).await.unwrap();
        drop(old);
        loop {
            let _ = text(&p, get("/")).await;
            tokio::task::yield_now().await;
        }
    };
    let report = within(async {
        tokio::select! {
            report = reload.into_future() => report,
            () = calls => unreachable!("they go on"),
        }
    });
    let report = report.await.unwrap();
    let Verdict::Worse { kept, .. } = &report.verdict else {
        panic!("{:?}", report.verdict);
    };
    assert!(kept.contains("not there any more"), "{kept}");
    assert_eq!(who(&plugins, "p").await.unwrap(), "dead");
}

#[tokio::test(start_paused = true)]
async fn fault_14_one_that_is_not_ready_has_the_whole_refused_by_name() {
    let all = |last: &str| {
        config(&format!(
            "
            reload: {{ strategy: blue-green, health_check_timeout: 2s }}
            plugins:
              one: {{ transport: in-process, endpoint: {last} }}
              two: {{ transport: in-process, endpoint: {last} }}
              three: {{ transport: unix, endpoint: /nowhere/at/all/{last}.sock }}
            "
        ))
    };
    let plugins = services().start(p("", "good")).await.unwrap();
    let before = plugins.status().generation;
    let begun = Instant::now();
    let error = plugins.reload(all("good")).await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 2);
    assert_eq!(error.plugin(), Some("three"));
    let text = causes(&error);
    assert!(
        text.contains("health_check_timeout") && text.contains("/nowhere/at/all"),
        "{text}"
    );
    assert_eq!(
        (plugins.names(), plugins.status().generation),
        (vec!["p".to_owned()], before)
    );
}

#[tokio::test(start_paused = true)]
async fn a_newer_change_ends_the_watch_and_what_serves_stays() {
    let plugins = services().start(p(WATCHED, "good")).await.unwrap();
    let _load = Load::on(plugins.plugin("p"));
    sleep(SECOND).await;
    let plugins = Arc::new(plugins);
    let first = {
        let plugins = Arc::clone(&plugins);
        tokio::spawn(async move { plugins.reload(p(WATCHED, "better")).await })
    };
    sleep(SECOND).await;
    let begun = Instant::now();
    plugins
        .disable("p")
        .strategy(Strategy::Graceful)
        .await
        .unwrap();
    assert!(begun.elapsed() < 10 * MS);
    assert_eq!(first.await.unwrap().unwrap().verdict, Verdict::Overtaken);
    assert!(plugins.names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_forced_and_stays_is_not_refused_any_more() {
    let plugins = services().start(p(WATCHED, "good")).await.unwrap();
    let load = Load::on(plugins.plugin("p"));
    sleep(SECOND).await;
    plugins.reload(p(WATCHED, "bad")).await.unwrap_err();
    let forced = ReloadOptions::new().force().strategy(Strategy::Graceful);
    let taken = plugins.reload(p(WATCHED, "bad")).options(forced);
    let taken = taken.await.unwrap().generation;
    drop(load);
    sleep(600 * SECOND).await;
    plugins.reload(p(WATCHED, "good")).await.unwrap();
    plugins.rollback(taken).await.unwrap();
    assert_eq!(who(&plugins, "p").await.unwrap(), "bad");
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_back_takes_no_history_with_it_and_what_serves_again_is_in_it() {
    let plugins = services().start(p(WATCHED, "good")).await.unwrap();
    let _load = Load::on(plugins.plugin("p"));
    sleep(SECOND).await;
    let bad = p(&format!("{WATCHED}, history: 1"), "bad");
    plugins.reload(bad).await.unwrap_err();
    let history = plugins.history();
    let taken_back: Vec<_> = history.iter().map(|it| it.rolled_back.is_some()).collect();
    assert_eq!(taken_back, [false, true]);
    // The generation that serves can be gone back to, as each other that served whole.
    let again = plugins.status().generation;
    plugins
        .reload(p("", "better"))
        .strategy(Strategy::Graceful)
        .await
        .unwrap();
    let report = plugins.rollback(again).await.unwrap();
    assert_eq!(report.plan.to_string(), "replace p (endpoints)");
    assert_eq!(who(&plugins, "p").await.unwrap(), "good");
}

#[tokio::test(start_paused = true)]
async fn what_serves_is_in_the_history_however_many_were_taken_back() {
    let with = |n: u32, service: &str| {
        let canary = "strategy: canary, canary_steps: [50], canary_step_time: 10s, history: 2";
        p(&format!("{canary}, min_calls: {n}"), service)
    };
    let plugins = services().start(with(1, "good")).await.unwrap();
    let _load = Load::on(plugins.plugin("p"));
    sleep(SECOND).await;
    for n in 2..5 {
        plugins.reload(with(n, "dead")).await.unwrap_err();
    }
    let history = plugins.history();
    let taken_back: Vec<_> = history.iter().map(|it| it.rolled_back.is_some()).collect();
    assert_eq!(taken_back, [false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_plugin_without_an_endpoint_is_not_ready_before_one_is_found() {
    use futures_util::{StreamExt, stream};
    use tower::discover::Change;
    use tower_plugins::config::{Address, EndpointSpec, PluginName, PluginSpec};

    let never = stream::pending::<Result<Change<&str, EndpointSpec>, std::io::Error>>();
    let good = EndpointSpec::from(Address::in_process("good").unwrap());
    let later = stream::once(async {
        sleep(SECOND).await;
        Ok::<_, std::io::Error>(Change::Insert("one", good))
    });
    let plugins = services()
        .endpoints("never", never)
        .endpoints("later", Box::pin(later.chain(stream::pending())))
        .start(p("health_check_timeout: 2s", "good"))
        .await
        .unwrap();
    let update = |hosts: &str| {
        let source = Address::source(hosts).unwrap();
        let spec = PluginSpec::new(PluginName::new("q").unwrap(), source);
        plugins.update(spec).strategy(Strategy::BlueGreen)
    };
    let error = update("never").await.unwrap_err();
    assert_eq!(error.plugin(), Some("q"));
    assert!(causes(&error).contains("health_check_timeout"));
    assert!(causes(&error).contains("it has no endpoint"));
    update("later").await.unwrap();
    assert_eq!(who(&plugins, "q").await.unwrap(), "good");
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_back_takes_its_rate_with_it() {
    let with = |service: &str, rate: u32| {
        config(&format!(
            "
            reload: {{ {WATCHED} }}
            plugins:
              p:
                transport: in-process
                endpoint: {service}
                circuit_breaker: off
                retry: off
                rate_limit: {{ requests_per_second: {rate}, burst_size: {rate} }}
            "
        ))
    };
    let plugins = services().start(with("good", 5000)).await.unwrap();
    let load = Load::on(plugins.plugin("p"));
    sleep(SECOND).await;
    assert_eq!(load.so_far().failures, 0);
    let error = plugins.reload(with("dead", 50)).await.unwrap_err();
    assert!(error.is_rolled_back(), "{error}");
    sleep(100 * MS).await;
    let before = load.so_far();
    sleep(2 * SECOND).await;
    let after = load.so_far();
    assert_eq!(after.failures, before.failures);
    assert!(after.calls > before.calls + 1500, "{after:?}");
}
