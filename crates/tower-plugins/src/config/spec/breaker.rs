//! `circuit_breaker` and `outlier_detection`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::Number;

/// `circuit_breaker`: one per endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerSpec {
    /// Consecutive failures that open it; `None` when only the rate counts (`failure_threshold: 0`).
    pub failure_threshold: Option<u32>,
    /// The share of failures within `window` that opens it (`failure_rate`, 0 to 1).
    pub failure_rate: Option<Number>,
    /// The statuses that are failures; `None` is the usual ones.
    pub failure_statuses: Option<BTreeSet<u16>>,
    /// The gRPC codes that are failures; `None` is the usual ones.
    pub failure_grpc_codes: Option<BTreeSet<u8>>,
    /// A call that takes longer is slow; `None` when none is (`slow_call_duration: off`).
    pub slow_call_duration: Option<Duration>,
    /// The share of slow calls in the window that opens it (`slow_call_rate`, above 0 to 1).
    pub slow_call_rate: Number,
    /// The time over which shares are taken.
    pub window: Duration,
    /// In its place, the last calls of which shares are taken (`window_calls`).
    pub window_calls: Option<u32>,
    /// Calls in the window before shares are judged.
    pub min_request_threshold: u32,
    /// How long it stays open.
    pub recovery_timeout: Duration,
    /// Up to which time that doubles with each failed probe; `None` when it stays the same.
    pub max_recovery_timeout: Option<Duration>,
    /// Up to this share of the open time is added at random (`recovery_jitter`, 0 to 1).
    pub recovery_jitter: Number,
    /// Successes in half-open that close it; also the calls admitted at once in half-open.
    pub success_threshold: u32,
}

/// `outlier_detection`: endpoints that fail more than the others are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutlierSpec {
    /// Failures without a success between them that eject an endpoint; `None` for never.
    pub consecutive_failures: Option<u32>,
    /// By how many standard deviations a success rate may be below the mean; `None` for any.
    pub success_rate_stdev_factor: Option<Number>,
    /// The percentage of failures that ejects an endpoint, 1 to 100; `None` for never.
    pub failure_percentage_threshold: Option<u32>,
    /// Calls of an endpoint in an interval before its rates count.
    pub min_requests: u32,
    /// Endpoints with that many calls before rates are judged.
    pub min_hosts: u32,
    /// How often rates are judged.
    pub interval: Duration,
    /// How long the first ejection lasts.
    pub base_ejection_time: Duration,
    /// The longest ejection.
    pub max_ejection_time: Duration,
    /// Up to this time is added to an ejection at random.
    pub max_ejection_time_jitter: Duration,
    /// The most endpoints that are out at a time, in percent.
    pub max_ejection_percent: u32,
    /// Whether one of two or more may be out whatever the percentage.
    pub always_eject_one_host: bool,
}
