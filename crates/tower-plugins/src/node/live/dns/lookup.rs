//! One lookup of a name: both kinds of addresses at once, each by itself.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::join;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::time::{Instant, timeout_at};
use tower_plugins_layers::BoxError;

use super::Answer;
use crate::config::{DnsFamily, DnsName, DnsSpec};

/// The longest lookup: what is made in code may be beyond all clocks.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What a lookup has found.
pub(super) struct Found {
    pub(super) answers: Vec<Answer>,
    /// How long it is.
    pub(super) valid: Duration,
    /// What is not known: of it nobody can tell what is not there any more.
    pub(super) missing: Missing,
}

/// Kinds of addresses that could not be looked up, and why.
#[derive(Default)]
pub(super) struct Missing {
    ipv4: bool,
    ipv6: bool,
    pub(super) error: Option<BoxError>,
}

impl Missing {
    pub(super) const fn is_nothing(&self) -> bool {
        !self.ipv4 && !self.ipv6
    }

    pub(super) const fn has(&self, at: SocketAddr) -> bool {
        match at {
            SocketAddr::V4(_) => self.ipv4,
            SocketAddr::V6(_) => self.ipv6,
        }
    }

    fn add(&mut self, other: Self) {
        self.ipv4 |= other.ipv4;
        self.ipv6 |= other.ipv6;
        self.error = other.error.or(self.error.take());
    }
}

/// What a host has.
#[derive(Default)]
struct Addresses {
    all: Vec<IpAddr>,
    /// The shortest of theirs, in seconds.
    ttl: Option<u32>,
    /// The name that has them, which may be in a search domain.
    name: Option<Name>,
    missing: Missing,
}

/// How a name is looked up.
pub(super) struct Lookup {
    of: DnsName,
    spec: DnsSpec,
    resolver: TokioResolver,
}

impl Lookup {
    pub(super) fn new(of: &DnsName, spec: &DnsSpec) -> Result<Self, BoxError> {
        Ok(Self {
            of: of.clone(),
            spec: spec.clone(),
            resolver: resolver(of, spec)?,
        })
    }

    pub(super) async fn run(&self) -> Result<Found, BoxError> {
        let until = Instant::now() + self.spec.timeout.min(LONGEST);
        let (answers, ttl, missing): (Vec<_>, _, _) = match self.of.port {
            Some(port) => {
                let found = self.addresses(&self.of.name, until).await;
                let answer = |ip| Answer {
                    priority: 0,
                    at: SocketAddr::new(ip, port),
                    weight: 1,
                    port,
                };
                let answers = found.all.into_iter().map(answer).collect();
                (answers, found.ttl, found.missing)
            }
            None => self.service(until).await?,
        };
        if answers.is_empty() {
            let error = missing.error;
            return Err(error.unwrap_or_else(|| "the answer has no endpoints".into()));
        }
        Ok(Found {
            answers,
            valid: Duration::from_secs(ttl.unwrap_or_default().into()),
            missing,
        })
    }

    /// Both kinds at once, as far as they are wanted.
    async fn addresses(&self, name: &str, until: Instant) -> Addresses {
        let (ipv4, ipv6) = match self.spec.family {
            DnsFamily::Any => (true, true),
            DnsFamily::Ipv4 => (true, false),
            DnsFamily::Ipv6 => (false, true),
        };
        let of = async |kind, is_wanted| match is_wanted {
            true => self.of_kind(name, kind, until).await,
            false => Ok(Addresses::default()),
        };
        let (ipv4, mut ipv6) = join(of(RecordType::A, ipv4), of(RecordType::AAAA, ipv6)).await;
        // With search domains each kind may be found in another: both are to be of one host.
        let name = |found: &Result<Addresses, BoxError>| found.as_ref().ok()?.name.clone();
        if let (Some(one), Some(other)) = (name(&ipv4), name(&ipv6))
            && one != other
        {
            ipv6 = self.of_kind(&one.to_utf8(), RecordType::AAAA, until).await;
        }
        let mut both = Addresses::default();
        for (found, is_ipv4) in [(ipv4, true), (ipv6, false)] {
            match found {
                Ok(found) => {
                    both.ttl = shortest(both.ttl, found.ttl);
                    both.all.extend(found.all);
                }
                Err(error) => both.missing.add(Missing {
                    ipv4: is_ipv4,
                    ipv6: !is_ipv4,
                    error: Some(error),
                }),
            }
        }
        both
    }

    /// That a name has no address of the kind is an answer.
    async fn of_kind(
        &self,
        name: &str,
        kind: RecordType,
        until: Instant,
    ) -> Result<Addresses, BoxError> {
        let found = match in_time(until, self.resolver.lookup(name, kind)).await? {
            Ok(found) => found,
            Err(error) if error.is_no_records_found() => return Ok(Addresses::default()),
            Err(error) => return Err(error.into()),
        };
        let mut of_kind = Addresses {
            ttl: found.answers().iter().map(|record| record.ttl).min(),
            ..Addresses::default()
        };
        for record in found.answers() {
            if let Some(ip) = record.data.ip_addr() {
                of_kind.name.get_or_insert_with(|| record.name.clone());
                of_kind.all.push(ip);
            }
        }
        Ok(of_kind)
    }

    /// The targets of a service, each at its addresses, and what is missing of them. One that has none is passed over.
    async fn service(
        &self,
        until: Instant,
    ) -> Result<(Vec<Answer>, Option<u32>, Missing), BoxError> {
        let lookup = self.resolver.lookup(&*self.of.name, RecordType::SRV);
        let found = in_time(until, lookup).await??;
        let (mut answers, mut ttl, mut missing) = (Vec::new(), None, Missing::default());
        for record in found.answers() {
            let RData::SRV(srv) = &record.data else {
                continue;
            };
            // It says that there is no such service (RFC 2782).
            if srv.target.is_root() {
                continue;
            }
            let found = self.addresses(&srv.target.to_utf8(), until).await;
            // A target without an address is asked for again soon.
            let of_target = if found.all.is_empty() {
                Some(0)
            } else {
                found.ttl
            };
            ttl = shortest(shortest(ttl, Some(record.ttl)), of_target);
            missing.add(found.missing);
            answers.extend(found.all.into_iter().map(|ip| Answer {
                priority: srv.priority.into(),
                at: SocketAddr::new(ip, srv.port),
                weight: u32::from(srv.weight).max(1),
                port: srv.port,
            }));
            if answers.len() > 4 * self.spec.max_endpoints as usize {
                break;
            }
        }
        Ok((answers, ttl, missing))
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
    Ok(builder.build()?)
}

fn shortest(one: Option<u32>, other: Option<u32>) -> Option<u32> {
    one.into_iter().chain(other).min()
}

async fn in_time<T>(until: Instant, lookup: impl Future<Output = T>) -> Result<T, BoxError> {
    let looked_up = timeout_at(until, lookup).await;
    looked_up.map_err(|_| "no answer in time".into())
}
