//! What a config says, typed.
//!
//! Everything here is `Eq`: two specs that are equal describe the same plugin, and a reload keeps
//! what is equal.

mod access;
mod attempts;
mod balance;
mod beside;
mod breaker;
mod connection;
mod dns;
mod elsewhere;
mod go_plugin;
mod grpc;
mod health;
mod jwt;
mod limits;
mod oauth2;
mod process;
mod reload;
mod shared;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::access::{AuthorizeSpec, CredentialsSpec, FallbackSpec, FilterSpec};
pub use self::attempts::{BudgetKind, HedgeSpec, JitterKind, RetrySpec};
pub use self::balance::{BalanceSpec, BalanceStrategy, KeySpec, SubsetFallback};
pub(crate) use self::beside::Beside;
pub use self::breaker::{BreakerSpec, OutlierSpec};
pub use self::connection::{
    ConnectionSpec, Identity, InvalidPin, Pin, Protocol, ProxySpec, TlsSpec, TlsVersion,
};
pub use self::dns::{DnsFamily, DnsName, DnsSpec};
pub use self::elsewhere::{ShadowSpec, SplitSpec, SplitTarget};
pub use self::go_plugin::{GoPluginSpec, PluginTls};
pub use self::grpc::{Compression, GrpcSpec};
pub use self::health::{HealthKind, HealthSpec};
pub(super) use self::jwt::ALGORITHMS as JWT_ALGORITHMS;
pub use self::jwt::{ClaimValue, JwtAlgorithm, JwtKey, JwtSpec};
pub use self::limits::{AdaptiveLimit, ConcurrencySpec, RateLimitSpec, RedisSpec};
pub use self::oauth2::{AuthStyle, OAuth2Spec};
pub use self::process::{
    Checksum, InvalidChecksum, ProcessInput, ProcessLimits, ProcessSpec, Restart, Rlimits,
};
pub(super) use self::reload::STRATEGIES;
pub use self::reload::{ReloadSpec, Strategy};
pub use self::shared::Shared;
use super::own_transport::OwnOrigin;
use super::{LayerSpec, Options, Reattach};

/// The name of a plugin: 1 to 128 characters out of `A-Z a-z 0-9 . _ -`, the first a letter or a
/// digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginName(Arc<str>);

/// A whole config: the plugins that are to run, and how it takes the place of another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The plugins by name. A plugin with `enabled: false` is not among them.
    pub plugins: BTreeMap<PluginName, PluginSpec>,
    /// Those with `enabled: false`, as they would be: checked as the others are. No name is in both.
    pub disabled: BTreeMap<PluginName, PluginSpec>,
    /// `reload`.
    pub reload: ReloadSpec,
}

/// One plugin: how calls to it are treated, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PluginSpec {
    /// Its name.
    pub name: PluginName,
    /// How calls are treated. A change of it restacks the plugin: connections survive.
    pub policy: Shared<Policy>,
    /// Where the plugin is and how it is reached.
    pub upstream: Shared<Upstream>,
}

/// How calls to a plugin are treated: the layers of its stack. What is `None` is not armed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// How long a node that left the graph may finish its calls (`drain_timeout`).
    pub drain_timeout: Duration,
    /// How long a start or a reload that makes the plugin waits until it is ready (`start_timeout`, with
    /// `start: ready`); `None` is not at all (`start: lazy`).
    pub ready_within: Option<Duration>,
    /// Whether it cannot run twice, so that the old one ends before a new one begins (`exclusive`).
    pub exclusive: bool,
    /// The time a whole call may take, waits and retries included (`connection.request_timeout`).
    pub deadline: Option<Duration>,
    /// Where callers say how long they wait, and endpoints are told what is left of it
    /// (`connection.timeout_header`).
    pub timeout_header: Option<http::HeaderName>,
    /// How long a streamed response may be silent (`connection.stream_idle_timeout`).
    pub stream_idle_timeout: Option<Duration>,
    /// The time one attempt may take until the head of its response (`retry.attempt_timeout`).
    pub attempt_timeout: Option<Duration>,
    /// `rate_limit`.
    pub rate_limit: Option<RateLimitSpec>,
    /// `concurrency`.
    pub concurrency: Option<ConcurrencySpec>,
    /// `retry`.
    pub retry: Option<RetrySpec>,
    /// `hedge`, which takes `retry`.
    pub hedge: Option<HedgeSpec>,
    /// `circuit_breaker`.
    pub breaker: Option<BreakerSpec>,
    /// `outlier_detection`.
    pub outlier: Option<OutlierSpec>,
    /// `health_check`.
    pub health: Option<HealthSpec>,
    /// `load_balancing`.
    pub balance: BalanceSpec,
    /// `auth`.
    pub credentials: CredentialsSpec,
    /// Whether they may go over plaintext to another machine (`auth.allow_plaintext`).
    pub allow_plaintext: bool,
    /// `authorize`: `None` asks nothing of callers.
    pub authorize: Option<AuthorizeSpec>,
    /// `filter`.
    pub filter: Option<FilterSpec>,
    /// `fallback`.
    pub fallback: Option<FallbackSpec>,
    /// `split`.
    pub split: Option<SplitSpec>,
    /// `shadow`.
    pub shadow: Option<ShadowSpec>,
    /// `layers`: those of the program's own, inside of any that its code puts at the same place.
    pub layers: Vec<LayerSpec>,
}

/// Where a plugin is and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Upstream {
    /// Its endpoints, in the order of the file; at least one.
    pub endpoints: Vec<EndpointSpec>,
    /// How connections to them are made and kept.
    pub connection: ConnectionSpec,
    /// `tls`, for endpoints that are reached over it.
    pub tls: TlsSpec,
    /// `dns`, for endpoints that are looked up.
    pub dns: DnsSpec,
    /// `grpc`, of a plugin that speaks gRPC (`transport: grpc`, `grpc-tls` or `subprocess`): its endpoints are reached over
    /// [`Protocol::Http2`], and typed calls go through the service `tower_plugins.v1.Plugin`.
    pub grpc: Option<GrpcSpec>,
    /// How its process is run, of a plugin that is an executable: each of its endpoints is one.
    pub process: ProcessSpec,
    /// `go_plugin`, of a plugin that speaks HashiCorp's go-plugin (`transport: subprocess`).
    pub go_plugin: GoPluginSpec,
    /// `options`, for a transport of the program's own.
    pub options: Options,
    /// Where that transport is written.
    pub(super) origin: OwnOrigin,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct EndpointSpec {
    /// Where it is.
    pub address: Address,
    /// Its share of the calls beside the others' (`weight`, at least 1).
    pub weight: u32,
    /// 0 gets calls first, 1 what 0 cannot take, and so on (`priority`).
    pub priority: u32,
    /// The zone it is in (`zone`).
    pub zone: Option<String>,
    /// What subsets are made by (`labels`).
    pub labels: BTreeMap<String, String>,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// `transport: http`: an origin, and a path that is put before each request's path.
    Http {
        /// Host and port.
        authority: http::uri::Authority,
        /// The path prefix, without a trailing slash; often empty.
        prefix: String,
    },
    /// `transport: https`: as `Http`, over TLS.
    Https {
        /// Host and port.
        authority: http::uri::Authority,
        /// The path prefix, without a trailing slash; often empty.
        prefix: String,
    },
    /// `transport: unix`: HTTP over the Unix socket at this path.
    Unix {
        /// The socket.
        path: PathBuf,
        /// The path prefix, without a trailing slash; often empty.
        prefix: String,
    },
    /// `transport: unix-json`: lines of JSON on the Unix socket at this path.
    UnixJson {
        /// The socket.
        path: PathBuf,
    },
    /// `transport: exec-json`: lines of JSON on the standard streams of a process.
    ExecJson {
        /// The program.
        executable: PathBuf,
        /// Which of the plugin's processes it is, from 1.
        instance: u32,
    },
    /// `transport: subprocess`: a process that speaks HashiCorp's go-plugin.
    Subprocess {
        /// The program.
        executable: PathBuf,
        /// Which of the plugin's processes it is, from 1.
        instance: u32,
    },
    /// `go_plugin.reattach`: a process that speaks HashiCorp's go-plugin, and that somebody else started.
    Attached(Reattach),
    /// `transport: in-process`: a service that the program registered under this name.
    InProcess {
        /// The name.
        service: String,
    },
    /// `transport: NAME`: a transport of the program's own, registered under this name with
    /// [`Builder::transport`](crate::Builder::transport).
    Custom {
        /// The name.
        transport: String,
        /// Where the endpoint is, as that transport reads it.
        endpoint: String,
    },
    /// `dns:` and `dns+srv:`: endpoints that name servers tell of, while the plugin runs.
    Dns(DnsName),
    /// One of the addresses that a [`Dns`](Self::Dns) name stands for.
    Resolved {
        /// What it is called: `Http` or `Https`.
        origin: Box<Self>,
        /// Where it is.
        at: SocketAddr,
    },
    /// `from`: endpoints that the program tells of, while the plugin runs, under this name.
    Source {
        /// The name.
        name: String,
        /// The plugin's `transport`, as a config has it.
        transport: String,
    },
}

impl PluginName {
    pub(super) const RULE: &'static str =
        "up to 128 of A-Z a-z 0-9 . _ -, the first a letter or a digit";

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `name` may name a plugin.
    #[must_use]
    pub fn is_valid(name: &str) -> bool {
        name.len() <= 128
            && name
                .as_bytes()
                .first()
                .is_some_and(u8::is_ascii_alphanumeric)
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
    }

    /// The name, if it may name a plugin.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        Self::is_valid(name).then(|| Self(name.into()))
    }
}

impl std::borrow::Borrow<str> for PluginName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { authority, prefix } => write!(f, "http://{authority}{prefix}"),
            Self::Https { authority, prefix } => write!(f, "https://{authority}{prefix}"),
            Self::Unix { path, prefix } => write!(f, "unix:{}{prefix}", path.display()),
            Self::UnixJson { path } => write!(f, "unix-json:{}", path.display()),
            Self::ExecJson {
                executable,
                instance,
            } => write!(f, "exec-json:{}#{instance}", executable.display()),
            Self::Subprocess {
                executable,
                instance,
            } => write!(f, "subprocess:{}#{instance}", executable.display()),
            Self::Attached(Reattach { address, .. }) => write!(f, "attached:{address}"),
            Self::InProcess { service } => write!(f, "in-process:{service}"),
            Self::Custom {
                transport,
                endpoint,
            } => write!(f, "{transport}:{endpoint}"),
            Self::Dns(name) => name.fmt(f),
            Self::Resolved { origin, at } => write!(f, "{origin} at {at}"),
            Self::Source { name, .. } => write!(f, "from:{name}"),
        }
    }
}
