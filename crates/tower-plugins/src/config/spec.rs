//! What a config says, typed.
//!
//! Everything here is `Eq`: two specs that are equal describe the same plugin, and a reload keeps
//! what is equal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tower_plugins_layers::Reason;

use super::{FileContents, LayerSpec, Number, RetryOn, Secret};

/// The name of a plugin: 1 to 128 characters out of `A-Z a-z 0-9 . _ -`, the first a letter or a
/// digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginName(Arc<str>);

/// A whole config: the plugins that are to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The plugins by name. A plugin with `enabled: false` is not among them.
    pub plugins: BTreeMap<PluginName, PluginSpec>,
}

/// One plugin: how calls to it are treated, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PluginSpec {
    /// Its name.
    pub name: PluginName,
    /// How calls are treated. A change of it restacks the plugin: connections survive.
    pub policy: Policy,
    /// Where the plugin is and how it is reached.
    pub upstream: Upstream,
}

/// How calls to a plugin are treated: the layers of its stack. What is `None` is not armed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// How long a node that left the graph may finish its calls (`drain_timeout`).
    pub drain_timeout: Duration,
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
    /// `load_balancing`.
    pub balance: BalanceSpec,
    /// `auth`.
    pub credentials: CredentialsSpec,
    /// `authorize`: `None` asks nothing of callers.
    pub authorize: Option<AuthorizeSpec>,
    /// `filter`.
    pub filter: Option<FilterSpec>,
    /// `fallback`.
    pub fallback: Option<FallbackSpec>,
    /// `layers`: those of the program's own, inside of any that its code puts at the same place.
    pub layers: Vec<LayerSpec>,
}

/// `rate_limit`: a token bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitSpec {
    /// Tokens gained in a second.
    pub requests_per_second: Number,
    /// The most tokens the bucket holds.
    pub burst_size: u32,
    /// How long a call may wait for a token; zero refuses at once.
    pub max_wait: Duration,
    /// The header whose value says which bucket a call draws from.
    pub key_header: Option<http::HeaderName>,
    /// The most buckets, where there is one for each key.
    pub max_keys: u32,
    /// Whether responses say how the caller stands.
    pub headers: bool,
}

/// `concurrency`: a bulkhead.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConcurrencySpec {
    /// Calls under way at once.
    pub max_concurrent: u32,
    /// Calls that may wait for a place.
    pub max_queued: u32,
    /// How long a call may wait for a place.
    pub max_wait: Duration,
    /// How the limit finds its own size, up to `max_concurrent`; it is fixed without.
    pub adaptive: Option<AdaptiveLimit>,
    /// The header that has a call's priority.
    pub priority_header: Option<http::HeaderName>,
}

/// `concurrency.adaptive`: what a limit goes by that finds its own size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdaptiveLimit {
    /// `gradient`: calls that take longer than they did.
    Gradient,
    /// `aimd`: calls that fail.
    Aimd,
}

/// `retry`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetrySpec {
    /// Attempts beyond the first.
    pub max_retries: u32,
    /// The ceiling of the first backoff.
    pub initial_interval: Duration,
    /// The ceiling of any backoff.
    pub max_interval: Duration,
    /// How fast the ceiling grows.
    pub multiplier: Number,
    /// Whether a backoff is drawn, or is its ceiling.
    pub random_jitter: bool,
    /// How it is drawn (`jitter`).
    pub jitter: JitterKind,
    /// The failures that are retried.
    pub on: Vec<RetryOn>,
    /// What bounds retries (`budget`).
    pub budget: BudgetKind,
    /// Retries allowed as a share of calls (`budget_ratio`).
    pub budget_ratio: Number,
    /// Retries a second that are always allowed (`budget_min_per_second`).
    pub budget_min_per_second: u32,
    /// Retries under way that are always allowed (`budget_min_in_flight`).
    pub budget_min_in_flight: u32,
    /// Tokens at the most (`budget_max_tokens`).
    pub budget_max_tokens: u32,
    /// What a success gives back (`budget_token_ratio`).
    pub budget_token_ratio: Number,
    /// Paths (or gRPC methods) whose calls may be repeated, whatever their method. A trailing `*`
    /// matches any rest.
    pub idempotent: Vec<String>,
    /// Paths (or gRPC methods) that are not repeated whatever else holds.
    pub never: Vec<String>,
    /// Bytes of a request's body kept for another attempt (`max_replay_bytes`).
    pub max_replay_bytes: u64,
    /// The header that tells of the attempts before (`attempt_header`).
    pub attempt_header: Option<http::HeaderName>,
}

/// `retry.jitter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum JitterKind {
    /// `full`: between zero and the ceiling.
    #[default]
    Full,
    /// `decorrelated`: between the first wait and three times the last one.
    Decorrelated,
}

/// `retry.budget`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BudgetKind {
    /// `ratio`: a share of the calls of the last ten seconds.
    #[default]
    Ratio,
    /// `in_flight`: a share of the calls under way.
    InFlight,
    /// `tokens`: the throttle of gRPC.
    Tokens,
}

/// `hedge`: another attempt of a call that is slow.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HedgeSpec {
    /// The delay is the time within which this share of attempts has an answer; `None` for a fixed
    /// `delay`.
    pub quantile: Option<Number>,
    /// The delay where there is no quantile, or none yet.
    pub delay: Option<Duration>,
    /// Attempts before the quantile is used.
    pub min_samples: u32,
    /// Attempts beyond the first.
    pub max_hedges: u32,
    /// Paths (or gRPC methods) that are hedged; empty for all. A trailing `*` matches any rest.
    pub paths: Vec<String>,
}

/// `circuit_breaker`: one per endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerSpec {
    /// Consecutive failures that open it; `None` when only the rate counts (`failure_threshold: 0`).
    pub failure_threshold: Option<u32>,
    /// The share of failures within `window` that opens it (`failure_rate`, 0 to 1).
    pub failure_rate: Option<Number>,
    /// The statuses that are failures; `None` is the usual ones.
    pub failure_statuses: Option<BTreeSet<u16>>,
    /// The gRPC codes that are failures; `None` is the usual ones.
    pub failure_grpc_codes: Option<BTreeSet<u8>>,
    /// A call that takes longer is slow; `None` when none is (`slow_call_duration: off`).
    pub slow_call_duration: Option<Duration>,
    /// The share of slow calls in the window that opens it (`slow_call_rate`, above 0 to 1).
    pub slow_call_rate: Number,
    /// The time over which shares are taken.
    pub window: Duration,
    /// In its place, the last calls of which shares are taken (`window_calls`).
    pub window_calls: Option<u32>,
    /// Calls in the window before shares are judged.
    pub min_request_threshold: u32,
    /// How long it stays open.
    pub recovery_timeout: Duration,
    /// Up to which time that doubles with each failed probe; `None` when it stays the same.
    pub max_recovery_timeout: Option<Duration>,
    /// Up to this share of the open time is added at random (`recovery_jitter`, 0 to 1).
    pub recovery_jitter: Number,
    /// Successes in half-open that close it; also the calls admitted at once in half-open.
    pub success_threshold: u32,
}

/// `outlier_detection`: endpoints that fail more than the others are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutlierSpec {
    /// Failures without a success between them that eject an endpoint; `None` for never.
    pub consecutive_failures: Option<u32>,
    /// By how many standard deviations a success rate may be below the mean; `None` for any.
    pub success_rate_stdev_factor: Option<Number>,
    /// The percentage of failures that ejects an endpoint, 1 to 100; `None` for never.
    pub failure_percentage_threshold: Option<u32>,
    /// Calls of an endpoint in an interval before its rates count.
    pub min_requests: u32,
    /// Endpoints with that many calls before rates are judged.
    pub min_hosts: u32,
    /// How often rates are judged.
    pub interval: Duration,
    /// How long the first ejection lasts.
    pub base_ejection_time: Duration,
    /// The longest ejection.
    pub max_ejection_time: Duration,
    /// Up to this time is added to an ejection at random.
    pub max_ejection_time_jitter: Duration,
    /// The most endpoints that are out at a time, in percent.
    pub max_ejection_percent: u32,
    /// Whether one of two or more may be out whatever the percentage.
    pub always_eject_one_host: bool,
}

/// `load_balancing`: which endpoint an attempt goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BalanceSpec {
    /// How one is picked of those that may be.
    pub strategy: BalanceStrategy,
    /// Where the key of a call is, for a strategy that hashes one.
    pub hash_on: Option<KeySpec>,
    /// How many times the mean of calls an endpoint may have, for such a strategy; `None` is no bound.
    pub load_factor: Option<Number>,
    /// How much calls under way count beside weights, for `least-request`.
    pub least_request_bias: Number,
    /// With a smaller share of endpoints left, ejection is ignored (0 to 1).
    pub panic_threshold: Number,
    /// Of how much more than its calls a level of endpoints is taken to be capable.
    pub overprovisioning: Number,
    /// Where this process is.
    pub zone: Option<String>,
    /// The labels that endpoints must have.
    pub subset: BTreeMap<String, String>,
    /// The labels that must be as a call says.
    pub subset_on: BTreeMap<String, KeySpec>,
    /// What becomes of a call whose subset has no endpoint.
    pub subset_fallback: SubsetFallback,
    /// For how long an endpoint that is new, or comes back, has less than its weight; `None` for not at all.
    pub slow_start_window: Option<Duration>,
    /// The part of its weight that it has from the beginning (0.001 to 1).
    pub slow_start_min_weight: Number,
    /// How fast its weight grows at first; 1 is evenly.
    pub slow_start_aggression: Number,
}

/// Where in a call a key is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeySpec {
    /// `header:NAME`.
    Header(http::HeaderName),
    /// `cookie:NAME`.
    Cookie(String),
}

/// `load_balancing.subset_fallback`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubsetFallback {
    /// `any`: it goes to any endpoint.
    #[default]
    Any,
    /// `none`: it is refused.
    None,
}

/// `load_balancing.strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BalanceStrategy {
    /// `peak-ewma`: of two endpoints drawn at random, the one with the lower expected latency.
    #[default]
    PeakEwma,
    /// `round-robin`.
    RoundRobin,
    /// `weighted-round-robin`.
    WeightedRoundRobin,
    /// `random`.
    Random,
    /// `weighted-random`.
    WeightedRandom,
    /// `least-request`: of two endpoints drawn at random, the one with fewer calls.
    LeastRequest,
    /// `least-connections`: the one with the fewest calls.
    LeastConnections,
    /// `least-latency`: the one whose calls take the least time.
    LeastLatency,
    /// `ring-hash`, or `consistent-hash`: a key stays with its endpoint.
    RingHash,
    /// `maglev`: the same by a table.
    Maglev,
}

impl BalanceStrategy {
    /// Whether calls with the same key go to the same endpoint.
    #[must_use]
    pub const fn is_hash(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

/// `authorize`: who may call. What was shown is taken off a request before it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthorizeSpec {
    /// The callers that are known by an API key, each by its name.
    pub api_keys: Vec<(String, Secret)>,
    /// The header in which API keys are looked for.
    pub api_key_header: http::HeaderName,
    /// The callers that are known by a bearer token, each by its name.
    pub bearer_tokens: Vec<(String, Secret)>,
}

/// `filter`: a service of the program that is asked about each call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilterSpec {
    /// The name under which the program registered it.
    pub service: String,
    /// The headers of a request that it sees.
    pub headers: Vec<http::HeaderName>,
    /// The headers of its answer that go on with the request.
    pub copy_headers: Vec<http::HeaderName>,
    /// How long it has to its response's head.
    pub timeout: Duration,
    /// Whether a call goes on when it could not be asked.
    pub fail_open: bool,
}

/// `fallback`: a fixed answer, or another service's, where the call ends for one of some reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FallbackSpec {
    /// The reasons that call for it.
    pub on: Vec<Reason>,
    /// The name under which the program registered the service that is asked. Without it the answer is
    /// the fixed one below.
    pub service: Option<String>,
    /// The status of the answer.
    pub status: http::StatusCode,
    /// Its body.
    pub body: String,
    /// Its `content-type`.
    pub content_type: String,
}

/// `auth`: what is sent with each attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialsSpec {
    /// `none`.
    #[default]
    None,
    /// `api-key`.
    ApiKey {
        /// The header that carries it (`header`, default `x-api-key`).
        header: http::HeaderName,
        /// The key.
        key: Secret,
    },
    /// `bearer`.
    Bearer {
        /// The token.
        token: Secret,
    },
    /// `basic`.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// `custom`: the headers of `auth.headers`.
    Custom {
        /// Name and value.
        headers: Vec<(http::HeaderName, Secret)>,
    },
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
    /// `grpc`, of a plugin that speaks gRPC (`transport: grpc` or `grpc-tls`): its endpoints are reached over
    /// [`Protocol::Http2`], and typed calls go through the service `tower_plugins.v1.Plugin`.
    pub grpc: Option<GrpcSpec>,
}

/// `grpc`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct GrpcSpec {
    /// The largest message that is sent, in bytes on the wire.
    pub max_request_message: u32,
    /// The largest message that is received, in bytes on the wire.
    pub max_response_message: u32,
    /// How typed calls are sent.
    pub compression: Compression,
}

/// `grpc.compression`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// `off`: as they are.
    #[default]
    Off,
    /// `gzip`.
    Gzip,
}

/// `tls`: who the endpoints must prove to be, and what this side shows them.
///
/// What the files hold is part of it: two that are equal make the same connections, and a certificate
/// that was rotated is a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TlsSpec {
    /// The certificates that vouch for the endpoints (`ca_file`); `None` is the system's.
    pub ca: Option<FileContents>,
    /// The name that the endpoints' certificates must have (`server_name`); `None` is the host of
    /// the URL.
    pub server_name: Option<String>,
    /// What this side shows (`cert_file` and `key_file`).
    pub identity: Option<Identity>,
    /// The oldest version of TLS that is spoken (`min_version`).
    pub min_version: TlsVersion,
}

/// A certificate with its key, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The certificate, and those between it and a root.
    pub cert: FileContents,
    /// The private key: PKCS #8, PKCS #1 or SEC1.
    pub key: FileContents,
}

/// `tls.min_version`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// `1.2`.
    #[default]
    Tls12,
    /// `1.3`.
    Tls13,
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
    /// `transport: in-process`: a service that the program registered under this name.
    InProcess {
        /// The name.
        service: String,
    },
}

/// `connection`, less the keys that are policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ConnectionSpec {
    /// `connection.protocol`.
    pub protocol: Protocol,
    /// Connections open at once to an endpoint.
    pub max_connections: u32,
    /// Connections kept open without a call.
    pub max_idle_connections: u32,
    /// How long a connection is kept without a call.
    pub idle_timeout: Duration,
    /// How long connecting may take.
    pub connection_timeout: Duration,
    /// Whether a connection serves more than one call.
    pub keep_alive: bool,
    /// The largest response head, in bytes.
    pub max_response_head: u32,
    /// The largest response body, in bytes; `None` is no limit.
    pub max_response_body: Option<u64>,
}

/// `connection.protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// `http1`.
    #[default]
    Http1,
    /// `http2`: prior knowledge, no upgrade.
    Http2,
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
            Self::InProcess { service } => write!(f, "in-process:{service}"),
        }
    }
}
