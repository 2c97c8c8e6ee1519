//! A policy as serde reads and writes it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::BreakerPolicy;
use super::count::MOST;

/// What is absent is as in [`BreakerPolicy::new`]; `null` switches off what can be.
#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Text {
    consecutive_failures: Option<u32>,
    failure_rate: Option<f64>,
    #[serde(with = "humantime_serde")]
    slow_call: Option<Duration>,
    slow_rate: f64,
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    window: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_calls: Option<u32>,
    min_requests: u32,
    #[serde(with = "humantime_serde")]
    recovery: Duration,
    #[serde(with = "humantime_serde")]
    max_recovery: Duration,
    jitter: f64,
    success_threshold: u16,
}

impl Default for Text {
    fn default() -> Self {
        let mut text = Self::from(BreakerPolicy::new());
        text.window = None;
        text
    }
}

impl From<BreakerPolicy> for Text {
    fn from(policy: BreakerPolicy) -> Self {
        Self {
            consecutive_failures: policy.consecutive_failures,
            failure_rate: policy.failure_rate,
            slow_call: policy.slow_call,
            slow_rate: policy.slow_rate,
            window: policy.window_calls.is_none().then_some(policy.window),
            window_calls: policy.window_calls,
            min_requests: policy.min_requests,
            recovery: policy.recovery,
            max_recovery: policy.max_recovery,
            jitter: policy.jitter,
            success_threshold: policy.success_threshold,
        }
    }
}

impl TryFrom<Text> for BreakerPolicy {
    type Error = &'static str;

    fn try_from(text: Text) -> Result<Self, Self::Error> {
        let is_share = |share: f64| share > 0.0 && share <= 1.0;
        let is_set = |time: Option<Duration>, least| time.is_none_or(|time| time >= least);
        let rules = [
            (
                text.consecutive_failures != Some(0),
                "consecutive_failures must be at least 1, or null for never",
            ),
            (
                text.failure_rate.is_none_or(is_share),
                "failure_rate must be above 0 and at most 1, or null for never",
            ),
            (
                is_share(text.slow_rate),
                "slow_rate must be above 0 and at most 1",
            ),
            (
                is_set(text.window, Duration::from_millis(10)),
                "window must be at least 10ms",
            ),
            (
                text.window.is_none() || text.window_calls.is_none(),
                "window and window_calls are two kinds of window: keep one",
            ),
            (
                text.window_calls.is_none_or(|n| (1..=MOST).contains(&n)),
                "window_calls must be between 1 and 65536",
            ),
            (
                text.recovery >= Duration::from_millis(1),
                "recovery must be at least 1ms",
            ),
            (
                (0.0..=1.0).contains(&text.jitter),
                "jitter must be between 0 and 1",
            ),
            (
                text.success_threshold > 0,
                "success_threshold must be at least 1",
            ),
        ];
        if let Some((_, broken)) = rules.into_iter().find(|(holds, _)| !holds) {
            return Err(broken);
        }
        let policy = Self {
            consecutive_failures: text.consecutive_failures,
            failure_rate: text.failure_rate,
            slow_call: text.slow_call,
            slow_rate: text.slow_rate,
            min_requests: text.min_requests,
            recovery: text.recovery,
            max_recovery: text.max_recovery,
            jitter: text.jitter,
            success_threshold: text.success_threshold,
            ..Self::new()
        };
        let policy = match text.window {
            Some(window) => policy.window(window),
            None => policy,
        };
        Ok(match text.window_calls {
            Some(calls) => policy.window_calls(calls),
            None => policy,
        })
    }
}
