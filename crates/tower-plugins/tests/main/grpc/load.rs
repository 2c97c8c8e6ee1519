//! Reloads under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::stream;
use tokio::task::JoinSet;
use tonic::Status;
use tower_plugins::Plugin;

use super::server::calculator::DivideRequest;
use super::server::{Server, Way, client, number};
use crate::support::within;

/// Calls in all shapes until `stop`, each checked to its last answer; how many there were.
async fn caller(plugin: Plugin, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) -> Result<(), Status> {
    let mut client = client(plugin);
    while !stop.load(Ordering::Relaxed) {
        let (dividend, divisor) = (1.0, 4.0);
        let asked = DivideRequest { dividend, divisor };
        assert_eq!(client.divide(asked).await?.into_inner(), number(0.25));
        let numbers = stream::iter((1..=20).map(f64::from).map(number));
        assert_eq!(client.sum(numbers).await?.into_inner(), number(210.0));
        let mut count = client.count(number(50.0)).await?.into_inner();
        let mut last = 0.0;
        while let Some(next) = count.message().await? {
            assert_eq!(next.value, last + 1.0);
            last = next.value;
        }
        assert_eq!(last, 50.0);
        let numbers = stream::unfold(0_u32, |sent| async move {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            (sent < 20).then(|| (number(1.0), sent + 1))
        });
        let mut sums = client.running_sum(numbers).await?.into_inner();
        let mut last = 0.0;
        while let Some(next) = sums.message().await? {
            last = next.value;
        }
        assert_eq!(last, 20.0);
        done.fetch_add(4, Ordering::Relaxed);
    }
    Ok(())
}

async fn reloads_lose_no_call(way: Way) {
    let (one, two) = (Server::start(way).await, Server::start(way).await);
    let plugins = one.plugins("retry: off").await;
    let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
        callers.spawn(caller(plugins.plugin("p"), stop, done));
    }
    for step in 0_u64..60 {
        // Another policy, other limits, or another endpoint.
        let server = if step.is_multiple_of(2) { &two } else { &one };
        let keys = format!(
            "retry: off, connection: {{ request_timeout: {}s }}, grpc: {{ max_response_message: {}KiB }}",
            60 + step / 3,
            64 + step / 5
        );
        plugins.reload(server.config(&keys)).await.unwrap();
        let before = done.load(Ordering::Relaxed);
        let progress = async {
            while done.load(Ordering::Relaxed) < before + 4 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        if step.is_multiple_of(10) {
            within(progress).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for result in within(callers.join_all()).await {
        result.unwrap();
    }
    assert!(done.load(Ordering::Relaxed) >= 24);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_lose_no_call_over_tcp() {
    reloads_lose_no_call(Way::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_lose_no_call_over_a_unix_socket() {
    reloads_lose_no_call(Way::Unix).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_lose_no_call_over_tls() {
    reloads_lose_no_call(Way::Tls).await;
}
