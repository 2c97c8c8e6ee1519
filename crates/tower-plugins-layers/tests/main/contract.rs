//! The one contract suite over every layer.

use std::time::Duration;

use http::request::Parts;
use tower_layer::Layer;
use tower_plugins_layers::authorize::Callers;
use tower_plugins_layers::balance::{BalancePolicy, Load, LoadLayer};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::contract;
use tower_plugins_layers::credentials::Token;
use tower_plugins_layers::filter::FilterBody;
use tower_plugins_layers::test_util::{Answer, Probe};
use tower_plugins_layers::*;

contract!(identity, tower_layer::Identity::new());
contract!(
    attempt_timeout,
    AttemptTimeoutLayer::new(Duration::from_secs(5))
);
contract!(retry, RetryLayer::new(RetryPolicy::new()));
contract!(authorize_off, AuthorizeLayer::off());
contract!(
    authorize,
    AuthorizeLayer::new(Callers::new().api_key("billing", "k3y")).anonymous(true)
);
contract!(
    authorize_by_a_policy,
    AuthorizeLayer::policy(|_: &Parts| async { Ok(Principal::new("anybody")) })
);
contract!(balance, balanced(BalancePolicy::PeakEwma));
contract!(balance_of_turns, balanced(BalancePolicy::RoundRobin));
contract!(breaker, BreakerLayer::new(BreakerPolicy::new()));
contract!(breaker_off, BreakerLayer::off());
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
contract!(concurrency, ConcurrencyLayer::new(2));
contract!(credentials, CredentialsLayer::bearer("token").unwrap());
contract!(
    credentials_of_tokens,
    TokenCredentialsLayer::new(|| async { Token::new("token") }, Duration::from_secs(1))
);
contract!(drain, DrainLayer::new(DrainHandle::new()));
contract!(trace, TraceLayer::new("plugin"));

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

type Allowing = tower::util::BoxCloneSyncService<
    http::Request<FilterBody>,
    http::Response<FilterBody>,
    BoxError,
>;

/// A filter that lets everything go on.
fn allowing() -> Allowing {
    let yes = |_: http::Request<FilterBody>| async { Ok(http::Response::default()) };
    Allowing::new(tower::service_fn(yes))
}
