//! The one contract suite over every layer.

use std::time::Duration;

use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::contract;
use tower_plugins_layers::*;

contract!(identity, tower_layer::Identity::new());
contract!(
    attempt_timeout,
    AttemptTimeoutLayer::new(Duration::from_secs(5))
);
contract!(retry, RetryLayer::new(RetryPolicy::new()));
contract!(breaker, BreakerLayer::new(BreakerPolicy::new()));
contract!(breaker_off, BreakerLayer::off());
contract!(deadline, DeadlineLayer::new(Duration::from_secs(5)));
contract!(rate_limit, RateLimitLayer::new(1000.0, 1000));
contract!(
    rate_limit_with_waiting,
    RateLimitLayer::new(1000.0, 1).max_wait(Duration::from_secs(1))
);
contract!(concurrency, ConcurrencyLayer::new(2));
contract!(credentials, CredentialsLayer::bearer("token").unwrap());
contract!(drain, DrainLayer::new(Drain::new()));
contract!(trace, TraceLayer::new("plugin"));
