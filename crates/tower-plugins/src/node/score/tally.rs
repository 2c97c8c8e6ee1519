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
            self.add_many(took, 1);
        }
    }

    pub(crate) fn add_all(&mut self, others: &Self) {
        self.failures += others.failures;
        for (count, more) in self.took.iter_mut().zip(&*others.took) {
            *count += more;
        }
    }

    /// So many calls that all took as long.
    pub(crate) fn add_many(&mut self, took: Duration, calls: u64) {
        self.took[bucket(took)] += calls;
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// From nothing to an hour, the short as often as the long.
    fn any_time() -> impl Strategy<Value = Duration> {
        (0..32_u32, 0.0..1.0_f64).prop_map(|(doublings, part)| {
            let micros = (f64::from(1_u32 << doublings) * (1.0 + part)).min(3.6e9);
            Duration::from_micros(micros as u64)
        })
    }

    proptest! {
        #[test]
        fn a_quantile_is_above_the_truth_by_an_eighth_or_a_microsecond_at_the_most(
            mut times in vec(any_time(), 1..300),
            share in 0.0..=1.0_f64,
        ) {
            let tally = Tally::of(times.iter().copied(), 7);
            times.sort();
            let rank = ((times.len() as f64 * share).ceil() as usize).max(1);
            let truth = times[rank - 1];
            let told = tally.quantile(share).unwrap();
            prop_assert!(told > truth, "{told:?} for {truth:?}");
            prop_assert!(told <= truth + (truth / 8).max(Duration::from_micros(1)), "{told:?} for {truth:?}");
        }

        #[test]
        fn what_came_since_is_what_was_added(
            before in vec(any_time(), 0..50), failed in 0..50_u64,
            after in vec(any_time(), 0..50), failing in 0..50_u64,
        ) {
            let earlier = Tally::of(before, failed);
            let mut now = earlier.clone();
            now.add(after.iter().copied(), failing);
            prop_assert_eq!(now.calls(), earlier.calls() + after.len() as u64 + failing);
            prop_assert_eq!(now.since(&earlier), Tally::of(after, failing));
            prop_assert_eq!(earlier.since(&now), Tally::new());
        }
    }

    #[test]
    fn no_call_has_no_quantile_and_none_is_too_long() {
        assert_eq!(Tally::of([], 9).p99(), None);
        let longest = Tally::of([Duration::MAX], 0).p99();
        assert_eq!(longest, Some(Duration::from_micros(1 << 32)));
    }
}
