//! THE layer order, from the caller to the wire.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tower::ServiceBuilder;
use tower_layer::layer_fn;
use tower_plugins_layers::balance::Policy as BalancePolicy;
use tower_plugins_layers::retry::Backoff;
use tower_plugins_layers::{
    AttemptTimeout, AttemptTimeoutLayer, Balance, BreakerLayer, BreakerPolicy, Concurrency,
    ConcurrencyLayer, CredentialsLayer, Deadline, DeadlineLayer, Drain, DrainLayer, LoadLayer,
    RateLimit, RateLimitLayer, Retry, RetryLayer, RetryPolicy, Trace, TraceLayer,
};

use super::attempt::Attempt;
use super::endpoint::Endpoint;
use super::parts::{EndpointParts, Parts};
use crate::config::{
    BalanceStrategy, BreakerSpec, CredentialsSpec, PluginSpec, Policy, RetrySpec, Secret,
};
use crate::error::{Error, Kind};

/// A call goes through these from left to right, and its response back.
pub(super) type Stack =
    Trace<Draining<Deadline<RateLimit<Concurrency<Retry<Attempt<AttemptTimeout<Balance<Endpoint>>>>>>>>>;

use tower_plugins_layers::drain::Draining;

/// The stack of `spec` over `parts`. What the spec does not arm costs a branch.
pub(super) fn build(spec: &PluginSpec, parts: &Parts, drain: &Drain) -> Result<Stack, Error> {
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
        .layer(layer_fn(Attempt))
        .layer(policy.attempt_timeout.map_or(AttemptTimeoutLayer::off(), AttemptTimeoutLayer::new))
        .service(Balance::new(endpoints, balance(policy.balance))))
}

/// The stack of one endpoint.
fn endpoint(policy: &Policy, parts: &EndpointParts) -> Result<Endpoint, Error> {
    Ok(ServiceBuilder::new()
        .layer(breaker(policy, parts))
        .layer(LoadLayer::with_load(Arc::clone(&parts.load)))
        .layer(credentials(&policy.credentials)?)
        .service(Wire(Arc::clone(&parts.transport))))
}
