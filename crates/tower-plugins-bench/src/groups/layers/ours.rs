//! Our layers.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Response};
use tower::{Layer, ServiceBuilder};
use tower_plugins_layers::balance::{LoadLayer, Strategy};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::concurrency::{AdaptivePolicy, Algorithm};
use tower_plugins_layers::fallback::{FallbackLayer, FallbackPolicy};
use tower_plugins_layers::hedge::{HedgeLayer, HedgePolicy};
use tower_plugins_layers::{
    AttemptTimeoutLayer, Balance, Breaker, BreakerLayer, Bulkhead, Concurrency, ConcurrencyLayer,
    CredentialsLayer, Deadline, DeadlineLayer, DrainHandle, DrainLayer, Load, OutlierDetector,
    OutlierLayer, OutlierPolicy, RateLimit, RateLimitLayer, Retry, RetryLayer, RetryPolicy,
    TraceLayer,
};
use tower_service::Service;

use super::calls::{Broken, Null, answered, by_reference, refused, request, windowed};
use super::{
    BY_REFERENCE, ENDPOINTS, LONG, MANY, OURS, SOON, WINDOW_CALLS, WINDOWS, variant, window_variant,
};
use crate::Result;
use crate::groups::full;
use crate::harness::{Variant, in_turn, runtime};

/// How an endpoint is picked.
const PICKS: [(&str, Strategy); 5] = [
    ("p2c-ewma", Strategy::PeakEwma),
    ("p2c-least", Strategy::LeastRequest),
    ("round-robin", Strategy::RoundRobin),
    ("least-connections", Strategy::LeastConnections),
    ("least-latency", Strategy::LeastLatency),
];

/// What `service` costs in both call forms.
macro_rules! both {
    ($layer:literal, $service:expr) => {
        [
            variant($layer, OURS, || answered(|| Ok($service))),
            variant($layer, BY_REFERENCE, || by_reference!($service)),
        ]
    };
}

pub(super) fn variants() -> Vec<Variant> {
    let groups = [one_endpoint(), limits(), around(), balancers()];
    groups.into_iter().flatten().collect()
}

fn one_endpoint() -> Vec<Variant> {
    let mut variants = Vec::from(both!("breaker", breaker().layer(Null)));
    for calls in WINDOWS {
        variants.push(window_variant(calls, OURS, move || {
            windowed(calls, || Ok(time_window().layer(Null)))
        }));
    }
    variants.extend(both!("breaker-window-calls", calls_window().layer(Null)));
    variants.extend(both!(
        "breaker-slow-calls",
        BreakerLayer::new(counting().slow_call(SOON)).layer(Null)
    ));
    variants.push(variant("breaker-open", OURS, || {
        refused(1, async || {
            let breaker = BreakerPolicy::new().consecutive_failures(1).recovery(LONG);
            Ok(BreakerLayer::new(breaker).layer(Broken))
        })
    }));
    variants.extend(both!("outlier", one_of_an_outlier_set().layer(Null)));
    variants.extend(both!("load", LoadLayer::new().layer(Null)));
    variants.extend(both!("credentials", credentials()?.layer(Null)));
    variants
}

fn limits() -> Vec<Variant> {
    let mut variants = Vec::new();
    variants.extend(both!("rate_limit", rate_limit().layer(Null)));
    variants.push(variant("rate_limit-refused", OURS, || {
        refused(1, async || Ok(RateLimitLayer::new(1e-4, 1).layer(Null)))
    }));
    variants.extend(both!(
        "concurrency",
        ConcurrencyLayer::new(1000).layer(Null)
    ));
    variants.extend(both!("adaptive", adaptive().layer(Null)));
    variants
}

fn around() -> Vec<Variant> {
    let mut variants = Vec::new();
    variants.extend(both!("deadline", DeadlineLayer::new(SOON).layer(Null)));
    variants.extend(both!(
        "attempt_timeout",
        AttemptTimeoutLayer::new(SOON).layer(Null)
    ));
    variants.extend(both!(
        "retry",
        RetryLayer::new(RetryPolicy::new()).layer(Null)
    ));
    variants.extend(both!(
        "drain",
        DrainLayer::new(DrainHandle::new()).layer(Null)
    ));
    variants.extend(both!(
        "hedge",
        HedgeLayer::new(HedgePolicy::after(SOON)).layer(Null)
    ));
    variants.extend(both!(
        "fallback",
        FallbackLayer::answer(FallbackPolicy::new(), Response::new(Bytes::new())).layer(Null)
    ));
    variants.extend(both!("trace", TraceLayer::new("one").layer(Null)));
    variants.extend(both!("stack-of-5", stack_of_five()));
    variants
}

fn balancers() -> Vec<Variant> {
    let mut variants = Vec::new();
    for endpoints in ENDPOINTS {
        for (name, strategy) in PICKS {
            let name = format!("{name}-{endpoints}");
            variants.push(variant(&name, OURS, move || {
                answered(|| Ok(balance(strategy, endpoints)))
            }));
            variants.push(variant(&name, BY_REFERENCE, move || {
                by_reference!(balance(strategy, endpoints))
            }));
        }
        let name = format!("p2c-ewma-and-breakers-{endpoints}");
        variants.push(variant(&name, OURS, move || {
            answered(|| Ok(balance_of_breakers(endpoints)))
        }));
        variants.push(variant(&name, BY_REFERENCE, move || {
            by_reference!(balance_of_breakers(endpoints))
        }));
    }
    variants
}

fn breaker() -> BreakerLayer {
    BreakerLayer::new(
        BreakerPolicy::new()
            .consecutive_failures(5)
            .failure_rate(None),
    )
}

/// Opens by the share of failures alone.
fn judging() -> BreakerPolicy {
    BreakerPolicy::new()
        .consecutive_failures(None)
        .failure_rate(0.5)
}

fn time_window() -> BreakerLayer {
    BreakerLayer::new(judging().window(LONG))
}

fn counting() -> BreakerPolicy {
    judging().window_calls(WINDOW_CALLS)
}

fn calls_window() -> BreakerLayer {
    BreakerLayer::new(counting())
}

fn rate_limit() -> RateLimitLayer {
    RateLimitLayer::new(f64::from(MANY), MANY)
}

fn adaptive() -> ConcurrencyLayer {
    let policy = AdaptivePolicy::new()
        .algorithm(Algorithm::Aimd)
        .initial(100);
    ConcurrencyLayer::with_bulkhead(Arc::new(Bulkhead::adaptive(policy)))
}

fn one_of_an_outlier_set() -> OutlierLayer {
    let policy = OutlierPolicy::new().consecutive_failures(5);
    let detector = OutlierDetector::new(policy.success_rate_stdev(None));
    detector.endpoint("one")
}

fn credentials() -> Result<CredentialsLayer> {
    let name = HeaderName::from_static("x-api-key");
    Ok(CredentialsLayer::api_key(name, "a-key-that-is-no-secret")?)
}

fn stack_of_five() -> Deadline<RateLimit<Concurrency<Retry<Breaker<Null>>>>> {
    ServiceBuilder::new()
        .layer(DeadlineLayer::new(SOON))
        .layer(rate_limit())
        .layer(ConcurrencyLayer::new(1000))
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(breaker())
        .service(Null)
}

fn balance(strategy: Strategy, endpoints: usize) -> Balance<Load<Null>> {
    Balance::new(
        strategy,
        (0..endpoints).map(|_| LoadLayer::new().layer(Null)),
    )
}

fn balance_of_breakers(endpoints: usize) -> Balance<Breaker<Load<Null>>> {
    let endpoint = || {
        ServiceBuilder::new()
            .layer(breaker().give_back())
            .layer(LoadLayer::new())
            .service(Null)
    };
    Balance::new(Strategy::PeakEwma, (0..endpoints).map(|_| endpoint()))
}
