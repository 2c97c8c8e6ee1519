//! Retries as a share of the calls under way.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sharded::{Held, ShardedCount, Shared};

#[derive(Clone, Debug)]
pub(super) struct InFlight {
    /// In thousandths.
    share: u64,
    min: usize,
    counts: Shared<Counts>,
}

#[derive(Debug)]
struct Counts {
    calls: ShardedCount,
    retries: AtomicUsize,
}

/// A call, or a retry, that is under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    counts: Held<Counts>,
    retry: bool,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.retry {
            self.counts.retries.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.counts.calls.decrement();
        }
    }
}

impl InFlight {
    pub(super) fn new(share: f64, min: u32) -> Self {
        let counts = Counts {
            calls: ShardedCount::new(),
            retries: AtomicUsize::new(0),
        };
        Self::of(Shared::new(counts), share, min)
    }

    /// Other limits, the same calls under way.
    pub(super) fn with_limits(&self, share: f64, min: u32) -> Self {
        Self::of(self.counts.clone(), share, min)
    }

    fn of(counts: Shared<Counts>, share: f64, min: u32) -> Self {
        Self {
            // NaN becomes 0.
            share: (share.clamp(0.0, 1000.0) * 1000.0).round() as u64,
            min: usize::try_from(min).unwrap_or(usize::MAX),
            counts,
        }
    }

    pub(super) fn begin(&self) -> UnderWay {
        self.counts.calls.increment();
        UnderWay {
            counts: self.counts.hold(),
            retry: false,
        }
    }

    /// Whether there is a retry to take.
    pub(super) fn allows(&self) -> bool {
        self.counts.retries.load(Ordering::Relaxed) < self.allowed()
    }

    fn allowed(&self) -> usize {
        let share = self.share.saturating_mul(self.counts.calls.sum() as u64) / 1000;
        self.min.max(usize::try_from(share).unwrap_or(usize::MAX))
    }

    pub(super) fn withdraw(&self) -> Option<UnderWay> {
        let allowed = self.allowed();
        let more = |retries: usize| (retries < allowed).then(|| retries + 1);
        let relaxed = Ordering::Relaxed;
        self.counts
            .retries
            .fetch_update(relaxed, relaxed, more)
            .ok()?;
        Some(UnderWay {
            counts: self.counts.hold(),
            retry: true,
        })
    }
}
