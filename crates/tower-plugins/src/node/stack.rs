//! THE layer order, from the caller to the wire.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, header};
use tower::ServiceBuilder;
use tower_plugins_layers::balance::{
    self, BalancePolicy, EndpointMeta, HealthLayer, KeyFrom, LoadLayer, SlowStartLayer,
    SlowStartPolicy, Strategy,
};
use tower_plugins_layers::breaker::BreakerPolicy;
use tower_plugins_layers::classify::ClassifyPolicy;
use tower_plugins_layers::fallback;
use tower_plugins_layers::hedge::HedgePolicy;
use tower_plugins_layers::retry::{Backoff, EndpointBudgetLayer, Jitter};
use tower_plugins_layers::{
    AttemptTimeout, AttemptTimeoutLayer, Balance, BreakerLayer, ConcurrencyLayer, Deadline,
    DeadlineLayer, Drain, DrainHandle, DrainLayer, FallbackLayer, FallbackPolicy, FilterLayer,
    FilterPolicy, OutlierDetector, RateLimitLayer, ReplayBody, Retry, RetryLayer, RetryPolicy,
    TimeLeftLayer, Trace, TraceLayer,
};

use super::Services;
use super::around::{Around, Few, insides};
use super::authorize;
use super::elsewhere::{ElsewhereLayer, Shadow, Split};
use super::endpoint::{Budgeted, Circuit, Endpoint, EndpointStack, Guarded};
use super::live::Balanced;
use super::own::Own;
use super::parts::{EndpointParts, Parts};
use super::rate_limit::Limiter;
use super::registered::Registered;
use super::stage::stages;
use crate::Body;
use crate::config::{
    BalanceSpec, BalanceStrategy, EndpointSpec, JitterKind, KeySpec, Number, Place, PluginSpec,
    Policy, SubsetFallback,
};
use crate::error::{Error, Kind};

/// A call goes through these from left to right, and its response back.
pub(super) type Stack = Trace<Drain<Around<Deadline<Around<Limited>>>>>;

// What the config may leave out, from the top to the bottom: a name, its layer, and what is below it.
stages! {
    Limited: RateLimitLayer => Placed, of Body;
    Placed: ConcurrencyLayer => Retry<Around<Attempt>>, of Body;
}

/// What each attempt goes through.
type Attempt = AttemptTimeout<Balanced>;

// What stands inside of layers that few plugins have.
insides! {
    Deadline<Around<Limited>>, by |body| body;
    Limited, by |body| body;
    Attempt, by ReplayBody::passthrough;
}

/// How a body is kept for the service that answers instead.
type Kept = fallback::WithBody<fn(ReplayBody<Body>) -> Body>;

/// The stack of `spec` over `parts`.
pub(super) fn build(
    spec: &PluginSpec,
    parts: &Parts,
    balanced: Balanced,
    drain: &DrainHandle,
    own: Own<'_>,
    services: &Arc<Services>,
) -> Result<Stack, Error> {
    let policy = &spec.policy;
    let name = spec.name.as_str();
    Ok(ServiceBuilder::new()
        .layer(TraceLayer::new(name))
        .layer(DrainLayer::new(drain.clone()))
        .layer(
            Few::none()
                .layers(own.at(Place::Call))
                .layer(fallback_service(policy, parts))
                .layer(fallback_answer(policy)?)
                .layer(authorize::layer(&spec.name, policy)?),
        )
        .layer(deadline(policy))
        .layer(
            Few::none()
                .layer(filter(policy, parts))
                .layer(elsewhere(spec, services)),
        )
        .layer_fn(Limited::of(parts.limiter.as_ref().map(Limiter::layer)))
        .layer_fn(Placed::of(concurrency(parts)))
        .layer(retry(spec, parts))
        .layer(Few::none().layers(own.at(Place::Attempt)))
        .layer(attempt_timeout(policy))
        .service(balanced))
}

/// A balancer over endpoints that are always the same.
pub(super) fn fixed(spec: &PluginSpec, parts: &Parts) -> Balance<EndpointStack> {
    let outliers = parts.outliers.as_ref();
    let all = parts.endpoints.now();
    let specs = spec.upstream.endpoints.iter();
    let endpoints = specs.zip(&*all).map(|(at, parts)| {
        let (key, meta) = placed(at);
        (key, endpoint(spec, parts, outliers), meta)
    });
    Balance::with_endpoints(balance(&spec.policy.balance), endpoints)
}

/// The stack of one endpoint.
pub(super) fn endpoint(
    spec: &PluginSpec,
    parts: &EndpointParts,
    outliers: Option<&OutlierDetector>,
) -> EndpointStack {
    let policy = &spec.policy;
    let shown = parts.address.shown();
    let outlier = outliers.map(|all| all.endpoint(&shown));
    ServiceBuilder::new()
        .layer(slow_start(&policy.balance, parts))
        .layer(health(parts))
        .layer_fn(Endpoint::of(outlier))
        .layer_fn(Budgeted::of(
            parts.budget.clone().map(EndpointBudgetLayer::new),
        ))
        .layer_fn(Guarded::of(breaker(spec, parts)))
        .layer(LoadLayer::with_load(Arc::clone(&parts.load)))
        .layer(time_left(policy))
        .service(parts.shown(spec))
}

/// Two layers, of which one at most is there: a fixed answer asks nobody, and so keeps nothing of requests.
fn fallback_service(policy: &Policy, parts: &Parts) -> Option<FallbackLayer<Registered, Kept>> {
    let (spec, service) = (policy.fallback.as_ref()?, parts.fallback.clone()?);
    let on = FallbackPolicy::new().on(spec.on.iter().copied());
    let max = max_kept(policy);
    Some(FallbackLayer::service(on, service).keep_body(max, Body::boxed as fn(_) -> _))
}

/// As much of a body as is kept for whoever may get it later.
fn max_kept(policy: &Policy) -> usize {
    let max = policy.retry.as_ref().map(|retry| retry.max_replay_bytes);
    max.unwrap_or(MAX_KEPT).try_into().unwrap_or(usize::MAX)
}

/// Other plugins that have a part of the calls, or copies.
fn elsewhere(plugin: &PluginSpec, services: &Arc<Services>) -> Option<ElsewhereLayer> {
    let policy = &plugin.policy;
    let split = policy.split.as_ref().map(|spec| {
        let key = spec.hash_on.as_ref().map(key_from);
        Split::new(plugin, spec, key, services)
    });
    let shadow = policy.shadow.as_ref();
    let shadow = shadow.map(|spec| Shadow::new(plugin, spec, max_kept(policy), services));
    ElsewhereLayer::new(split, shadow, policy.authorize.is_some())
}

fn key_from(key: &KeySpec) -> KeyFrom {
    match key {
        KeySpec::Header(name) => KeyFrom::header(name.clone()),
        KeySpec::Cookie(name) => KeyFrom::cookie(&**name),
    }
}

/// What is kept of a body where retry does not say: as much as that would by default.
const MAX_KEPT: u64 = 64 << 10;

fn fallback_answer(policy: &Policy) -> Result<Option<FallbackLayer>, Error> {
    let fixed = policy.fallback.as_ref();
    let Some(spec) = fixed.filter(|spec| spec.service.is_none()) else {
        return Ok(None);
    };
    let answer = Response::builder()
        .status(spec.status)
        .header(header::CONTENT_TYPE, &spec.content_type)
        .body(Bytes::from(spec.body.clone()))
        .map_err(|error| Error::caused_by(Kind::Config, format!("fallback: {error}")))?;
    let policy = FallbackPolicy::new().on(spec.on.iter().copied());
    Ok(Some(FallbackLayer::answer(policy, answer)))
}

fn filter(policy: &Policy, parts: &Parts) -> Option<FilterLayer<Registered>> {
    let (spec, service) = (policy.filter.as_ref()?, parts.filter.clone()?);
    let policy = FilterPolicy::new()
        .headers(spec.headers.iter().cloned())
        .copy_headers(spec.copy_headers.iter().cloned())
        .timeout(spec.timeout)
        .fail_open(spec.fail_open);
    Some(FilterLayer::new(policy, service))
}

/// Always there: a caller may bring a deadline of its own.
pub(crate) fn deadline(policy: &Policy) -> DeadlineLayer {
    let layer = policy
        .deadline
        .map_or(DeadlineLayer::of_callers(), DeadlineLayer::new);
    let layer = match policy.stream_idle_timeout {
        Some(idle) => layer.stream_idle(idle),
        None => layer,
    };
    match &policy.timeout_header {
        Some(name) => layer.header(name.clone()),
        None => layer,
    }
}

/// Always there: a gRPC endpoint is told of its caller's deadline without a word in the config.
fn time_left(policy: &Policy) -> TimeLeftLayer {
    match &policy.timeout_header {
        Some(name) => TimeLeftLayer::new().header(name.clone()),
        None => TimeLeftLayer::new(),
    }
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
        .first_frame_wait(spec.first_frame_wait.unwrap_or_default())
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

fn attempt_timeout(policy: &Policy) -> AttemptTimeoutLayer {
    let timeout = policy.attempt_timeout;
    timeout.map_or(AttemptTimeoutLayer::off(), AttemptTimeoutLayer::new)
}

pub(super) fn balance(spec: &BalanceSpec) -> BalancePolicy {
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
        policy = policy.hash_on(key_from(from));
    }
    if let Some(zone) = &spec.zone {
        policy = policy.zone(&**zone);
    }
    for (name, value) in &spec.subset {
        policy = policy.subset(&**name, &**value);
    }
    for (name, from) in &spec.subset_on {
        policy = policy.subset_on(&**name, key_from(from));
    }
    policy
}

/// What is said of an endpoint beside where it is. Its key is its address, so that a hash finds it wherever it stands
/// in the list.
pub(super) fn placed(spec: &EndpointSpec) -> (String, EndpointMeta) {
    let mut meta = EndpointMeta::new()
        .weight(spec.weight)
        .priority(spec.priority);
    if let Some(zone) = &spec.zone {
        meta = meta.zone(&**zone);
    }
    for (name, value) in &spec.labels {
        meta = meta.label(&**name, &**value);
    }
    (spec.address.to_string(), meta)
}

/// Off, it is not left out: it wraps neither calls nor bodies.
fn slow_start(spec: &BalanceSpec, parts: &EndpointParts) -> SlowStartLayer {
    let Some(window) = spec.slow_start_window else {
        return SlowStartLayer::off();
    };
    let policy = SlowStartPolicy::new()
        .window(window)
        .min_weight(spec.slow_start_min_weight.get())
        .aggression(spec.slow_start_aggression.get());
    SlowStartLayer::with_arrival(policy, Arc::clone(&parts.arrival))
}

/// Off, it is not left out either.
fn health(parts: &EndpointParts) -> HealthLayer {
    match &parts.checker {
        Some(checker) => HealthLayer::with_handle(checker.handle()),
        None => HealthLayer::off(),
    }
}

/// The breaker of an endpoint.
pub(super) fn breaker(plugin: &PluginSpec, parts: &EndpointParts) -> Option<Circuit> {
    let spec = plugin.policy.breaker.as_ref()?;
    let permits = u16::try_from(spec.success_threshold).unwrap_or(u16::MAX);
    let longest = spec.max_recovery_timeout.unwrap_or(spec.recovery_timeout);
    let mut policy = BreakerPolicy::new()
        .consecutive_failures(spec.failure_threshold)
        .failure_rate(spec.failure_rate.map(Number::get))
        .slow_call(spec.slow_call_duration)
        .slow_rate(spec.slow_call_rate.get())
        .window(spec.window)
        .min_requests(spec.min_request_threshold)
        .recovery(spec.recovery_timeout)
        .max_recovery(longest)
        .jitter(spec.recovery_jitter.get())
        .success_threshold(permits);
    if let Some(calls) = spec.window_calls {
        policy = policy.window_calls(calls);
    }
    let layer = BreakerLayer::with_history(policy, Arc::clone(&parts.history));
    let layer = layer
        .labelled(
            plugin.name.as_str(),
            &parts.address.shown(),
            parts.label.as_str(),
        )
        .give_back();
    Some(layer.classify(failures(&plugin.policy)))
}

/// What the breakers of a plugin take for failures, if it has any; else what they do by default.
pub(super) fn failures(policy: &Policy) -> ClassifyPolicy {
    let mut failures = ClassifyPolicy::new();
    let breaker = policy.breaker.as_ref();
    if let Some(statuses) = breaker.and_then(|spec| spec.failure_statuses.as_ref()) {
        failures = failures.failure_statuses(statuses.iter().copied());
    }
    if let Some(codes) = breaker.and_then(|spec| spec.failure_grpc_codes.as_ref()) {
        failures = failures.failure_grpc_codes(codes.iter().copied());
    }
    failures
}
