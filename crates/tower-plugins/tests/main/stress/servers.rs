//! What is called, and the configs that say so.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tokio::time::sleep;
use tower_plugins::Body;
use tower_plugins::config::{
    Address, BalanceStrategy, ConcurrencySpec, Config, Number, PluginName, PluginSpec,
    RateLimitSpec,
};

use crate::support::{Server, channel};
use crate::transport::server::EVERY;

/// Plugins whose endpoint is another one after each reload.
pub(super) const MOVING: [&str; 3] = ["moving-h1", "moving-h2", "moving-unix"];
/// Plugins that are there all the time.
pub(super) const CALLED: [&str; 8] = [
    "steady",
    "restacked-h1",
    "restacked-h2",
    "restacked-unix",
    "local",
    MOVING[0],
    MOVING[1],
    MOVING[2],
];

pub(super) const CHUNKS: usize = 64;

pub(super) fn chunk(number: usize) -> Bytes {
    (0..4096)
        .map(|byte| (byte * 31 + number * 7) as u8)
        .collect()
}

/// The endpoints whose node has closed: a request that comes to one of them came too late.
#[derive(Default)]
pub(super) struct Closed {
    pub(super) prefixes: Mutex<HashSet<String>>,
    pub(super) called: AtomicU64,
}

impl Closed {
    pub(super) fn close(&self, plugin: &str, step: u64) {
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
pub(super) struct Servers {
    pub(super) servers: Vec<Server>,
    pub(super) closed: Arc<Closed>,
}

impl Servers {
    pub(super) async fn start() -> Self {
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
    pub(super) fn spec(&self, name: &str, server: usize, prefix: &str) -> PluginSpec {
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
    pub(super) fn quiet() -> Config {
        idle("local").with(PluginSpec::in_process("local", "local").unwrap())
    }

    /// What runs at `step`: different from any other step.
    pub(super) fn config(&self, step: u64) -> Config {
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
            let mut more = self.spec("restacked-h2", 3, "").upstream.endpoints.clone();
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
pub(super) fn idle(service: &str) -> Config {
    (0..100).fold(Config::new(), |config, number| {
        config.with(PluginSpec::in_process(&format!("idle-{number}"), service).unwrap())
    })
}

/// Another policy at each step, none of which refuses a call.
pub(super) fn restack(spec: &mut PluginSpec, step: u64) {
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
        policy.balance.strategy = BalanceStrategy::RoundRobin;
    }
}
