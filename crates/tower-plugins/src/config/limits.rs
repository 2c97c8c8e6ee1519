//! `rate_limit` and `concurrency`: the blocks that are off until they are there.

use std::time::Duration;

use http::HeaderName;
use tower_plugins_layers::RateLimiter;

use super::blocks::Overlay;
use super::fault::Fault;
use super::given::Given;
use super::keys::Kind;
use super::table::Table;
use super::units::write_duration;
use super::{AdaptiveLimit, ConcurrencySpec, Number, RateLimitSpec, RedisSpec, Secret};

/// `off` is a word of `adaptive` so that a plugin may be without what the defaults say.
pub(super) const ADAPTIVE: [(&str, Option<AdaptiveLimit>); 3] = [
    ("off", None),
    ("gradient", Some(AdaptiveLimit::Gradient)),
    ("aimd", Some(AdaptiveLimit::Aimd)),
];

/// The name of a header, or `off`, so that a plugin may be without what the defaults say.
fn header(given: &Given<'_>, _: Kind) -> Result<Option<HeaderName>, Fault> {
    let name = given.text()?;
    if name == "off" {
        return Ok(None);
    }
    let name = HeaderName::from_bytes(name.as_bytes());
    name.map(Some)
        .map_err(|_| Fault::of_value("is not the name of a header, nor `off`"))
}

#[derive(Clone, Default)]
pub(super) struct RateLimit {
    enabled: bool,
    requests_per_second: Option<Number>,
    burst_size: Option<u32>,
    max_wait: Duration,
    key_header: Option<HeaderName>,
    max_keys: Option<u32>,
    cost_header: Option<HeaderName>,
    headers: bool,
    redis: Redis,
}

impl Overlay for RateLimit {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let block = Self {
            enabled: table.bool("enabled").unwrap_or(true),
            requests_per_second: table
                .rate("requests_per_second")
                .or(self.requests_per_second),
            burst_size: table.integer("burst_size").or(self.burst_size),
            max_wait: table.duration("max_wait").unwrap_or(self.max_wait),
            key_header: table
                .read("key_header", header)
                .unwrap_or_else(|| self.key_header.clone()),
            max_keys: table.integer("max_keys").or(self.max_keys),
            cost_header: table
                .read("cost_header", header)
                .unwrap_or_else(|| self.cost_header.clone()),
            headers: table.bool("headers").unwrap_or(self.headers),
            redis: self.redis.overlaid(table, "redis", &Redis::default()),
        };
        if !block.enabled {
            return block;
        }
        match (block.requests_per_second, block.burst_size) {
            (None, _) => table.require("requests_per_second"),
            (Some(rate), Some(burst)) if table.is_sound() => {
                let most = RateLimiter::max_burst(rate.get());
                if burst > most {
                    table.conflict(
                        "burst_size",
                        format!(
                            "is more than comes back in four and a half years at {} a second: write at most {most}, or \
                             a higher requests_per_second",
                            rate.get()
                        ),
                    );
                }
            }
            _ => {}
        }
        block
    }

    fn off(&self) -> Option<Self> {
        Some(Self {
            enabled: false,
            ..self.clone()
        })
    }
}

impl RateLimit {
    pub(super) fn armed(&self) -> Option<RateLimitSpec> {
        let rate = self.requests_per_second.filter(|_| self.enabled)?;
        let spec = RateLimitSpec::new(rate);
        let redis = self.redis.armed();
        // Where they do nothing they are as if nobody had said them.
        let max_keys = self
            .max_keys
            .filter(|_| self.key_header.is_some() && redis.is_none());
        Some(RateLimitSpec {
            burst_size: self.burst_size.unwrap_or(spec.burst_size),
            max_wait: self.max_wait,
            key_header: self.key_header.clone(),
            max_keys: max_keys.unwrap_or(spec.max_keys),
            cost_header: self.cost_header.clone(),
            headers: self.headers,
            redis,
            ..spec
        })
    }
}

#[derive(Clone, Default)]
struct Redis {
    enabled: bool,
    url: Option<Secret>,
    prefix: Option<String>,
    timeout: Option<Duration>,
    fail_open: Option<bool>,
}

impl Overlay for Redis {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let prefix = table.read("prefix", |given, _| Ok(given.text()?.to_owned()));
        let block = Self {
            enabled: true,
            url: table.secret("url", check_url).or_else(|| self.url.clone()),
            prefix: prefix.or_else(|| self.prefix.clone()),
            timeout: table.duration("timeout").or(self.timeout),
            fail_open: table.bool("fail_open").or(self.fail_open),
        };
        if block.url.is_none() {
            table.require("url");
        }
        block
    }

    fn off(&self) -> Option<Self> {
        Some(Self {
            enabled: false,
            ..self.clone()
        })
    }
}

impl Redis {
    fn armed(&self) -> Option<RedisSpec> {
        let spec = RedisSpec::new(self.url.clone().filter(|_| self.enabled)?);
        Some(RedisSpec {
            prefix: self.prefix.clone(),
            timeout: self.timeout.unwrap_or(spec.timeout),
            fail_open: self.fail_open.unwrap_or(spec.fail_open),
            ..spec
        })
    }
}

/// The message does not repeat the address, which may have a password.
#[cfg(feature = "redis")]
fn check_url(url: &str) -> Result<(), String> {
    let checked = tower_plugins_layers::rate_limit::RedisLimiter::check_url(url);
    checked.map_err(|_| RedisSpec::BAD_URL.to_owned())
}

/// Without the feature nobody is connected to, and the plugin is refused when it is to be made.
#[cfg(not(feature = "redis"))]
const fn check_url(_: &str) -> Result<(), String> {
    Ok(())
}

#[cfg(feature = "redis")]
impl RedisSpec {
    pub(crate) const BAD_URL: &str = "is not the address of a Redis server: write redis://host:port/database, \
        with user:password@ before the host if it asks for them, or unix:/path/of/socket; there is no TLS to it";
}

#[derive(Clone, Default)]
pub(super) struct Concurrency {
    enabled: bool,
    max_concurrent: Option<u32>,
    max_queued: u32,
    max_wait: Duration,
    adaptive: Option<AdaptiveLimit>,
    priority_header: Option<HeaderName>,
}

impl Overlay for Concurrency {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let block = Self {
            enabled: table.bool("enabled").unwrap_or(true),
            max_concurrent: table.integer("max_concurrent").or(self.max_concurrent),
            max_queued: table.integer("max_queued").unwrap_or(self.max_queued),
            max_wait: table.duration("max_wait").unwrap_or(self.max_wait),
            adaptive: table.word("adaptive", &ADAPTIVE).unwrap_or(self.adaptive),
            priority_header: table
                .read("priority_header", header)
                .unwrap_or_else(|| self.priority_header.clone()),
        };
        if !block.enabled {
            return block;
        }
        if block.max_concurrent.is_none() {
            table.require("max_concurrent");
        }
        if table.is_sound() && (block.max_queued > 0) == block.max_wait.is_zero() {
            table.conflict(
                "max_wait",
                format!(
                    "{} with max_queued {} contradict each other: waiting takes both a queue \
                     and a time, and neither means refused at once",
                    write_duration(block.max_wait),
                    block.max_queued
                ),
            );
        }
        block
    }

    fn off(&self) -> Option<Self> {
        Some(Self {
            enabled: false,
            ..self.clone()
        })
    }
}

impl Concurrency {
    pub(super) fn armed(&self) -> Option<ConcurrencySpec> {
        let max_concurrent = self.max_concurrent.filter(|_| self.enabled)?;
        Some(ConcurrencySpec {
            max_concurrent,
            max_queued: self.max_queued,
            max_wait: self.max_wait,
            adaptive: self.adaptive,
            priority_header: self.priority_header.clone(),
        })
    }
}
