use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::{Cost, KeyBy, KeyedRateLimiter, RateLimitLayer, RateLimiter, WhenFull};

/// A rate limit as a value: what [`RateLimitLayer::with_policy`] makes a layer of, and what `serde` (feature)
/// reads and writes.
///
/// | option | default | |
/// | --- | --- | --- |
/// | `per_second` | | tokens a second, fractions too |
/// | [`burst`](Self::burst) | what one second brings | tokens that a rested bucket holds |
/// | [`max_wait`](Self::max_wait) | 0 | the longest that a call waits for its tokens |
/// | [`key_header`](Self::key_header) | none | each value of this header has its own bucket |
/// | [`max_keys`](Self::max_keys) | 10 000 | the most of those |
/// | [`when_full`](Self::when_full) | [`WhenFull::DropNearestToFull`] | what a key more does |
/// | [`cost_header`](Self::cost_header) | none | has the tokens that a call takes; else 1 |
/// | [`headers`](Self::headers) | off | whether responses have the headers of [`Quota`](super::Quota) |
///
/// A bucket holds no more than [`RateLimiter::max_burst`], whatever its policy says.
///
/// As text, `per_second` is required, all else may be absent, and times are such as `250ms`. Refused are a rate
/// or a number that is zero, a `burst` that no bucket holds, and `max_keys` or `when_full` without `key_header`.
///
/// ```
/// use std::time::Duration;
/// use tower_plugins_layers::{RateLimitLayer, RateLimitPolicy};
///
/// let policy = RateLimitPolicy::new(100.0).max_wait(Duration::from_millis(250));
/// let layer = RateLimitLayer::with_policy(&policy);
/// # let _ = layer;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(try_from = "super::text::Raw", into = "super::text::Raw")
)]
pub struct RateLimitPolicy {
    pub(super) per_second: f64,
    pub(super) burst: u32,
    pub(super) max_wait: Duration,
    pub(super) key_header: Option<HeaderName>,
    pub(super) max_keys: usize,
    pub(super) when_full: WhenFull,
    pub(super) cost_header: Option<HeaderName>,
    pub(super) headers: bool,
}

impl RateLimitPolicy {
    /// `per_second` calls a second, and as many at once, but at least one. The bounds of `per_second` are those
    /// of [`RateLimiter::new`].
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it saturates"
    )]
    pub fn new(per_second: f64) -> Self {
        Self {
            per_second,
            burst: (per_second.ceil() as u32).max(1),
            max_wait: Duration::ZERO,
            key_header: None,
            max_keys: 10_000,
            when_full: WhenFull::DropNearestToFull,
            cost_header: None,
            headers: false,
        }
    }

    /// Sets the tokens that a rested bucket holds, at least 1.
    #[must_use]
    pub const fn burst(mut self, tokens: u32) -> Self {
        self.burst = if tokens == 0 { 1 } else { tokens };
        self
    }

    /// Sets the longest that a call waits for its tokens.
    #[must_use]
    pub const fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Gives each value of a header its own bucket ([`KeyBy::header`]).
    #[must_use]
    pub fn key_header(mut self, name: HeaderName) -> Self {
        self.key_header = Some(name);
        self
    }

    /// Sets the most keys that have a bucket, at least 1. Of a limit by key only.
    #[must_use]
    pub const fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = if keys == 0 { 1 } else { keys };
        self
    }

    /// Sets what happens when no bucket is free. Of a limit by key only.
    #[must_use]
    pub const fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Sets the header that has the tokens that a call takes ([`Cost::header`]).
    #[must_use]
    pub fn cost_header(mut self, name: HeaderName) -> Self {
        self.cost_header = Some(name);
        self
    }

    /// Sets whether responses have the headers of [`Quota`](super::Quota).
    #[must_use]
    pub const fn headers(mut self, headers: bool) -> Self {
        self.headers = headers;
        self
    }

    /// One bucket for all calls.
    #[must_use]
    pub fn limiter(&self) -> RateLimiter {
        RateLimiter::new(self.per_second, self.burst)
    }

    /// A bucket for each key, whatever the keys are.
    #[must_use]
    pub fn keyed_limiter(&self) -> KeyedRateLimiter {
        KeyedRateLimiter::new(self.per_second, self.burst, self.max_keys).when_full(self.when_full)
    }
}

impl RateLimitLayer {
    /// A layer with buckets of its own, as `policy` has it: one, or one for each value of its
    /// [`key_header`](RateLimitPolicy::key_header).
    #[must_use]
    pub fn with_policy(policy: &RateLimitPolicy) -> Self {
        let layer = match &policy.key_header {
            Some(name) => Self::keyed(
                Arc::new(policy.keyed_limiter()),
                KeyBy::header(name.clone()),
            ),
            None => Self::with_limiter(Arc::new(policy.limiter())),
        };
        let cost = policy.cost_header.clone().map(Cost::header);
        layer
            .max_wait(policy.max_wait)
            .cost(cost.unwrap_or_default())
            .headers(policy.headers)
    }
}
