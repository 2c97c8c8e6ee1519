use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::{AdaptivePolicy, Bulkhead, ConcurrencyLayer, Priority};

/// A bulkhead as a value: what [`ConcurrencyLayer::with_policy`] makes a layer of, and what `serde` (feature)
/// reads and writes.
///
/// | option | default | |
/// | --- | --- | --- |
/// | `max` or `adaptive` | | the places: a number, or as many as an [`AdaptivePolicy`] finds right |
/// | [`max_queued`](Self::max_queued) | 0 | calls that may wait for a place |
/// | [`max_wait`](Self::max_wait) | 0 | how long each may |
/// | [`share`](Self::share) | 1, 1, 0.8, 0.5 | what each [`Priority`] may take of the places and of the queue |
/// | [`priority_header`](Self::priority_header) | none | has a call's priority |
///
/// As text, either `max` or `adaptive` is required, all else may be absent, and times are such as `250ms`.
/// Refused are a queue without a time and a time without a queue, and a share that is larger than that of a
/// priority above.
///
/// ```
/// use std::time::Duration;
/// use tower_plugins_layers::{ConcurrencyLayer, ConcurrencyPolicy};
///
/// let policy = ConcurrencyPolicy::new(64)
///     .max_queued(16)
///     .max_wait(Duration::from_millis(100));
/// let layer = ConcurrencyLayer::with_policy(&policy);
/// # let _ = layer;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(try_from = "super::text::Raw", into = "super::text::Raw")
)]
pub struct ConcurrencyPolicy {
    pub(super) places: Places,
    pub(super) max_queued: usize,
    pub(super) max_wait: Duration,
    pub(super) shares: [f64; Priority::ALL.len()],
    pub(super) priority_header: Option<HeaderName>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Places {
    Fixed(usize),
    Adaptive(AdaptivePolicy),
}

impl ConcurrencyPolicy {
    /// `max` places, at least one.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self::with(Places::Fixed(if max == 0 { 1 } else { max }))
    }

    /// As many places as `policy` finds right.
    #[must_use]
    pub const fn adaptive(policy: AdaptivePolicy) -> Self {
        Self::with(Places::Adaptive(policy))
    }

    pub(super) const fn with(places: Places) -> Self {
        Self {
            places,
            max_queued: 0,
            max_wait: Duration::ZERO,
            shares: Priority::SHARES,
            priority_header: None,
        }
    }

    /// Sets how many calls may wait for a place. It takes [`max_wait`](Self::max_wait) too.
    #[must_use]
    pub const fn max_queued(mut self, calls: usize) -> Self {
        self.max_queued = calls;
        self
    }

    /// Sets how long a call may wait. It takes [`max_queued`](Self::max_queued) too.
    #[must_use]
    pub const fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Sets the share, of 1, that calls of `priority` may take of the places and of the queue
    /// ([`Bulkhead::share`]).
    #[must_use]
    pub fn share(mut self, priority: Priority, share: f64) -> Self {
        if !share.is_nan() {
            self.shares[priority.class()] = share.clamp(0.0, 1.0);
        }
        self
    }

    /// Sets the header that has the priority of a call whose context has none
    /// ([`ConcurrencyLayer::priority_header`]).
    #[must_use]
    pub fn priority_header(mut self, name: HeaderName) -> Self {
        self.priority_header = Some(name);
        self
    }

    /// A bulkhead as the policy has it, with nobody in it.
    #[must_use]
    pub fn bulkhead(&self) -> Bulkhead {
        let bulkhead = match self.places {
            Places::Fixed(max) => Bulkhead::new(max),
            Places::Adaptive(policy) => Bulkhead::adaptive(policy),
        };
        Priority::ALL.into_iter().fold(
            bulkhead.queue(self.max_queued, self.max_wait),
            |bulkhead, priority| bulkhead.share(priority, self.shares[priority.class()]),
        )
    }
}

impl ConcurrencyLayer {
    /// A layer with a bulkhead of its own, as `policy` has it.
    #[must_use]
    pub fn with_policy(policy: &ConcurrencyPolicy) -> Self {
        Self {
            priority_header: policy.priority_header.clone(),
            ..Self::with_bulkhead(Arc::new(policy.bulkhead()))
        }
    }
}
