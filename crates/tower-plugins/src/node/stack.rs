//! THE layer order, from the caller to the wire.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tower::ServiceBuilder;
use tower_plugins_layers::balance::{BalancePolicy, LoadLayer};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::hedge::HedgePolicy;
use tower_plugins_layers::retry::{Backoff, Jitter};
use tower_plugins_layers::{
    AttemptTimeoutLayer, Balance, BreakerLayer, ConcurrencyLayer, CredentialsLayer, Deadline,
    DeadlineLayer, Drain, DrainHandle, DrainLayer, RateLimitLayer, ReplayBody, Retry, RetryLayer,
    RetryPolicy, Trace, TraceLayer,
};

use super::endpoint::{Endpoint, Shown, Wire};
use super::parts::{EndpointParts, Parts};
use super::stage::stages;
use crate::Body;
use crate::config::{BalanceStrategy, CredentialsSpec, JitterKind, PluginSpec, Policy, Secret};
use crate::error::{Error, Kind};

/// A call goes through these from left to right, and its response back.
pub(super) type Stack = Trace<Drain<Deadline<Limited>>>;

// What the config may leave out, from the top to the bottom: a name, its layer, and what is below it.
stages! {
    Limited: RateLimitLayer => Placed, of Body;
    Placed: ConcurrencyLayer => Retry<Timed>, of Body;
    Timed: AttemptTimeoutLayer => Balance<Endpoint>, of ReplayBody<Body>;
}

/// The stack of `spec` over `parts`.
pub(super) fn build(spec: &PluginSpec, parts: &Parts, drain: &DrainHandle) -> Result<Stack, Error> {
    let policy = &spec.policy;
    let endpoints = parts.endpoints.iter().map(|parts| endpoint(policy, parts));
    let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
    Ok(ServiceBuilder::new()
        .layer(TraceLayer::new(spec.name.as_str()))
        .layer(DrainLayer::new(drain.clone()))
        .layer(deadline(policy))
        .layer_fn(Limited::of(rate_limit(policy, parts)))
        .layer_fn(Placed::of(concurrency(parts)))
        .layer(retry(spec, parts))
        .layer_fn(Timed::of(
            policy.attempt_timeout.map(AttemptTimeoutLayer::new),
        ))
        .service(Balance::new(balance(policy), endpoints)))
}

/// The stack of one endpoint.
fn endpoint(policy: &Policy, parts: &EndpointParts) -> Result<Endpoint, Error> {
    Ok(ServiceBuilder::new()
        .layer_fn(Endpoint::of(breaker(policy, parts)))
        .layer(LoadLayer::with_load(Arc::clone(&parts.load)))
        .layer_fn(Shown::of(credentials(&policy.credentials)?))
        .service(Wire(Arc::clone(&parts.transport))))
}

/// Always there: a caller may bring a deadline of its own.
fn deadline(policy: &Policy) -> DeadlineLayer {
    let layer = policy
        .deadline
        .map_or(DeadlineLayer::of_callers(), DeadlineLayer::new);
    match policy.stream_idle_timeout {
        Some(idle) => layer.stream_idle(idle),
        None => layer,
    }
}

fn rate_limit(policy: &Policy, parts: &Parts) -> Option<RateLimitLayer> {
    let (spec, (_, limiter)) = (policy.rate_limit.as_ref()?, parts.limiter.as_ref()?);
    Some(RateLimitLayer::with_limiter(Arc::clone(limiter)).max_wait(spec.max_wait))
}

fn concurrency(parts: &Parts) -> Option<ConcurrencyLayer> {
    let (_, bulkhead) = parts.bulkhead.as_ref()?;
    Some(ConcurrencyLayer::with_bulkhead(Arc::clone(bulkhead)))
}

/// Off, it is not left out: it makes the request's body one of the type that all below it take.
fn retry(plugin: &PluginSpec, parts: &Parts) -> RetryLayer {
    let (Some(spec), Some(budget)) = (&plugin.policy.retry, &parts.budget) else {
        return RetryLayer::off();
    };
    let jitter = match spec.jitter {
        _ if !spec.random_jitter => Jitter::None,
        JitterKind::Full => Jitter::Full,
        JitterKind::Decorrelated => Jitter::Decorrelated,
    };
    let backoff = Backoff::new(spec.initial_interval, spec.max_interval)
        .multiplier(spec.multiplier.get())
        .jitter(jitter);
    let policy = RetryPolicy::new()
        .max_retries(spec.max_retries)
        .backoff(backoff)
        .on(spec.on.iter().copied())
        .budget(budget.clone())
        .max_replay(usize::try_from(spec.max_replay_bytes).unwrap_or(usize::MAX))
        .idempotent(&spec.idempotent)
        .never(&spec.never)
        .attempt_header(spec.attempt_header.clone())
        .hedge(hedge(&plugin.policy, parts));
    RetryLayer::named(plugin.name.as_str(), policy)
}

fn hedge(policy: &Policy, parts: &Parts) -> Option<HedgePolicy> {
    let (spec, latencies) = (policy.hedge.as_ref()?, parts.latencies.as_ref()?);
    let policy = HedgePolicy::new()
        .quantile(spec.quantile.map(crate::config::Number::get))
        .delay(spec.delay)
        .min_samples(spec.min_samples)
        .max_hedges(spec.max_hedges)
        .paths(&spec.paths)
        .latencies(latencies.clone());
    Some(policy)
}

fn balance(policy: &Policy) -> BalancePolicy {
    match policy.balance {
        BalanceStrategy::PeakEwma => BalancePolicy::PeakEwma,
        BalanceStrategy::RoundRobin => BalancePolicy::RoundRobin,
    }
}

fn breaker(policy: &Policy, parts: &EndpointParts) -> Option<BreakerLayer> {
    let spec = policy.breaker.as_ref()?;
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
    Some(BreakerLayer::with_history(policy, Arc::clone(&parts.history)).give_back())
}

fn credentials(spec: &CredentialsSpec) -> Result<Option<CredentialsLayer>, Error> {
    let layer = match spec {
        CredentialsSpec::None => return Ok(None),
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
    layer.map(Some).map_err(|error| {
        Error::caused_by(
            Kind::Config,
            format!("auth: {error}: a secret must be printable ASCII"),
        )
    })
}
