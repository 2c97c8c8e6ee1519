//! The policy as text.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{RateLimitPolicy, RateLimiter, WhenFull};
use crate::header;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    per_second: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burst: Option<u32>,
    #[serde(default, with = "humantime_serde")]
    max_wait: Duration,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_header: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_keys: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    when_full: Option<WhenFull>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cost_header: Option<String>,
    #[serde(default)]
    headers: bool,
}

impl From<RateLimitPolicy> for Raw {
    fn from(policy: RateLimitPolicy) -> Self {
        let keyed = policy.key_header.is_some();
        let text = |name: http::HeaderName| name.as_str().to_owned();
        Self {
            per_second: policy.per_second,
            burst: Some(policy.burst),
            max_wait: policy.max_wait,
            key_header: policy.key_header.map(text),
            max_keys: keyed.then_some(policy.max_keys),
            when_full: keyed.then_some(policy.when_full),
            cost_header: policy.cost_header.map(text),
            headers: policy.headers,
        }
    }
}

impl TryFrom<Raw> for RateLimitPolicy {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let (slowest, fastest) = (1e-8, 1e9);
        if !(slowest..=fastest).contains(&raw.per_second) {
            return Err(format!(
                "`per_second` must be more than 0 and at most a billion, and is {}",
                raw.per_second
            ));
        }
        if raw.burst == Some(0) {
            return Err("`burst` must be at least 1: a bucket of none lets no call through".into());
        }
        let most = RateLimiter::max_burst(raw.per_second);
        if raw.burst.is_some_and(|burst| burst > most) {
            return Err(format!(
                "`burst` is more than comes back in four and a half years at this rate: at most {most}"
            ));
        }
        if raw.max_keys == Some(0) {
            return Err("`max_keys` must be at least 1".into());
        }
        if raw.key_header.is_none() && (raw.max_keys.is_some() || raw.when_full.is_some()) {
            return Err("`max_keys` and `when_full` do nothing without `key_header`".into());
        }
        let policy = Self::new(raw.per_second);
        Ok(Self {
            burst: raw.burst.unwrap_or(policy.burst),
            max_wait: raw.max_wait,
            key_header: header::parsed(raw.key_header.as_deref())?,
            max_keys: raw.max_keys.unwrap_or(policy.max_keys),
            when_full: raw.when_full.unwrap_or(policy.when_full),
            cost_header: header::parsed(raw.cost_header.as_deref())?,
            headers: raw.headers,
            ..policy
        })
    }
}
