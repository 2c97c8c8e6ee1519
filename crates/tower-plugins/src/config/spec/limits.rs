//! `rate_limit` and `concurrency`.

use std::time::Duration;

use super::super::{Number, Secret};

/// `rate_limit`: a token bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitSpec {
    /// Tokens gained in a second.
    pub requests_per_second: Number,
    /// The most tokens the bucket holds; at most
    /// [`RateLimiter::max_burst`](tower_plugins_layers::RateLimiter::max_burst).
    pub burst_size: u32,
    /// How long a call may wait for a token; zero refuses at once.
    pub max_wait: Duration,
    /// The header whose value says which bucket a call draws from.
    pub key_header: Option<http::HeaderName>,
    /// The most buckets, where there is one for each key.
    pub max_keys: u32,
    /// The header with the tokens that a call takes; one without.
    pub cost_header: Option<http::HeaderName>,
    /// Whether responses say how the caller stands.
    pub headers: bool,
    /// Where the buckets are, if many processes share them.
    pub redis: Option<RedisSpec>,
}

/// `rate_limit.redis`: a Redis server that keeps the buckets, for all processes that name it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisSpec {
    /// Where it is: `redis://host:port/database`, or `unix:/path/of/socket`. It may have a password.
    pub url: Secret,
    /// What its keys begin with; `rate_limit:`, the plugin's name and a colon without.
    pub prefix: Option<String>,
    /// How long a call may wait for its answer.
    pub timeout: Duration,
    /// Whether a call goes on when it cannot be asked.
    pub fail_open: bool,
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
