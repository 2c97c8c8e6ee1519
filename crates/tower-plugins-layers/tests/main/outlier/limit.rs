//! Never more endpoints are out than may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;
use tokio::time::advance;
use tower_plugins_layers::outlier::{OutlierDetector, OutlierPolicy};

use super::{call, calls, endpoints, out};
use crate::support::secs;

fn limit(endpoints: usize, percent: u8, one: bool) -> usize {
    let share = endpoints * usize::from(percent) / 100;
    if one && endpoints > 1 {
        share.max(1)
    } else {
        share
    }
}

#[tokio::test(start_paused = true)]
async fn with_every_endpoint_failing_exactly_as_many_are_out_as_may_be() {
    for n in [1, 2, 9, 10, 19, 20, 100] {
        for (percent, one) in [
            (0, false),
            (10, false),
            (10, true),
            (50, true),
            (100, false),
        ] {
            let policy = OutlierPolicy::new()
                .max_ejection_percent(percent)
                .always_eject_one(one);
            let layers = endpoints(&OutlierDetector::new(policy), n);
            for layer in &layers {
                calls(layer, 0, 10).await;
            }
            assert_eq!(
                out(&layers).len(),
                limit(n, percent, one),
                "{n} {percent} {one}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_set_shrinks_those_who_were_out_longest_are_put_back() {
    let policy = OutlierPolicy::new().max_ejection_percent(20);
    let detector = OutlierDetector::new(policy);
    let mut layers = endpoints(&detector, 10);
    for i in [3, 1] {
        calls(&layers[i], 0, 5).await;
        advance(secs(1)).await;
    }
    assert_eq!(out(&layers), [1, 3]);
    layers.truncate(9);
    call(&layers[0], 200).await;
    assert_eq!(out(&layers), [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_no_interleaving_more_are_out_than_may_be() {
    for round in 0..40 {
        let n = 5 + round % 16;
        let percent = [10, 25, 50][round % 3];
        let most = limit(n, percent, true);
        let policy = OutlierPolicy::new()
            .consecutive_failures(2)
            .max_ejection_percent(percent)
            .min_hosts(1)
            .min_requests(5)
            .failure_percentage(40)
            .interval(std::time::Duration::from_millis(1))
            .base_ejection(std::time::Duration::from_millis(2));
        let detector = OutlierDetector::new(policy);
        // The same endpoints under another detector, as during a reload.
        let both = [detector.clone(), detector.renewed(policy)];
        let layers: Arc<Vec<_>> = Arc::new(both.iter().flat_map(|d| endpoints(d, n)).collect());
        let (done, seen) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let watcher = {
            // Counted at one moment: looked at one by one, one comes back while another goes.
            let (detector, done, seen) = (detector.clone(), done.clone(), seen.clone());
            tokio::task::spawn_blocking(move || {
                while !done.load(Ordering::SeqCst) {
                    seen.fetch_max(detector.ejected(), Ordering::SeqCst);
                    std::thread::yield_now();
                }
            })
        };
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let layers = layers.clone();
                let runtime = tokio::runtime::Handle::current();
                tokio::task::spawn_blocking(move || {
                    for _ in 0..1000 {
                        let layer = &layers[fastrand::usize(..layers.len())];
                        let status = if fastrand::u8(..10) < 7 { 500 } else { 200 };
                        runtime.block_on(call(layer, status));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        done.store(true, Ordering::SeqCst);
        watcher.await.unwrap();
        let seen = seen.load(Ordering::SeqCst);
        assert!(seen <= most, "{seen} of {n} were out, {most} may be");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn in_sets_that_change_no_more_are_out_than_may_be(
        percent in 0_u8..=100,
        one in any::<bool>(),
        events in proptest::collection::vec((0_usize..24, 0_u8..10, 0_u64..8), 0..300),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let policy = OutlierPolicy::new()
                .consecutive_failures(2)
                .max_ejection_percent(percent)
                .always_eject_one(one)
                .min_hosts(2)
                .min_requests(2)
                .failure_percentage(50)
                .base_ejection(secs(15));
            let detector = OutlierDetector::new(policy);
            let mut layers = endpoints(&detector, 12);
            let mut names = 12;
            for (i, what, time) in events {
                match what {
                    0 if layers.len() > 1 => drop(layers.swap_remove(i % layers.len())),
                    1 => {
                        // A new one, or one that has left.
                        layers.push(detector.endpoint(&(names - i.min(names)).to_string()));
                        names += 1;
                        let before = layers.len();
                        if detector.status().len() < before {
                            layers.pop();
                        }
                    }
                    2 => advance(secs(time)).await,
                    3..=7 => call(&layers[i % layers.len()], 500).await,
                    _ => call(&layers[i % layers.len()], 200).await,
                }
                // The next call, or look, after a change of the set makes room.
                let seen = detector.status().len();
                prop_assert_eq!(seen, layers.len());
                prop_assert!(out(&layers).len() <= limit(seen, percent, one));
            }
            Ok(())
        })?;
    }
}
