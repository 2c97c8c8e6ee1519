//! Text to typed values.
//!
//! A [`Config`] comes from a file ([`Config::from_file`]), from text ([`Config::parse`]), from
//! several layers or a table of a program's own ([`Config::from_figment`]), or is made in code
//! ([`Config::with`]). JSON, YAML and TOML say the same things; every key, with its default and the
//! reason for it, is in `docs/config.md`.
//!
//! What is refused is refused whole, with all its problems at once ([`ConfigError`]). A key that
//! is unknown is refused, as is one that does nothing beside what else is said; a block that is
//! switched off may keep its keys.

mod access;
mod address;
mod attempts;
mod auth;
mod balance;
mod blocks;
mod breaker;
mod construct;
mod defaults;
mod dns;
mod elsewhere;
mod endpoints;
mod env;
mod error;
mod expand;
mod fault;
mod file;
mod format;
mod given;
mod go_plugin;
mod grpc;
mod health;
mod include;
mod jwt;
mod keys;
mod layers;
mod limits;
mod load;
mod locate;
mod nearest;
mod oauth2;
mod options;
mod outlier;
mod own_transport;
mod page;
#[cfg(feature = "tls")]
pub(crate) mod pem;
mod plaintext;
mod process;
mod read;
mod reattach;
mod reload;
mod report;
#[cfg(feature = "schema")]
mod schema;
mod secret;
mod sense;
mod source;
mod spec;
mod table;
mod tls;
mod tree;
pub(crate) mod units;
pub(crate) mod unix_json;
mod value;
mod values;
mod write;

#[cfg(feature = "http")]
pub(crate) use address::is_loopback;
pub use env::Environment;
pub use error::{ConfigError, Problem, ProblemKind};
pub use file::Dependencies;
#[cfg(feature = "watch")]
pub(crate) use file::Now;
pub use format::Format;
pub use layers::{LayerSpec, Place};
pub use load::{Loaded, Loader};
pub use options::Options;
pub use reattach::Reattach;
pub use secret::Secret;
pub use source::Source;
#[cfg(feature = "watch")]
pub(crate) use source::overdue;
pub(crate) use spec::Beside;
pub use spec::{
    AdaptiveLimit, Address, AuthStyle, AuthorizeSpec, BalanceSpec, BalanceStrategy, BreakerSpec,
    BudgetKind, Checksum, ClaimValue, Compression, ConcurrencySpec, Config, ConnectionSpec,
    CredentialsSpec, DnsFamily, DnsName, DnsSpec, EndpointSpec, FallbackSpec, FilterSpec,
    GoPluginSpec, GrpcSpec, HealthKind, HealthSpec, HedgeSpec, Identity, InvalidChecksum,
    InvalidPin, JitterKind, JwtAlgorithm, JwtKey, JwtSpec, KeySpec, OAuth2Spec, OutlierSpec, Pin,
    PluginName, PluginSpec, PluginTls, Policy, ProcessInput, ProcessLimits, ProcessSpec, Protocol,
    ProxySpec, RateLimitSpec, RedisSpec, ReloadSpec, Restart, RetrySpec, Rlimits, ShadowSpec,
    Shared, SplitSpec, SplitTarget, Strategy, SubsetFallback, TlsSpec, TlsVersion, Upstream,
};
pub use tower_plugins_layers::retry::RetryOn;
pub use value::{FileContents, Number};
pub use write::Secrets;
