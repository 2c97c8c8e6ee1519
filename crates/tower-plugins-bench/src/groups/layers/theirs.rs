//! The same layers as others make them, set up so that they do what ours do.

use std::future::Ready;
use std::sync::Arc;

use tower::balance::p2c;
use tower::discover::ServiceList;
use tower::limit::{ConcurrencyLimitLayer, RateLimitLayer};
use tower::load::{CompleteOnResponse, PeakEwma, PendingRequests};
use tower::load_shed::LoadShedLayer;
use tower::retry::budget::{Budget, TpsBudget};
use tower::retry::{Policy, RetryLayer};
use tower::timeout::TimeoutLayer;
use tower::{Layer, ServiceBuilder};
use tower_resilience::circuitbreaker::{CircuitBreakerLayer, SlidingWindowType};
use tower_resilience::fallback::FallbackLayer;
use tower_resilience::hedge::HedgeLayer;
use tower_resilience::outlier::{OutlierDetectionLayer, OutlierDetector};
use tower_resilience::retry::RetryBudgetBuilder;
use tower_resilience::{adaptive, bulkhead, ratelimiter, retry, timelimiter};

use super::calls::{Null, Request, Response, answer, answered, refused, windowed};
use super::{LONG, MANY, RESILIENCE, SOON, TOWER, WINDOW_CALLS, WINDOWS, variant, window_variant};
use crate::Result;
use crate::harness::{Run, Variant};

pub(super) fn variants() -> Vec<Variant> {
    let groups = [
        resilience(),
        resilience_breakers(),
        tower(),
        tower_balancers(),
    ];
    groups.into_iter().flatten().collect()
}

fn resilience() -> Vec<Variant> {
    let of = |layer, make: fn() -> Result<Run>| variant(layer, RESILIENCE, make);
    vec![
        of("rate_limit", || answered(|| Ok(rate_limit()?.layer(Null)))),
        of("rate_limit-refused", || {
            refused(1, async || {
                let limit = ratelimiter::RateLimiterLayer::builder()
                    .limit_for_period(1)
                    .refresh_period(LONG)
                    .timeout_duration(std::time::Duration::ZERO);
                Ok(limit.build()?.layer(Null))
            })
        }),
        of("concurrency", || answered(|| Ok(bulkhead()?.layer(Null)))),
        of("deadline", || answered(|| Ok(time_limit().layer(Null)))),
        of("attempt_timeout", || {
            answered(|| Ok(time_limit().layer(Null)))
        }),
        of("retry", || {
            answered(|| {
                let budget = RetryBudgetBuilder::new().token_bucket().build()?;
                let retry = retry::RetryLayer::builder()
                    .exponential_backoff(SOON)
                    .budget(budget)
                    .retry_on_response(|response: &Response| response.status().is_server_error());
                Ok(retry.build().layer(Null))
            })
        }),
        of("hedge", || {
            answered(|| Ok(HedgeLayer::builder().delay(SOON).build().layer(Null)))
        }),
        of("fallback", || {
            answered(|| {
                let fallback = FallbackLayer::<Request, Response, _>::builder()
                    .value_fn(answer)
                    .handle_response(|response: &Response| response.status().is_server_error());
                Ok(fallback.build().layer(Null))
            })
        }),
        of("adaptive", || {
            answered(|| {
                let aimd = adaptive::Aimd::builder().initial_limit(100).build()?;
                Ok(adaptive::AdaptiveLimiterLayer::new(aimd).layer(Null))
            })
        }),
        of("outlier", || {
            answered(|| {
                let detector = OutlierDetector::new();
                detector.register("one", 5);
                let outlier = OutlierDetectionLayer::builder()
                    .detector(detector)
                    .instance_name("one")
                    .error_on_ejection();
                Ok(outlier.build()?.layer(Null))
            })
        }),
        of("stack-of-5", || {
            answered(|| {
                let breaker = breaker().build()?;
                let retry = retry::RetryLayer::builder()
                    .exponential_backoff(SOON)
                    .budget(RetryBudgetBuilder::new().token_bucket().build()?);
                Ok(ServiceBuilder::new()
                    .layer(time_limit())
                    .layer(rate_limit()?)
                    .layer(bulkhead()?)
                    .layer(retry.build())
                    .layer(breaker)
                    .service(Null))
            })
        }),
    ]
}

type BreakerBuilder = tower_resilience::circuitbreaker::CircuitBreakerConfigBuilder<
    tower_resilience::core::classifier::DefaultClassifier,
>;

fn breaker() -> BreakerBuilder {
    CircuitBreakerLayer::builder().consecutive_failures(5)
}

fn counting() -> BreakerBuilder {
    CircuitBreakerLayer::builder().sliding_window_size(WINDOW_CALLS as usize)
}

fn resilience_breakers() -> Vec<Variant> {
    let mut variants = vec![
        variant("breaker", RESILIENCE, || {
            answered(|| Ok(breaker().build()?.layer(Null)))
        }),
        variant("breaker-window-calls", RESILIENCE, || {
            answered(|| Ok(counting().build()?.layer(Null)))
        }),
        variant("breaker-slow-calls", RESILIENCE, || {
            answered(|| {
                Ok(counting()
                    .slow_call_duration_threshold(SOON)
                    .build()?
                    .layer(Null))
            })
        }),
        variant("breaker-open", RESILIENCE, || {
            refused(0, async || {
                let breaker = breaker().wait_duration_in_open(LONG).build()?.layer(Null);
                breaker.force_open().await;
                Ok(breaker)
            })
        }),
    ];
    variants.extend(WINDOWS.map(|calls| {
        window_variant(calls, RESILIENCE, move || {
            windowed(calls, || {
                let breaker = CircuitBreakerLayer::builder()
                    .failure_rate_threshold(0.5)
                    .sliding_window_type(SlidingWindowType::TimeBased)
                    .sliding_window_duration(LONG);
                Ok(breaker.build()?.layer(Null))
            })
        })
    }));
    variants
}

fn rate_limit() -> Result<ratelimiter::RateLimiterLayer> {
    let limit = ratelimiter::RateLimiterLayer::per_second(MANY as usize);
    Ok(limit.timeout_duration(std::time::Duration::ZERO).build()?)
}

fn bulkhead() -> Result<bulkhead::BulkheadLayer> {
    let bulkhead = bulkhead::BulkheadLayer::builder().max_concurrent_calls(1000);
    Ok(bulkhead.reject_when_full().build()?)
}

fn time_limit() -> timelimiter::TimeLimiterLayer<timelimiter::FixedTimeout> {
    let limit = timelimiter::TimeLimiterLayer::builder();
    limit.timeout_duration(SOON).build()
}

fn tower() -> Vec<Variant> {
    let of = |layer, make: fn() -> Result<Run>| variant(layer, TOWER, make);
    vec![
        of("deadline", || {
            answered(|| Ok(TimeoutLayer::new(SOON).layer(Null)))
        }),
        of("attempt_timeout", || {
            answered(|| Ok(TimeoutLayer::new(SOON).layer(Null)))
        }),
        of("concurrency", || {
            answered(|| {
                Ok(ServiceBuilder::new()
                    .layer(LoadShedLayer::new())
                    .layer(ConcurrencyLimitLayer::new(1000))
                    .service(Null))
            })
        }),
        of("rate_limit", || {
            answered(|| {
                let a_second = std::time::Duration::from_secs(1);
                Ok(ServiceBuilder::new()
                    .layer(LoadShedLayer::new())
                    .layer(RateLimitLayer::new(MANY.into(), a_second))
                    .service(Null))
            })
        }),
        of("rate_limit-refused", || {
            refused(1, async || {
                Ok(ServiceBuilder::new()
                    .layer(LoadShedLayer::new())
                    .layer(RateLimitLayer::new(1, LONG))
                    .service(Null))
            })
        }),
        of("retry", || {
            answered(|| Ok(RetryLayer::new(Budgeted::default()).layer(Null)))
        }),
    ]
}

fn tower_balancers() -> Vec<Variant> {
    let of = |layer, make: fn() -> Result<Run>| variant(layer, TOWER, make);
    vec![
        of("p2c-ewma-10", || answered(|| Ok(p2c_ewma(10)))),
        of("p2c-ewma-1000", || answered(|| Ok(p2c_ewma(1000)))),
        of("p2c-least-10", || answered(|| Ok(p2c_least(10)))),
        of("p2c-least-1000", || answered(|| Ok(p2c_least(1000)))),
    ]
}

type Balance<S> = p2c::Balance<ServiceList<Vec<S>>, Request>;

fn p2c_ewma(endpoints: usize) -> Balance<PeakEwma<Null>> {
    let (rtt, decay) = (std::time::Duration::from_millis(1), 10e9);
    let endpoint = |_| PeakEwma::new(Null, rtt, decay, CompleteOnResponse::default());
    p2c::Balance::new(ServiceList::new::<Request>(
        (0..endpoints).map(endpoint).collect(),
    ))
}

fn p2c_least(endpoints: usize) -> Balance<PendingRequests<Null>> {
    let endpoint = |_| PendingRequests::new(Null, CompleteOnResponse::default());
    p2c::Balance::new(ServiceList::new::<Request>(
        (0..endpoints).map(endpoint).collect(),
    ))
}

/// What tower's documentation shows: retries within a budget.
#[derive(Clone, Debug, Default)]
struct Budgeted(Arc<TpsBudget>);

impl<E> Policy<Request, Response, E> for Budgeted {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request, result: &mut Result<Response, E>) -> Option<Self::Future> {
        match result {
            Ok(response) if !response.status().is_server_error() => {
                self.0.deposit();
                None
            }
            _ => self.0.withdraw().then(|| std::future::ready(())),
        }
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }
}
