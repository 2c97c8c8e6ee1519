//! The guarantee above all others: under load, from all cores, over every transport, no reload
//! loses a call.

use std::collections::HashSet;
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
use tower_plugins::config::{
    Address, BalanceStrategy, ConcurrencySpec, Config, Number, PluginName, PluginSpec,
    RateLimitSpec,
};
use tower_plugins::{Body, Plugin, Plugins};

use crate::alone::{Held, alone};
use crate::support::{Server, channel, get, post, within};
use crate::transport::server::EVERY;

const PERIOD: Duration = Duration::from_millis(10);
const CALLERS: usize = 3;

/// Plugins whose endpoint is another one after each reload.
const MOVING: [&str; 3] = ["moving-h1", "moving-h2", "moving-unix"];
/// Plugins that are there all the time.
const CALLED: [&str; 8] = [
    "steady",
    "restacked-h1",
    "restacked-h2",
    "restacked-unix",
    "local",
    MOVING[0],
    MOVING[1],
    MOVING[2],
];

const CHUNKS: usize = 64;

fn chunk(number: usize) -> Bytes {
    (0..4096)
        .map(|byte| (byte * 31 + number * 7) as u8)
        .collect()
}

/// The endpoints whose node has closed: a request that comes to one of them came too late.
#[derive(Default)]
struct Closed {
    prefixes: Mutex<HashSet<String>>,
    called: AtomicU64,
}

impl Closed {
    fn close(&self, plugin: &str, step: u64) {
        self.prefixes.lock().unwrap().insert(prefix(plugin, step));
    }

    fn check(&self, path: &str) {
        let first = path.split('/').nth(1).unwrap_or_default();
        let prefixes = self.prefixes.lock().unwrap();
        if prefixes.contains(&format!("/{first}")) {
            self.called.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn prefix(plugin: &str, step: u64) -> String {
    format!("/{plugin}-{step}")
}

/// Answers with what it is sent, or with the chunks, one after the other.
async fn answer(closed: Arc<Closed>, request: Request<Body>) -> Response<Body> {
    closed.check(request.uri().path());
    if !request.uri().path().ends_with("/download") {
        return Response::new(request.into_body());
    }
    let (frames, body) = channel();
    tokio::spawn(async move {
        for number in 0..CHUNKS {
            sleep(Duration::from_millis(3)).await;
            if frames.send(Frame::data(chunk(number))).is_err() {
                return;
            }
        }
    });
    Response::new(body)
}

/// A server for each transport and protocol.
struct Servers {
    servers: Vec<Server>,
    closed: Arc<Closed>,
}

impl Servers {
    async fn start() -> Self {
        let closed = Arc::<Closed>::default();
        let mut servers = Vec::new();
        for (socket, protocol) in EVERY {
            let closed = Arc::clone(&closed);
            let handler = move |request| answer(Arc::clone(&closed), request);
            servers.push(Server::start(socket, protocol, handler).await);
        }
        Self { servers, closed }
    }

    /// A plugin at one of the servers, which is not helped by retries.
    fn spec(&self, name: &str, server: usize, prefix: &str) -> PluginSpec {
        let server = &self.servers[server];
        let address = match server.address.clone() {
            Address::Http { authority, .. } => Address::Http {
                authority,
                prefix: prefix.to_owned(),
            },
            Address::Unix { path, .. } => Address::Unix {
                path,
                prefix: prefix.to_owned(),
            },
            other => other,
        };
        let mut spec = PluginSpec::new(PluginName::new(name).unwrap(), address);
        spec.upstream.connection.protocol = server.protocol;
        spec.policy.retry = None;
        spec
    }

    /// What runs when nobody calls.
    fn quiet() -> Config {
        idle("local").with(PluginSpec::in_process("local", "local").unwrap())
    }

    /// What runs at `step`: different from any other step.
    fn config(&self, step: u64) -> Config {
        let mut config = Self::quiet().with(self.spec("steady", 0, ""));
        for (name, server) in [
            ("restacked-h1", 0),
            ("restacked-h2", 1),
            ("restacked-unix", 3),
        ] {
            config.insert(self.spec(name, server, ""));
        }
        for (number, spec) in config.plugins.values_mut().enumerate() {
            if CALLED[1..].contains(&spec.name.as_str()) {
                restack(spec, step + number as u64);
            }
        }
        if step.is_multiple_of(3) {
            // Another endpoint beside the first, and away again.
            let mut more = self.spec("restacked-h2", 3, "").upstream.endpoints;
            let spec = config.plugins.get_mut("restacked-h2").unwrap();
            spec.upstream.endpoints.append(&mut more);
        }
        for (server, name) in MOVING.into_iter().enumerate() {
            config.insert(self.spec(name, server, &prefix(name, step)));
        }
        let download = prefix("download", step / 7);
        config.insert(self.spec("download", (step / 7 % 4) as usize, &download));
        for guest in 0..4 {
            if (step + guest).is_multiple_of(3) {
                config.insert(self.spec(&format!("guest-{guest}"), guest as usize, ""));
            }
        }
        config
    }
}

/// A set of some size, so that what is measured is more than the noise of a runtime.
fn idle(service: &str) -> Config {
    (0..100).fold(Config::new(), |config, number| {
        config.with(PluginSpec::in_process(&format!("idle-{number}"), service).unwrap())
    })
}

/// Another policy at each step, none of which refuses a call.
fn restack(spec: &mut PluginSpec, step: u64) {
    let policy = &mut spec.policy;
    policy.deadline = Some(Duration::from_secs(60 + step));
    let rate = RateLimitSpec::new(Number::new(1e6 + step as f64).unwrap());
    policy.rate_limit = step.is_multiple_of(2).then_some(rate);
    policy.concurrency = step
        .is_multiple_of(3)
        .then(|| ConcurrencySpec::new(10_000 + step as u32));
    if step.is_multiple_of(4) {
        policy.breaker = None;
    }
    if step.is_multiple_of(5) {
        policy.balance = BalanceStrategy::RoundRobin;
    }
}

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
fn ten_thousand_reloads_leave_nothing_behind() {
    alone("stress::ten_thousand_reloads_leave_nothing_behind", || {
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
    });
}
