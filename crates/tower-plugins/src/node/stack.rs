//! THE layer order, from the caller to the wire.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tower::ServiceBuilder;
use tower_plugins_layers::balance::{BalancePolicy, LoadLayer};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::drain::Drain;
use tower_plugins_layers::rate_limit::KeyBy;
use tower_plugins_layers::retry::Backoff;
use tower_plugins_layers::{
    AttemptTimeout, AttemptTimeoutLayer, Balance, BreakerLayer, Concurrency, ConcurrencyLayer,
    CredentialsLayer, Deadline, DeadlineLayer, DrainHandle, DrainLayer, RateLimit, RateLimitLayer,
    Retry, RetryLayer, RetryPolicy, Trace, TraceLayer,
};

use super::endpoint::{Endpoint, Wire};
use super::parts::{EndpointParts, Limiter, Parts};
use crate::config::{BalanceStrategy, CredentialsSpec, PluginSpec, Policy, Secret};
use crate::error::{Error, Kind};

/// A call goes through these from left to right, and its response back.
pub(super) type Stack =
    Trace<Drain<Deadline<RateLimit<Concurrency<Retry<AttemptTimeout<Balance<Endpoint>>>>>>>>;

/// The stack of `spec` over `parts`. What the spec does not arm costs a branch.
pub(super) fn build(spec: &PluginSpec, parts: &Parts, drain: &DrainHandle) -> Result<Stack, Error> {
    let policy = &spec.policy;
    let endpoints = parts.endpoints.iter().map(|parts| endpoint(policy, parts));
    let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
    Ok(ServiceBuilder::new()
        .layer(TraceLayer::new(spec.name.as_str()))
        .layer(DrainLayer::new(drain.clone()))
        .layer(deadline(policy))
        .layer(rate_limit(policy, parts))
        .layer(concurrency(parts))
        .layer(retry(policy, parts))
        .layer(
            policy
                .attempt_timeout
                .map_or(AttemptTimeoutLayer::off(), AttemptTimeoutLayer::new),
        )
        .service(Balance::new(balance(policy), endpoints)))
}

/// The stack of one endpoint.
fn endpoint(policy: &Policy, parts: &EndpointParts) -> Result<Endpoint, Error> {
    Ok(ServiceBuilder::new()
        .layer(breaker(policy, parts))
        .layer(LoadLayer::with_load(Arc::clone(&parts.load)))
        .layer(credentials(&policy.credentials)?)
        .service(Wire(Arc::clone(&parts.transport))))
}

fn deadline(policy: &Policy) -> DeadlineLayer {
    let layer = policy
        .deadline
        .map_or(DeadlineLayer::of_callers(), DeadlineLayer::new);
    match policy.stream_idle_timeout {
        Some(idle) => layer.stream_idle(idle),
        None => layer,
    }
}

fn rate_limit(policy: &Policy, parts: &Parts) -> RateLimitLayer {
    match (&policy.rate_limit, &parts.limiter) {
        (Some(spec), Some((_, limiter))) => {
            let layer = match limiter {
                Limiter::One(limiter) => RateLimitLayer::with_limiter(Arc::clone(limiter)),
                Limiter::Keyed(limiter, header) => {
                    RateLimitLayer::keyed(Arc::clone(limiter), KeyBy::header(header.clone()))
                }
            };
            layer.max_wait(spec.max_wait).headers(spec.headers)
        }
        _ => RateLimitLayer::off(),
    }
}

fn concurrency(parts: &Parts) -> ConcurrencyLayer {
    match &parts.bulkhead {
        Some((spec, bulkhead)) => {
            let layer = ConcurrencyLayer::with_bulkhead(Arc::clone(bulkhead));
            match &spec.priority_header {
                Some(header) => layer.priority_header(header.clone()),
                None => layer,
            }
        }
        None => ConcurrencyLayer::off(),
    }
}

fn retry(policy: &Policy, parts: &Parts) -> RetryLayer {
    let (Some(spec), Some((_, budget))) = (&policy.retry, &parts.budget) else {
        return RetryLayer::off();
    };
    let backoff =
        Backoff::new(spec.initial_interval, spec.max_interval).multiplier(spec.multiplier.get());
    let backoff = if spec.random_jitter {
        backoff
    } else {
        backoff.without_jitter()
    };
    let policy = RetryPolicy::new()
        .max_retries(spec.max_retries)
        .backoff(backoff)
        .budget(budget.clone())
        .max_replay(usize::try_from(spec.max_replay_bytes).unwrap_or(usize::MAX))
        .idempotent(&spec.idempotent);
    RetryLayer::new(policy)
}

fn balance(policy: &Policy) -> BalancePolicy {
    match policy.balance {
        BalanceStrategy::PeakEwma => BalancePolicy::PeakEwma,
        BalanceStrategy::RoundRobin => BalancePolicy::RoundRobin,
    }
}

fn breaker(policy: &Policy, parts: &EndpointParts) -> BreakerLayer {
    let Some(spec) = &policy.breaker else {
        return BreakerLayer::off();
    };
    let permits = u16::try_from(spec.success_threshold).unwrap_or(u16::MAX);
    let policy = BreakerPolicy::new()
        .consecutive_failures(spec.failure_threshold)
        .failure_rate(spec.failure_rate.map(crate::config::Number::get))
        .window(spec.window)
        .min_requests(spec.min_request_threshold)
        .recovery(spec.recovery_timeout)
        .max_recovery(spec.recovery_timeout)
        .jitter(0.0)
        .success_threshold(permits);
    BreakerLayer::with_history(policy, Arc::clone(&parts.history)).give_back()
}

fn credentials(spec: &CredentialsSpec) -> Result<CredentialsLayer, Error> {
    let layer = match spec {
        CredentialsSpec::None => return Ok(CredentialsLayer::none()),
        CredentialsSpec::ApiKey { header, key } => {
            CredentialsLayer::api_key(header.clone(), key.expose())
        }
        CredentialsSpec::Bearer { token } => CredentialsLayer::bearer(token.expose()),
        CredentialsSpec::Basic { username, password } => {
            let pair = Secret::new(format!("{username}:{}", password.expose()));
            CredentialsLayer::basic(&BASE64_STANDARD.encode(pair.expose()))
        }
        CredentialsSpec::Custom { headers } => CredentialsLayer::headers(
            headers
                .iter()
                .map(|(name, value)| (name.clone(), value.expose())),
        ),
    };
    // The error of a value that is no header does not repeat the value.
    layer.map_err(|error| {
        Error::caused_by(
            Kind::Config,
            format!("auth: {error}: a secret must be printable ASCII"),
        )
    })
}
