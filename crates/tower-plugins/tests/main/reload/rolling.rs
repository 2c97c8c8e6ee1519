use std::future::IntoFuture;

use http_body_util::BodyExt;
use tokio::time::{Instant, sleep};
use tower_plugins::Plugins;
use tower_plugins::config::Config;
use tower_plugins::reload::{ReloadEvent, ReloadOptions, Strategy};

use super::support::{Load, SECOND, services, who};
use crate::support::{Shelf, call, causes, channel, config, data, get, ours};

/// Five plugins that `service` answers, but for one that is at `last`.
fn five(service: &str, last: &str) -> Config {
    let one = |n| format!("p{n}: {{ transport: in-process, endpoint: {service} }}");
    let four: Vec<_> = (1..5).map(one).collect();
    config(&format!(
        "
        reload: {{ strategy: rolling, max_concurrent_reloads: 2, health_check_timeout: 2s }}
        plugins: {{ {}, p5: {{ {last} }} }}
        ",
        four.join(", ")
    ))
}

const GOOD: &str = "transport: in-process, endpoint: good";
const NOWHERE: &str = "transport: unix, endpoint: /nowhere/at/all.sock";

#[tokio::test(start_paused = true)]
async fn plugins_are_exchanged_some_at_a_time() {
    let plugins = services().start(five("good", GOOD)).await.unwrap();
    let load = Load::on(plugins.plugin("p3"));
    let mut events = plugins.events();
    let report = plugins
        .reload(five("better", &GOOD.replace("good", "better")))
        .await
        .unwrap();
    assert_eq!(report.retirement.len(), 5);
    let mut waited = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let ReloadEvent::Waiting(plugins) = event {
            waited.push(
                plugins
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" "),
            );
        }
    }
    assert_eq!(waited, ["p1 p2", "p3 p4", "p5"]);
    for n in 1..6 {
        assert_eq!(who(&plugins, &format!("p{n}")).await.unwrap(), "better");
    }
    assert_eq!(load.so_far().failures, 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_ready_brings_those_before_it_back() {
    let plugins = services().start(five("good", GOOD)).await.unwrap();
    let load = Load::on(plugins.plugin("p1"));
    let reload = plugins.reload(five("better", NOWHERE));
    let meanwhile = async {
        sleep(SECOND).await;
        who(&plugins, "p1").await.unwrap()
    };
    let (report, meanwhile) = tokio::join!(reload.into_future(), meanwhile);
    let error = report.unwrap_err();
    assert_eq!((error.plugin(), meanwhile.as_str()), (Some("p5"), "better"));
    assert!(causes(&error).contains("reload.health_check_timeout"));
    for n in 1..6 {
        assert_eq!(who(&plugins, &format!("p{n}")).await.unwrap(), "good");
    }
    assert_eq!(load.so_far().failures, 0);
    assert_eq!(plugins.status().rejected, 1);
}

async fn shelf(reload: &str) -> (Shelf, Plugins, Config) {
    let shelf = Shelf::default();
    let with = |n: u32| {
        format!(
            "reload: {{ {reload} }}
plugins:
  p: {{ transport: in-process, endpoint: shelf, connection: {{ request_timeout: {n}h }} }}
  q: {{ transport: in-process, endpoint: shelf }}
"
        )
    };
    let plugins = shelf.start(&with(1)).await;
    (shelf, plugins, config(&with(2)))
}

#[tokio::test(start_paused = true)]
async fn immediate_cancels_what_is_under_way_on_what_leaves_and_nothing_else() {
    let (shelf, plugins, next) = shelf("strategy: immediate").await;
    let mut readers = Vec::new();
    let mut senders = Vec::new();
    for name in ["p", "p", "p", "q"] {
        let (frames, body) = channel();
        shelf.put(body);
        let response = call(&plugins.plugin(name), get("/")).await.unwrap();
        senders.push(frames);
        readers.push(tokio::spawn(response.into_body().collect()));
    }
    let begun = Instant::now();
    let report = plugins.reload(next).await.unwrap();
    assert_eq!(report.strategy, Strategy::Immediate);
    let retired = report.retirement.wait().await;
    assert_eq!(begun.elapsed().as_secs(), 0);
    assert_eq!(
        (retired.len(), retired[0].cancelled, retired[0].drained),
        (1, 3, 0)
    );
    senders[3].send(data("on")).unwrap();
    drop(senders);
    let mut cancelled = 0;
    for reader in readers {
        match reader.await.unwrap() {
            Ok(body) => assert_eq!(body.to_bytes(), "on"),
            Err(error) => {
                assert!(ours(&*error).is_drain_cancelled());
                cancelled += 1;
            }
        }
    }
    assert_eq!(
        cancelled, retired[0].cancelled,
        "callers and report count the same"
    );
    let mut status = plugins.subscribe();
    status
        .wait_for(|status| status.cancelled == 3)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn drains_of_one_reload_can_be_given_less_time() {
    for options in [
        ReloadOptions::new().drain_timeout(SECOND),
        ReloadOptions::new().graceful_timeout(SECOND),
    ] {
        let (shelf, plugins, next) = shelf("graceful_timeout: 5m").await;
        let (_frames, body) = channel();
        shelf.put(body);
        let response = call(&plugins.plugin("p"), get("/")).await.unwrap();
        let reader = tokio::spawn(response.into_body().collect());
        let report = plugins.reload(next).options(options).await.unwrap();
        let retired = report.retirement.wait().await;
        assert_eq!((retired[0].cancelled, retired[0].elapsed), (1, SECOND));
        assert!(reader.await.unwrap().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn there_are_only_so_many_nodes_on_their_way_out() {
    let shelf = Shelf::default();
    let with = |n: u32| {
        config(&format!(
            "
            reload: {{ max_retiring: 2 }}
            plugins: {{ p: {{ transport: in-process, endpoint: shelf, drain_timeout: {n}h }} }}
            "
        ))
    };
    let plugins = Plugins::builder().service("shelf", shelf.clone());
    let plugins = plugins.start(with(1)).await.unwrap();
    let mut readers = Vec::new();
    let mut senders = Vec::new();
    for n in 2..5 {
        let (frames, body) = channel();
        shelf.put(body);
        let response = call(&plugins.plugin("p"), get("/")).await.unwrap();
        senders.push(frames);
        readers.push(tokio::spawn(response.into_body().collect()));
        plugins.reload(with(n)).await.unwrap();
    }
    // The oldest was hurried.
    let error = readers.remove(0).await.unwrap().unwrap_err();
    assert!(ours(&*error).is_drain_cancelled());
    let mut status = plugins.subscribe();
    status
        .wait_for(|status| status.retiring == 2)
        .await
        .unwrap();
    assert!(readers.iter().all(|reader| !reader.is_finished()));
}
