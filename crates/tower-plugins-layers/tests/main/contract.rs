//! The one contract suite over every layer.

use std::time::Duration;

use tower_layer::Layer;
use tower_plugins_layers::balance::{Load, LoadLayer, SlowStartLayer, SlowStartPolicy, Strategy};
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
contract!(balance_of_turns, balanced(Strategy::RoundRobin));
contract!(breaker, BreakerLayer::new(BreakerPolicy::new()));
contract!(breaker_off, BreakerLayer::off());
contract!(load, LoadLayer::new());
contract!(deadline, DeadlineLayer::new(Duration::from_secs(5)));
contract!(rate_limit, RateLimitLayer::new(1000.0, 1000));
contract!(
    rate_limit_with_waiting,
    RateLimitLayer::new(1000.0, 1).max_wait(Duration::from_secs(1))
);
contract!(concurrency, ConcurrencyLayer::new(2));
contract!(credentials, CredentialsLayer::bearer("token").unwrap());
contract!(
    outlier,
    OutlierDetector::new(OutlierPolicy::new()).endpoint("one")
);
contract!(outlier_off, OutlierLayer::off());
contract!(
    slow_start,
    tower_layer::Stack::new(
        LoadLayer::new(),
        SlowStartLayer::new(SlowStartPolicy::new())
    )
);
contract!(drain, DrainLayer::new(DrainHandle::new()));
contract!(
    drain_with_answers,
    DrainLayer::new(DrainHandle::new())
        .answer(Duration::from_secs(5))
        .close_connections()
);
contract!(trace, TraceLayer::new("plugin"));

/// Three endpoints, all of them the same service.
fn balanced(policy: Strategy) -> impl Layer<Probe, Service = Balance<Breaker<Load<Probe>>>> {
    tower_layer::layer_fn(move |probe: Probe| {
        let endpoint = |_| {
            let breaker = BreakerLayer::new(BreakerPolicy::new()).give_back();
            breaker.layer(LoadLayer::new().layer(probe.clone()))
        };
        Balance::new(policy, (0..3).map(endpoint))
    })
}
