use std::time::Duration;

use fastrand::Rng;
use proptest::prelude::*;

use super::{Judge, Margins, Verdict, Worse, z};
use crate::node::Tally;

const LOOK: Duration = Duration::from_millis(100);
const MILLI: Duration = Duration::from_millis(1);

/// So many calls, of which so many fail and the others take 10 ms.
fn calls(calls: u64, failures: u64) -> Tally {
    let mut tally = Tally::of([], failures);
    tally.add_many(10 * MILLI, calls - failures);
    tally
}

fn judge() -> Judge {
    Judge::new(Margins::default())
}

/// What one look says of these numbers.
fn look(old: &Tally, new: &Tally) -> Option<Worse> {
    judge().look(old, new, LOOK)
}

/// So many calls, each of which fails with this chance.
fn some(rng: &mut Rng, n: u32, chance: f64) -> Tally {
    let failures = (0..n).filter(|_| rng.f64() < chance).count();
    calls(n.into(), failures as u64)
}

proptest! {
    #[test]
    fn it_says_what_the_formula_says(
        n0 in 0..3_000_u64, n1 in 0..300_u64, share0 in 0.0..=1.0_f64, share1 in 0.0..=1.0_f64,
    ) {
        let part = |n: u64, share: f64| (n as f64 * share).round() as u64;
        let (f0, f1) = (part(n0, share0), part(n1, share1));
        let (p0, p1) = (f0 as f64 / n0 as f64, f1 as f64 / n1 as f64);
        let p = (f0 + f1) as f64 / (n0 + n1) as f64;
        let spread = 1.0 / n0 as f64 + 1.0 / n1 as f64;
        let z = ((p1 - p0) - spread / 2.0) / (p * (1.0 - p) * spread).sqrt();
        let many = n1 >= 50 && z > 3.1 && p1 - p0 > 0.02;
        let all = n1 >= 20 && f1 == n1 && (n0 == 0 || p1 - p0 > 0.02);
        let worse = look(&calls(n0, f0), &calls(n1, f1));
        prop_assert_eq!(worse.is_some(), many || all, "{:?}: z = {}", worse, z);
        if let Some(Worse::Fails { share, calls, before }) = worse {
            prop_assert_eq!((share, calls, before), (p1, n1, (n0 > 0).then_some(p0)));
        }
    }

    #[test]
    fn no_numbers_are_too_strange_for_it(
        n0 in 0..3_u64, n1 in 0..3_u64, f0 in 0..3_u64, f1 in 0..3_u64,
        big in prop::sample::select(vec![1, 1_000_000_000, 1 << 60]),
    ) {
        let mut old = calls(n0 + f0, f0);
        let mut new = calls(n1 + f1, f1);
        old.add([], f0 * (big / 4));
        new.add([], f1 * (big / 4));
        prop_assert!(z(&old, &new).is_finite());
    }
}

#[test]
fn a_version_that_fails_always_is_worse_without_anything_to_compare() {
    let nothing = Tally::new();
    assert_eq!(look(&nothing, &calls(19, 19)), None);
    let worse = look(&nothing, &calls(20, 20)).unwrap();
    assert_eq!(
        worse.to_string(),
        "fails 100.0 % of 20 calls, with none before to compare"
    );
    assert_eq!(look(&nothing, &calls(1000, 999)), None);
    assert!(look(&calls(10, 0), &calls(20, 20)).is_some());
    // The one before did no better: what fails is not of this version's making.
    assert_eq!(look(&calls(1000, 1000), &calls(1000, 1000)), None);
}

#[test]
fn a_version_that_fails_more_often_is_worse() {
    let old = calls(100_000, 100);
    let worse = look(&old, &calls(240, 75)).unwrap();
    assert_eq!(worse.to_string(), "fails 31.2 % of 240 calls, 0.1 % before");
    // Too few of them, and less than two points.
    assert_eq!(look(&old, &calls(49, 20)), None);
    assert_eq!(look(&old, &calls(100_000, 2_000)), None);
    assert!(look(&old, &calls(100_000, 2_200)).is_some());
}

/// Says after which of the looks, if after any, a version is sent back that fails with one chance, where the one before
/// failed with the other. Each look sees as many calls more.
fn sent_back(rng: &mut Rng, looks: u32, calls: u32, [before, after]: [f64; 2]) -> Option<u32> {
    let old = some(rng, calls * 100, before);
    let (mut new, mut judge) = (Tally::new(), judge());
    (1..=looks).find(|n| {
        new.add_all(&some(rng, calls, after));
        judge.look(&old, &new, *n * LOOK).is_some()
    })
}

#[test]
fn of_a_hundred_good_versions_fewer_than_two_are_sent_back_for_their_failures() {
    let mut rng = Rng::with_seed(6);
    for (calls, chance) in [(1, 0.01), (5, 0.01), (10, 0.01), (50, 0.01), (5, 0.2)] {
        let good = |_: &u32| sent_back(&mut rng, 100, calls, [chance; 2]).is_some();
        let part = (0..1000).filter(good).count() as f64 / 1000.0;
        let (rate, percent) = (calls * 10, chance * 100.0);
        println!("{part:.3} sent back at {rate} calls a second of which {percent} % fail");
        assert!(part < 0.02, "{part} at {rate} calls a second");
    }
}

#[test]
fn at_a_thousand_calls_a_second_three_in_ten_failures_are_seen_within_two_seconds() {
    let mut rng = Rng::with_seed(6);
    let seen = (0..200).map(|_| sent_back(&mut rng, 20, 100, [0.001, 0.3]));
    let latest = seen.map(|look| look.unwrap_or(u32::MAX)).max();
    println!("seen by look {latest:?} at the latest");
    assert!(latest < Some(20));
}

/// Makes a call's time from two numbers between 0 and 1.
type Draw = fn(f64, f64) -> f64;

/// Times whose logarithm is normally distributed, by Box and Muller.
fn log_normal(a: f64, b: f64) -> f64 {
    let normal = (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos();
    normal.exp()
}

/// Times with Pareto's long tail.
fn pareto(a: f64, _: f64) -> f64 {
    (1.0 - a).powf(-1.0 / 1.5)
}

fn times(rng: &mut Rng, draw: Draw, n: u32, scale: f64) -> Vec<Duration> {
    let times = (0..n).map(|_| (draw(rng.f64(), rng.f64()) * scale / 100.0).min(60.0));
    times.map(Duration::from_secs_f64).collect()
}

#[test]
fn of_a_hundred_good_versions_fewer_than_two_are_sent_back_for_long_tails() {
    for (name, draw) in [("log-normal", log_normal as Draw), ("pareto", pareto)] {
        for per_look in [4, 40] {
            let mut rng = Rng::with_seed(6);
            let sent_back = (0..200).filter(|_| {
                let old = Tally::of(times(&mut rng, draw, per_look * 300, 1.0), 0);
                let (mut new, mut judge) = (Tally::new(), judge());
                (1..=300).any(|n| {
                    new.add(times(&mut rng, draw, per_look, 1.0), 0);
                    judge.look(&old, &new, n * LOOK).is_some()
                })
            });
            let part = sent_back.count() as f64 / 200.0;
            println!(
                "{part:.3} sent back at {} {name} calls a second",
                per_look * 10
            );
            assert!(part < 0.02, "{part} of {name} at {per_look} calls a look");
        }
    }
}

#[test]
fn a_version_three_times_as_slow_is_seen_within_two_seconds() {
    for draw in [log_normal as Draw, pareto] {
        let mut rng = Rng::with_seed(6);
        let old = Tally::of(times(&mut rng, draw, 60_000, 1.0), 0);
        let (mut new, mut judge) = (Tally::new(), judge());
        let seen = (1..20).find(|n| {
            new.add(times(&mut rng, draw, 100, 3.0), 0);
            judge.look(&old, &new, *n * LOOK).is_some()
        });
        assert_eq!(seen, Some(15));
    }
}

/// What is said of two hundred calls in each half second that take so many tenths of a millisecond, with a thousand of
/// before, and two hundred beside them.
fn windows(before: u32, beside: Option<u32>, new: &[u32]) -> Vec<Option<Worse>> {
    let took = |tenths: u32| tenths * MILLI / 10;
    let mut old = Tally::new();
    old.add_many(took(before), 1_000);
    let (mut tally, mut judge) = (Tally::new(), judge());
    let looks = (1..).zip(new).map(|(n, tenths)| {
        tally.add_many(took(*tenths), 200);
        if let Some(beside) = beside {
            old.add_many(took(beside), 200);
        }
        judge.look(&old, &tally, n * 5 * LOOK)
    });
    looks.collect()
}

#[test]
fn a_version_is_slow_after_three_windows_in_a_row() {
    let slow = windows(100, None, &[250; 3]);
    assert_eq!(slow[..2], [None, None]);
    let slow = slow[2].unwrap();
    let Worse::Slow { p99, before, .. } = slow else {
        panic!("{slow}");
    };
    assert!(p99 >= 25 * MILLI && p99 <= 29 * MILLI);
    assert!(before >= 10 * MILLI && before <= 12 * MILLI);
    let with_good_ones = windows(100, None, &[250, 250, 100, 250, 250, 100, 250]);
    assert_eq!(with_good_ones, [None; 7]);
    // Less than twice as slow, and less than a millisecond, is nothing.
    assert_eq!(windows(100, None, &[170; 6]), [None; 6]);
    assert_eq!(windows(1, None, &[9; 6]), [None; 6]);
}

#[test]
fn an_hour_in_which_the_version_before_is_slow_too_is_not_held_against_one() {
    assert_eq!(windows(100, Some(800), &[850; 6]), [None; 6]);
}

#[test]
fn a_window_has_enough_calls_and_time_and_is_held_against_enough_calls() {
    for (calls, every, before, is_worse) in [
        (66, 5, 1000, false),
        (1000, 1, 1000, false),
        (1000, 5, 999, false),
        (200, 5, 1000, true),
    ] {
        let mut old = Tally::new();
        old.add_many(MILLI, before);
        let (mut new, mut judge) = (Tally::new(), judge());
        let worse = (1..=3).any(|n| {
            new.add_many(50 * MILLI, calls);
            judge.look(&old, &new, n * every * LOOK).is_some()
        });
        assert_eq!(worse, is_worse, "{calls} calls, {before} before");
    }
}

#[test]
fn what_was_not_compared_or_had_few_calls_is_unjudged() {
    let mut judge = judge();
    let new = calls(100, 0);
    judge.look(&Tally::new(), &new, LOOK);
    assert_eq!(judge.verdict(&new, None), Verdict::Unjudged);
    judge.look(&calls(100, 0), &new, LOOK);
    assert_eq!(judge.verdict(&new, None), Verdict::Fine);
    assert_eq!(judge.verdict(&calls(49, 0), None), Verdict::Unjudged);
    assert_eq!(judge.verdict(&new, Some(200)), Verdict::Unjudged);
    assert_eq!(judge.verdict(&calls(20, 0), Some(20)), Verdict::Fine);
}

#[test]
fn times_are_told_in_units_that_fit() {
    let slow = |p99, before| {
        Worse::Slow {
            p99,
            before,
            windows: 3,
        }
        .to_string()
    };
    assert_eq!(
        slow(240 * MILLI, 12 * MILLI),
        "p99 240 ms, 12 ms before, for 3 windows"
    );
    assert_eq!(
        slow(10_000 * MILLI, MILLI / 2),
        "p99 10 s, 500 us before, for 3 windows"
    );
}
