use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const BUCKETS: u64 = 10;
const FAILURE: u64 = 1 << 32;

/// Calls and failures of the last while, in ten buckets: recording is one `fetch_add`, and time
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
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            bucket: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            buckets: Default::default(),
        }
    }

    pub(super) fn copy(&self) -> Self {
        Self {
            bucket: self.bucket.load(Relaxed).into(),
            latest: self.latest.load(Relaxed).into(),
            buckets: std::array::from_fn(|i| self.buckets[i].load(Relaxed).into()),
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
        for bucket in &self.buckets {
            bucket.store(0, Relaxed);
        }
    }

    /// Counts a call that ended `now`, in nanoseconds.
    pub(super) fn record(&self, now: u64, failed: bool) {
        let tick = now / self.bucket.load(Relaxed).max(1);
        let latest = self.latest.load(Relaxed);
        if latest < tick
            && self
                .latest
                .compare_exchange(latest, tick, Relaxed, Relaxed)
                .is_ok()
        {
            for passed in (latest + 1..=tick).rev().take(BUCKETS as usize) {
                self.bucket_of(passed).store(0, Relaxed);
            }
        }
        self.bucket_of(tick.max(latest))
            .fetch_add(1 + if failed { FAILURE } else { 0 }, Relaxed);
    }

    /// Failures and calls, as of the last call recorded.
    pub(super) fn sums(&self) -> (u64, u64) {
        self.buckets.iter().fold((0, 0), |(failed, all), bucket| {
            let bucket = bucket.load(Relaxed);
            (failed + bucket / FAILURE, all + bucket % FAILURE)
        })
    }

    fn bucket_of(&self, tick: u64) -> &AtomicU64 {
        &self.buckets[(tick % BUCKETS) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> Window {
        let window = Window::new();
        window.set_length(Duration::from_nanos(1000));
        window
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let window = window();
        for now in (0..3000).step_by(50) {
            window.record(now, now % 100 == 0);
        }
        // 2000 to 2950.
        assert_eq!(window.sums(), (10, 20));
    }

    #[test]
    fn a_gap_clears_the_window() {
        for gap in [1000, 1050, 5000, u64::MAX - 1000] {
            let window = window();
            for now in 0..1000 {
                window.record(now, true);
            }
            window.record(1000 + gap, false);
            assert_eq!(window.sums(), (0, 1), "{gap}");
        }
    }

    #[test]
    fn another_length_clears_the_window_and_the_same_does_not() {
        let window = window();
        window.record(5, true);
        window.set_length(Duration::from_nanos(1000));
        assert_eq!(window.sums(), (1, 1));
        window.set_length(Duration::from_nanos(2000));
        assert_eq!(window.sums(), (0, 0));
    }
}
