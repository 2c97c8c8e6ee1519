//! The contract suite over each pair of layers that are neighbours in a client's stack: what one layer
//! keeps to must hold with the other around it.

use std::time::Duration;

use tower_layer::{Layer, Stack};
use tower_plugins_layers::balance::{
    HealthLayer, Load, LoadLayer, SlowStart, SlowStartLayer, SlowStartPolicy,
};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::contract;
use tower_plugins_layers::test_util::Probe;
use tower_plugins_layers::*;

use crate::contract::{Allowing, allowing, balanced};

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

fn fallback() -> FallbackLayer {
    let answer = http::Response::new("else".into());
    FallbackLayer::answer(FallbackPolicy::new(), answer)
}

fn authorize() -> AuthorizeLayer {
    AuthorizeLayer::new(authorize::Callers::new().api_key("billing", "k3y")).anonymous(true)
}

fn filter() -> FilterLayer<Allowing> {
    FilterLayer::new(FilterPolicy::new(), allowing())
}

fn hedge() -> HedgeLayer {
    HedgeLayer::new(HedgePolicy::after(TIME))
}

fn outlier() -> OutlierLayer {
    OutlierDetector::new(OutlierPolicy::new()).endpoint("one")
}

fn rate_limit() -> RateLimitLayer {
    RateLimitLayer::new(1000.0, 1000)
}

fn retry() -> RetryLayer {
    RetryLayer::new(RetryPolicy::new())
}

fn slow_start() -> SlowStartLayer {
    SlowStartLayer::new(SlowStartPolicy::new())
}

/// Three endpoints, all of them the same service.
fn of_slow_starters() -> impl Layer<Probe, Service = Balance<SlowStart<Load<Probe>>>> {
    tower_layer::layer_fn(|probe: Probe| {
        let endpoint = || slow_start().layer(LoadLayer::new().layer(probe.clone()));
        Balance::new(balance::Strategy::PeakEwma, (0..3).map(|_| endpoint()))
    })
}

fn endpoint_budget() -> retry::EndpointBudgetLayer {
    retry::EndpointBudgetLayer::new(retry::Budget::tokens(10, 0.1))
}

fn breaker() -> BreakerLayer {
    BreakerLayer::new(BreakerPolicy::new())
}

fn credentials() -> CredentialsLayer {
    CredentialsLayer::bearer("token").unwrap()
}

pair!(trace_drain: trace(), drain());
pair!(drain_fallback: drain(), fallback());
pair!(fallback_authorize: fallback(), authorize());
pair!(authorize_deadline: authorize(), DeadlineLayer::new(TIME));
pair!(deadline_filter: DeadlineLayer::new(TIME), filter());
pair!(filter_rate_limit: filter(), rate_limit());
pair!(rate_limit_concurrency: rate_limit(), ConcurrencyLayer::new(2));
pair!(concurrency_retry: ConcurrencyLayer::new(2), retry());
pair!(concurrency_hedge: ConcurrencyLayer::new(2), hedge());
pair!(retry_attempt_timeout: retry(), AttemptTimeoutLayer::new(TIME));
pair!(hedge_attempt_timeout: hedge(), AttemptTimeoutLayer::new(TIME));
pair!(attempt_timeout_balance: AttemptTimeoutLayer::new(TIME), balanced(balance::Strategy::PeakEwma));
// A balancer's endpoints are members, and `load` is what makes a service one.
contract!(balance_slow_start, of_slow_starters());
pair!(slow_start_health: slow_start(), Stack::new(LoadLayer::new(), HealthLayer::new()));
pair!(health_outlier: HealthLayer::new(), Stack::new(LoadLayer::new(), outlier()));
pair!(outlier_endpoint_budget: outlier(), endpoint_budget());
pair!(endpoint_budget_breaker: endpoint_budget(), breaker());
pair!(outlier_breaker: outlier(), breaker());
pair!(breaker_load: breaker(), LoadLayer::new());
pair!(load_time_left: LoadLayer::new(), TimeLeftLayer::new());
pair!(time_left_credentials: TimeLeftLayer::new(), credentials());
pair!(credentials_attempt_trace: credentials(), AttemptTraceLayer::new("one"));
// What a config leaves out makes neighbours of others.
pair!(drain_deadline: drain(), DeadlineLayer::new(TIME));
pair!(deadline_rate_limit: DeadlineLayer::new(TIME), rate_limit());
pair!(deadline_retry: DeadlineLayer::new(TIME), retry());
pair!(retry_balance: retry(), balanced(balance::Strategy::RoundRobin));
pair!(load_credentials: LoadLayer::new(), credentials());
