//! The buckets of a rate limit, which outlive the stack over them, and the layer that draws from them.

use std::sync::Arc;

use http::HeaderName;
#[cfg(feature = "redis")]
use tower_plugins_layers::rate_limit::RedisLimiter;
use tower_plugins_layers::rate_limit::{Cost, KeyBy, KeyedRateLimiter, OnError};
use tower_plugins_layers::{RateLimitLayer, RateLimiter};

use crate::config::{RateLimitSpec, RedisSpec};
use crate::error::{Error, Kind};

/// One bucket, one for each key, or those of a fleet.
#[derive(Clone)]
enum Buckets {
    One(Arc<RateLimiter>),
    Keyed(Arc<KeyedRateLimiter>, HeaderName),
    #[cfg(feature = "redis")]
    Shared(Arc<RedisLimiter>),
}

/// The buckets of a plugin, with what they were made of.
pub(super) struct Limiter {
    spec: RateLimitSpec,
    buckets: Buckets,
}

impl Limiter {
    /// The buckets of `old` where each call finds its own there, whatever their rate: those who wait go on waiting, and
    /// a reload is no second set of buckets. They have the new rate from [`take_effect`](Self::take_effect) on.
    pub(super) fn build(
        name: &str,
        spec: &RateLimitSpec,
        old: Option<&Self>,
    ) -> Result<Self, Error> {
        let buckets = match &spec.redis {
            Some(redis) => shared(name, spec, redis, old)?,
            None => local(spec, old),
        };
        Ok(Self {
            spec: spec.clone(),
            buckets,
        })
    }

    /// Gives the buckets this spec's rate, each as full in proportion as it is: a changed rate is no free burst. Those of
    /// a fleet are not this process's to fill.
    pub(super) fn take_effect(&self) {
        let (rate, burst) = (self.spec.requests_per_second.get(), self.spec.burst_size);
        match &self.buckets {
            Buckets::One(limiter) => limiter.set_rate(rate, burst),
            Buckets::Keyed(limiter, _) => limiter.set_rate(rate, burst),
            #[cfg(feature = "redis")]
            Buckets::Shared(limiter) => limiter.set_rate(rate, burst),
        }
    }

    pub(super) fn layer(&self) -> RateLimitLayer {
        let spec = &self.spec;
        let layer = match &self.buckets {
            Buckets::One(limiter) => RateLimitLayer::with_limiter(Arc::clone(limiter)),
            Buckets::Keyed(limiter, header) => {
                RateLimitLayer::keyed(Arc::clone(limiter), KeyBy::header(header.clone()))
            }
            #[cfg(feature = "redis")]
            Buckets::Shared(limiter) => {
                let key = spec.key_header.clone().map(KeyBy::header);
                RateLimitLayer::shared(Arc::<RedisLimiter>::clone(limiter), key)
            }
        };
        let layer = layer.max_wait(spec.max_wait).headers(spec.headers);
        let layer = match &spec.redis {
            Some(redis) if !redis.fail_open => layer.on_error(OnError::Refuse),
            _ => layer,
        };
        match &spec.cost_header {
            Some(header) => layer.cost(Cost::header(header.clone())),
            None => layer,
        }
    }
}

fn local(spec: &RateLimitSpec, old: Option<&Limiter>) -> Buckets {
    let (rate, burst) = (spec.requests_per_second.get(), spec.burst_size);
    let of_keys = |spec: &RateLimitSpec| (spec.key_header.clone(), spec.max_keys);
    let old = old.filter(|old| of_keys(&old.spec) == of_keys(spec));
    match (old.map(|old| &old.buckets), &spec.key_header) {
        (Some(buckets @ (Buckets::One(_) | Buckets::Keyed(..))), _) => buckets.clone(),
        (_, Some(header)) => {
            let limiter = KeyedRateLimiter::new(rate, burst, spec.max_keys as usize);
            Buckets::Keyed(limiter.into(), header.clone())
        }
        (_, None) => Buckets::One(RateLimiter::new(rate, burst).into()),
    }
}

/// Nobody is connected to before the first call: a server that is down fails no reload.
#[cfg(feature = "redis")]
fn shared(
    name: &str,
    spec: &RateLimitSpec,
    redis: &RedisSpec,
    old: Option<&Limiter>,
) -> Result<Buckets, Error> {
    let (rate, burst) = (spec.requests_per_second.get(), spec.burst_size);
    let limiter = match old {
        Some(Limiter {
            spec: before,
            buckets: Buckets::Shared(limiter),
        }) if before.redis.as_ref() == Some(redis) => Arc::clone(limiter),
        _ => {
            // The library's error does not repeat the address, which may have a password, and says less
            // than this.
            let limiter = RedisLimiter::new(redis.url.expose(), rate, burst).map_err(|_| {
                let message = format!("rate_limit.redis.url {}", RedisSpec::BAD_URL);
                Error::caused_by(Kind::Config, message)
            })?;
            let usual = || format!("rate_limit:{name}:");
            let prefix = redis.prefix.clone().unwrap_or_else(usual);
            limiter.prefix(&prefix).timeout(redis.timeout).into()
        }
    };
    Ok(Buckets::Shared(limiter))
}

#[cfg(not(feature = "redis"))]
fn shared(
    _: &str,
    _: &RateLimitSpec,
    _: &RedisSpec,
    _: Option<&Limiter>,
) -> Result<Buckets, Error> {
    let message = "rate_limit.redis: it needs the feature `redis` of tower-plugins, which is off";
    Err(Error::caused_by(Kind::Config, message.to_owned()))
}
