//! Text to typed values.
//!
//! A [`Config`] comes from a file ([`Config::from_file`]), from text ([`Config::parse`]), from
//! several layers ([`Config::from_figment`]), or is made in code ([`Config::with`]). JSON, YAML and
//! TOML say the same things; every key, with its default and the reason for it, is in
//! `docs/config.md`.
//!
//! What is refused is refused whole, with all its problems at once ([`ConfigError`]). A key that
//! is unknown is refused, as is one that would do nothing.

mod address;
mod auth;
mod blocks;
mod construct;
mod defaults;
mod error;
mod limits;
#[cfg(feature = "tls")]
pub(crate) mod pem;
mod read;
mod source;
mod spec;
mod table;
mod units;
mod value;

pub use error::{ConfigError, Problem};
#[cfg(feature = "watch")]
pub(crate) use source::read;
pub use source::{Format, Source};
pub use spec::{
    Address, BalanceStrategy, BreakerSpec, ConcurrencySpec, Config, ConnectionSpec,
    CredentialsSpec, EndpointSpec, Identity, PluginName, PluginSpec, Policy, Protocol,
    RateLimitSpec, RetrySpec, TlsSpec, TlsVersion, Upstream,
};
pub use value::{FileContents, Number, Secret};
