//! The guarantee above all others: under load, from all cores, over every transport, no reload
//! loses a call.

mod servers;
mod strategies;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tower::ServiceExt;
use tower_plugins::config::PluginSpec;
use tower_plugins::{Body, Plugin, Plugins};

use self::servers::{CALLED, CHUNKS, MOVING, Servers, chunk, idle, restack};
use crate::alone::{Held, alone};
use crate::support::{channel, get, post, within};

const PERIOD: Duration = Duration::from_millis(10);
const CALLERS: usize = 3;

/// What the callers met.
#[derive(Default)]
struct Tally {
    calls: AtomicU64,
    downloads: AtomicU64,
    failed: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Tally {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn count(&self, counter: &AtomicU64, name: &str, result: Result<bool, String>) {
        counter.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(true) => {}
            Ok(false) => self
                .failed
                .lock()
                .unwrap()
                .push(format!("{name}: other bytes")),
            Err(error) => self.failed.lock().unwrap().push(format!("{name}: {error}")),
        }
    }
}

/// Calls `plugin`, and gives the whole answer.
async fn whole(plugin: &Plugin, request: Request<Body>) -> Result<Bytes, String> {
    let response = plugin.clone().oneshot(request).await;
    let response = response.map_err(|error| format!("{error:?}"))?;
    if response.status() != 200 {
        return Err(response.status().to_string());
    }
    let body = response.into_body().collect().await;
    Ok(body
        .map_err(|error| format!("in the body: {error:?}"))?
        .to_bytes())
}

/// Calls one after the other, whole and streamed bodies in turn.
async fn caller(plugin: Plugin, tally: Arc<Tally>) {
    let mut number = 0_u64;
    while !tally.stopped() {
        number += 1;
        let text = format!("{} {number}", plugin.name());
        let request = if number.is_multiple_of(4) {
            let (frames, body) = channel();
            for byte in text.bytes() {
                frames
                    .send(Frame::data(Bytes::copy_from_slice(&[byte])))
                    .unwrap();
            }
            Request::post("/upload").body(body).unwrap()
        } else {
            post("/echo", text.clone())
        };
        let answer = whole(&plugin, request).await;
        tally.count(
            &tally.calls,
            plugin.name(),
            answer.map(|answer| answer == text),
        );
    }
}

async fn downloader(plugin: Plugin, tally: Arc<Tally>) {
    let all: Vec<u8> = (0..CHUNKS).flat_map(chunk).collect();
    while !tally.stopped() {
        let answer = whole(&plugin, get("/download")).await;
        tally.count(
            &tally.downloads,
            "download",
            answer.map(|answer| answer == all),
        );
    }
}

/// Reloads `reloads` times under load; gives what the callers met.
async fn load(plugins: &Plugins, servers: &Arc<Servers>, first: u64, reloads: u64) -> Arc<Tally> {
    plugins.reload(servers.config(first)).await.unwrap();
    let tally = Arc::<Tally>::default();
    let mut callers = JoinSet::new();
    for name in CALLED {
        for _ in 0..CALLERS {
            callers.spawn(caller(plugins.plugin(name), Arc::clone(&tally)));
        }
    }
    for _ in 0..2 * CALLERS {
        callers.spawn(downloader(plugins.plugin("download"), Arc::clone(&tally)));
    }
    let mut retirements = JoinSet::new();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for step in first + 1..=first + reloads {
        ticks.tick().await;
        let report = plugins.reload(servers.config(step)).await.unwrap();
        let servers = Arc::clone(servers);
        retirements.spawn(async move {
            for retired in report.retirement.wait().await {
                assert_eq!(
                    (retired.cancelled, retired.remaining),
                    (0, 0),
                    "{retired:?}"
                );
                if MOVING.contains(&retired.plugin.as_str()) {
                    servers.closed.close(retired.plugin.as_str(), step - 1);
                }
            }
        });
        while retirements
            .try_join_next()
            .is_some_and(|ended| ended.is_ok())
        {}
    }
    tally.stop.store(true, Ordering::Relaxed);
    within(callers.join_all()).await;
    plugins.reload(Servers::quiet()).await.unwrap();
    within(retirements.join_all()).await;
    settle(plugins, servers).await;
    tally
}

/// Waits until everything that belonged to a call or a node is gone.
async fn settle(plugins: &Plugins, servers: &Servers) {
    let mut status = plugins.subscribe();
    within(status.wait_for(|status| status.retiring == 0))
        .await
        .unwrap();
    for server in &servers.servers {
        server.until_open(0).await;
    }
    within(async {
        // The reloader alone is left.
        while Held::now().tasks > 1 {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    servers.closed.prefixes.lock().unwrap().clear();
    servers.closed.prefixes.lock().unwrap().shrink_to_fit();
}

fn runtime(threads: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn no_reload_under_load_fails_a_call_or_leaves_anything_behind() {
    alone(
        "stress::no_reload_under_load_fails_a_call_or_leaves_anything_behind",
        || {
            let cores = std::thread::available_parallelism().unwrap().get();
            let serving = runtime(1);
            let servers = Arc::new(serving.block_on(Servers::start()));
            runtime(cores).block_on(async {
                let service = tower::service_fn(|request: Request<Body>| async {
                    tokio::task::yield_now().await;
                    Ok::<_, std::convert::Infallible>(Response::new(request.into_body()))
                });
                let plugins = Plugins::builder()
                    .service("local", service)
                    .start(Servers::quiet())
                    .await
                    .unwrap();
                load(&plugins, &servers, 0, 100).await;
                let before = Held::now();
                let begun = Instant::now();
                let tally = load(&plugins, &servers, 1_000, 350).await;
                let elapsed = begun.elapsed();
                let after = Held::now();
                let (calls, downloads) = (
                    tally.calls.load(Ordering::Relaxed),
                    tally.downloads.load(Ordering::Relaxed),
                );
                println!("350 reloads, {calls} calls and {downloads} downloads in {elapsed:?}");
                let failed = tally.failed.lock().unwrap();
                assert!(
                    failed.is_empty(),
                    "{} failed: {:#?}",
                    failed.len(),
                    &failed[..failed.len().min(5)]
                );
                assert_eq!(
                    servers.closed.called.load(Ordering::Relaxed),
                    0,
                    "calls to closed nodes"
                );
                assert!(calls > 1_000 && downloads > 3, "there was a load");
                drop(failed);
                drop(tally);
                after.assert_like(&before, 1.0);
            });
        },
    );
}

#[test]
fn fault_59_ten_thousand_reloads_leave_nothing_behind() {
    alone(
        "stress::fault_59_ten_thousand_reloads_leave_nothing_behind",
        || {
            runtime(1).block_on(async {
                let service = tower::service_fn(|request: Request<Body>| async {
                    Ok::<_, std::convert::Infallible>(Response::new(request.into_body()))
                });
                let plugins = Plugins::builder()
                    .service("s", service)
                    .start(idle("s"))
                    .await
                    .unwrap();
                let step = async |step: u64| {
                    let mut spec = PluginSpec::in_process("p", "s").unwrap();
                    restack(&mut spec, step);
                    let guest = PluginSpec::in_process(&format!("guest-{step}"), "s").unwrap();
                    let config = idle("s").with(spec).with(guest);
                    plugins.reload(config).await.unwrap();
                    let answer = whole(&plugins.plugin("p"), post("/", "hello")).await;
                    assert_eq!(answer.unwrap(), "hello");
                };
                let measured = async || {
                    within(plugins.subscribe().wait_for(|status| status.retiring == 0))
                        .await
                        .unwrap();
                    within(async {
                        while Held::now().tasks > 1 {
                            tokio::task::yield_now().await;
                        }
                    })
                    .await;
                    Held::now()
                };
                for number in 0..1_000 {
                    step(number % 60).await;
                }
                step(0).await;
                let before = measured().await;
                for number in 1..=10_000 {
                    step(number % 60).await;
                }
                step(0).await;
                measured().await.assert_like(&before, 1.0);
                assert_eq!(plugins.status().cancelled, 0);
            });
        },
    );
}

#[test]
fn calls_to_names_that_are_not_there_leave_nothing_behind() {
    alone(
        "stress::calls_to_names_that_are_not_there_leave_nothing_behind",
        || {
            runtime(1).block_on(async {
                let plugins = Plugins::builder()
                    .start(tower_plugins::config::Config::new())
                    .await
                    .unwrap();
                let call = async |number: u64| {
                    let plugin = plugins.plugin(&format!("guest-{number}"));
                    let error = plugin.oneshot(get("/")).await.unwrap_err();
                    assert!(error.is_not_found());
                };
                for number in 0..1_000 {
                    call(number).await;
                }
                let before = Held::now();
                for number in 1_000..100_000 {
                    call(number).await;
                }
                Held::now().assert_like(&before, 1.0);
            });
        },
    );
}

#[test]
fn a_hundred_thousand_calls_leave_nothing_behind() {
    alone(
        "stress::a_hundred_thousand_calls_leave_nothing_behind",
        || {
            runtime(1).block_on(async {
                let service = tower::service_fn(|request: Request<Body>| async {
                    Ok::<_, std::convert::Infallible>(Response::new(request.into_body()))
                });
                let plugins = Plugins::builder()
                    .service("s", service)
                    .start(idle("s").with(PluginSpec::in_process("p", "s").unwrap()))
                    .await
                    .unwrap();
                let plugin = plugins.plugin("p");
                let calls = async |number: usize| {
                    for _ in 0..number {
                        let answer = whole(&plugin, post("/", "hello")).await;
                        assert_eq!(answer.unwrap(), "hello");
                    }
                };
                calls(1_000).await;
                let before = Held::now();
                calls(100_000).await;
                Held::now().assert_like(&before, 1.0);
            });
        },
    );
}
