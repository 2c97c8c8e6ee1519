//! Priorities, zones, panic and subsets.

use http::HeaderName;
use tokio::time::{Instant, advance};
use tower_plugins_layers::balance::{BalancePolicy, KeyFrom, Strategy, SubsetFallback};

use super::*;

/// A hundred endpoints of each level, so many of which are up.
fn up_in(levels: &[usize]) -> Vec<Spot> {
    let spots = Spot::many(levels.len() * 100);
    for (n, spot) in spots.iter().enumerate() {
        spot.set_up(n % 100 < levels[n / 100]);
    }
    spots
}

fn by_hundreds(n: usize) -> EndpointMeta {
    EndpointMeta::new().priority(n as u32 / 100)
}

#[tokio::test(start_paused = true)]
async fn a_level_that_loses_endpoints_spills_into_the_next() {
    fastrand::seed(7);
    // How many of a hundred are up in each level, and what part of the calls each gets: 1.4 times its part that is
    // up, as long as there is something left; if all together cannot take everything, in proportion.
    let table: &[(&[usize], &[f64])] = &[
        (&[100, 100], &[1.0, 0.0]),
        (&[72, 100], &[1.0, 0.0]),
        (&[71, 100], &[0.994, 0.006]),
        (&[50, 100], &[0.7, 0.3]),
        (&[25, 100], &[0.35, 0.65]),
        (&[0, 100], &[0.0, 1.0]),
        (&[25, 25, 100], &[0.35, 0.35, 0.3]),
        (&[50, 50, 100], &[0.7, 0.3, 0.0]),
        (&[25, 25, 50], &[0.35, 0.35, 0.3]),
        (&[25, 50], &[0.35, 0.65]),
        (&[50, 20], &[0.7 / 0.98, 0.28 / 0.98]),
        (&[20, 50, 0], &[0.28 / 0.98, 0.7 / 0.98, 0.0]),
        // Nobody has half: all share by the number of their endpoints, up or not.
        (&[20, 20], &[0.5, 0.5]),
        (&[0, 0], &[0.5, 0.5]),
    ];
    for (up, wanted) in table {
        for strategy in [Strategy::PeakEwma, Strategy::RoundRobin] {
            let balance = balance(strategy, &up_in(up), by_hundreds);
            let levels = balance.levels(Instant::now());
            let shares: Vec<_> = levels.iter().map(|level| level.share).collect();
            println!("{up:?} up of 100 each: {shares:.3?}");
            for (level, (share, wanted)) in shares.iter().zip(*wanted).enumerate() {
                assert!((share - wanted).abs() < 1e-9, "{up:?}: {shares:?}");
                assert_eq!(levels[level].usable, up[level]);
                assert_eq!(
                    (levels[level].all, levels[level].priority),
                    (100, level as u32)
                );
            }
            if up.iter().all(|&up| up == 0) {
                assert_eq!(refusal(&balance), Some(Reason::NoEndpoint));
                continue;
            }
            let spread = parts(&spread(&balance, 4000));
            for (level, wanted) in wanted.iter().enumerate() {
                let part: f64 = spread[level * 100..][..100].iter().sum();
                assert!(
                    (part - wanted).abs() < 0.03,
                    "{up:?}, level {level}: {part}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn overprovisioning_says_when_a_level_begins_to_spill() {
    for (factor, up, wanted) in [(1.0, 80, 0.8), (2.0, 50, 1.0), (2.0, 40, 0.8)] {
        let policy = BalancePolicy::new(Strategy::PeakEwma).overprovisioning(factor);
        let balance = balance(policy, &up_in(&[up, 100]), by_hundreds);
        let share = balance.levels(Instant::now())[0].share;
        assert!((share - wanted).abs() < 1e-9, "{factor}, {up}: {share}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_come_back_to_a_level_that_is_well_again() {
    fastrand::seed(7);
    let spots = Spot::many(200);
    let balance = balance(Strategy::PeakEwma, &spots, by_hundreds);
    let first_level = |balance: &Balance<Spot>| spread(balance, 1000)[..100].iter().sum::<usize>();
    assert_eq!(first_level(&balance), 1000);
    for spot in &spots[..100] {
        spot.set_up(false);
    }
    // At once, though the levels are counted anew only later.
    assert_eq!(first_level(&balance), 0);
    for spot in &spots[..100] {
        spot.set_up(true);
    }
    advance(Duration::from_millis(10)).await;
    assert_eq!(first_level(&balance), 1000);
}

#[tokio::test(start_paused = true)]
async fn keys_keep_their_level_as_well_as_their_endpoint() {
    let spots = up_in(&[50, 100]);
    let policy = BalancePolicy::new(Strategy::Maglev)
        .hash_on(KeyFrom::header(HeaderName::from_static("x-user")));
    let balance = balance(policy, &spots, by_hundreds);
    let owner = |user: usize| {
        let request = Request::get("/")
            .header("x-user", user)
            .body(())
            .expect("one");
        try_send(&balance, request).expect("an answer")
    };
    let before: Vec<_> = (0..1000).map(owner).collect();
    let second = before.iter().filter(|&&n| n >= 100).count();
    assert!((250..350).contains(&second), "{second}");
    assert!((0..1000).all(|user| owner(user) == before[user]));
}

#[tokio::test(start_paused = true)]
async fn calls_stay_in_their_zone_until_too_few_are_left_there() {
    fastrand::seed(7);
    for (up, wanted) in [(10, 1.0), (8, 1.0), (5, 0.7), (0, 0.0)] {
        let spots = Spot::many(30);
        for spot in &spots[up..10] {
            spot.set_up(false);
        }
        let policy = BalancePolicy::new(Strategy::PeakEwma).zone("a");
        let balance = balance(policy, &spots, |n| {
            EndpointMeta::new().zone(["a", "b", "c"][n / 10])
        });
        let spread = parts(&spread(&balance, 10_000));
        let here: f64 = spread[..10].iter().sum();
        println!("{up} of 10 up in the zone: {here:.3} of the calls stay");
        assert!((here - wanted).abs() < 0.02, "{up}: {here}");
        let levels = balance.levels(Instant::now());
        assert_eq!((levels[0].elsewhere, levels[1].elsewhere), (false, true));
        // The rest goes to both others alike.
        let (b, c): (f64, f64) = (spread[10..20].iter().sum(), spread[20..].iter().sum());
        assert!((b - c).abs() < 0.05, "{b} and {c}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_zone_comes_before_a_lower_priority() {
    let spots = Spot::many(3);
    let policy = BalancePolicy::new(Strategy::RoundRobin).zone("a");
    let balance = balance(policy, &spots, |n| match n {
        0 => EndpointMeta::new().zone("a").priority(1),
        1 => EndpointMeta::new().zone("b"),
        _ => EndpointMeta::new().zone("a"),
    });
    let order = [2, 1, 0];
    for n in order {
        assert_eq!(send(&balance), n);
        spots[n].set_up(false);
        advance(Duration::from_millis(10)).await;
    }
    assert_eq!(refusal(&balance), Some(Reason::NoEndpoint));
}

#[tokio::test(start_paused = true)]
async fn ejection_is_ignored_when_too_few_would_be_left() {
    fastrand::seed(7);
    for strategy in Strategy::ALL {
        // How many of ten are ejected, the threshold, and whether those get calls.
        for (ejected, threshold, panics) in [
            (4, 0.5, false),
            (5, 0.5, false),
            (6, 0.5, true),
            (10, 0.5, true),
            (6, 0.0, false),
            // 7 of 10 are taken to be good for 98 % of the calls.
            (3, 0.9, true),
            (2, 0.9, false),
            (4, 0.7, true),
        ] {
            let spots = Spot::many(10);
            for spot in &spots[..ejected] {
                spot.set_ejected(true);
            }
            let policy = BalancePolicy::new(strategy).panic_threshold(threshold);
            let balance = balance(policy, &spots, plain);
            let spread = spread(&balance, 500);
            let to_ejected: usize = spread[..ejected].iter().sum();
            let level = balance.levels(Instant::now())[0];
            assert_eq!(level.panic, panics, "{ejected} of 10 at {threshold}");
            assert_eq!(
                to_ejected > 0,
                panics,
                "{strategy:?}, {ejected} of 10 at {threshold}: {spread:?}"
            );
        }
        let spots = Spot::many(10);
        spots.iter().for_each(|spot| spot.set_ejected(true));
        let policy = BalancePolicy::new(strategy).panic_threshold(0.0);
        assert_eq!(
            refusal(&balance(policy, &spots, plain)),
            Some(Reason::NoEndpoint)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn no_panic_overrules_a_breaker() {
    for strategy in Strategy::ALL {
        let spots = Spot::many(10);
        for (n, spot) in spots.iter().enumerate() {
            spot.set_up(n == 4);
            spot.set_ejected(true);
        }
        let balance = balance(strategy, &spots, plain);
        assert_eq!(spread(&balance, 50)[4], 50, "{strategy:?}");
        spots[4].set_up(false);
        assert_eq!(refusal(&balance), Some(Reason::NoEndpoint), "{strategy:?}");
    }
}

fn versions(n: usize) -> EndpointMeta {
    let version = ["1", "1", "2", "3"][n];
    let meta = EndpointMeta::new().label("version", version);
    if n == 1 {
        meta.label("canary", "yes")
    } else {
        meta
    }
}

fn wants(version: &str) -> Request<()> {
    Request::get("/")
        .header("x-version", version)
        .body(())
        .expect("one")
}

#[tokio::test(start_paused = true)]
async fn a_policys_subset_is_all_there_is() {
    let policy = |version| BalancePolicy::new(Strategy::RoundRobin).subset("version", version);
    let spots = Spot::many(4);
    assert_eq!(
        spread(&balance(policy("1"), &spots, versions), 100),
        [50, 50, 0, 0]
    );
    let canary = policy("1").subset("canary", "yes");
    assert_eq!(
        spread(&balance(canary, &spots, versions), 100),
        [0, 100, 0, 0]
    );
    // Nobody is in it: everybody, or nobody.
    assert_eq!(
        spread(&balance(policy("9"), &spots, versions), 100),
        [25; 4]
    );
    let strict = policy("9").subset_fallback(SubsetFallback::None);
    assert_eq!(
        refusal(&balance(strict, &spots, versions)),
        Some(Reason::NoEndpoint)
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_to_the_subset_that_it_asks_for() {
    let header = |name| KeyFrom::header(HeaderName::from_static(name));
    let policy = BalancePolicy::new(Strategy::RoundRobin).subset_on("version", header("x-version"));
    let spots = Spot::many(4);
    let ask = |balance: &Balance<Spot>, version| try_send(balance, wants(version));
    let any = balance(policy.clone(), &spots, versions);
    for (version, owners) in [
        ("1", &[0, 1][..]),
        ("2", &[2]),
        ("3", &[3]),
        ("4", &[0, 1, 2, 3]),
    ] {
        for _ in 0..20 {
            let n = ask(&any, version).expect("an answer");
            assert!(owners.contains(&n), "{version}: {n}");
        }
    }
    let strict = balance(
        policy.clone().subset_fallback(SubsetFallback::None),
        &spots,
        versions,
    );
    assert_eq!(ask(&strict, "2").expect("an answer"), 2);
    for request in [wants("4"), Request::new(())] {
        let error = try_send(&strict, request).expect_err("nobody");
        assert_eq!(Reason::of(&*error), Some(Reason::NoEndpoint));
    }
    // A subset whose endpoints are away is not another's business.
    spots[0].set_up(false);
    spots[1].set_up(false);
    assert!(ask(&any, "1").is_err());

    let both = policy
        .subset_on("canary", header("x-canary"))
        .subset_fallback(SubsetFallback::None);
    spots[1].set_up(true);
    let both = balance(both, &spots, versions);
    let mut canary = wants("1");
    assert!(try_send(&both, wants("1")).is_err());
    canary
        .headers_mut()
        .insert("x-canary", "yes".parse().expect("a value"));
    assert_eq!(try_send(&both, canary).expect("an answer"), 1);
}
