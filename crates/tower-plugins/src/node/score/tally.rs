//! How many calls there were, how many failed, and how long the others took.

use std::time::Duration;

/// Buckets in each doubling of the time.
const PARTS: usize = 8;

/// A microsecond each up to 8 us, and from there 29 doublings, to 71 minutes.
pub(super) const BUCKETS: usize = PARTS * 30;

/// What became of a number of calls. Those that failed have no latency here: a version that fails at once is not a fast
/// one, nor is one slow that answers where the one before it could not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(super) failures: u64,
    /// Calls that succeeded, by how long they took.
    pub(super) took: Box<[u64; BUCKETS]>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            failures: 0,
            took: Box::new([0; BUCKETS]),
        }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.failures + self.successes()
    }

    pub(crate) const fn failures(&self) -> u64 {
        self.failures
    }

    pub(crate) fn successes(&self) -> u64 {
        self.took.iter().sum()
    }

    /// Those calls of it that are not in `earlier`, a tally of the same calls.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let both = self.took.iter().zip(&*earlier.took);
        let mut since = Self::new();
        since.failures = self.failures.saturating_sub(earlier.failures);
        for (since, (now, then)) in since.took.iter_mut().zip(both) {
            *since = now.saturating_sub(*then);
        }
        since
    }

    /// The time within which `share` of the calls succeeded that did; above the truth by an eighth of it, or 1 us, at the
    /// most. `None` if none did.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = (self.successes() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let found = self.took.iter().position(|count| {
            seen += count;
            seen >= rank.max(1)
        });
        found.map(bound)
    }

    pub(crate) fn p99(&self) -> Option<Duration> {
        self.quantile(0.99)
    }
}

/// Where a call is counted that took so long. As HdrHistogram has it: how often the time doubles, and the three bits behind
/// its first one.
pub(super) fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let shift = micros.max(PARTS as u64).ilog2() - PARTS.ilog2();
    let bucket = u64::from(shift) * PARTS as u64 + (micros >> shift);
    (bucket as usize).min(BUCKETS - 1)
}

/// The least time that is above all of a bucket.
fn bound(bucket: usize) -> Duration {
    let shift = (bucket / PARTS).saturating_sub(1);
    let above = bucket - shift * PARTS + 1;
    Duration::from_micros((above as u64) << shift)
}

#[cfg(test)]
impl Tally {
    /// Calls that succeeded after `took`, and calls that failed.
    pub(crate) fn of(took: impl IntoIterator<Item = Duration>, failures: u64) -> Self {
        let mut tally = Self::new();
        tally.failures = failures;
        tally.add(took, 0);
        tally
    }

    pub(crate) fn add(&mut self, took: impl IntoIterator<Item = Duration>, failures: u64) {
        self.failures += failures;
        for took in took {
            self.took[bucket(took)] += 1;
        }
    }
}
