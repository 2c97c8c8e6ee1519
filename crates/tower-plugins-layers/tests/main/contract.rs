//! The one contract suite over every layer.

use std::time::Duration;

use http::request::Parts;
use tower_layer::Layer;
use tower_plugins_layers::authorize::Callers;
use tower_plugins_layers::balance::{
    BalancePolicy, EndpointMeta, EndpointSet, HealthLayer, KeyFrom, LiveBalance, Load, LoadLayer,
    SlowStartLayer, SlowStartPolicy, Strategy,
};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::concurrency::AdaptivePolicy;
use tower_plugins_layers::contract;
use tower_plugins_layers::credentials::Token;
use tower_plugins_layers::filter::FilterBody;
use tower_plugins_layers::rate_limit::{KeyBy, KeyedRateLimiter};
use tower_plugins_layers::retry::{Budget, EndpointBudgetLayer, RetryOn};
use tower_plugins_layers::test_util::{Answer, Probe};
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
contract!(authorize_off, AuthorizeLayer::off());
contract!(
    authorize,
    AuthorizeLayer::new(Callers::new().api_key("billing", "k3y")).anonymous(true)
);
contract!(
    authorize_by_a_policy,
    AuthorizeLayer::policy(|_: &Parts| async { Ok(Principal::new("anybody")) })
);
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
contract!(breaker, BreakerLayer::new(BreakerPolicy::new()));
contract!(breaker_off, BreakerLayer::off());
contract!(
    endpoint_budget,
    EndpointBudgetLayer::new(Budget::tokens(10, 0.1))
);
contract!(load, LoadLayer::new());
contract!(deadline, DeadlineLayer::new(Duration::from_secs(5)));
contract!(fallback_off, <FallbackLayer>::off());
contract!(
    fallback,
    FallbackLayer::answer(FallbackPolicy::new(), http::Response::new("else".into()))
);
contract!(
    fallback_to_another_service,
    FallbackLayer::service(FallbackPolicy::new(), Probe::new(Answer::Error("away")))
);
contract!(filter_off, FilterLayer::<Allowing>::off());
contract!(filter, FilterLayer::new(FilterPolicy::new(), allowing()));
contract!(time_left, TimeLeftLayer::new());
contract!(rate_limit, RateLimitLayer::new(1000.0, 1000));
contract!(
    rate_limit_with_waiting,
    RateLimitLayer::new(1000.0, 1).max_wait(Duration::from_secs(1))
);
contract!(
    rate_limit_by_key,
    RateLimitLayer::keyed(
        KeyedRateLimiter::new(1000.0, 1000, 10).into(),
        KeyBy::header(http::header::HOST)
    )
    .headers(true)
);
contract!(concurrency, ConcurrencyLayer::new(2));
contract!(
    concurrency_that_adapts,
    ConcurrencyLayer::with_bulkhead(
        Bulkhead::adaptive(AdaptivePolicy::new().initial(2).min(2)).into()
    )
);
contract!(
    concurrency_with_a_queue,
    ConcurrencyLayer::with_bulkhead(Bulkhead::new(2).queue(8, Duration::from_secs(1)).into())
);
contract!(credentials, CredentialsLayer::bearer("token").unwrap());
contract!(
    credentials_of_tokens,
    TokenCredentialsLayer::new(|| async { Token::new("token") }, Duration::from_secs(1))
);
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
contract!(
    health,
    tower_layer::Stack::new(LoadLayer::new(), HealthLayer::new())
);
contract!(drain, DrainLayer::new(DrainHandle::new()));
contract!(
    drain_with_answers,
    DrainLayer::new(DrainHandle::new())
        .answer(Duration::from_secs(5))
        .close_connections()
);
contract!(trace, TraceLayer::new("plugin"));
contract!(attempt_trace, AttemptTraceLayer::new("one"));

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

pub(crate) type Allowing = tower::util::BoxCloneSyncService<
    http::Request<FilterBody>,
    http::Response<FilterBody>,
    BoxError,
>;

/// A filter that lets everything go on.
pub(crate) fn allowing() -> Allowing {
    let yes = |_: http::Request<FilterBody>| async { Ok(http::Response::default()) };
    Allowing::new(tower::service_fn(yes))
}
