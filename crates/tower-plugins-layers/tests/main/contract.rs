//! The one contract suite over every layer.

use std::time::Duration;

use tower_layer::Layer;
use tower_plugins_layers::balance::{
    BalancePolicy, EndpointMeta, EndpointSet, KeyFrom, LiveBalance, Load, LoadLayer, Strategy,
};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::contract;
use tower_plugins_layers::test_util::Probe;
use tower_plugins_layers::*;

contract!(identity, tower_layer::Identity::new());
contract!(
    attempt_timeout,
    AttemptTimeoutLayer::new(Duration::from_secs(5))
);
contract!(retry, RetryLayer::new(RetryPolicy::new()));
contract!(balance, balanced(Strategy::PeakEwma));
contract!(balance_round_robin, balanced(Strategy::RoundRobin));
contract!(
    balance_weighted_round_robin,
    balanced(Strategy::WeightedRoundRobin)
);
contract!(balance_random, balanced(Strategy::Random));
contract!(balance_weighted_random, balanced(Strategy::WeightedRandom));
contract!(balance_least_request, balanced(Strategy::LeastRequest));
contract!(
    balance_least_connections,
    balanced(Strategy::LeastConnections)
);
contract!(balance_least_latency, balanced(Strategy::LeastLatency));
contract!(balance_ring_hash, balanced(Strategy::RingHash));
contract!(balance_maglev, balanced(Strategy::Maglev));
contract!(balance_of_levels_and_subsets, leveled());
contract!(balance_of_a_changing_set, changing());
contract!(breaker, BreakerLayer::new(BreakerPolicy::new()));
contract!(breaker_off, BreakerLayer::off());
contract!(load, LoadLayer::new());
contract!(deadline, DeadlineLayer::new(Duration::from_secs(5)));
contract!(time_left, TimeLeftLayer::new());
contract!(rate_limit, RateLimitLayer::new(1000.0, 1000));
contract!(
    rate_limit_with_waiting,
    RateLimitLayer::new(1000.0, 1).max_wait(Duration::from_secs(1))
);
contract!(concurrency, ConcurrencyLayer::new(2));
contract!(credentials, CredentialsLayer::bearer("token").unwrap());
contract!(drain, DrainLayer::new(DrainHandle::new()));
contract!(trace, TraceLayer::new("plugin"));

contract!(
    optional_that_is,
    Optional::new(Some(ConcurrencyLayer::new(2)))
);
contract!(
    optional_that_is_not,
    Optional::new(None::<ConcurrencyLayer>)
);
contract!(
    optional_over_optional,
    tower_layer::Stack::new(
        Optional::new(None::<DeadlineLayer>),
        tower_layer::Stack::new(
            Optional::new(Some(RateLimitLayer::new(1000.0, 1000))),
            Optional::new(None::<AttemptTimeoutLayer>),
        )
    )
);
fn endpoint(probe: &Probe) -> Breaker<Load<Probe>> {
    let breaker = BreakerLayer::new(BreakerPolicy::new()).give_back();
    breaker.layer(LoadLayer::new().layer(probe.clone()))
}

/// The number of an endpoint, and where it stands.
fn placed(n: u32) -> (String, EndpointMeta) {
    let meta = EndpointMeta::new().weight(n + 1).priority(n / 2);
    let zone = if n == 0 { "here" } else { "there" };
    (n.to_string(), meta.zone(zone).label("version", "1"))
}

fn key() -> KeyFrom {
    KeyFrom::header(http::HeaderName::from_static("x-user"))
}

/// Three endpoints, all of them the same service.
pub(crate) fn balanced(
    policy: Strategy,
) -> impl Layer<Probe, Service = Balance<Breaker<Load<Probe>>>> {
    tower_layer::layer_fn(move |probe: Probe| {
        Balance::new(
            BalancePolicy::new(policy).hash_on(key()),
            (0..3).map(|_| endpoint(&probe)),
        )
    })
}

/// The same in levels and subsets.
fn leveled() -> impl Layer<Probe, Service = Balance<Breaker<Load<Probe>>>> {
    tower_layer::layer_fn(|probe: Probe| {
        let policy = BalancePolicy::default()
            .zone("here")
            .subset("version", "1")
            .subset_on("tenant", key());
        let placed = (0..4).map(placed);
        Balance::with_endpoints(
            policy,
            placed.map(|(key, meta)| (key, endpoint(&probe), meta)),
        )
    })
}

/// The same in a set that may change.
fn changing() -> impl Layer<Probe, Service = LiveBalance<Breaker<Load<Probe>>>> {
    tower_layer::layer_fn(|probe: Probe| {
        let set = EndpointSet::new(Strategy::PeakEwma);
        for (key, meta) in (0..3).map(placed) {
            set.insert(key, endpoint(&probe), meta);
        }
        set.balance()
    })
}
