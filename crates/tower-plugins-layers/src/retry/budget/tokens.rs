//! The retry throttle of gRPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a failure costs: tokens are counted in thousandths, as gRFC A6 has it.
const FAILURE: u64 = 1000;

#[derive(Clone, Debug)]
pub(in crate::retry) struct Tokens {
    max: u64,
    ratio: u64,
    left: Arc<AtomicU64>,
}

impl Tokens {
    pub(super) fn new(max: u32, ratio: f64) -> Self {
        let max = in_thousandths(max);
        Self::of(Arc::new(AtomicU64::new(max)), max, ratio)
    }

    /// Other limits; the bucket stays as full as it is, in proportion.
    pub(super) fn with_limits(&self, max: u32, ratio: f64) -> Self {
        let new = in_thousandths(max);
        if new == self.max {
            return Self::of(Arc::clone(&self.left), new, ratio);
        }
        let left = u128::from(self.left.load(Relaxed)) * u128::from(new) / u128::from(self.max);
        let left = u64::try_from(left).unwrap_or(new);
        Self::of(Arc::new(AtomicU64::new(left)), new, ratio)
    }

    fn of(left: Arc<AtomicU64>, max: u64, ratio: f64) -> Self {
        Self {
            max,
            // NaN becomes 0.
            ratio: (ratio.clamp(0.0, 1000.0) * 1000.0).round() as u64,
            left,
        }
    }

    pub(super) fn allows(&self) -> bool {
        self.left.load(Relaxed) > self.max / 2
    }

    pub(in crate::retry) fn failed(&self) {
        self.change(|left| left.saturating_sub(FAILURE));
    }

    pub(in crate::retry) fn succeeded(&self) {
        self.change(|left| left.saturating_add(self.ratio).min(self.max));
    }

    /// A full bucket, which is the usual one, is only read by a success.
    fn change(&self, to: impl Fn(u64) -> u64) {
        let changed = |left| Some(to(left)).filter(|new| *new != left);
        // An error is a bucket that need not change.
        let _ = self.left.fetch_update(Relaxed, Relaxed, changed);
    }
}

fn in_thousandths(max: u32) -> u64 {
    u64::from(max.max(1)) * 1000
}
