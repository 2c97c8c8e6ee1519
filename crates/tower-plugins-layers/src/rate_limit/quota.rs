use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::Refused;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// How a caller stands with a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    limit: u32,
    remaining: u32,
    /// The time that an empty bucket takes to be full.
    window_millis: u32,
}

impl Quota {
    /// `remaining` of `limit` calls are left; all of them come back in `window`, of which 49 days count.
    #[must_use]
    pub fn new(limit: u32, remaining: u32, window: Duration) -> Self {
        let part = u128::from(!window.subsec_nanos().is_multiple_of(1_000_000));
        Self {
            limit: limit.max(1),
            remaining: remaining.min(limit),
            window_millis: u32::try_from(window.as_millis() + part).unwrap_or(u32::MAX),
        }
    }

    /// The most calls at once.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// The calls that would be let through now.
    #[must_use]
    pub const fn remaining(&self) -> u32 {
        self.remaining
    }

    /// The time in which [`limit`](Self::limit) calls come back.
    #[must_use]
    pub fn window(&self) -> Duration {
        Duration::from_millis(u64::from(self.window_millis))
    }

    /// The time after which all calls are there again, to within that of one.
    #[must_use]
    pub fn reset(&self) -> Duration {
        let used = u64::from(self.limit - self.remaining);
        Duration::from_millis((u64::from(self.window_millis) * used).div_ceil(self.limit.into()))
    }

    /// Sets `RateLimit-Policy` and `RateLimit`, as draft-ietf-httpapi-ratelimit-headers-10 has them: the
    /// quota and its window, what is left of it and the seconds to its reset.
    pub fn write_to(&self, headers: &mut HeaderMap) {
        let Self {
            limit, remaining, ..
        } = self;
        let (window, reset) = (seconds(self.window()).max(1), seconds(self.reset()));
        set(
            headers,
            POLICY,
            &format!("\"default\";q={limit};w={window}"),
        );
        set(
            headers,
            LIMIT,
            &format!("\"default\";r={remaining};t={reset}"),
        );
    }
}

impl Refused {
    /// Sets the headers that tell a caller how to go on: `Retry-After`, if the time is known, in whole
    /// seconds; and those of the rate limit ([`Quota::write_to`]), if it was one that refused.
    pub fn write_to(&self, headers: &mut HeaderMap) {
        if let Some(wait) = self.wait() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds(wait)));
        }
        if let Some(quota) = self.quota() {
            quota.write_to(headers);
        }
    }
}

/// Rounded up: who comes a moment early comes in vain.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Digits and punctuation: always a header's value.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
