//! `load_balancing`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::Number;

/// `load_balancing`: which endpoint an attempt goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BalanceSpec {
    /// How one is picked of those that may be.
    pub strategy: BalanceStrategy,
    /// Where the key of a call is, for a strategy that hashes one.
    pub hash_on: Option<KeySpec>,
    /// How many times the mean of calls an endpoint may have, for such a strategy; `None` is no bound.
    pub load_factor: Option<Number>,
    /// How much calls under way count beside weights, for `least-request`.
    pub least_request_bias: Number,
    /// With a smaller share of endpoints left, ejection is ignored (0 to 1).
    pub panic_threshold: Number,
    /// Of how much more than its calls a level of endpoints is taken to be capable.
    pub overprovisioning: Number,
    /// Where this process is.
    pub zone: Option<String>,
    /// The labels that endpoints must have.
    pub subset: BTreeMap<String, String>,
    /// The labels that must be as a call says.
    pub subset_on: BTreeMap<String, KeySpec>,
    /// What becomes of a call whose subset has no endpoint.
    pub subset_fallback: SubsetFallback,
    /// For how long an endpoint that is new, or comes back, has less than its weight; `None` for not at all.
    pub slow_start_window: Option<Duration>,
    /// The part of its weight that it has from the beginning (0.001 to 1).
    pub slow_start_min_weight: Number,
    /// How fast its weight grows at first; 1 is evenly.
    pub slow_start_aggression: Number,
}

/// Where in a call a key is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeySpec {
    /// `header:NAME`.
    Header(http::HeaderName),
    /// `cookie:NAME`.
    Cookie(String),
}

/// `load_balancing.subset_fallback`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubsetFallback {
    /// `any`: it goes to any endpoint.
    #[default]
    Any,
    /// `none`: it is refused.
    None,
}

/// `load_balancing.strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BalanceStrategy {
    /// `peak-ewma`: of two endpoints drawn at random, the one with the lower expected latency.
    #[default]
    PeakEwma,
    /// `round-robin`.
    RoundRobin,
    /// `weighted-round-robin`.
    WeightedRoundRobin,
    /// `random`.
    Random,
    /// `weighted-random`.
    WeightedRandom,
    /// `least-request`: of two endpoints drawn at random, the one with fewer calls.
    LeastRequest,
    /// `least-connections`: the one with the fewest calls.
    LeastConnections,
    /// `least-latency`: the one whose calls take the least time.
    LeastLatency,
    /// `ring-hash`, or `consistent-hash`: a key stays with its endpoint.
    RingHash,
    /// `maglev`: the same by a table.
    Maglev,
}

impl BalanceStrategy {
    /// Whether calls with the same key go to the same endpoint.
    #[must_use]
    pub const fn is_hash(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}
