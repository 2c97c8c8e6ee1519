//! THE layer order, from the caller to the wire.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Response, header};
use tower::ServiceBuilder;
use tower_plugins_layers::authorize::{AuthorizeLayer, Callers};
use tower_plugins_layers::balance::{
    self, BalancePolicy, EndpointMeta, KeyFrom, LoadLayer, Strategy,
};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::hedge::HedgePolicy;
use tower_plugins_layers::rate_limit::KeyBy;
use tower_plugins_layers::retry::{Backoff, Jitter};
use tower_plugins_layers::{
    AttemptTimeoutLayer, Balance, BreakerLayer, ConcurrencyLayer, CredentialsLayer, Deadline,
    DeadlineLayer, Drain, DrainHandle, DrainLayer, Fallback, FallbackLayer, FallbackPolicy,
    RateLimitLayer, ReplayBody, Retry, RetryLayer, RetryPolicy, Trace, TraceLayer,
};

use super::endpoint::{Endpoint, Shown, Wire};
use super::parts::{EndpointParts, Limiter, Parts};
use super::stage::stages;
use crate::Body;
use crate::config::{
    BalanceSpec, BalanceStrategy, CredentialsSpec, EndpointSpec, JitterKind, KeySpec, Number,
    PluginSpec, Policy, Secret, SubsetFallback,
};
use crate::error::{Error, Kind};

/// A call goes through these from left to right, and its response back.
pub(super) type Stack = Trace<Drain<Fallback<Permitted>>>;

// What the config may leave out, from the top to the bottom: a name, its layer, and what is below it.
stages! {
    Permitted: AuthorizeLayer => Deadline<Limited>, of Body;
    Limited: RateLimitLayer => Placed, of Body;
    Placed: ConcurrencyLayer => Retry<Timed>, of Body;
    Timed: AttemptTimeoutLayer => Balance<Endpoint>, of ReplayBody<Body>;
}

/// The stack of `spec` over `parts`.
pub(super) fn build(spec: &PluginSpec, parts: &Parts, drain: &DrainHandle) -> Result<Stack, Error> {
    let policy = &spec.policy;
    let endpoints = parts.endpoints.iter().map(|parts| endpoint(policy, parts));
    let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
    let specs = spec.upstream.endpoints.iter();
    let endpoints = specs.zip(endpoints).map(|(spec, end)| placed(spec, end));
    let balance = Balance::with_endpoints(balance(&policy.balance), endpoints);
    Ok(ServiceBuilder::new()
        .layer(TraceLayer::new(spec.name.as_str()))
        .layer(DrainLayer::new(drain.clone()))
        .layer(fallback(policy)?)
        .layer_fn(Permitted::of(authorize(policy)))
        .layer(deadline(policy))
        .layer_fn(Limited::of(rate_limit(policy, parts)))
        .layer_fn(Placed::of(concurrency(parts)))
        .layer(retry(spec, parts))
        .layer_fn(Timed::of(
            policy.attempt_timeout.map(AttemptTimeoutLayer::new),
        ))
        .service(balance))
}

/// The stack of one endpoint.
fn endpoint(policy: &Policy, parts: &EndpointParts) -> Result<Endpoint, Error> {
    Ok(ServiceBuilder::new()
        .layer_fn(Endpoint::of(breaker(policy, parts)))
        .layer(LoadLayer::with_load(Arc::clone(&parts.load)))
        .layer_fn(Shown::of(credentials(&policy.credentials)?))
        .service(Wire(Arc::clone(&parts.transport))))
}

fn fallback(policy: &Policy) -> Result<FallbackLayer, Error> {
    let Some(spec) = &policy.fallback else {
        return Ok(FallbackLayer::off());
    };
    let answer = Response::builder()
        .status(spec.status)
        .header(header::CONTENT_TYPE, &spec.content_type)
        .body(Bytes::from(spec.body.clone()))
        .map_err(|error| Error::caused_by(Kind::Config, format!("fallback: {error}")))?;
    let policy = FallbackPolicy::new().on(spec.on.iter().copied());
    Ok(FallbackLayer::answer(policy, answer))
}

/// Whoever is named may call; where nobody is asked for, everybody may.
fn authorize(policy: &Policy) -> Option<AuthorizeLayer> {
    let spec = policy.authorize.as_ref()?;
    let mut callers = Callers::new().api_key_header(spec.api_key_header.clone());
    for (name, key) in &spec.api_keys {
        callers = callers.api_key(name.as_str(), key.expose());
    }
    for (name, token) in &spec.bearer_tokens {
        callers = callers.bearer(name.as_str(), token.expose());
    }
    Some(AuthorizeLayer::new(callers))
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
    let layer = match limiter {
        Limiter::One(limiter) => RateLimitLayer::with_limiter(Arc::clone(limiter)),
        Limiter::Keyed(limiter, header) => {
            RateLimitLayer::keyed(Arc::clone(limiter), KeyBy::header(header.clone()))
        }
    };
    Some(layer.max_wait(spec.max_wait).headers(spec.headers))
}

fn concurrency(parts: &Parts) -> Option<ConcurrencyLayer> {
    let (spec, bulkhead) = parts.bulkhead.as_ref()?;
    let layer = ConcurrencyLayer::with_bulkhead(Arc::clone(bulkhead));
    Some(match &spec.priority_header {
        Some(header) => layer.priority_header(header.clone()),
        None => layer,
    })
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

fn balance(spec: &BalanceSpec) -> BalancePolicy {
    let strategy = match spec.strategy {
        BalanceStrategy::PeakEwma => Strategy::PeakEwma,
        BalanceStrategy::RoundRobin => Strategy::RoundRobin,
        BalanceStrategy::WeightedRoundRobin => Strategy::WeightedRoundRobin,
        BalanceStrategy::Random => Strategy::Random,
        BalanceStrategy::WeightedRandom => Strategy::WeightedRandom,
        BalanceStrategy::LeastRequest => Strategy::LeastRequest,
        BalanceStrategy::LeastConnections => Strategy::LeastConnections,
        BalanceStrategy::LeastLatency => Strategy::LeastLatency,
        BalanceStrategy::RingHash => Strategy::RingHash,
        BalanceStrategy::Maglev => Strategy::Maglev,
    };
    let key = |key: &KeySpec| match key {
        KeySpec::Header(name) => KeyFrom::header(name.clone()),
        KeySpec::Cookie(name) => KeyFrom::cookie(&**name),
    };
    let mut policy = BalancePolicy::new(strategy)
        .bias(spec.least_request_bias.get())
        .load_factor(spec.load_factor.map(Number::get))
        .panic_threshold(spec.panic_threshold.get())
        .overprovisioning(spec.overprovisioning.get())
        .subset_fallback(match spec.subset_fallback {
            SubsetFallback::Any => balance::SubsetFallback::Any,
            SubsetFallback::None => balance::SubsetFallback::None,
        });
    if let Some(from) = &spec.hash_on {
        policy = policy.hash_on(key(from));
    }
    if let Some(zone) = &spec.zone {
        policy = policy.zone(&**zone);
    }
    for (name, value) in &spec.subset {
        policy = policy.subset(&**name, &**value);
    }
    for (name, from) in &spec.subset_on {
        policy = policy.subset_on(&**name, key(from));
    }
    policy
}

/// What is said of an endpoint beside where it is. Its key is its address, so that a hash finds it wherever it stands
/// in the list.
fn placed(spec: &EndpointSpec, endpoint: Endpoint) -> (String, Endpoint, EndpointMeta) {
    let mut meta = EndpointMeta::new()
        .weight(spec.weight)
        .priority(spec.priority);
    if let Some(zone) = &spec.zone {
        meta = meta.zone(&**zone);
    }
    for (name, value) in &spec.labels {
        meta = meta.label(&**name, &**value);
    }
    (spec.address.to_string(), endpoint, meta)
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
