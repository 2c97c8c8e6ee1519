use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_plugins_layers::test_util::{Answer, Probe};
use tower_plugins_layers::{BoxError, CallContext, RateLimitLayer, RateLimiter, Reason};

use crate::support::{is_pending, millis, reason, request, retry_after, secs, timed};

async fn call(layer: &RateLimitLayer) -> Result<(), BoxError> {
    let service = layer.layer(Probe::new(Answer::Frames));
    service.oneshot(request()).await.map(drop)
}

/// A call on its own task, and the time since `start` at which it was let through.
fn begin(layer: &RateLimitLayer, start: Instant) -> JoinHandle<Option<Duration>> {
    let service = layer.layer(Probe::new(Answer::Frames));
    tokio::spawn(async move {
        let result = service.oneshot(request()).await;
        result.ok().map(|_| start.elapsed())
    })
}

async fn let_others_run() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_goes_through_and_the_rest_at_the_rate() {
    let layer = RateLimitLayer::new(10.0, 5);
    for _ in 0..5 {
        call(&layer).await.unwrap();
    }
    let refused = call(&layer).await;
    assert_eq!(reason(refused), Some(Reason::RateLimited));
    assert_eq!(retry_after(call(&layer).await), Some(millis(100)));
    tokio::time::advance(millis(40)).await;
    assert_eq!(retry_after(call(&layer).await), Some(millis(60)));
    tokio::time::advance(millis(60)).await;
    call(&layer).await.unwrap();
    call(&layer).await.unwrap_err();
    // A full bucket takes no more than it holds.
    tokio::time::advance(secs(3600)).await;
    for _ in 0..5 {
        call(&layer).await.unwrap();
    }
    call(&layer).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_may_come_again_when_it_was_told_to() {
    for rate in [0.3, 0.7, 3.0, 7.0, 333.0, 77_777.0, 3e8] {
        let limiter = RateLimiter::new(rate, 1);
        let mut now = Instant::now();
        limiter.try_take(now).unwrap();
        for _ in 0..100 {
            let wait = limiter.try_take(now).unwrap_err();
            assert!(
                limiter
                    .try_take(now + wait - Duration::from_nanos(1))
                    .is_err()
            );
            now += wait;
            limiter.try_take(now).unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn layers_made_anew_draw_from_one_bucket() {
    let layer = RateLimitLayer::new(1.0, 1);
    call(&layer.clone()).await.unwrap();
    call(&layer).await.unwrap_err();
    let off = RateLimitLayer::off();
    for _ in 0..1000 {
        call(&off).await.unwrap();
    }
}

#[test]
fn a_million_calls_on_four_threads_are_counted_to_within_a_token() {
    const STEP_NANOS: u64 = 5_000;
    const CALLS: u64 = 1_000_000;
    let limiter = RateLimiter::new(100_000.0, 10);
    let start = Instant::now();
    let (clock, taken) = (AtomicU64::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let n = clock.fetch_add(1, Ordering::Relaxed);
                    if n >= CALLS {
                        return;
                    }
                    let now = start + Duration::from_nanos(n * STEP_NANOS);
                    if limiter.try_take(now).is_ok() {
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let end = Duration::from_nanos(CALLS * STEP_NANOS);
    while limiter.try_take(start + end).is_ok() {
        taken.fetch_add(1, Ordering::Relaxed);
    }
    let right = 10 + 100_000 * end.as_secs();
    let taken = taken.into_inner() as u64;
    assert!(taken.abs_diff(right) <= 1, "{taken} of {right}");
}

proptest! {
    #[test]
    fn it_agrees_with_a_naive_bucket(
        rate in 0.05_f64..2000.0,
        burst in 1_u32..20,
        steps in prop::collection::vec(0_u64..2_000_000_000, 1..200),
    ) {
        let limiter = RateLimiter::new(rate, burst);
        let mut now = Instant::now();
        let mut tokens = f64::from(burst);
        for step in steps {
            // Most steps about as long as a token takes.
            let step = Duration::from_nanos(step).div_f64(rate);
            now += step;
            tokens = (tokens + step.as_secs_f64() * rate).min(f64::from(burst));
            let taken = limiter.try_take(now);
            // On the very edge either is right.
            if (tokens - 1.0).abs() > 1e-5 {
                prop_assert_eq!(taken.is_ok(), tokens > 1.0, "with {} tokens", tokens);
            }
            if let Err(wait) = taken {
                let right = (1.0 - tokens) / rate;
                prop_assert!((wait.as_secs_f64() - right).abs() < 1e-5 / rate + 1e-8);
            } else {
                tokens -= 1.0;
            }
        }
    }
}

#[test]
fn nonsense_is_the_slowest_rate_and_never_none_at_all() {
    for rate in [
        f64::NAN,
        -1.0,
        0.0,
        -0.0,
        f64::NEG_INFINITY,
        f64::MIN_POSITIVE,
    ] {
        for burst in [0, 1, 10, u32::MAX] {
            let limiter = RateLimiter::new(rate, burst);
            let now = Instant::now();
            let taken = (0..1000)
                .take_while(|_| limiter.try_take(now).is_ok())
                .count();
            assert!((1..1000).contains(&taken), "{rate} {burst}: {taken}");
        }
    }
    let fastest = RateLimiter::new(f64::INFINITY, 1);
    let now = Instant::now();
    fastest.try_take(now).unwrap();
    assert_eq!(fastest.try_take(now), Err(Duration::from_nanos(1)));
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_its_token_no_longer_than_it_may() {
    let layer = RateLimitLayer::new(1.0, 1).max_wait(secs(2));
    call(&layer).await.unwrap();
    let start = Instant::now();
    let waiting = [begin(&layer, start), begin(&layer, start)];
    let_others_run().await;
    let (refused, took) = timed(call(&layer)).await;
    assert_eq!(took, Duration::ZERO);
    assert_eq!(retry_after(refused), Some(secs(3)));
    for (n, call) in waiting.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), Some(secs(n as u64 + 1)));
    }
}

#[tokio::test(start_paused = true)]
async fn turns_come_in_the_order_of_the_calls() {
    let layer = RateLimitLayer::new(2.0, 3).max_wait(secs(60));
    let start = Instant::now();
    let mut calls = Vec::new();
    for _ in 0..20 {
        calls.push(begin(&layer, start));
        let_others_run().await;
    }
    for (n, call) in calls.into_iter().enumerate() {
        let due = millis(500 * (n as u64).saturating_sub(2));
        assert_eq!(call.await.unwrap(), Some(due));
    }
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_does_not_take_the_token_of_one_who_waits() {
    let limiter = Arc::new(RateLimiter::new(1.0, 1));
    let patient = RateLimitLayer::with_limiter(Arc::clone(&limiter)).max_wait(secs(60));
    let hasty = RateLimitLayer::with_limiter(Arc::clone(&limiter));
    call(&patient).await.unwrap();
    let start = Instant::now();
    let waiting = begin(&patient, start);
    let_others_run().await;
    tokio::time::advance(millis(500)).await;
    assert_eq!(limiter.try_take(Instant::now()), Err(millis(1500)));
    assert_eq!(retry_after(call(&hasty).await), Some(millis(1500)));
    // Even at the time when a token comes that it has not been woken for.
    assert_eq!(limiter.try_take(start + secs(1)), Err(secs(1)));
    assert_eq!(waiting.await.unwrap(), Some(secs(1)));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_waiter_leaves_its_token_to_those_behind() {
    let layer = RateLimitLayer::new(1.0, 1).max_wait(secs(60));
    call(&layer).await.unwrap();
    let start = Instant::now();
    let mut calls = Vec::new();
    for _ in 0..5 {
        calls.push(begin(&layer, start));
        let_others_run().await;
    }
    for n in [0, 2] {
        calls[n].abort();
        assert!((&mut calls[n]).await.unwrap_err().is_cancelled());
    }
    calls.push(begin(&layer, start));
    for (n, due) in [(1, 1), (3, 2), (4, 3), (5, 4)] {
        assert_eq!((&mut calls[n]).await.unwrap(), Some(secs(due)), "call {n}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_and_is_dropped_before_it_was_polled_holds_nothing() {
    let limiter = Arc::new(RateLimiter::new(1.0, 1));
    let layer = RateLimitLayer::with_limiter(Arc::clone(&limiter)).max_wait(secs(60));
    call(&layer).await.unwrap();
    for _ in 0..1000 {
        let mut waiting = layer.layer(Probe::new(Answer::Frames)).oneshot(request());
        assert!(is_pending(&mut waiting).await);
        assert!(is_pending(&mut waiting).await);
    }
    assert_eq!(limiter.try_take(Instant::now()), Err(secs(1)));
}

/// However many leave the line, no more go through than the rate and the burst allow.
#[tokio::test(start_paused = true)]
async fn the_burst_holds_when_half_of_the_line_leaves() {
    let layer = RateLimitLayer::new(1.0, 1).max_wait(secs(3600));
    call(&layer).await.unwrap();
    let start = Instant::now();
    let first: Vec<_> = (0..50).map(|_| begin(&layer, start)).collect();
    let_others_run().await;
    for call in first.iter().step_by(2) {
        call.abort();
    }
    let_others_run().await;
    let second: Vec<_> = (0..25).map(|_| begin(&layer, start)).collect();
    let mut times = Vec::new();
    for call in first.into_iter().chain(second) {
        if let Ok(time) = call.await {
            times.push(time.unwrap());
        }
    }
    times.sort();
    let right: Vec<_> = (1..=50).map(secs).collect();
    assert_eq!(times, right);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_nobody_polls_does_not_hold_up_the_line_for_ever() {
    let layer = RateLimitLayer::new(1.0, 1).max_wait(secs(10));
    call(&layer).await.unwrap();
    let mut forgotten = layer.layer(Probe::new(Answer::Frames)).oneshot(request());
    assert!(is_pending(&mut forgotten).await);
    assert!(is_pending(&mut forgotten).await);
    let (result, took) = timed(call(&layer)).await;
    result.unwrap();
    assert!(took <= secs(10), "{took:?}");
    forgotten.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stale_time_in_the_context_gains_nothing() {
    let layer = RateLimitLayer::new(1.0, 1);
    let context = CallContext::new();
    tokio::time::advance(secs(5)).await;
    for allowed in [true, false] {
        let mut stale = request();
        stale.extensions_mut().insert(context.clone());
        let result = layer.layer(Probe::new(Answer::Frames)).oneshot(stale).await;
        assert_eq!(result.is_ok(), allowed);
    }
}
