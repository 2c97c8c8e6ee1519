use std::time::Duration;

use tokio::time::Instant;

use super::Latencies;
use crate::retry::Paths;

/// When a call's second attempt begins while the first is under way.
///
/// | setting | default | |
/// | --- | --- | --- |
/// | [`quantile`](Self::quantile) | 0.95 | the share of attempts that succeed sooner than the delay |
/// | [`min_samples`](Self::min_samples) | 100 | attempts in the last minute before the quantile is used |
/// | [`delay`](Self::delay) | none | the delay while there is no quantile |
/// | [`max_hedges`](Self::max_hedges) | 1 | attempts beyond the first, at most 4; each after another delay |
/// | [`paths`](Self::paths) | all | the calls that are hedged |
/// | [`latencies`](Self::latencies) | its own | what the quantile is of |
///
/// ```
/// use std::time::Duration;
/// use tower_plugins_layers::hedge::HedgePolicy;
///
/// let live = HedgePolicy::new().quantile(0.99).paths(["/search"]);
/// let fixed = HedgePolicy::after(Duration::from_millis(50)).max_hedges(2);
/// # let _ = (live, fixed);
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(remote = "Self", default, deny_unknown_fields)
)]
pub struct HedgePolicy {
    max_hedges: u32,
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde::option"))]
    delay: Option<Duration>,
    quantile: Option<f64>,
    min_samples: u32,
    paths: Paths,
    #[cfg_attr(feature = "serde", serde(skip))]
    latencies: Latencies,
}

/// More attempts than this at once are no hedge.
const MOST: u32 = 4;

impl HedgePolicy {
    /// One hedge, after the 95th percentile.
    #[must_use]
    pub fn new() -> Self {
        Self {
            max_hedges: 1,
            delay: None,
            quantile: Some(0.95),
            min_samples: 100,
            paths: Paths::default(),
            latencies: Latencies::new(),
        }
    }

    /// One hedge, after a fixed delay.
    #[must_use]
    pub fn after(delay: Duration) -> Self {
        Self::new().delay(delay).quantile(None)
    }

    /// Attempts beyond the first, from 1 to 4.
    #[must_use]
    pub fn max_hedges(mut self, n: u32) -> Self {
        self.max_hedges = n.clamp(1, MOST);
        self
    }

    /// The delay where there is no quantile, or none yet. Without either no attempt is begun
    /// because another is slow.
    #[must_use]
    pub fn delay(mut self, delay: impl Into<Option<Duration>>) -> Self {
        self.delay = delay.into();
        self
    }

    /// The delay is the time within which this share of first attempts succeeded, of late: between 0
    /// and 1. `None` for a fixed delay.
    #[must_use]
    pub fn quantile(mut self, share: impl Into<Option<f64>>) -> Self {
        // NaN stays NaN here and makes rank 1 there: the least delay, which the budget bounds.
        self.quantile = share.into().map(|share| share.clamp(0.0, 1.0));
        self
    }

    /// Attempts that must have succeeded in the last minute before the quantile is used.
    #[must_use]
    pub const fn min_samples(mut self, n: u32) -> Self {
        self.min_samples = n;
        self
    }

    /// Paths, or gRPC methods, whose calls are hedged, if they may be repeated at all. A trailing `*`
    /// matches any rest, and the leading `/` may be left out. All by default.
    #[must_use]
    pub fn paths<P: AsRef<str>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.paths = paths.into_iter().collect();
        self
    }

    /// Measures in `latencies`, which others may watch or share.
    #[must_use]
    pub fn latencies(mut self, latencies: Latencies) -> Self {
        self.latencies = latencies;
        self
    }

    pub(crate) const fn most(&self) -> u32 {
        self.max_hedges
    }

    /// Whether calls to `path` are hedged.
    pub(crate) fn is_for(&self, path: &str) -> bool {
        self.paths.is_empty() || self.paths.matches(path)
    }

    /// How long to wait for an attempt before another is begun.
    pub(crate) fn delay_at(&self, now: Instant) -> Option<Duration> {
        self.quantile
            .and_then(|share| self.latencies.quantile(share, self.min_samples, now))
            .or(self.delay)
    }

    /// A first attempt that took so long; for one that was cut short, at least so long.
    pub(crate) fn record(&self, took: Duration, now: Instant) {
        if self.quantile.is_some() {
            self.latencies.record(took, now);
        }
    }
}

impl Default for HedgePolicy {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "serde")]
impl crate::checked::Check for HedgePolicy {
    fn check(&self) -> Result<(), &'static str> {
        if !(1..=MOST).contains(&self.max_hedges) {
            return Err("`max_hedges` is from 1 to 4");
        }
        match self.quantile {
            Some(share) if !(share > 0.0 && share < 1.0) => Err("`quantile` is between 0 and 1"),
            None if self.delay.is_none() => Err("a hedge needs a `quantile` or a `delay`"),
            _ => Ok(()),
        }
    }
}

#[cfg(feature = "serde")]
crate::checked::checked!(HedgePolicy);
