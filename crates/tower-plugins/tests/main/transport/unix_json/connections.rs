//! How many connections there are, and how long they stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tower_plugins::transport::Transport;
use tower_plugins::{Body, Plugins};
use tower_plugins_layers::{Reason, Unsent};

use super::{Peer, call, echoed, execute};
use crate::support::{config, read, text, within};

#[tokio::test]
async fn calls_one_after_the_other_share_a_connection() {
    let peer = Peer::start();
    let reach = peer.reach();
    let calls = async {
        for _ in 0..5 {
            call(&reach, execute("r", "1")).await.unwrap();
        }
    };
    let ((), mut talk) = tokio::join!(calls, async {
        let mut talk = peer.accept().await;
        for _ in 0..5 {
            talk.echo().await;
        }
        talk
    });
    drop(reach);
    talk.until_closed().await;
}

#[tokio::test]
async fn no_more_connections_are_open_than_allowed_and_calls_wait_their_turn() {
    let peer = Peer::start();
    let reach = peer.reach_with(|spec| spec.max_connections = 3);
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (Arc::clone(&open), Arc::clone(&most));
    let plugin = tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let mut talk = peer.accept().await;
            let (open, most) = (Arc::clone(&counted.0), Arc::clone(&counted.1));
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tasks.spawn(async move {
                while let Some(line) = talk.next().await {
                    tokio::task::yield_now().await;
                    talk.say(&echoed(&line)).await;
                }
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    let calls = (0..60).map(|_| call(&reach, execute("r", "1")));
    for outcome in join_all(calls).await {
        outcome.unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    plugin.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_calls_are_cancelled_no_place_is_lost_and_no_answer_is_anothers() {
    let peer = Peer::start();
    let reach = Arc::new(peer.reach_with(|spec| spec.max_connections = 3));
    let plugin = tokio::spawn(peer.echo());
    let (cut, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let callers = (0..8_u64).map(async |caller| {
        let mut random = fastrand::Rng::with_seed(caller);
        for number in 0..200 {
            // The id is the same for all: nothing but the step tells answers apart.
            let asked = format!("\"{caller}-{number}\"");
            let request = http::Request::post("/").header("x-request-id", "r");
            let under_way = reach.call(request.body(asked.clone().into()).unwrap());
            let limit = Duration::from_micros(random.u64(0..400));
            match tokio::time::timeout(limit, under_way).await {
                Ok(response) => {
                    assert_eq!(read(response.unwrap()).await, asked);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {
                    cut.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    within(join_all(callers)).await;
    assert!(cut.load(Ordering::Relaxed) > 0, "some are cut at once");
    let calls = (0..30).map(|_| call(&reach, execute("r", "7")));
    for outcome in join_all(calls).await {
        assert_eq!(read(outcome.unwrap()).await, "7");
    }
    plugin.abort();
}

#[tokio::test]
async fn a_call_that_waits_too_long_for_a_connection_gets_its_request_back() {
    let peer = Peer::start();
    let reach = peer.reach_with(|spec| {
        spec.max_connections = 1;
        spec.connection_timeout = Duration::from_millis(20);
    });
    let mut first = reach.call(execute("r", "1"));
    let mut talk = tokio::select! {
        outcome = &mut first => panic!("{outcome:?}"),
        talk = peer.accept() => talk,
    };
    let error = tokio::select! {
        outcome = &mut first => panic!("{outcome:?}"),
        outcome = call(&reach, execute("r", "2")) => outcome.unwrap_err(),
    };
    assert_eq!(Reason::of(&*error), Some(Reason::PoolExhausted));
    assert!(Unsent::<Body>::recover(error).unwrap().0.is_some());
    let (response, _) = tokio::join!(first, talk.echo());
    response.unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed_when_its_time_is_over_or_at_once() {
    type Change = fn(&mut tower_plugins::config::ConnectionSpec);
    let changes: [Change; 3] = [
        |spec| spec.idle_timeout = Duration::from_millis(20),
        |spec| spec.keep_alive = false,
        |spec| spec.max_idle_connections = 0,
    ];
    for change in changes {
        let peer = Peer::start();
        let reach = peer.reach_with(change);
        let (response, mut talk) = tokio::join!(call(&reach, execute("r", "1")), async {
            let mut talk = peer.accept().await;
            talk.echo().await;
            talk
        });
        response.unwrap();
        talk.until_closed().await;
    }
}

#[tokio::test]
async fn a_connection_that_the_plugin_closed_just_now_costs_no_call() {
    let peer = Peer::start();
    let reach = peer.reach();
    for number in 0..200 {
        let (response, _talk) = tokio::join!(call(&reach, execute("r", "1")), async {
            let mut talk = peer.accept().await;
            talk.echo().await;
            talk
        });
        // The connection closes here, and the next call comes before the runtime has looked.
        assert!(response.is_ok(), "call {number}: {response:?}");
    }
}

/// The plugin at `path`, with one more key.
fn at(path: &std::path::Path, keys: &str) -> String {
    let path = path.display();
    format!("plugins: {{ p: {{ transport: unix-json, endpoint: {path}, {keys} }} }}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_fail_no_call() {
    let (one, two) = (Peer::start(), Peer::start());
    let paths = [one.path.clone(), two.path.clone()];
    let peers = [tokio::spawn(one.echo()), tokio::spawn(two.echo())];
    let keys = "retry: off, circuit_breaker: off";
    let plugins = Plugins::builder()
        .start(config(&at(&paths[0], keys)))
        .await
        .unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let (plugin, done) = (plugins.plugin("p"), Arc::clone(&done));
            tokio::spawn(async move {
                let mut calls = 0_u32;
                while done.load(Ordering::Relaxed) == 0 {
                    let asked = format!("\"{caller}-{calls}\"");
                    let request = http::Request::post("/").body(asked.clone().into()).unwrap();
                    assert_eq!(text(&plugin, request).await.unwrap(), asked);
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for round in 0..100 {
        let keys = format!(
            "{keys}, connection: {{ max_connections: {} }}",
            2 + round % 3
        );
        let yaml = at(&paths[round % 2], &keys);
        plugins.reload(config(&yaml)).await.unwrap();
        tokio::task::yield_now().await;
    }
    done.store(1, Ordering::Relaxed);
    for caller in callers {
        assert!(within(caller).await.unwrap() > 0);
    }
    peers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_connection_is_kept_by_a_reload_that_leaves_it_equal() {
    let peer = Peer::start();
    let path = peer.path.clone();
    let plugins = Plugins::builder()
        .start(config(&at(&path, "")))
        .await
        .unwrap();
    let plugin = plugins.plugin("p");
    let request = || http::Request::post("/").body(Body::from("1")).unwrap();
    let (response, mut talk) = tokio::join!(crate::support::call(&plugin, request()), async {
        let mut talk = peer.accept().await;
        talk.echo().await;
        talk
    });
    read(response.unwrap()).await;
    plugins
        .reload(config(&at(&path, "drain_timeout: 7s")))
        .await
        .unwrap();
    let (response, _) = tokio::join!(crate::support::call(&plugin, request()), talk.echo());
    read(response.unwrap()).await;
    plugins
        .reload(config(&at(&path, "connection: { max_connections: 7 }")))
        .await
        .unwrap();
    talk.until_closed().await;
}

#[tokio::test]
async fn what_was_not_sent_goes_to_another_endpoint_whatever_it_is() {
    let peer = Peer::start();
    let path = peer.path.clone();
    let task = tokio::spawn(peer.echo());
    let yaml = format!(
        "plugins: {{ p: {{ transport: unix-json, endpoints: [{0}.gone, {0}], circuit_breaker: off, \
         retry: {{ initial_interval: 1ms, budget_min_per_second: 100 }} }} }}",
        path.display()
    );
    let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
    for _ in 0..10 {
        let request = http::Request::post("/").body(Body::from("1")).unwrap();
        assert_eq!(text(&plugins.plugin("p"), request).await.unwrap(), "1");
    }
    task.abort();
}
