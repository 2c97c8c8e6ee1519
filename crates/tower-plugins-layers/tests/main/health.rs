//! Endpoints that somebody calls unhealthy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use tower::{Layer, Service, service_fn};
use tower_plugins_layers::balance::{BalancePolicy, HealthLayer, LoadLayer, Strategy};
use tower_plugins_layers::*;

use crate::support::request;

/// How many of 100 calls each endpoint gets.
async fn calls(policy: BalancePolicy, layers: &[HealthLayer]) -> Vec<usize> {
    let counts: Vec<_> = layers
        .iter()
        .map(|_| Arc::new(AtomicUsize::new(0)))
        .collect();
    let endpoints = layers.iter().zip(&counts).map(|(layer, count)| {
        let count = count.clone();
        layer.layer(LoadLayer::new().layer(service_fn(move |_: Request<()>| {
            count.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok::<_, BoxError>(Response::new(String::new())))
        })))
    });
    let mut balance = Balance::new(policy, endpoints);
    for _ in 0..100 {
        balance.call(request()).await.unwrap();
    }
    let count = |count: &Arc<AtomicUsize>| count.load(Ordering::Relaxed);
    counts.iter().map(count).collect()
}

fn layers(healthy: &[bool]) -> Vec<HealthLayer> {
    let layer = |is_healthy: &bool| {
        let layer = HealthLayer::new();
        layer.handle().set_healthy(*is_healthy);
        layer
    };
    healthy.iter().map(layer).collect()
}

fn policy() -> BalancePolicy {
    BalancePolicy::new(Strategy::RoundRobin)
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_endpoint_gets_no_calls_until_it_is_well() {
    let all = layers(&[true, false, true, true]);
    let counts = calls(policy(), &all).await;
    assert_eq!((counts.iter().sum::<usize>(), counts[1]), (100, 0));
    all[1].handle().set_healthy(true);
    assert_eq!(calls(policy(), &all).await, [25; 4]);
}

#[tokio::test(start_paused = true)]
async fn unhealthy_endpoints_get_calls_when_too_few_are_left() {
    let all = layers(&[true, false, false, false]);
    assert_eq!(calls(policy(), &all).await, [25; 4]);
    let strict = policy().panic_threshold(0.0);
    assert_eq!(calls(strict, &all).await, [100, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_only_endpoint_is_asked_whatever_is_said_of_it() {
    let strict = policy().panic_threshold(0.0);
    assert_eq!(calls(strict, &layers(&[false])).await, [100]);
}

#[tokio::test(start_paused = true)]
async fn of_a_layer_that_is_off_nobody_says_anything() {
    let off = HealthLayer::off();
    off.handle().set_healthy(false);
    let strict = policy().panic_threshold(0.0);
    assert_eq!(calls(strict, &[off, HealthLayer::new()]).await, [50, 50]);
}

proptest! {
    #[test]
    fn calls_go_where_a_look_at_all_would_let_them(
        steps in proptest::collection::vec((0_usize..5, any::<bool>()), 1..60),
        n in 2_usize..=5,
        strategy in 0..Strategy::ALL.len(),
        percent in 0_u32..=100,
    ) {
        let threshold = f64::from(percent) / 100.0;
        crate::support::paused().block_on(async {
            let all = layers(&vec![true; n]);
            let last = Arc::new(AtomicUsize::new(usize::MAX));
            let endpoints = all.iter().enumerate().map(|(number, layer)| {
                let last = last.clone();
                layer.layer(LoadLayer::new().layer(service_fn(move |_: Request<()>| {
                    last.store(number, Ordering::Relaxed);
                    std::future::ready(Ok::<_, BoxError>(Response::new(String::new())))
                })))
            });
            let policy = BalancePolicy::new(Strategy::ALL[strategy]).panic_threshold(threshold);
            let mut balance = Balance::new(policy, endpoints);
            let mut healthy = vec![true; n];
            for (which, is_healthy) in steps {
                let which = which % n;
                healthy[which] = is_healthy;
                all[which].handle().set_healthy(is_healthy);
                // What is known of the whole set may be some milliseconds old.
                tokio::time::advance(std::time::Duration::from_millis(20)).await;
                let well = healthy.iter().filter(|well| **well).count() as f64;
                let panics = well * 1.4 < n as f64 && well < threshold * n as f64;
                let outcome = balance.call(request()).await;
                match outcome {
                    Ok(_) => prop_assert!(panics || healthy[last.load(Ordering::Relaxed)]),
                    Err(error) => {
                        prop_assert_eq!(Reason::of(&*error), Some(Reason::NoEndpoint));
                        prop_assert!(!panics && well == 0.0);
                    }
                }
            }
            Ok(())
        })?;
    }
}
