//! How calls are spread over endpoints, by each strategy that a config can name.

use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::{Request, Response};
use tokio::task::JoinSet;
use tower::{ServiceExt, service_fn};
use tower_plugins::{Body, Plugins};

use super::shared;
use crate::support::{config, get};

/// Endpoints of this process, each of which counts its calls.
struct Spread {
    plugins: Plugins,
    counts: Arc<[AtomicUsize]>,
}

impl Spread {
    /// A call to the endpoint `n` takes `takes(n)`.
    async fn start(weights: &[u32], takes: fn(usize) -> Duration, strategy: &str) -> Self {
        let counts: Arc<[_]> = weights.iter().map(|_| AtomicUsize::new(0)).collect();
        let mut builder = Plugins::builder();
        for n in 0..weights.len() {
            let counts = Arc::clone(&counts);
            let service = service_fn(move |_: Request<Body>| {
                counts[n].fetch_add(1, SeqCst);
                async move {
                    tokio::time::sleep(takes(n)).await;
                    let body = Body::from(n.to_string());
                    Ok::<_, Infallible>(Response::new(body))
                }
            });
            builder = builder.service(&format!("s{n}"), service);
        }
        let yaml = yaml(weights, strategy);
        let plugins = builder.start(config(&yaml)).await.unwrap();
        Self { plugins, counts }
    }

    /// What each endpoint has had since it was asked last.
    fn counts(&self) -> Vec<usize> {
        self.counts
            .iter()
            .map(|count| count.swap(0, SeqCst))
            .collect()
    }

    /// Makes calls one after the other.
    async fn one_by_one(&self, calls: usize) -> Vec<usize> {
        for _ in 0..calls {
            self.plugins.plugin("p").oneshot(get("/")).await.unwrap();
        }
        self.counts()
    }

    /// Makes calls, `at_once` of them under way all the time.
    async fn together(&self, calls: usize, at_once: usize) -> Vec<usize> {
        let left: Arc<AtomicUsize> = shared();
        left.store(calls, SeqCst);
        let mut callers = JoinSet::new();
        for _ in 0..at_once {
            let (plugin, left) = (self.plugins.plugin("p"), Arc::clone(&left));
            callers.spawn(async move {
                let take = |left: usize| left.checked_sub(1);
                while left.fetch_update(SeqCst, SeqCst, take).is_ok() {
                    plugin.clone().oneshot(get("/")).await.unwrap();
                }
            });
        }
        callers.join_all().await;
        self.counts()
    }

    /// Which endpoint each of so many users has.
    async fn owners(&self, users: usize) -> Vec<String> {
        let mut owners = Vec::with_capacity(users);
        for user in 0..users {
            let request = Request::get("/").header("x-user", format!("user-{user}"));
            let request = request.body(Body::empty()).unwrap();
            let response = self.plugins.plugin("p").oneshot(request).await.unwrap();
            let body = crate::support::read(response).await;
            owners.push(String::from_utf8(body.to_vec()).unwrap());
        }
        owners
    }
}

fn yaml(weights: &[u32], strategy: &str) -> String {
    let ends = weights.iter().enumerate();
    let ends: Vec<_> = ends
        .map(|(n, weight)| format!("{{ url: s{n}, weight: {weight} }}"))
        .collect();
    format!(
        "plugins: {{ p: {{ transport: in-process, endpoints: [{}], retry: off,
            load_balancing: {{ strategy: {strategy} }} }} }}",
        ends.join(", ")
    )
}

fn at_once(_: usize) -> Duration {
    Duration::ZERO
}

fn ten(_: usize) -> Duration {
    Duration::from_millis(10)
}

/// The first is ten times slower.
fn first_slow(n: usize) -> Duration {
    Duration::from_millis(if n == 0 { 100 } else { 10 })
}

fn assert_each(counts: &[usize], within: &[RangeInclusive<usize>], of: &str) {
    println!("{of}: {counts:?}");
    for (n, (count, within)) in counts.iter().zip(within).enumerate() {
        assert!(
            within.contains(count),
            "{of}: {n} had {count}, not {within:?}"
        );
    }
}

/// Five standard deviations of a draw around what is expected.
fn drawn(calls: usize, share: f64) -> RangeInclusive<usize> {
    let (mean, deviation) = (
        calls as f64 * share,
        (calls as f64 * share * (1.0 - share)).sqrt(),
    );
    (mean - 5.0 * deviation) as usize..=(mean + 5.0 * deviation) as usize
}

const CALLS: usize = 4_000;
const EVEN: [u32; 4] = [1; 4];
const RISING: [u32; 4] = [1, 2, 3, 4];

#[tokio::test(start_paused = true)]
async fn turns_are_exact_and_draws_are_within_chance() {
    fastrand::seed(7);
    let by_weight = RISING.map(|weight| f64::from(weight) / 10.0);
    let exact = |share: f64| {
        let mean = (CALLS as f64 * share) as usize;
        mean - 4..=mean + 4
    };
    for (strategy, within) in [
        ("round-robin", [(); 4].map(|()| CALLS / 4..=CALLS / 4)),
        ("weighted-round-robin", by_weight.map(exact)),
        ("random", [(); 4].map(|()| drawn(CALLS, 0.25))),
        (
            "weighted-random",
            by_weight.map(|share| drawn(CALLS, share)),
        ),
    ] {
        let spread = Spread::start(&RISING, at_once, strategy).await;
        assert_each(&spread.one_by_one(CALLS).await, &within, strategy);
    }
}

#[tokio::test(start_paused = true)]
async fn equal_endpoints_share_calls_evenly_by_load_and_by_latency() {
    fastrand::seed(7);
    let fair = CALLS / 4;
    for (strategy, slack) in [
        ("least-connections", fair / 20),
        ("least-request", fair / 10),
        ("peak-ewma", fair / 10),
    ] {
        let within = [(); 4].map(|()| fair - slack..=fair + slack);
        let spread = Spread::start(&EVEN, ten, strategy).await;
        assert_each(&spread.together(CALLS, 40).await, &within, strategy);
    }
}

#[tokio::test(start_paused = true)]
async fn weights_count_by_load_and_by_latency() {
    fastrand::seed(7);
    let even = [0.1, 0.2, 0.3, 0.4];
    // Two are drawn, whatever their weights, and one of them by its weight: the sum over pairs.
    let of_two = [0.131, 0.233, 0.296, 0.340];
    // The same where calls under way divide the weight: about its square root.
    let divided = [0.177, 0.241, 0.279, 0.303];
    for (strategy, shares) in [
        ("least-connections", even),
        ("least-request, least_request_bias: 0", of_two),
        ("least-request", divided),
        ("peak-ewma", even),
    ] {
        let within = shares.map(|share| {
            let mean = CALLS as f64 * share;
            (mean * 0.85) as usize..=(mean * 1.15) as usize
        });
        let spread = Spread::start(&RISING, ten, strategy).await;
        assert_each(&spread.together(CALLS, 40).await, &within, strategy);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_gets_less_by_load_and_hardly_anything_by_latency() {
    fastrand::seed(7);
    for (strategy, most) in [
        // As many calls are under way there as elsewhere, for ten times as long.
        ("least-connections", CALLS / 20),
        ("least-request", CALLS / 10),
        ("least-latency", CALLS / 50),
        ("peak-ewma", CALLS / 50),
    ] {
        let spread = Spread::start(&[1; 3], first_slow, strategy).await;
        let counts = spread.together(CALLS, 12).await;
        println!("{strategy}: {counts:?}");
        assert!(counts[0] <= most, "{strategy}: {counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_spread_by_a_hash_and_few_of_them_move_when_an_endpoint_leaves() {
    const USERS: usize = 3_000;
    for (strategy, slack) in [
        ("ring-hash", 0.35),
        ("maglev", 0.2),
        ("consistent-hash", 0.35),
    ] {
        let strategy = format!("{strategy}, hash_on: 'header:x-user', load_factor: 0");
        for n in [3, 5, 10] {
            let weights = vec![1; n];
            let spread = Spread::start(&weights, at_once, &strategy).await;
            let before = spread.owners(USERS).await;
            let fair = USERS as f64 / n as f64;
            let fair = (fair * (1.0 - slack)) as usize..=(fair * (1.0 + slack)) as usize;
            assert_each(&spread.counts(), &vec![fair; n], &strategy);
            spread.plugins.reload(fewer(&strategy, n)).await.unwrap();
            let after = spread.owners(USERS).await;
            let moved = before.iter().zip(&after).filter(|(one, two)| one != two);
            let part = moved.count() as f64 / USERS as f64;
            println!("{strategy} of {n}: {part:.3} of the keys move");
            assert!(part <= 1.0 / n as f64 + 0.05, "{strategy} of {n}: {part}");
            assert!(!after.contains(&"1".to_owned()));
        }
    }
}

/// The same without the endpoint 1.
fn fewer(strategy: &str, n: usize) -> tower_plugins::config::Config {
    let mut config = config(&yaml(&vec![1; n], strategy));
    for plugin in config.plugins.values_mut() {
        plugin.upstream.endpoints.remove(1);
    }
    config
}
