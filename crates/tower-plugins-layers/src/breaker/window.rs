use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const BUCKETS: u64 = 10;
const FAILURE: u64 = 1 << 32;

/// What is in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) slow: u64,
}

/// Calls, failures and slow calls of the last while, in ten buckets: recording is one `fetch_add`, and time
/// moves on by clearing the buckets it has passed.
///
/// Calls that end while another thread clears a bucket may go missing from it.
#[derive(Debug)]
pub(super) struct Window {
    /// Nanoseconds a bucket; zero before the first use.
    bucket: AtomicU64,
    /// The last tick, in buckets since the beginning of time, that was recorded in.
    latest: AtomicU64,
    /// Failures in the high half, calls in the low one.
    buckets: [AtomicU64; BUCKETS as usize],
    /// Apart from them, since few calls are slow.
    slow: [AtomicU32; BUCKETS as usize],
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            bucket: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            buckets: Default::default(),
            slow: Default::default(),
        }
    }

    pub(super) fn copy(&self) -> Self {
        Self {
            bucket: self.bucket.load(Relaxed).into(),
            latest: self.latest.load(Relaxed).into(),
            buckets: std::array::from_fn(|i| self.buckets[i].load(Relaxed).into()),
            slow: std::array::from_fn(|i| self.slow[i].load(Relaxed).into()),
        }
    }

    /// Makes it `length` long; another length than before forgets everything.
    pub(super) fn set_length(&self, length: Duration) {
        let bucket = u64::try_from(length.as_nanos())
            .unwrap_or(u64::MAX)
            .div_ceil(BUCKETS);
        if self.bucket.load(Relaxed) != bucket && self.bucket.swap(bucket, Relaxed) != bucket {
            self.latest.store(0, Relaxed);
            self.clear();
        }
    }

    pub(super) fn clear(&self) {
        for bucket in 0..BUCKETS {
            self.clear_bucket(bucket);
        }
    }

    fn clear_bucket(&self, tick: u64) {
        let bucket = bucket_of(tick);
        self.buckets[bucket].store(0, Relaxed);
        self.slow[bucket].store(0, Relaxed);
    }

    /// Counts a call that ended `now`, in nanoseconds.
    pub(super) fn record(&self, now: u64, failed: bool, slow: bool) {
        let tick = now / self.bucket.load(Relaxed).max(1);
        let latest = self.latest.load(Relaxed);
        if latest < tick
            && self
                .latest
                .compare_exchange(latest, tick, Relaxed, Relaxed)
                .is_ok()
        {
            for passed in (latest + 1..=tick).rev().take(BUCKETS as usize) {
                self.clear_bucket(passed);
            }
        }
        let bucket = bucket_of(tick.max(latest));
        self.buckets[bucket].fetch_add(1 + if failed { FAILURE } else { 0 }, Relaxed);
        if slow {
            self.slow[bucket].fetch_add(1, Relaxed);
        }
    }

    /// What is in it, as of the last call recorded.
    pub(super) fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for (bucket, slow) in self.buckets.iter().zip(&self.slow) {
            let bucket = bucket.load(Relaxed);
            sums.failed += bucket / FAILURE;
            sums.calls += bucket % FAILURE;
            sums.slow += u64::from(slow.load(Relaxed));
        }
        sums
    }
}

const fn bucket_of(tick: u64) -> usize {
    (tick % BUCKETS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn sums(calls: u64, failed: u64, slow: u64) -> Sums {
        Sums {
            calls,
            failed,
            slow,
        }
    }

    fn window() -> Window {
        let window = Window::new();
        window.set_length(Duration::from_nanos(1000));
        window
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let window = window();
        for now in (0..3000).step_by(50) {
            window.record(now, now % 100 == 0, now % 200 == 0);
        }
        // 2000 to 2950.
        assert_eq!(window.sums(), sums(20, 10, 5));
    }

    #[test]
    fn a_gap_clears_the_window() {
        for gap in [1000, 1050, 5000, u64::MAX - 1000] {
            let window = window();
            for now in 0..1000 {
                window.record(now, true, true);
            }
            window.record(1000 + gap, false, false);
            assert_eq!(window.sums(), sums(1, 0, 0), "{gap}");
        }
    }

    #[test]
    fn another_length_clears_the_window_and_the_same_does_not() {
        let window = window();
        window.record(5, true, true);
        window.set_length(Duration::from_nanos(1000));
        assert_eq!(window.sums(), sums(1, 1, 1));
        window.set_length(Duration::from_nanos(2000));
        assert_eq!(window.sums(), sums(0, 0, 0));
    }
}
