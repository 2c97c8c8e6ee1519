use std::collections::BTreeMap;
use std::future::IntoFuture;

use tokio::time::{Instant, sleep};
use tower_plugins::reload::{ReloadEvent, ReloadPhase, Verdict};

use super::support::{Load, SECOND, p, services, who};
use crate::support::{get, text};

const CANARY: &str =
    "strategy: canary, canary_steps: [5, 25, 50], canary_step_time: 10s, observe_for: 20s";

#[tokio::test(start_paused = true)]
async fn the_share_grows_step_by_step_and_no_call_fails() {
    let plugins = services().start(p(CANARY, "good")).await.unwrap();
    let load = Load::on(plugins.plugin("p"));
    sleep(SECOND).await;
    let mut events = plugins.events();
    let begun = Instant::now();
    let report = plugins.reload(p(CANARY, "better")).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 50, "three steps and the whole");
    assert_eq!(report.verdict, Verdict::Fine);
    let mut shares = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let ReloadEvent::Published { share, .. } = event {
            shares.push(share);
        }
    }
    assert_eq!(shares, [0.05, 0.25, 0.5, 1.0]);
    assert_eq!(load.so_far().failures, 0);
    assert_eq!(who(&plugins, "p").await.unwrap(), "better");
}

#[tokio::test(start_paused = true)]
async fn each_step_sends_the_share_that_it_says() {
    let plugins = services().start(p(CANARY, "good")).await.unwrap();
    let reload = plugins.reload(p(CANARY, "better"));
    let look = async {
        let mut found = Vec::new();
        for _ in 0..3 {
            sleep(5 * SECOND).await;
            let ReloadPhase::Watching { share } = plugins.status().phase else {
                panic!("{:?}", plugins.status().phase);
            };
            let mut new = 0;
            for _ in 0..1000 {
                new += u32::from(who(&plugins, "p").await.unwrap() == "better");
            }
            found.push((share, f64::from(new) / 1000.0));
            sleep(5 * SECOND - begun_of(1000)).await;
        }
        found
    };
    let (report, found) = tokio::join!(reload.into_future(), look);
    report.unwrap();
    for (share, found) in found {
        assert!((share - found).abs() < 0.06, "{found} of {share}");
    }
}

/// What so many calls in a row take.
fn begun_of(calls: u32) -> std::time::Duration {
    super::support::MS * 5 * calls
}

#[tokio::test(start_paused = true)]
async fn a_caller_stays_on_its_side_as_the_share_grows() {
    let sticky = format!("{CANARY}, stick_to: x-user");
    let plugins = services().start(p(&sticky, "good")).await.unwrap();
    let plugin = plugins.plugin("p");
    let side = async |user: u32| {
        let mut request = get("/");
        let user = user.to_string().parse().unwrap();
        request.headers_mut().insert("x-user", user);
        text(&plugin, request).await.unwrap()
    };
    let look = async {
        let mut new = BTreeMap::<u32, usize>::new();
        for step in 0..3 {
            sleep(2 * SECOND).await;
            for user in 0..200 {
                let is_new = side(user).await == "better";
                assert_eq!(is_new, side(user).await == "better", "twice the same");
                if is_new {
                    new.entry(user).or_insert(step);
                } else {
                    assert!(!new.contains_key(&user), "{user} was on the new side");
                }
            }
            sleep(6 * SECOND).await;
        }
        new
    };
    let (report, new) = tokio::join!(plugins.reload(p(&sticky, "better")).into_future(), look);
    report.unwrap();
    assert!(
        new.values().any(|step| *step == 2) && new.len() < 200,
        "{new:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_worse_goes_back_while_few_have_met_it() {
    let plugins = services().start(p(CANARY, "good")).await.unwrap();
    let load = Load::on(plugins.plugin("p"));
    sleep(SECOND).await;
    let error = plugins.reload(p(CANARY, "dead")).await.unwrap_err();
    assert!(error.is_rolled_back(), "{error}");
    let counts = load.so_far();
    assert!(counts.failures < 100, "{counts:?}");
    sleep(SECOND).await;
    assert_eq!(who(&plugins, "p").await.unwrap(), "good");
    assert!(
        plugins
            .reload(p(CANARY, "dead"))
            .await
            .unwrap_err()
            .is_frozen()
    );
}

#[tokio::test(start_paused = true)]
async fn a_newer_config_ends_it_with_what_served_before() {
    let plugins = services().start(p(CANARY, "good")).await.unwrap();
    let first = plugins.reload(p(CANARY, "better"));
    let second = async {
        sleep(SECOND).await;
        plugins.reload(p("", "slow")).await
    };
    let (first, second) = tokio::join!(first.into_future(), second);
    assert!(first.unwrap_err().is_superseded());
    assert_eq!(
        second.unwrap().to_string(),
        "generation 4: replace p (endpoints)"
    );
    assert_eq!(who(&plugins, "p").await.unwrap(), "slow");
}

#[tokio::test(start_paused = true)]
async fn plugins_that_come_and_go_do_so_with_it() {
    use crate::support::config;
    let with = |plugins: &str| {
        config(&format!(
            "{{ reload: {{ {CANARY} }}, plugins: {{ {plugins} }} }}"
        ))
    };
    let q = |name: &str, service: &str| {
        format!("{name}: {{ transport: in-process, endpoint: {service} }}")
    };
    let old = with(&format!("{}, {}", q("a", "good"), q("b", "good")));
    let new = with(&format!("{}, {}", q("a", "dead"), q("c", "good")));
    let plugins = services().start(old).await.unwrap();
    let _load = Load::on(plugins.plugin("a"));
    sleep(SECOND).await;
    assert!(plugins.reload(new).await.unwrap_err().is_rolled_back());
    assert_eq!(plugins.names(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn without_steps_the_new_has_to_be_ready_all_the_same() {
    use crate::support::{causes, config};
    let plugins = services().start(p("", "good")).await.unwrap();
    let nowhere = config(
        "
        reload: { strategy: canary, canary_steps: [], health_check_timeout: 2s }
        plugins: { p: { transport: unix, endpoint: /nowhere.sock } }
        ",
    );
    let error = plugins.reload(nowhere).await.unwrap_err();
    assert!(causes(&error).contains("health_check_timeout"));
    assert_eq!(who(&plugins, "p").await.unwrap(), "good");
}

#[tokio::test(start_paused = true)]
async fn who_has_enough_calls_in_the_end_is_judged_though_the_first_steps_had_few() {
    let steps = "strategy: canary, canary_steps: [1, 50], canary_step_time: 1s, observe_for: 2s";
    let plugins = services().start(p(steps, "good")).await.unwrap();
    let _load = Load::on(plugins.plugin("p"));
    sleep(SECOND).await;
    let mut events = plugins.events();
    let report = plugins.reload(p(steps, "better")).await.unwrap();
    assert_eq!(report.verdict, Verdict::Fine);
    let told = std::iter::from_fn(|| events.try_recv().ok());
    let judged = told.filter(|event| matches!(event, ReloadEvent::Judged(Verdict::Fine)));
    assert_eq!(judged.count(), 1);
}
