//! What hedging does to the tail, and what it costs.

use super::*;

/// The latencies of calls, and the attempts made for each: so many a second for 90 seconds, each attempt
/// as slow as `latency` says, in milliseconds.
async fn simulate(
    layer: RetryLayer,
    per_second: u32,
    latency: impl Fn(&mut fastrand::Rng) -> u64 + Clone + Send + 'static,
) -> (Vec<Duration>, f64) {
    let attempts = Arc::new(Mutex::new((0_u32, fastrand::Rng::with_seed(7))));
    let inner = {
        let attempts = Arc::clone(&attempts);
        service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| {
            let millis = {
                let (attempts, random) = &mut *attempts.lock().unwrap();
                *attempts += 1;
                latency(random)
            };
            async move {
                sleep(ms(millis)).await;
                outcome(End::Ok)
            }
        })
    };
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..90 * per_second {
        let start = Instant::now();
        let service = layer.layer(inner.clone());
        let timed = service.map_response(move |_| start.elapsed());
        calls.spawn(timed.oneshot(get()));
        sleep(Duration::from_secs(1) / per_second).await;
    }
    let mut latencies: Vec<_> = calls
        .join_all()
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    latencies.sort_unstable();
    let attempts = attempts.lock().unwrap().0;
    (latencies, f64::from(attempts) / f64::from(90 * per_second))
}

/// 2 in 100 are slow a hundredfold.
fn some_slow(random: &mut fastrand::Rng) -> u64 {
    let usual = random.u64(5..15);
    if random.u32(0..100) < 2 {
        usual * 100
    } else {
        usual
    }
}

fn at(latencies: &[Duration], share: f64) -> Duration {
    latencies[(latencies.len() as f64 * share) as usize]
}

#[tokio::test(start_paused = true)]
async fn hedging_cuts_the_tail_and_costs_no_more_than_the_budget() {
    let budget = || Budget::new(0.1, 0);
    let off = RetryLayer::new(RetryPolicy::new().budget(budget()));
    let on = RetryLayer::new(
        RetryPolicy::new()
            .budget(budget())
            .hedge(HedgePolicy::new()),
    );
    let (plain, load) = simulate(off, 1000, some_slow).await;
    assert_eq!(load, 1.0);
    let (hedged, load) = simulate(on, 1000, some_slow).await;
    for share in [0.5, 0.95, 0.99, 0.999] {
        println!(
            "p{}: {:?} without, {:?} with",
            share * 100.0,
            at(&plain, share),
            at(&hedged, share)
        );
    }
    println!("attempts for each call: {load:.4}");
    assert!(at(&plain, 0.99) >= ms(500));
    assert!(at(&hedged, 0.99) <= ms(40));
    assert!(at(&hedged, 0.5) <= at(&plain, 0.5));
    // Two in a hundred are slower than the delay.
    assert!(load > 1.015 && load <= 1.03, "{load}");
}

#[tokio::test(start_paused = true)]
async fn the_delay_does_not_run_away_though_what_is_slow_is_cut_short() {
    // Exponential, with a mean of 200 ms: three windows of half a minute, and a hedge for five calls in
    // a hundred in all of them.
    let policy = RetryPolicy::new()
        .budget(Budget::new(1.0, 0))
        .hedge(HedgePolicy::new());
    let exponential = |random: &mut fastrand::Rng| (-200.0 * (1.0 - random.f64()).ln()) as u64;
    let (_, load) = simulate(RetryLayer::new(policy), 200, exponential).await;
    println!("attempts for each call: {load:.4}");
    assert!(load > 1.035 && load < 1.055, "{load}");
}

#[tokio::test(start_paused = true)]
async fn the_budget_bounds_hedges_however_short_their_delay_is() {
    let policy = RetryPolicy::new()
        .budget(Budget::new(0.1, 0))
        .hedge(after(1));
    let (_, load) = simulate(RetryLayer::new(policy), 1000, some_slow).await;
    println!("attempts for each call: {load:.4}");
    assert!(load > 1.08 && load <= 1.1, "{load}");
}
