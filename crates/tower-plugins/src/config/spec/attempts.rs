//! `retry` and `hedge`.

use std::time::Duration;

use super::super::{Number, RetryOn};

/// `retry`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetrySpec {
    /// Attempts beyond the first.
    pub max_retries: u32,
    /// The ceiling of the first backoff.
    pub initial_interval: Duration,
    /// The ceiling of any backoff.
    pub max_interval: Duration,
    /// How fast the ceiling grows.
    pub multiplier: Number,
    /// Whether a backoff is drawn, or is its ceiling.
    pub random_jitter: bool,
    /// How it is drawn (`jitter`).
    pub jitter: JitterKind,
    /// The failures that are retried.
    pub on: Vec<RetryOn>,
    /// What bounds retries (`budget`).
    pub budget: BudgetKind,
    /// Retries allowed as a share of calls (`budget_ratio`).
    pub budget_ratio: Number,
    /// Retries a second that are always allowed (`budget_min_per_second`).
    pub budget_min_per_second: u32,
    /// Retries under way that are always allowed (`budget_min_in_flight`).
    pub budget_min_in_flight: u32,
    /// Tokens at the most (`budget_max_tokens`).
    pub budget_max_tokens: u32,
    /// What a success gives back (`budget_token_ratio`).
    pub budget_token_ratio: Number,
    /// Whether each endpoint has a budget of its own besides (`endpoint_budget`).
    pub endpoint_budget: bool,
    /// Paths (or gRPC methods) whose calls may be repeated, whatever their method. A trailing `*`
    /// matches any rest.
    pub idempotent: Vec<String>,
    /// Paths (or gRPC methods) that are not repeated whatever else holds.
    pub never: Vec<String>,
    /// Bytes of a request's body kept for another attempt (`max_replay_bytes`).
    pub max_replay_bytes: u64,
    /// The header that tells of the attempts before (`attempt_header`).
    pub attempt_header: Option<http::HeaderName>,
    /// How long a gRPC response's head waits for its first frame (`first_frame_wait`).
    pub first_frame_wait: Option<Duration>,
}

/// `retry.jitter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum JitterKind {
    /// `full`: between zero and the ceiling.
    #[default]
    Full,
    /// `decorrelated`: between the first wait and three times the last one.
    Decorrelated,
}

/// `retry.budget`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BudgetKind {
    /// `ratio`: a share of the calls of the last ten seconds.
    #[default]
    Ratio,
    /// `in_flight`: a share of the calls under way.
    InFlight,
    /// `tokens`: the throttle of gRPC.
    Tokens,
}

/// `hedge`: another attempt of a call that is slow.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HedgeSpec {
    /// The delay is the time within which this share of attempts has an answer; `None` for a fixed
    /// `delay`.
    pub quantile: Option<Number>,
    /// The delay where there is no quantile, or none yet.
    pub delay: Option<Duration>,
    /// Attempts before the quantile is used.
    pub min_samples: u32,
    /// Attempts beyond the first.
    pub max_hedges: u32,
    /// Paths (or gRPC methods) that are hedged; empty for all. A trailing `*` matches any rest.
    pub paths: Vec<String>,
}
