//! How calls are shared by strategies that look at no key.

use std::sync::atomic::Ordering::SeqCst;

use proptest::prelude::*;
use tokio::time::Instant;
use tower_plugins_layers::balance::{BalancePolicy, EndpointMeta, Strategy};

use super::*;

const CALLS: usize = 20_000;
const WEIGHTS: &[u32] = &[1, 2, 3, 4];

#[tokio::test(start_paused = true)]
async fn equal_endpoints_get_equal_shares() {
    fastrand::seed(7);
    for strategy in Strategy::ALL {
        let balance = balance(strategy, &Spot::many(10), plain);
        let spread = spread(&balance, CALLS);
        let wanted = (CALLS / 10) as f64;
        let square = |&n: &usize| (n as f64 - wanted).powi(2) / wanted;
        let chi_square: f64 = spread.iter().map(square).sum();
        println!("{strategy:?}: chi-square {chi_square:.1} at 9 degrees of freedom, {spread:?}");
        // One in a thousand of fair draws is above 27.9.
        assert!(chi_square < 27.9, "{strategy:?}: {chi_square}");
        if matches!(
            strategy,
            Strategy::RoundRobin | Strategy::WeightedRoundRobin
        ) {
            assert_eq!(spread, [CALLS / 10; 10]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn idle_endpoints_get_calls_by_weight() {
    fastrand::seed(7);
    for (strategy, most) in [
        (Strategy::WeightedRoundRobin, 1e-9),
        (Strategy::WeightedRandom, 0.01),
        (Strategy::PeakEwma, 0.01),
        (Strategy::LeastConnections, 0.01),
    ] {
        let balance = balance(strategy, &Spot::many(4), weighted(WEIGHTS));
        let error = error(&spread(&balance, CALLS), WEIGHTS);
        println!("{strategy:?}: shares are off by {error:.4} at the most");
        assert!(error < most, "{strategy:?}: {error}");
    }
    let pair = balance(Strategy::LeastRequest, &Spot::many(2), weighted(&[1, 3]));
    let error = error(&spread(&pair, CALLS), &[1, 3]);
    println!("LeastRequest: shares are off by {error:.4} at the most");
    assert!(error < 0.01, "{error}");
}

#[tokio::test(start_paused = true)]
async fn round_robin_and_random_do_not_look_at_weights() {
    fastrand::seed(7);
    for strategy in [Strategy::RoundRobin, Strategy::Random] {
        let balance = balance(strategy, &Spot::many(4), weighted(WEIGHTS));
        let error = error(&spread(&balance, CALLS), &[1; 4]);
        assert!(error < 0.015, "{strategy:?}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn busy_endpoints_have_calls_under_way_by_weight() {
    fastrand::seed(7);
    for strategy in [Strategy::PeakEwma, Strategy::LeastConnections] {
        let spots = Spot::many(4);
        spots.iter().for_each(Spot::hold);
        let balance = balance(strategy, &spots, weighted(WEIGHTS));
        let error = error(&spread(&balance, CALLS), WEIGHTS);
        println!("{strategy:?}: calls under way are off by {error:.4} at the most");
        assert!(error < 0.01, "{strategy:?}: {error}");
    }
}

/// Its estimate says nothing of what has made the others slow meanwhile.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_just_back_is_not_thought_faster_than_the_fastest_other() {
    fastrand::seed(7);
    // Beside 15 ms and 10 ms: what is under way evens the loads out, as far as it is drawn at all.
    for (millis, is_back, part) in [
        (1, true, 3.0 / 8.0),
        (1, false, 2.0 / 3.0),
        (30, true, 1.0 / 6.0),
    ] {
        let spots = Spot::many(4);
        spots.iter().for_each(Spot::hold);
        spots[0].0.millis.store(millis, SeqCst);
        spots[0].0.back.store(is_back, SeqCst);
        spots[1].0.millis.store(15, SeqCst);
        spots[2].set_up(false);
        spots[2].0.millis.store(0, SeqCst);
        let found = parts(&spread(&balance(Strategy::PeakEwma, &spots, plain), CALLS))[0];
        println!("{millis} ms, back {is_back}: {found:.3}, {part:.3} expected");
        assert!((found - part).abs() < 0.01, "{millis}: {found}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_equal_endpoints_the_one_with_fewer_calls_is_picked() {
    for strategy in [
        Strategy::PeakEwma,
        Strategy::LeastRequest,
        Strategy::LeastConnections,
    ] {
        let spots = Spot::many(2);
        spots[0].set_calls(2);
        spots[1].set_calls(1);
        let balance = balance(strategy, &spots, plain);
        assert_eq!(spread(&balance, 100), [0, 100], "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn bias_says_how_much_calls_under_way_count_beside_a_weight() {
    fastrand::seed(7);
    // 3 of weight by 9 + 1 calls, beside 1 by 0 + 1.
    for (bias, wanted) in [(0.0, 0.75), (1.0, 0.3 / 1.3), (2.0, 0.03 / 1.03)] {
        let spots = Spot::many(2);
        spots[1].set_calls(9);
        let policy = BalancePolicy::new(Strategy::LeastRequest).bias(bias);
        let part = parts(&spread(&balance(policy, &spots, weighted(&[1, 3])), CALLS))[1];
        println!("bias {bias}: {part:.3} to the heavy one, {wanted:.3} expected");
        assert!((part - wanted).abs() < 0.01, "{bias}: {part}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_least_of_all_is_found_among_few_and_a_near_one_among_many() {
    fastrand::seed(7);
    for strategy in [Strategy::LeastConnections, Strategy::LeastLatency] {
        let spots = Spot::many(32);
        for (n, spot) in spots.iter().enumerate() {
            let rank = (n + 13) % 32;
            spot.set_calls(rank);
            spot.0.millis.store(rank as u64 + 1, SeqCst);
        }
        assert!((0..100).all(|_| send(&balance(strategy, &spots, plain)) == 19));

        let spots = Spot::many(1000);
        let many = balance(strategy, &spots, plain);
        send(&many);
        let looks: usize = spots.iter().map(|spot| spot.0.looks.load(SeqCst)).sum();
        assert_eq!(looks, 10, "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_starts_slowly_gets_its_part_of_a_share() {
    fastrand::seed(7);
    for strategy in [
        Strategy::RoundRobin,
        Strategy::WeightedRoundRobin,
        Strategy::Random,
        Strategy::WeightedRandom,
    ] {
        let spots = Spot::many(4);
        spots[2].0.ramp.store(100, SeqCst);
        let balance = balance(strategy, &spots, plain);
        let part = parts(&spread(&balance, CALLS))[2];
        println!(
            "{strategy:?}: {part:.4} of the calls, {:.4} expected",
            0.1 / 3.1
        );
        assert!((part - 0.1 / 3.1).abs() < 0.01, "{strategy:?}: {part}");
    }
    for strategy in [
        Strategy::PeakEwma,
        Strategy::LeastRequest,
        Strategy::LeastConnections,
    ] {
        let spots = Spot::many(4);
        spots.iter().for_each(Spot::hold);
        spots[2].0.ramp.store(100, SeqCst);
        let part = parts(&spread(&balance(strategy, &spots, plain), CALLS))[2];
        println!("{strategy:?}: {part:.4} of the calls");
        assert!((0.001..0.15).contains(&part), "{strategy:?}: {part}");
    }
    // When all of them do, it makes no difference.
    let spots = Spot::many(4);
    for spot in &spots {
        spot.0.ramp.store(10, SeqCst);
    }
    for strategy in Strategy::ALL {
        let error = error(&spread(&balance(strategy, &spots, plain), CALLS), &[1; 4]);
        assert!(error < 0.05, "{strategy:?}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pick_among_a_thousand_looks_at_no_more_than_one_among_ten() {
    fastrand::seed(7);
    let looks = |strategy, n| {
        let spots = Spot::many(n);
        let balance = balance(strategy, &spots, |n| {
            EndpointMeta::new().weight(n as u32 % 3 + 1)
        });
        spread(&balance, 100);
        spots
            .iter()
            .map(|spot| spot.0.looks.load(SeqCst))
            .sum::<usize>()
    };
    for strategy in Strategy::ALL {
        let (ten, thousand) = (looks(strategy, 10), looks(strategy, 1000));
        println!("{strategy:?}: {ten} looks for 100 picks among 10, {thousand} among 1000");
        assert!(thousand <= ten, "{strategy:?}: {thousand}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_picked_is_counted_and_can_be_watched() {
    let spots = Spot::many(2);
    spots[1].set_up(false);
    spots[0].set_calls(4);
    let balance = balance(Strategy::RoundRobin, &spots, |n| {
        EndpointMeta::new().weight(n as u32 + 1).zone("here")
    });
    spread(&balance, 5);
    let status = balance.status(Instant::now());
    let seen: Vec<_> = status
        .iter()
        .map(|s| {
            (
                &*s.key,
                s.meta.get_weight(),
                s.meta.get_zone(),
                s.available,
                s.in_flight,
                s.picks,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("spot 0", 1, Some("here"), true, 4, 5),
            ("spot 1", 2, Some("here"), false, 0, 0),
        ]
    );
    assert_eq!(status[0].rtt, Duration::from_millis(10));
    assert!(!status[0].ejected && status[0].ramp >= 1.0);
}

/// An endpoint as a model draws it: weight, up, ejected, priority, zone.
type Drawn = (u32, bool, bool, u32, u8);

fn drawn() -> impl proptest::strategy::Strategy<Value = Vec<Drawn>> {
    let endpoint = (1_u32..20, any::<bool>(), any::<bool>(), 0_u32..3, 0_u8..3);
    proptest::collection::vec(endpoint, 2..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..ProptestConfig::default() })]

    /// At any moment each has had its share of the turns to within one: there are no bursts.
    #[test]
    fn turns_by_weight_are_spread_evenly(weights in proptest::collection::vec(1_u32..40, 1..12)) {
        let spots = Spot::many(weights.len());
        let balance = balance(Strategy::WeightedRoundRobin, &spots, |n| EndpointMeta::new().weight(weights[n]));
        let all: u32 = weights.iter().sum();
        let mut had = vec![0; weights.len()];
        for turn in 1..=2 * all {
            had[send(&balance)] += 1;
            for (had, weight) in had.iter().zip(&weights) {
                let due = f64::from(turn) * f64::from(*weight) / f64::from(all);
                prop_assert!((f64::from(*had) - due).abs() < 1.0, "{had} instead of {due} after {turn}");
            }
        }
    }

    /// One that may be picked is picked whenever there is one, and nobody else is.
    #[test]
    fn one_that_may_be_picked_is_picked_whenever_there_is_one(
        drawn in drawn(),
        panics in any::<bool>(),
        seed in any::<u64>(),
    ) {
        fastrand::seed(seed);
        let spots = Spot::many(drawn.len());
        for (spot, &(_, up, ejected, _, _)) in spots.iter().zip(&drawn) {
            spot.set_up(up);
            spot.set_ejected(ejected);
        }
        let available = drawn.iter().any(|&(_, up, ..)| up);
        let usable = drawn.iter().any(|&(_, up, ejected, ..)| up && !ejected);
        for strategy in Strategy::ALL {
            let policy = BalancePolicy::new(strategy)
                .panic_threshold(if panics { 0.5 } else { 0.0 })
                .zone("0");
            let balance = balance(policy, &spots, |n| {
                let (weight, _, _, priority, zone) = drawn[n];
                EndpointMeta::new().weight(weight).priority(priority).zone(zone.to_string())
            });
            for _ in 0..20 {
                match try_send(&balance, Request::new(())) {
                    Ok(n) => {
                        let (_, up, ejected, ..) = drawn[n];
                        prop_assert!(up, "{strategy:?} picked one that is not available");
                        prop_assert!(panics || !ejected, "{strategy:?} picked one that is ejected");
                    }
                    Err(error) => {
                        prop_assert_eq!(Reason::of(&*error), Some(Reason::NoEndpoint));
                        prop_assert!(!(usable || panics && available), "{:?} refused", strategy);
                    }
                }
            }
        }
    }
}
