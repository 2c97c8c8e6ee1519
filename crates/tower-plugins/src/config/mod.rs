//! Text to typed values.

mod spec;
mod value;

pub use spec::{
    Address, BalanceStrategy, BreakerSpec, ConcurrencySpec, Config, ConnectionSpec,
    CredentialsSpec, EndpointSpec, PluginName, PluginSpec, Policy, Protocol, RateLimitSpec,
    RetrySpec, Upstream,
};
pub use value::{Number, Secret};
