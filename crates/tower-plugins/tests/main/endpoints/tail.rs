//! What a slow endpoint does to the slowest calls.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::{ServiceExt, service_fn};
use tower_plugins::{Body, Plugins};

use super::shared;
use crate::support::{config, get};

/// What 99 % of the calls are done in, when `callers` make calls without a pause to endpoints at each of which a
/// call takes so many milliseconds.
async fn p99(millis: &[u64], strategy: &str, callers: usize) -> Duration {
    let mut builder = Plugins::builder();
    let mut ends = Vec::new();
    for (n, &millis) in millis.iter().enumerate() {
        let service = service_fn(move |_: Request<Body>| async move {
            // Not each to the same: half as much and half again.
            sleep(Duration::from_micros(
                millis * (500 + fastrand::u64(..1_000)),
            ))
            .await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        builder = builder.service(&format!("s{n}"), service);
        ends.push(format!("s{n}"));
    }
    let yaml = format!(
        "plugins: {{ p: {{ transport: in-process, endpoints: [{}],
            load_balancing: {{ strategy: {strategy} }} }} }}",
        ends.join(", ")
    );
    let plugins = builder.start(config(&yaml)).await.unwrap();
    let times: Arc<Mutex<Vec<Duration>>> = shared();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (plugin, times) = (plugins.plugin("p"), Arc::clone(&times));
        tasks.spawn(async move {
            for _ in 0..2_000 {
                let begun = Instant::now();
                plugin.clone().oneshot(get("/")).await.unwrap();
                times.lock().unwrap().push(begun.elapsed());
            }
        });
    }
    tasks.join_all().await;
    let mut times = std::mem::take(&mut *times.lock().unwrap());
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[tokio::test(start_paused = true)]
async fn peak_ewma_keeps_p99_within_twice_that_of_the_fast_endpoints() {
    fastrand::seed(7);
    for callers in [1, 4, 8] {
        let fast = p99(&[2, 2], "peak-ewma", callers).await;
        let blind = p99(&[20, 2, 2], "round-robin", callers).await;
        let steered = p99(&[20, 2, 2], "peak-ewma", callers).await;
        println!(
            "{callers} callers: p99 {fast:?} of the fast, {steered:?} steered, {blind:?} in turn"
        );
        assert!(steered <= 2 * fast, "{callers}: {steered:?}, {fast:?}");
        assert!(blind > 5 * fast, "{callers}: {blind:?}, {fast:?}");
    }
}
