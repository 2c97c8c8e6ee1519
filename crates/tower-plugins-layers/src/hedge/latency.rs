//! How long attempts take: a quantile of the last half to whole minute.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// How long samples go to one window before the other is emptied for the next.
const WINDOW: Duration = Duration::from_secs(30);

/// How long an answer is given again before it is worked out anew.
const REFRESH: u64 = 100;

/// Buckets of a microsecond each, up to 16 us.
const FINE: usize = 16;

/// Buckets in each doubling from there on: a bucket is an eighth of its value wide at the most.
const PARTS: usize = 8;

/// Doublings from 16 us to 19 hours.
const DOUBLINGS: usize = 32;

const BUCKETS: usize = FINE + DOUBLINGS * PARTS;

/// How long attempts took that succeeded, in the last half to whole minute.
///
/// A log-linear histogram, as HdrHistogram's, in two windows of 30 seconds that take turns. Adding a
/// sample is one atomic add; a quantile, of which the error is an eighth at the most and upwards, is
/// worked out ten times a second at the most, whoever asks. It is a handle: clones share the samples.
#[derive(Clone)]
pub struct Latencies(Arc<Histogram>);

struct Histogram {
    epoch: Instant,
    windows: [Window; 2],
    /// The number of the window that samples go to.
    turn: AtomicU64,
    /// When the answer is old, in milliseconds since the epoch.
    stale_at: AtomicU64,
    /// In microseconds; 0 for none.
    answer: AtomicU64,
    /// What was asked, as its bits.
    asked: AtomicU64,
}

struct Window([AtomicU32; BUCKETS]);

impl Window {
    const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; BUCKETS])
    }

    fn clear(&self) {
        self.0.iter().for_each(|count| count.store(0, Relaxed));
    }
}

impl Latencies {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Histogram {
            epoch: Instant::now(),
            windows: [Window::new(), Window::new()],
            turn: AtomicU64::new(0),
            stale_at: AtomicU64::new(0),
            answer: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        }))
    }

    /// Others that begin as these are, and share no sample that comes later.
    #[must_use]
    pub fn copy(&self) -> Self {
        let this = &*self.0;
        let window = |n: usize| {
            let counts = &this.windows[n].0;
            Window(std::array::from_fn(|i| counts[i].load(Relaxed).into()))
        };
        Self(Arc::new(Histogram {
            epoch: this.epoch,
            windows: [window(0), window(1)],
            turn: this.turn.load(Relaxed).into(),
            stale_at: AtomicU64::new(0),
            answer: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        }))
    }

    /// Adds an attempt that ended at `now`.
    pub fn record(&self, took: Duration, now: Instant) {
        let this = &*self.0;
        let turn = this.turn_at(now);
        this.windows[(turn % 2) as usize].0[bucket(took)].fetch_add(1, Relaxed);
    }

    /// The time within which `share` of the attempts succeeded; nothing if there were fewer than
    /// `min_samples`.
    #[must_use]
    pub fn quantile(&self, share: f64, min_samples: u32, now: Instant) -> Option<Duration> {
        let this = &*self.0;
        let millis = this.millis_at(now);
        let stale_at = this.stale_at.load(Relaxed);
        let other = this.asked.load(Relaxed) != share.to_bits();
        // One of those who find it stale works it out; the others have the old answer.
        if other
            || millis >= stale_at
                && this
                    .stale_at
                    .compare_exchange(stale_at, millis + REFRESH, Relaxed, Relaxed)
                    .is_ok()
        {
            this.turn_at(now);
            let answer = this.work_out(share, min_samples);
            this.answer.store(answer, Relaxed);
            this.asked.store(share.to_bits(), Relaxed);
        }
        let micros = this.answer.load(Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }
}

impl Histogram {
    fn millis_at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// The number of the window at `now`, which is emptied by the first to find it. A sample that
    /// comes at that very moment may be lost.
    fn turn_at(&self, now: Instant) -> u64 {
        let turn = self.millis_at(now) / WINDOW.as_millis() as u64;
        let last = self.turn.load(Relaxed);
        if turn <= last {
            return last;
        }
        if self
            .turn
            .compare_exchange(last, turn, Relaxed, Relaxed)
            .is_ok()
        {
            self.windows[(turn % 2) as usize].clear();
            if turn - last > 1 {
                self.windows[((turn + 1) % 2) as usize].clear();
            }
        }
        turn
    }

    fn work_out(&self, share: f64, min_samples: u32) -> u64 {
        let count = |i: usize| {
            let counts = self.windows.each_ref().map(|window| &window.0[i]);
            counts
                .iter()
                .map(|count| u64::from(count.load(Relaxed)))
                .sum::<u64>()
        };
        let total: u64 = (0..BUCKETS).map(count).sum();
        if total < u64::from(min_samples.max(1)) {
            return 0;
        }
        let rank = ((total as f64 * share).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        let found = (0..BUCKETS).find(|&i| {
            seen += count(i);
            seen >= rank
        });
        upper_bound(found.unwrap_or(BUCKETS - 1))
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if micros < FINE as u64 {
        return micros as usize;
    }
    let exponent = micros.ilog2();
    let part = (micros >> (exponent - 3)) as usize % PARTS;
    let doubling = exponent as usize - 4;
    (FINE + doubling * PARTS + part).min(BUCKETS - 1)
}

/// The least time, in microseconds, that is above all of a bucket.
fn upper_bound(bucket: usize) -> u64 {
    let Some(coarse) = bucket.checked_sub(FINE) else {
        return bucket as u64 + 1;
    };
    let (doubling, part) = (coarse / PARTS, coarse % PARTS);
    ((PARTS + part + 1) as u64) << (doubling + 1)
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.answer.load(Relaxed);
        f.debug_struct("Latencies")
            .field("answer", &Duration::from_micros(micros))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_the_times_below_its_bound_and_above_the_one_before() {
        for micros in (0..100_000).chain((17..36).map(|n| (1 << n) - 1)) {
            let bucket = bucket(Duration::from_micros(micros));
            let bound = upper_bound(bucket);
            assert!(
                micros < bound && bound - micros <= 1 + micros / 8,
                "{micros}"
            );
            assert!(bucket == 0 || micros >= upper_bound(bucket - 1), "{micros}");
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_copy_begins_as_the_other_is_and_shares_nothing_that_comes_later() {
        let (one, now) = (Latencies::new(), Instant::now());
        let record = |to: &Latencies, millis| {
            for _ in 0..100 {
                to.record(Duration::from_millis(millis), now);
            }
        };
        record(&one, 10);
        let other = one.copy();
        record(&other, 1000);
        let time = |of: &Latencies, share| of.quantile(share, 1, now).unwrap().as_millis();
        assert!((10..12).contains(&time(&one, 0.99)));
        assert!((10..12).contains(&time(&other, 0.4)));
        assert!(time(&other, 0.99) >= 1000);
    }
}
