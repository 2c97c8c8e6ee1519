//! State that outlives the stack above it.
//!
//! Each part is keyed by the slice of the spec that it depends on, and goes on in the next node of
//! the plugin when that slice is equal. What only the old node holds ends with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header;
use tower_plugins_layers::balance::{Arrival, EndpointLoad};
use tower_plugins_layers::breaker::BreakerHistory;
use tower_plugins_layers::concurrency::{AdaptivePolicy, Algorithm};
use tower_plugins_layers::hedge::Latencies;
use tower_plugins_layers::retry::{Budget, BudgetLimits};
use tower_plugins_layers::{Bulkhead, OutlierDetector, OutlierPolicy};

use super::Services;
use super::credentials::Credentials;
use super::endpoint::{Shown, Wire};
use super::health::{Ask, Checker, EndpointHealth, HealthHub, Key, PluginHealth};
use super::label::{Label, Labels};
use super::live::Entries;
#[cfg(feature = "dns")]
use super::live::Name;
use super::own::NamedLayer;
use super::rate_limit::Limiter;
use super::registered::Registered;
use crate::config::{
    AdaptiveLimit, Address, BudgetKind, ConcurrencySpec, ConfigError, ConnectionSpec, GoPluginSpec,
    HealthKind, HealthSpec, LayerSpec, Number, Options, OutlierSpec, PluginName, PluginSpec,
    ProcessSpec, Protocol, RetrySpec, TlsSpec, Upstream,
};
use crate::error::{Error, Kind};
use crate::transport::{EndpointArgs, MessageLimits, Transport, Unmade};

/// How a node has what the node before it remembers of its endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inherit {
    /// Together with it.
    Shared,
    /// As a copy: it may be thrown away with the node.
    Copied,
}

/// The parts of one node.
pub(crate) struct Parts {
    pub(super) limiter: Option<Limiter>,
    pub(super) bulkhead: Option<(ConcurrencySpec, Arc<Bulkhead>)>,
    pub(super) budget: Option<Budget>,
    /// What attempts took, which hedges begin after.
    pub(super) latencies: Option<Latencies>,
    /// Of the endpoints of this node alone: those that others have are not compared with them.
    pub(super) outliers: Option<OutlierDetector>,
    /// Whom `filter` asks.
    pub(super) filter: Option<Registered>,
    /// Whom `fallback` asks.
    pub(super) fallback: Option<Registered>,
    /// What is shown to the endpoints, and the token that they share.
    pub(super) credentials: Credentials,
    pub(super) endpoints: Endpoints,
    /// Of endpoints that are found while the node runs.
    pub(super) labels: Labels,
    /// The names of endpoints that are looked up.
    #[cfg(feature = "dns")]
    names: Vec<Arc<Name>>,
    pub(super) layers: Vec<NamedLayer>,
}

/// The parts of a node's endpoints, which may come and go while it runs. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Endpoints(Arc<Changing>);

#[derive(Default)]
struct Changing {
    now: Mutex<Arc<[EndpointParts]>>,
    /// Those that are there and get no calls, each with why.
    left_out: Mutex<Vec<EndpointHealth>>,
    /// Who is told how they are, from when the node serves until it does not.
    hub: Mutex<Option<Arc<HealthHub>>>,
}

impl Endpoints {
    pub(super) fn now(&self) -> Arc<[EndpointParts]> {
        Arc::clone(&self.0.now.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set(&self, parts: Vec<EndpointParts>) {
        *self.0.now.lock().unwrap_or_else(PoisonError::into_inner) = parts.into();
    }

    fn left_out(&self) -> MutexGuard<'_, Vec<EndpointHealth>> {
        let left_out = self.0.left_out.lock();
        left_out.unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets those that get no calls, and gives those that did not before.
    pub(super) fn leave_out(&self, left_out: Vec<EndpointHealth>) -> Vec<EndpointHealth> {
        let mut known = self.left_out();
        let new = left_out.iter().filter(|end| !known.contains(end));
        let new = new.cloned().collect();
        *known = left_out;
        new
    }

    /// Why the first of those gets none.
    pub(super) fn why_left_out(&self) -> Option<String> {
        self.left_out().first()?.message.clone()
    }

    /// Has those of now and of later asked how they are, or none that comes later.
    pub(super) fn tell(&self, hub: Option<&Arc<HealthHub>>) {
        *self.0.hub.lock().unwrap_or_else(PoisonError::into_inner) = hub.cloned();
    }

    /// They are others than before: has those that are new asked as well.
    pub(super) fn check(&self, plugin: &PluginName) {
        let hub = self.0.hub.lock().unwrap_or_else(PoisonError::into_inner);
        let hub = hub.clone();
        if let Some(hub) = hub {
            for checker in self.checkers() {
                checker.begin(&hub, None);
            }
            hub.changed_endpoints(plugin, PluginHealth::new(self.health()));
        }
    }

    pub(super) fn checkers(&self) -> Vec<Arc<Checker>> {
        let now = self.now();
        let checkers = now.iter().filter_map(|parts| parts.checker.clone());
        checkers.collect()
    }

    /// How each is.
    pub(super) fn health(&self) -> Vec<EndpointHealth> {
        let now = self.now();
        let health = now.iter().map(|parts| match &parts.checker {
            Some(checker) => checker.snapshot(),
            None => EndpointHealth::unknown(parts.address.clone()),
        });
        health.chain(self.left_out().iter().cloned()).collect()
    }
}

/// The parts of one endpoint.
#[derive(Clone)]
pub(super) struct EndpointParts {
    pub(super) address: Address,
    pub(super) label: Arc<Label>,
    connection: ConnectionSpec,
    /// Of no concern to an address that is not reached over it.
    tls: Option<TlsSpec>,
    /// The same.
    options: Option<Options>,
    /// The same.
    process: Option<ProcessSpec>,
    /// The same.
    go_plugin: Option<GoPluginSpec>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) credentials: Credentials,
    /// What it may be asked again.
    pub(super) budget: Option<Budget>,
    pub(super) history: Arc<BreakerHistory>,
    pub(super) load: Arc<EndpointLoad>,
    /// When it came, or came back.
    pub(super) arrival: Arc<Arrival>,
    /// Who asks how it is.
    pub(super) checker: Option<Arc<Checker>>,
}

impl Parts {
    pub(super) fn build(
        spec: &PluginSpec,
        old: Option<&Self>,
        inherit: Inherit,
        services: &Services,
    ) -> Result<Self, Error> {
        let credentials = Credentials::build(spec, old.map(|old| &old.credentials))?;
        let endpoints = endpoints(spec, &credentials, old, inherit, services)?;
        #[cfg(feature = "dns")]
        let names = names(spec, old)?;
        let policy = &spec.policy;
        let find = |name: &String| Registered::find(name, services);
        let filter = policy.filter.as_ref().map(|spec| &spec.service);
        let fallback = policy.fallback.as_ref();
        let fallback = fallback.and_then(|spec| spec.service.as_ref());
        Ok(Self {
            filter: filter.map(find).transpose()?,
            fallback: fallback.map(find).transpose()?,
            limiter: policy
                .rate_limit
                .as_ref()
                .map(|new| {
                    let old = old.and_then(|old| old.limiter.as_ref());
                    Limiter::build(spec.name.as_str(), new, old)
                })
                .transpose()?,
            bulkhead: policy.concurrency.as_ref().map(|new| bulkhead(new, old)),
            budget: policy
                .retry
                .as_ref()
                .map(|new| budget(new, old.and_then(|old| old.budget.as_ref()))),
            latencies: policy.hedge.as_ref().map(|_| latencies(old, inherit)),
            outliers: policy
                .outlier
                .as_ref()
                .map(|new| outliers(spec.name.as_str(), new, old)),
            credentials,
            endpoints,
            labels: old.map_or_else(Labels::default, |old| old.labels.clone()),
            #[cfg(feature = "dns")]
            names,
            layers: layers(&policy.layers, old, services)?,
        })
    }

    /// Has what goes on from the node before do as this one's spec says. Until then that is the other's.
    pub(super) fn take_effect(&self) {
        if let Some(limiter) = &self.limiter {
            limiter.take_effect();
        }
    }

    /// What the config says of endpoints, if some of them are found while the node runs.
    pub(super) fn entries(
        &self,
        spec: &PluginSpec,
        services: &Services,
    ) -> Result<Option<Entries>, Error> {
        #[cfg(feature = "dns")]
        return Entries::of(spec, &self.names, services);
        #[cfg(not(feature = "dns"))]
        Entries::of(spec, services)
    }

    /// What is asked of each endpoint that is to be ready: what its health check asks, or for a connection.
    pub(super) fn asks(&self, spec: &PluginSpec) -> Vec<(Address, Arc<Ask>)> {
        let endpoints = self.endpoints.now();
        let mut asks = Vec::with_capacity(endpoints.len());
        for parts in &*endpoints {
            let ask = match &parts.checker {
                Some(checker) => checker.ask(),
                // It is here.
                None if matches!(parts.address, Address::InProcess { .. }) => continue,
                None => {
                    let endpoint = parts.shown(spec);
                    let spec = HealthSpec {
                        kind: HealthKind::Tcp,
                        ..HealthSpec::default()
                    };
                    let transport = Arc::clone(&parts.transport);
                    Arc::new(Ask::new(&spec, endpoint, transport))
                }
            };
            asks.push((parts.address.clone(), ask));
        }
        asks
    }
}

/// Those of `old` go on; of a node that finds its endpoints while it runs they are those that it begins with.
fn endpoints(
    spec: &PluginSpec,
    credentials: &Credentials,
    old: Option<&Parts>,
    inherit: Inherit,
    services: &Services,
) -> Result<Endpoints, Error> {
    let old = old.map(|old| old.endpoints.now());
    let old = old.as_deref().unwrap_or_default();
    let copies: Vec<_>;
    let old = match inherit {
        Inherit::Shared => old,
        Inherit::Copied => {
            copies = old.iter().map(EndpointParts::copy).collect();
            &copies
        }
    };
    let endpoints = &spec.upstream.endpoints;
    let new = Endpoints::default();
    if endpoints.iter().any(|end| end.address.stands_for_many()) {
        let may_stay = |parts: &&EndpointParts| spec.check_plaintext(&parts.address).is_ok();
        new.set(old.iter().filter(may_stay).cloned().collect());
    } else {
        let parts = endpoints.iter().map(|endpoint| {
            let address = &endpoint.address;
            let label = || Label::fixed(&address.shown());
            EndpointParts::build(address, label, spec, credentials, old, services)
        });
        new.set(parts.collect::<Result<_, _>>()?);
    }
    Ok(new)
}

#[cfg(feature = "dns")]
fn names(spec: &PluginSpec, old: Option<&Parts>) -> Result<Vec<Arc<Name>>, Error> {
    let old = old.map_or(&[][..], |old| &old.names);
    let names = spec.upstream.endpoints.iter();
    let names = names.filter_map(|endpoint| match &endpoint.address {
        Address::Dns(name) => Some(Name::build(&spec.name, name, &spec.upstream.dns, old)),
        _ => None,
    });
    names.collect()
}

/// All that is wrong with them is said at once.
fn layers(
    specs: &[LayerSpec],
    old: Option<&Parts>,
    services: &Services,
) -> Result<Vec<NamedLayer>, ConfigError> {
    let mut old: Vec<_> = old.map_or_else(Vec::new, |old| old.layers.iter().collect());
    let (mut layers, mut refused) = (Vec::with_capacity(specs.len()), None::<ConfigError>);
    for spec in specs {
        // Each goes on once: two equal ones are two layers.
        let kept = old.iter().position(|layer| layer.spec == *spec);
        let layer = match kept {
            Some(index) => Ok(old.remove(index).clone()),
            None => NamedLayer::make(spec, &services.recipes),
        };
        match (layer, refused.take()) {
            (Ok(layer), before) => {
                layers.push(layer);
                refused = before;
            }
            (Err(error), None) => refused = Some(error),
            (Err(error), Some(before)) => refused = Some(before.and(error)),
        }
    }
    refused.map_or(Ok(layers), Err)
}

fn bulkhead(new: &ConcurrencySpec, old: Option<&Parts>) -> (ConcurrencySpec, Arc<Bulkhead>) {
    let bulkhead = match old.and_then(|old| old.bulkhead.as_ref()) {
        Some((spec, bulkhead)) if spec == new => Arc::clone(bulkhead),
        _ => {
            let most = new.max_concurrent as usize;
            let adaptive = |algorithm| {
                let policy = AdaptivePolicy::new().algorithm(algorithm).max(most);
                Bulkhead::adaptive(policy)
            };
            let bulkhead = match new.adaptive {
                None => Bulkhead::new(most),
                Some(AdaptiveLimit::Gradient) => adaptive(Algorithm::Gradient),
                Some(AdaptiveLimit::Aimd) => adaptive(Algorithm::Aimd),
            };
            Arc::new(bulkhead.queue(new.max_queued as usize, new.max_wait))
        }
    };
    (new.clone(), bulkhead)
}

/// What was spent stays spent, by other limits of the same kind too.
fn budget(new: &RetrySpec, old: Option<&Budget>) -> Budget {
    let limits = match new.budget {
        BudgetKind::Ratio => BudgetLimits::Ratio {
            ratio: new.budget_ratio.get(),
            min_per_second: new.budget_min_per_second,
        },
        BudgetKind::InFlight => BudgetLimits::InFlight {
            share: new.budget_ratio.get(),
            min: new.budget_min_in_flight,
        },
        BudgetKind::Tokens => BudgetLimits::Tokens {
            max: new.budget_max_tokens,
            ratio: new.budget_token_ratio.get(),
        },
    };
    old.map_or_else(|| limits.into(), |old| old.with_limits(limits))
}

fn latencies(old: Option<&Parts>, inherit: Inherit) -> Latencies {
    let old = old.and_then(|old| old.latencies.as_ref());
    old.map_or_else(Latencies::default, |old| match inherit {
        Inherit::Shared => old.clone(),
        Inherit::Copied => old.copy(),
    })
}

/// Who is out stays out, and what was counted counts.
fn outliers(name: &str, new: &OutlierSpec, old: Option<&Parts>) -> OutlierDetector {
    let percent = |percent| u8::try_from(percent).unwrap_or(100);
    let policy = OutlierPolicy::new()
        .consecutive_failures(new.consecutive_failures)
        .success_rate_stdev(new.success_rate_stdev_factor.map(Number::get))
        .failure_percentage(new.failure_percentage_threshold.map(percent))
        .min_requests(new.min_requests)
        .min_hosts(new.min_hosts as usize)
        .interval(new.interval)
        .base_ejection(new.base_ejection_time)
        .max_ejection(new.max_ejection_time)
        .jitter(new.max_ejection_time_jitter)
        .max_ejection_percent(percent(new.max_ejection_percent))
        .always_eject_one(new.always_eject_one_host);
    match old.and_then(|old| old.outliers.as_ref()) {
        Some(old) => old.renewed(policy),
        None => OutlierDetector::named(name, policy),
    }
}

impl EndpointParts {
    /// The one at `address`, which goes on with what those of `old` at the same have, or else gets a `label`.
    pub(super) fn build(
        address: &Address,
        label: impl FnOnce() -> Arc<Label>,
        spec: &PluginSpec,
        credentials: &Credentials,
        old: &[Self],
        services: &Services,
    ) -> Result<Self, Error> {
        spec.check_plaintext(address)?;
        let old = old.iter().find(|parts| parts.address == *address);
        let upstream = &spec.upstream;
        let retry = spec.policy.retry.as_ref();
        let own = retry.filter(|retry| retry.endpoint_budget);
        let connection = &upstream.connection;
        let has_tls = address.is_https() || matches!(address, Address::Subprocess { .. });
        let tls = has_tls.then_some(&upstream.tls);
        let options = matches!(address, Address::Custom { .. }).then_some(&upstream.options);
        let is_attached = matches!(address, Address::Attached(_));
        let is_go_plugin = is_attached || matches!(address, Address::Subprocess { .. });
        let is_process = matches!(
            address,
            Address::ExecJson { .. } | Address::Subprocess { .. }
        );
        let process = is_process.then_some(&upstream.process);
        let go_plugin = is_go_plugin.then_some(&upstream.go_plugin);
        let is_kept = |old: &&Self| {
            old.connection == *connection
                && old.tls.as_ref() == tls
                && old.options.as_ref() == options
                && old.process.as_ref() == process
                && old.go_plugin.as_ref() == go_plugin
        };
        let transport = match old.filter(is_kept) {
            Some(old) => Arc::clone(&old.transport),
            None => transport(address, spec, services)?,
        };
        let mut parts = Self {
            checker: None,
            address: address.clone(),
            label: old.map_or_else(label, |old| Arc::clone(&old.label)),
            connection: connection.clone(),
            tls: tls.cloned(),
            options: options.cloned(),
            process: process.cloned(),
            go_plugin: go_plugin.cloned(),
            transport,
            credentials: credentials.clone(),
            budget: own.map(|new| budget(new, old.and_then(|old| old.budget.as_ref()))),
            history: old.map_or_else(Arc::default, |old| Arc::clone(&old.history)),
            load: old.map_or_else(Arc::default, |old| Arc::clone(&old.load)),
            arrival: old.map_or_else(Arc::default, |old| Arc::clone(&old.arrival)),
        };
        parts.checker = parts.checker(spec, old);
        Ok(parts)
    }

    /// The way to the endpoint, with what it is shown.
    pub(super) fn shown(&self, spec: &PluginSpec) -> Shown {
        let name = self.address.shown();
        let grpc = spec.upstream.grpc.as_ref();
        let limits = grpc.map(|grpc| MessageLimits::new(grpc, &name));
        let label = Arc::clone(&self.label);
        let speaks_http = !matches!(
            self.address,
            Address::UnixJson { .. } | Address::InProcess { .. } | Address::Custom { .. }
        );
        // What `auth` has put there is not the caller's.
        let is_hop = speaks_http && !spec.policy.credentials.sets(&header::PROXY_AUTHORIZATION);
        let wire = Wire::new(Arc::clone(&self.transport), &name, label, limits, is_hop);
        self.credentials.around(wire)
    }

    /// The same endpoint, with the same connections, of which is remembered as much from now on as before.
    fn copy(&self) -> Self {
        Self {
            history: Arc::new(self.history.copy()),
            load: Arc::new(self.load.copy()),
            ..self.clone()
        }
    }

    fn checker(&self, spec: &PluginSpec, old: Option<&Self>) -> Option<Arc<Checker>> {
        let key = Key {
            plugin: spec.name.clone(),
            label: Arc::clone(&self.label),
            spec: spec.policy.health.clone()?,
            credentials: spec.policy.credentials.clone(),
            transport: Arc::clone(&self.transport),
        };
        let old = old.and_then(|old| old.checker.as_ref());
        Some(Checker::build(key, &self.address, self.shown(spec), old))
    }
}

fn transport(
    address: &Address,
    spec: &PluginSpec,
    services: &Services,
) -> Result<Arc<dyn Transport>, Error> {
    refuse_grpc(address, &spec.upstream)?;
    match address {
        Address::Dns(_) | Address::Source { .. } => Err(Error::caused_by(
            Kind::Config,
            format!("`{}` is not the address of one endpoint", address.shown()),
        )),
        Address::InProcess { service } => {
            let service = Registered::find(service, services)?;
            Ok(Arc::new(service.into_inner()))
        }
        Address::Custom {
            transport,
            endpoint,
        } => custom(transport, endpoint, spec, services),
        #[cfg(all(feature = "http", unix))]
        Address::UnixJson { path } => {
            let connection = &spec.upstream.connection;
            Ok(Arc::new(crate::transport::UnixJson::new(path, connection)))
        }
        #[cfg(all(feature = "subprocess", unix))]
        Address::ExecJson { executable, .. } => {
            let (plugin, upstream) = (spec.name.as_str(), &spec.upstream);
            Ok(Arc::new(crate::transport::ExecJson::named(
                plugin,
                address.to_string(),
                executable.clone(),
                &upstream.process,
                &upstream.connection,
            )))
        }
        #[cfg(all(feature = "subprocess", unix))]
        Address::Subprocess { .. } | Address::Attached(_) => go_plugin(address, spec, services),
        #[cfg(not(all(feature = "subprocess", unix)))]
        Address::ExecJson { .. } | Address::Subprocess { .. } | Address::Attached(_) => {
            Err(Error::caused_by(
                Kind::Config,
                format!("`{address}` needs Unix, and the feature `subprocess` of tower-plugins"),
            ))
        }
        #[cfg(not(all(feature = "http", unix)))]
        Address::UnixJson { .. } => Err(Error::caused_by(
            Kind::Config,
            format!(
                "`{address}` needs a system with Unix sockets, and the feature `http` of tower-plugins"
            ),
        )),
        #[cfg(feature = "http")]
        Address::Http { .. }
        | Address::Https { .. }
        | Address::Unix { .. }
        | Address::Resolved { .. } => {
            let upstream = &spec.upstream;
            let (connection, tls) = (&upstream.connection, &upstream.tls);
            let plugin = Some(spec.name.as_str());
            let http = crate::transport::Http::of(plugin, address, connection, tls)
                .map_err(|error| Error::caused_by(Kind::Config, error))?;
            Ok(Arc::new(http))
        }
        #[cfg(not(feature = "http"))]
        Address::Http { .. }
        | Address::Https { .. }
        | Address::Unix { .. }
        | Address::Resolved { .. } => {
            let feature = if address.is_https() { "tls" } else { "http" };
            Err(Error::caused_by(
                Kind::Config,
                format!(
                    "`{}` needs the feature `{feature}` of tower-plugins, which is off",
                    address.shown()
                ),
            ))
        }
    }
}

/// A process of go-plugin's, of this program or of somebody else.
#[cfg(all(feature = "subprocess", unix))]
fn go_plugin(
    address: &Address,
    spec: &PluginSpec,
    services: &Services,
) -> Result<Arc<dyn Transport>, Error> {
    use crate::transport::{Attached, GoPlugin, GoPluginParts};

    let upstream = &spec.upstream;
    let parts = GoPluginParts {
        plugin: spec.name.as_str(),
        name: &address.to_string(),
        process: &upstream.process,
        go_plugin: &upstream.go_plugin,
        connection: &upstream.connection,
        tls: &upstream.tls,
    };
    let sink = services.sink(spec.name.as_str());
    let refused = |error: tower_plugins_layers::BoxError| Error::caused_by(Kind::Config, error);
    match address {
        Address::Attached(reattach) => match Attached::of(parts, reattach.clone(), sink) {
            Ok(attached) => Ok(Arc::new(attached)),
            Err(error) => Err(refused(error.into())),
        },
        Address::Subprocess { executable, .. } => {
            let terminal = services.terminal(parts.plugin);
            match GoPlugin::of(parts, executable.clone(), sink, terminal) {
                Ok(plugin) => Ok(Arc::new(plugin)),
                Err(error) => Err(refused(error.into())),
            }
        }
        _ => Err(refused(
            format!("`{address}` is no plugin of go-plugin").into(),
        )),
    }
}

/// What speaks gRPC has to be built with it, and is reached over HTTP/2.
fn refuse_grpc(address: &Address, upstream: &Upstream) -> Result<(), Error> {
    let address = address.shown();
    let message = match (&upstream.grpc, upstream.connection.protocol) {
        (None, _) => return Ok(()),
        _ if !cfg!(feature = "grpc") => {
            format!("`{address}` needs the feature `grpc` of tower-plugins, which is off")
        }
        (Some(_), Protocol::Http2) => return Ok(()),
        _ => format!("`{address}` speaks gRPC, which takes `connection.protocol` to be HTTP/2"),
    };
    Err(Error::caused_by(Kind::Config, message))
}

/// What the program's own transport of this name makes of the endpoint.
fn custom(
    transport: &str,
    endpoint: &str,
    spec: &PluginSpec,
    services: &Services,
) -> Result<Arc<dyn Transport>, Error> {
    let upstream = &spec.upstream;
    let Some(factory) = services.transports.get(transport) else {
        let known = services.transports.keys().map(String::as_str);
        return Err(upstream.unknown_transport(transport, known).into());
    };
    let made = factory.make(EndpointArgs {
        plugin: spec.name.as_str().to_owned(),
        endpoint: endpoint.to_owned(),
        connection: upstream.connection.clone(),
        options: &upstream.options,
    });
    made.map_err(|unmade| match unmade {
        Unmade::Options(why) => upstream.refused_options(transport, &why).into(),
        Unmade::Refused(why) => upstream.unreachable(transport, endpoint, &*why).into(),
    })
}
