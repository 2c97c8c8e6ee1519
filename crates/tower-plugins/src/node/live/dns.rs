//! Endpoints that name servers tell of.
//!
//! A name is looked up when its plugin is built, and again when what was answered is no longer valid, within bounds.
//! What cannot be answered leaves the last answer standing.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use metrics::{Counter, counter};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tower_plugins_layers::BoxError;

use crate::config::{Address, DnsFamily, DnsName, DnsSpec, EndpointSpec, PluginName};
use crate::error::{Error, Kind};

/// The shortest wait between two lookups.
const SHORTEST: Duration = Duration::from_millis(1);

/// What a name stands for: sorted, each once.
pub(super) type Answers = Arc<[Answer]>;

/// One endpoint of an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Answer {
    priority: u32,
    at: SocketAddr,
    weight: u32,
    /// Of the origin; a service's is in its record.
    port: u16,
}

/// A name that is looked up again and again, by one task, for as long as this is here.
pub(in super::super) struct Name {
    of: DnsName,
    spec: DnsSpec,
    answers: watch::Receiver<Option<Answers>>,
    task: AbortHandle,
}

impl Name {
    /// Begins to look `of` up, or goes on if one of `old` does. Within a runtime.
    pub(in super::super) fn build(
        plugin: &PluginName,
        of: &DnsName,
        spec: &DnsSpec,
        old: &[Arc<Self>],
    ) -> Result<Arc<Self>, Error> {
        let old = old.iter().find(|old| old.of == *of);
        if let Some(old) = old.filter(|old| old.spec == *spec) {
            return Ok(Arc::clone(old));
        }
        // Looked up in another way it is the same name: the last answer stands until there is another.
        let known = old.and_then(|old| old.answers.borrow().clone());
        let resolver = resolver(of, spec).map_err(|error| {
            let message = format!("`{of}`: no name can be looked up: {error}");
            Error::caused_by(Kind::Config, message)
        })?;
        let known = known.filter(|known| !known.is_empty());
        let (sender, answers) = watch::channel(known);
        let lookups = |outcome| {
            let plugin = plugin.as_str().to_owned();
            counter!("plugin_dns_lookups_total", "plugin_name" => plugin, "outcome" => outcome)
        };
        let run = Run {
            plugin: plugin.clone(),
            of: of.clone(),
            spec: spec.clone(),
            resolver,
            answers: sender,
            ok: lookups("ok"),
            failed: lookups("failed"),
        };
        Ok(Arc::new(Self {
            of: of.clone(),
            spec: spec.clone(),
            answers,
            task: tokio::spawn(run.run()).abort_handle(),
        }))
    }

    pub(super) fn is_of(&self, name: &DnsName) -> bool {
        self.of == *name
    }

    pub(super) fn answers(&self) -> watch::Receiver<Option<Answers>> {
        self.answers.clone()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a lookup has found.
struct Found {
    answers: Vec<Answer>,
    /// How long it is.
    valid: Duration,
    /// Whether that is all of it. Of a part nobody can tell what is not there any more.
    is_whole: bool,
}

impl Answer {
    fn is_at(&self, other: &Self) -> bool {
        (self.at, self.port) == (other.at, other.port)
    }

    /// The endpoint, with what `entry` says of all that are behind the name.
    pub(super) fn of(&self, entry: &EndpointSpec) -> EndpointSpec {
        let address = match &entry.address {
            Address::Dns(name) => name.found(self.port, self.at),
            address => address.clone(),
        };
        EndpointSpec {
            address,
            weight: entry.weight.saturating_mul(self.weight),
            priority: entry.priority.saturating_add(self.priority),
            ..entry.clone()
        }
    }
}

/// The name servers of this system, or the one that the name says.
fn resolver(of: &DnsName, spec: &DnsSpec) -> Result<TokioResolver, BoxError> {
    let mut builder = match of.server {
        None => TokioResolver::builder_tokio()?,
        Some(server) => {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            let connections = connections.map(|mut connection| {
                connection.port = server.port();
                connection
            });
            let server = NameServerConfig::new(server.ip(), true, connections.to_vec());
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            let provider = TokioRuntimeProvider::default();
            let mut builder = TokioResolver::builder_with_config(config, provider);
            builder.options_mut().use_hosts_file = ResolveHosts::Never;
            builder
        }
    };
    let options = builder.options_mut();
    // Answers are kept here, by their own times.
    options.cache_size = 0;
    options.timeout = options.timeout.min(spec.timeout);
    options.ip_strategy = match spec.family {
        DnsFamily::Any => LookupIpStrategy::Ipv4AndIpv6,
        DnsFamily::Ipv4 => LookupIpStrategy::Ipv4Only,
        DnsFamily::Ipv6 => LookupIpStrategy::Ipv6Only,
    };
    Ok(builder.build()?)
}

/// The task of a name.
struct Run {
    plugin: PluginName,
    of: DnsName,
    spec: DnsSpec,
    resolver: TokioResolver,
    answers: watch::Sender<Option<Answers>>,
    ok: Counter,
    failed: Counter,
}

impl Run {
    async fn run(self) {
        let mut failures = 0_u32;
        loop {
            let looked_up = timeout(self.spec.timeout, self.look_up()).await;
            let valid = match looked_up.unwrap_or_else(|_| Err("no answer in time".into())) {
                Ok(found) => {
                    failures = 0;
                    self.ok.increment(1);
                    let valid = found.valid;
                    self.take(found);
                    valid
                }
                Err(error) => {
                    self.failed.increment(1);
                    self.fail(&*error, failures);
                    failures = failures.saturating_add(1);
                    let times = 2_u32.saturating_pow(failures.min(16) - 1);
                    self.spec.min_ttl.saturating_mul(times)
                }
            };
            // One that is made in code may be zero.
            let least = self.spec.min_ttl.max(SHORTEST);
            sleep(valid.clamp(least, self.spec.max_ttl.max(least))).await;
        }
    }

    fn take(&self, found: Found) {
        let mut answers = found.answers;
        if !found.is_whole {
            let known = self.answers.borrow();
            let known = known.iter().flat_map(|known| known.iter());
            let is_new = |one: &&Answer| !answers.iter().any(|new| new.is_at(one));
            let kept: Vec<_> = known.filter(is_new).cloned().collect();
            answers.extend(kept);
        }
        answers.sort_unstable();
        answers.dedup_by_key(|answer| (answer.at, answer.port));
        let most = self.spec.max_endpoints as usize;
        if answers.len() > most {
            let (name, found) = (&self.of, answers.len());
            tracing::warn!(plugin.name = %self.plugin, %name, found, most, "dns: endpoints left out");
            answers.truncate(most);
        }
        let answers = Answers::from(answers);
        self.answers.send_if_modified(|known| {
            let is_new = known.as_ref() != Some(&answers);
            if is_new {
                tracing::info!(plugin.name = %self.plugin, name = %self.of, endpoints = answers.len(), "dns: endpoints");
                *known = Some(answers);
            }
            is_new
        });
    }

    /// What was known stays; of a name that never was, that it has no endpoints.
    fn fail(&self, error: &(dyn std::error::Error + 'static), failures: u32) {
        let (plugin, name) = (&self.plugin, &self.of);
        if failures == 0 {
            tracing::warn!(plugin.name = %plugin, %name, error, "dns: the last answer stays");
        } else {
            tracing::debug!(plugin.name = %plugin, %name, error, failures, "dns: the last answer stays");
        }
        self.answers.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert_default();
            is_first
        });
    }

    async fn look_up(&self) -> Result<Found, BoxError> {
        let (answers, ttl, is_whole) = match self.of.port {
            Some(port) => {
                let (addresses, ttl) = self.addresses(&self.of.name).await?;
                let answer = |ip| Answer {
                    priority: 0,
                    at: SocketAddr::new(ip, port),
                    weight: 1,
                    port,
                };
                (addresses.into_iter().map(answer).collect(), ttl, true)
            }
            None => self.service().await?,
        };
        if answers.is_empty() {
            return Err("the answer has no endpoints".into());
        }
        Ok(Found {
            answers,
            valid: Duration::from_secs(ttl.into()),
            is_whole,
        })
    }

    async fn addresses(&self, name: &str) -> Result<(Vec<IpAddr>, u32), NetError> {
        let found = self.resolver.lookup_ip(name).await?;
        let records = found.as_lookup().answers().iter();
        let ttl = records.map(|record| record.ttl).min().unwrap_or_default();
        Ok((found.iter().collect(), ttl))
    }

    /// The targets of a service, each at its addresses, and whether that is all of them. One that has none is passed over.
    async fn service(&self) -> Result<(Vec<Answer>, u32, bool), BoxError> {
        let found = self
            .resolver
            .lookup(&*self.of.name, RecordType::SRV)
            .await?;
        let (mut answers, mut ttl) = (Vec::new(), u32::MAX);
        let (mut failed, mut is_whole) = (None, true);
        for record in found.answers() {
            let RData::SRV(srv) = &record.data else {
                continue;
            };
            // It says that there is no such service (RFC 2782).
            if srv.target.is_root() {
                continue;
            }
            ttl = ttl.min(record.ttl);
            match self.addresses(&srv.target.to_utf8()).await {
                Ok((addresses, valid)) => {
                    ttl = ttl.min(valid);
                    answers.extend(addresses.into_iter().map(|ip| Answer {
                        priority: srv.priority.into(),
                        at: SocketAddr::new(ip, srv.port),
                        weight: u32::from(srv.weight).max(1),
                        port: srv.port,
                    }));
                }
                Err(error) => {
                    is_whole &= error.is_no_records_found();
                    failed = Some(error);
                }
            }
            if answers.len() > 4 * self.spec.max_endpoints as usize {
                break;
            }
        }
        match failed {
            Some(error) if answers.is_empty() => Err(error.into()),
            // What was passed over is asked for again soon.
            Some(_) => Ok((answers, 0, is_whole)),
            None => Ok((answers, ttl, true)),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Name").field(&self.of).finish()
    }
}
