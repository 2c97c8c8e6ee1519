//! The one contract suite over every layer.

use std::time::Duration;

use tower_layer::Layer;
use tower_plugins_layers::balance::{BalancePolicy, Load, LoadLayer};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::contract;
use tower_plugins_layers::retry::{Budget, RetryOn};
use tower_plugins_layers::test_util::Probe;
use tower_plugins_layers::*;

contract!(identity, tower_layer::Identity::new());
contract!(
    attempt_timeout,
    AttemptTimeoutLayer::new(Duration::from_secs(5))
);
contract!(retry, RetryLayer::new(RetryPolicy::new()));
contract!(
    retry_with_all_options,
    RetryLayer::named(
        "contract",
        RetryPolicy::new()
            .budget(Budget::in_flight(0.2, 3))
            .attempt_header(http::HeaderName::from_static("x-attempt"))
            .on([RetryOn::Grpc(14)])
            .hedge(HedgePolicy::new())
    )
);
contract!(retry_off, RetryLayer::off());
contract!(hedge, HedgeLayer::new(HedgePolicy::new()));
contract!(
    hedge_after_a_delay,
    HedgeLayer::new(HedgePolicy::after(Duration::from_secs(3)).max_hedges(2))
);
contract!(balance, balanced(BalancePolicy::PeakEwma));
contract!(balance_of_turns, balanced(BalancePolicy::RoundRobin));
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

/// Three endpoints, all of them the same service.
pub(crate) fn balanced(
    policy: BalancePolicy,
) -> impl Layer<Probe, Service = Balance<Breaker<Load<Probe>>>> {
    tower_layer::layer_fn(move |probe: Probe| {
        let endpoint = |_| {
            let breaker = BreakerLayer::new(BreakerPolicy::new()).give_back();
            breaker.layer(LoadLayer::new().layer(probe.clone()))
        };
        Balance::new(policy, (0..3).map(endpoint))
    })
}
