//! One plugin at three endpoints, one of which is ten times slower than the others: what strategies make of it, what
//! becomes of calls when an endpoint dies and comes back, and endpoints that the program itself adds and takes away.
//!
//! Run it with `cargo run --release --example load-balancing`. It starts its servers itself, and ends with an error if
//! a call fails, or if the slowest calls are not kept within twice the time of the fast endpoints.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use futures_util::stream;
use http::Request;
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::ServiceExt;
use tower::discover::Change;
use tower_plugins::config::{Address, Config, EndpointSpec, Format};
use tower_plugins::{Body, Plugin, Plugins};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const FAST: Duration = Duration::from_millis(10);
const SLOW: Duration = Duration::from_millis(100);
const CALLERS: usize = 4;

#[tokio::main]
async fn main() -> Result {
    slow_endpoint().await?;
    dead_endpoint().await?;
    moving_endpoints().await
}

async fn slow_endpoint() -> Result {
    say(
        "1. Three endpoints. Two answer in 10 ms and one in 100 ms; 4 callers call without a pause.",
    );
    let (a, b, c) = (
        Endpoint::start(FAST, None).await?,
        Endpoint::start(FAST, None).await?,
        Endpoint::start(SLOW, None).await?,
    );
    let fast = measure("the two fast ones alone", &[&a, &b], "peak-ewma", 1_500).await?;
    measure("all three, each in turn", &[&a, &b, &c], "round-robin", 300).await?;
    let steered = measure("all three, by latency", &[&a, &b, &c], "peak-ewma", 1_500).await?;
    let ratio = steered.as_secs_f64() / fast.as_secs_f64();
    println!(
        "   peak-ewma keeps the slowest of 100 calls at {ratio:.2} times that of the fast ones"
    );
    if ratio > 2.0 {
        return Err("the slow endpoint is felt by more than one call in a hundred".into());
    }
    Ok(())
}

/// Calls a plugin at `endpoints`; the time in which 99 of 100 calls are answered.
async fn measure(
    what: &str,
    endpoints: &[&Endpoint],
    strategy: &str,
    calls: usize,
) -> Result<Duration> {
    let plugins = plugins(
        endpoints,
        &format!("load_balancing: {{ strategy: {strategy} }}"),
    )
    .await?;
    for endpoint in endpoints {
        endpoint.calls.store(0, Relaxed);
    }
    let times = Arc::new(Mutex::new(Vec::new()));
    let mut callers = JoinSet::<Result>::new();
    for _ in 0..CALLERS {
        let (plugin, times) = (plugins.plugin("search"), Arc::clone(&times));
        callers.spawn(async move {
            for _ in 0..calls / CALLERS {
                let begun = Instant::now();
                call(&plugin).await?;
                let took = begun.elapsed();
                times.lock().map_err(|_| "a caller panicked")?.push(took);
            }
            Ok(())
        });
    }
    for caller in callers.join_all().await {
        caller?;
    }
    let mut times = times.lock().map_err(|_| "a caller panicked")?.clone();
    times.sort_unstable();
    let (half, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let shares: Vec<_> = endpoints
        .iter()
        .map(|end| end.calls.load(Relaxed))
        .collect();
    println!("   {what}: p50 {half:.1?}, p99 {most:.1?}; calls {shares:?}");
    Ok(most)
}

async fn dead_endpoint() -> Result {
    say("2. One of three endpoints dies under load, and comes back.");
    let mut ends = Vec::new();
    for _ in 0..3 {
        ends.push(Endpoint::start(FAST, None).await?);
    }
    let keys = "circuit_breaker: { failure_threshold: 1, recovery_timeout: 200ms }, load_balancing: { slow_start_window: 1s }";
    let plugins = plugins(&ends.iter().collect::<Vec<_>>(), keys).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::<Result<usize>>::new();
    for _ in 0..CALLERS {
        let (plugin, stop) = (plugins.plugin("search"), Arc::clone(&stop));
        callers.spawn(async move {
            let mut calls = 0;
            while !stop.load(Relaxed) {
                call(&plugin).await?;
                calls += 1;
            }
            Ok(calls)
        });
    }
    sleep(Duration::from_millis(500)).await;
    let dead = ends.remove(2);
    let at = dead.address;
    println!("   {at} dies");
    drop(dead);
    for _ in 0..2 {
        shares(&ends, Duration::from_millis(500)).await;
    }
    println!("   {at} comes back, and starts slowly");
    ends.push(Endpoint::start(FAST, Some(at)).await?);
    for _ in 0..4 {
        shares(&ends, Duration::from_millis(500)).await;
    }
    stop.store(true, Relaxed);
    let mut calls = 0;
    for caller in callers.join_all().await {
        calls += caller?;
    }
    println!("   {calls} calls, none of which failed");
    Ok(())
}

/// Shows how many calls each endpoint gets for a time.
async fn shares(endpoints: &[Endpoint], time: Duration) {
    for endpoint in endpoints {
        endpoint.calls.store(0, Relaxed);
    }
    sleep(time).await;
    let shares: Vec<_> = endpoints
        .iter()
        .map(|end| end.calls.load(Relaxed))
        .collect();
    println!("   calls in {time:?}: {shares:?}");
}

async fn moving_endpoints() -> Result {
    say("3. The program says what endpoints there are, and changes them: no reload, no new stack.");
    let (a, b) = (
        Endpoint::start(FAST, None).await?,
        Endpoint::start(FAST, None).await?,
    );
    let (changes, receiver) = tokio::sync::mpsc::channel(16);
    let changed = stream::unfold(receiver, |mut receiver| async {
        let change: Change<&str, EndpointSpec> = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(change), receiver))
    });
    let config = "plugins: { search: { transport: http, endpoint: { from: scaler } } }";
    let plugins = Plugins::builder()
        .endpoints("scaler", changed)
        .start(Config::parse(config, Format::Yaml)?)
        .await?;
    let search = plugins.plugin("search");
    for (what, change) in [
        ("a comes", Change::Insert("a", a.spec()?)),
        ("b comes", Change::Insert("b", b.spec()?)),
        ("a goes", Change::Remove("a")),
    ] {
        changes.send(change).await?;
        sleep(Duration::from_millis(100)).await;
        let before = [&a, &b].map(|end| end.calls.load(Relaxed));
        for _ in 0..20 {
            call(&search).await?;
        }
        let calls = [
            a.calls.load(Relaxed) - before[0],
            b.calls.load(Relaxed) - before[1],
        ];
        println!(
            "   {what}: of 20 calls a has {}, b has {}",
            calls[0], calls[1]
        );
    }
    Ok(())
}

/// The plugin `search` at these endpoints.
async fn plugins(endpoints: &[&Endpoint], keys: &str) -> Result<Plugins> {
    let urls: Vec<_> = endpoints
        .iter()
        .map(|end| format!("'http://{}'", end.address))
        .collect();
    let config = format!(
        "plugins: {{ search: {{ transport: http, endpoints: [{}], {keys} }} }}",
        urls.join(", ")
    );
    let config = Config::parse(&config, Format::Yaml)?;
    Ok(Plugins::builder().start(config).await?)
}

async fn call(plugin: &Plugin) -> Result {
    let request = Request::get("/").body(Body::empty())?;
    let response = plugin.clone().oneshot(request).await?;
    if response.status() != 200 {
        return Err(format!("an endpoint answers {}", response.status()).into());
    }
    response.into_body().collect().await?;
    Ok(())
}

/// A server, which dies with this value: its listener and its connections.
struct Endpoint {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
    /// Dropping a runtime ends whatever runs in it.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Endpoint {
    async fn start(takes: Duration, at: Option<SocketAddr>) -> Result<Self> {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let answer = move || {
            counted.fetch_add(1, Relaxed);
            async move {
                sleep(takes).await;
                "found"
            }
        };
        let app = Router::new().fallback(answer);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let at = at.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        let listener = runtime.spawn(TcpListener::bind(at)).await??;
        let address = listener.local_addr()?;
        runtime.spawn(async move { axum::serve(listener, app).await });
        Ok(Self {
            address,
            calls,
            runtime: Some(runtime),
        })
    }

    fn spec(&self) -> Result<EndpointSpec> {
        Ok(Address::http(&format!("http://{}", self.address))?.into())
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn say(step: &str) {
    println!("\n{step}");
}
