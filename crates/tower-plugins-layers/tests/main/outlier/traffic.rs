//! What becomes of a balancer's calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use tokio::time::advance;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_plugins_layers::balance::{LoadLayer, Strategy};
use tower_plugins_layers::outlier::{OutlierDetector, OutlierLayer, OutlierPolicy};
use tower_plugins_layers::*;

use super::out;
use crate::support::{millis, request, secs};

/// Percent of calls that fail in ten minutes at 100 calls a second, over ten endpoints of which one fails
/// `bad` percent of its calls for the first five minutes.
async fn failed(bad: u8, layers: Vec<OutlierLayer>) -> f64 {
    const CALLS: usize = 60_000;
    let clock = Arc::new(AtomicUsize::new(0));
    fastrand::seed(7);
    let endpoints = layers.into_iter().enumerate().map(|(i, layer)| {
        let clock = clock.clone();
        ServiceBuilder::new()
            .layer(layer)
            .layer(LoadLayer::new())
            .service(service_fn(move |_: Request<()>| {
                let sick = i == 0 && clock.load(Ordering::Relaxed) < CALLS / 2;
                let status = if sick && fastrand::u8(..100) < bad {
                    503
                } else {
                    200
                };
                std::future::ready(
                    Response::builder()
                        .status(status)
                        .body(String::new())
                        .map_err(BoxError::from),
                )
            }))
    });
    let mut balance = Balance::new(Strategy::RoundRobin, endpoints);
    let mut failed = 0_u32;
    for call in 0..CALLS {
        clock.store(call, Ordering::Relaxed);
        advance(millis(10)).await;
        let response = balance.call(request()).await.unwrap();
        failed += u32::from(response.status() == 503);
    }
    f64::from(failed) * 100.0 / CALLS as f64
}

#[tokio::test(start_paused = true)]
async fn fewer_calls_fail_with_it_than_without() {
    for (bad, share) in [(100, 0.02), (50, 0.35), (20, 0.5)] {
        let without = failed(bad, (0..10).map(|_| OutlierLayer::off()).collect()).await;
        let detector = OutlierDetector::new(OutlierPolicy::new().min_requests(50));
        let layers = super::endpoints(&detector, 10);
        let with = failed(bad, layers).await;
        println!("{bad} % of one of ten: {without:.3} % of calls fail without, {with:.3} % with");
        assert!(with < without * share, "{bad}: {without} {with}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_gets_no_calls_and_its_share_once_it_is_back() {
    let detector = OutlierDetector::new(OutlierPolicy::new());
    let layers = super::endpoints(&detector, 4);
    let counts: Vec<_> = (0..4).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let endpoints = layers.iter().zip(&counts).map(|(layer, count)| {
        let count = count.clone();
        layer.layer(LoadLayer::new().layer(service_fn(move |_: Request<()>| {
            count.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok::<_, BoxError>(Response::new(String::new())))
        })))
    });
    let balance = Balance::new(Strategy::RoundRobin, endpoints);
    super::calls(&layers[0], 0, 5).await;
    let counted = || -> Vec<_> {
        let take = |count: &Arc<AtomicUsize>| count.swap(0, Ordering::Relaxed);
        counts.iter().map(take).collect()
    };
    for _ in 0..40 {
        balance.clone().oneshot(request()).await.unwrap();
    }
    let seen = counted();
    assert_eq!((seen[0], seen.iter().sum::<usize>()), (0, 40));
    advance(secs(30)).await;
    for _ in 0..40 {
        balance.clone().oneshot(request()).await.unwrap();
    }
    assert_eq!(counted(), [10, 10, 10, 10]);
    assert_eq!(out(&layers), [] as [usize; 0]);
}
