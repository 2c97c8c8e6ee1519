//! The contract suite over each pair of layers that are neighbours in a client's stack: what one layer
//! keeps to must hold with the other around it.

use std::time::Duration;

use tower_layer::Stack;
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::contract;
use tower_plugins_layers::*;

use crate::contract::balanced;

const TIME: Duration = Duration::from_secs(5);

/// `outer` just outside of `inner`.
macro_rules! pair {
    ($name:ident: $outer:expr, $inner:expr) => {
        contract!($name, Stack::new($inner, $outer));
    };
}

fn trace() -> TraceLayer {
    TraceLayer::new("pair")
}

fn drain() -> DrainLayer {
    DrainLayer::new(DrainHandle::new())
}

fn rate_limit() -> RateLimitLayer {
    RateLimitLayer::new(1000.0, 1000)
}

fn retry() -> RetryLayer {
    RetryLayer::new(RetryPolicy::new())
}

fn breaker() -> BreakerLayer {
    BreakerLayer::new(BreakerPolicy::new())
}

fn credentials() -> CredentialsLayer {
    CredentialsLayer::bearer("token").unwrap()
}

pair!(trace_drain: trace(), drain());
pair!(drain_deadline: drain(), DeadlineLayer::new(TIME));
pair!(deadline_rate_limit: DeadlineLayer::new(TIME), rate_limit());
pair!(rate_limit_concurrency: rate_limit(), ConcurrencyLayer::new(2));
pair!(concurrency_retry: ConcurrencyLayer::new(2), retry());
pair!(retry_attempt_timeout: retry(), AttemptTimeoutLayer::new(TIME));
pair!(attempt_timeout_balance: AttemptTimeoutLayer::new(TIME), balanced(balance::Strategy::PeakEwma));
pair!(breaker_load: breaker(), LoadLayer::new());
pair!(load_credentials: LoadLayer::new(), credentials());
