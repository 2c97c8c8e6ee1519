//! Rates that change, and rates that are no whole ticks.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_plugins_layers::rate_limit::{KeyBy, KeyedRateLimiter};
use tower_plugins_layers::test_util::{Answer, Probe};
use tower_plugins_layers::{RateLimitLayer, RateLimiter, Reason};

use crate::support::{millis, reason, request, secs, timed};

#[tokio::test(start_paused = true)]
async fn a_changed_rate_keeps_the_fill_in_proportion() {
    let after = |taken: u32, rate: f64, burst: u32| {
        let limiter = RateLimiter::new(10.0, 100);
        limiter.try_take_n(Instant::now(), taken).unwrap();
        limiter.set_rate(rate, burst);
        limiter
    };
    let tokens = |limiter: &RateLimiter| {
        let now = Instant::now();
        (0..1000)
            .take_while(|_| limiter.try_take(now).is_ok())
            .count()
    };
    assert_eq!(tokens(&after(0, 1.0, 10)), 10);
    assert_eq!(tokens(&after(50, 1.0, 10)), 5);
    assert_eq!(tokens(&after(50, 10.0, 200)), 100);
    assert_eq!(tokens(&after(50, 1000.0, 100)), 50);
    let empty = after(100, 1.0, 10);
    assert_eq!(empty.try_take(Instant::now()), Err(secs(1)));
    tokio::time::advance(secs(2)).await;
    assert_eq!(tokens(&empty), 2);
}

/// Calls that get through in a second at ten a second while the rate changes ten times, with twenty that wait at each.
async fn through_in_a_second(layer: RateLimitLayer, set_rate: impl Fn(f64)) -> usize {
    let layer = layer.max_wait(secs(2));
    let probe = Probe::new(Answer::Frames);
    let journal = probe.journal();
    let mut calls = tokio::task::JoinSet::new();
    for change in 1..=10 {
        for _ in 0..20 {
            calls.spawn(layer.layer(probe.clone()).oneshot(request()));
        }
        tokio::time::sleep(millis(1)).await;
        set_rate(10.0 + f64::from(change) / 100.0);
    }
    tokio::time::sleep(secs(1)).await;
    journal.calls()
}

#[tokio::test(start_paused = true)]
async fn changes_of_the_rate_let_through_no_more_than_the_rate() {
    let limiter = Arc::new(RateLimiter::new(10.0, 1));
    let layer = RateLimitLayer::with_limiter(Arc::clone(&limiter));
    let through = through_in_a_second(layer, |rate| limiter.set_rate(rate, 1)).await;
    assert!((10..=12).contains(&through), "{through}");

    let limiter = Arc::new(KeyedRateLimiter::new(10.0, 1, 100));
    let layer = RateLimitLayer::keyed(Arc::clone(&limiter), KeyBy::from_fn(|_| Some("ann")));
    let through = through_in_a_second(layer, |rate| limiter.set_rate(rate, 1)).await;
    assert!((10..=12).contains(&through), "{through}");
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_go_on_at_a_new_rate_at_once() {
    let limiter = Arc::new(RateLimiter::new(0.1, 1));
    let layer = RateLimitLayer::with_limiter(Arc::clone(&limiter)).max_wait(secs(60));
    let call = || layer.layer(Probe::new(Answer::Frames)).oneshot(request());
    call().await.unwrap();
    let waiting = tokio::spawn(timed(call()));
    let behind = tokio::spawn(timed(call()));
    tokio::time::sleep(secs(5)).await;
    // Half a token is there.
    limiter.set_rate(1.0, 1);
    let (result, took) = waiting.await.unwrap();
    result.unwrap();
    assert_eq!(took, millis(5_500));
    let (result, took) = behind.await.unwrap();
    result.unwrap();
    assert_eq!(took, millis(6_500));

    let waiting = tokio::spawn(timed(call()));
    tokio::time::sleep(millis(100)).await;
    limiter.set_rate(0.001, 1);
    let (result, took) = waiting.await.unwrap();
    assert_eq!(
        (reason(result), took),
        (Some(Reason::RateLimited), millis(100)),
        "in vain nobody waits"
    );
}

#[test]
fn a_rate_that_changes_under_calls_on_other_threads_is_no_free_burst() {
    let limiter = RateLimiter::new(1e-6, 1);
    let start = Instant::now();
    let taken: u32 = std::thread::scope(|scope| {
        let callers = [(); 2].map(|()| {
            scope.spawn(|| {
                (0..300_000)
                    .filter(|_| limiter.try_take(start).is_ok())
                    .count() as u32
            })
        });
        for n in 0..50_000 {
            // Both are full in eleven days: what is there is one burst, the small or the large, and is gone once.
            let burst = if n % 2 == 0 { 1000 } else { 1 };
            limiter.set_rate(f64::from(burst) * 1e-6, burst);
        }
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .sum()
    });
    assert!((1..=1001).contains(&taken), "{taken}");
}

#[test]
fn rates_that_are_no_whole_ticks_are_exact_to_within_a_token_in_a_million() {
    for rate in [
        0.3,
        7.0,
        70_001.0,
        150_000.0,
        300_000.0,
        700_000.0,
        3e6,
        7e7,
        3e8,
        7e8,
        999_999_999.0,
        1e9,
    ] {
        let burst = 1000;
        let limiter = RateLimiter::new(rate, burst);
        // Later than its clock began, so that it is not at the start of its grid.
        let start = Instant::now() + Duration::from_nanos(12_345_677);
        let (end, mut at, mut taken) = ((1e15 / rate) as u64, 0, 0_u64);
        // By ones and by sevens, now with the bucket empty and now with some left.
        loop {
            let now = start + Duration::from_nanos(at);
            for n in [7, 1] {
                while limiter.try_take_n(now, n).is_ok() {
                    taken += u64::from(n);
                }
            }
            if at >= end {
                break;
            }
            at = (at + 1 + (9.7e9 / rate) as u64).min(end);
        }
        let right = f64::from(burst) + end as f64 * 1e-9 * rate;
        let off = taken as f64 - right;
        println!("{rate} a second: off by {off:.3} tokens in {taken}");
        assert!((-1.0..=0.01).contains(&off), "{rate}: {off}");
    }
}

#[test]
fn a_bucket_of_a_rate_that_is_no_whole_tick_holds_its_burst() {
    for rate in [700_000.0, 3e8, 7e8, 999_999_999.0] {
        for burst in [1, 2, 3, 1000, 1_000_003] {
            let limiter = RateLimiter::new(rate, burst);
            let now = Instant::now() + secs(3);
            assert_eq!(limiter.available(now), f64::from(burst));
            assert_eq!(limiter.quota(now).remaining(), burst);
            for _ in 0..burst.min(1000) {
                limiter.try_take(now).unwrap();
            }
            limiter.try_take_n(now, burst - burst.min(1000)).unwrap();
            assert_eq!(limiter.quota(now).remaining(), 0);
            let wait = limiter.try_take(now).unwrap_err();
            assert!(
                wait <= Duration::from_nanos((1e9 / rate) as u64 + 2),
                "{wait:?}"
            );
        }
    }
}
