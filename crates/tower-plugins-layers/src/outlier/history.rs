use std::sync::atomic::{
    AtomicU8, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use tokio::time::Instant;

use crate::Reason;

/// In the set.
const IN: u64 = 0;
/// Out until somebody says otherwise.
const FOR_GOOD: u64 = u64::MAX;

/// What is remembered of one endpoint. What each call changes is in atomics; the rest is changed under
/// the detector's lock.
#[derive(Debug)]
pub(super) struct History {
    epoch: Instant,
    /// Calls since the last sweep: all in the upper half, those that failed in the lower.
    tally: CachePadded<AtomicU64>,
    /// Failures since the last success.
    in_a_row: CachePadded<AtomicU32>,
    /// The end of the ejection in nanoseconds since the epoch, [`IN`] or [`FOR_GOOD`].
    until: AtomicU64,
    /// Why, as its index in [`Reason::ALL`].
    reason: AtomicU8,
    /// The factor of the last ejection's length, less one for each healthy interval since.
    times: AtomicU32,
    /// When the last ejection ended, in nanoseconds since the epoch.
    back: AtomicU64,
}

/// The calls of an endpoint in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) calls: u32,
    pub(super) failures: u32,
}

impl Tally {
    const fn of(word: u64) -> Self {
        Self {
            calls: (word >> 32) as u32,
            failures: (word & 0xFFFF_FFFF) as u32,
        }
    }

    pub(super) fn success_rate(self) -> f64 {
        let succeeded = self.calls.saturating_sub(self.failures);
        f64::from(succeeded) / f64::from(self.calls.max(1))
    }
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            tally: CachePadded::new(AtomicU64::new(0)),
            in_a_row: CachePadded::new(AtomicU32::new(0)),
            until: AtomicU64::new(IN),
            reason: AtomicU8::new(0),
            times: AtomicU32::new(0),
            back: AtomicU64::new(0),
        }
    }

    pub(super) fn succeeded(&self) {
        self.tally.fetch_add(1 << 32, Relaxed);
        // Looked at first: a line that is only read is shared by all cores.
        if self.in_a_row.load(Relaxed) != 0 {
            self.in_a_row.store(0, Relaxed);
        }
    }

    /// Says how many calls in a row have failed.
    pub(super) fn failed(&self) -> u32 {
        self.tally.fetch_add((1 << 32) | 1, Relaxed);
        self.in_a_row.fetch_add(1, Relaxed).saturating_add(1)
    }

    pub(super) fn in_a_row(&self) -> u32 {
        self.in_a_row.load(Relaxed)
    }

    pub(super) fn forget_row(&self) {
        self.in_a_row.store(0, Relaxed);
    }

    /// The calls since the last sweep.
    pub(super) fn tally(&self) -> Tally {
        Tally::of(self.tally.load(Relaxed))
    }

    /// The same, counted anew from here on.
    pub(super) fn take_tally(&self) -> Tally {
        Tally::of(self.tally.swap(0, Relaxed))
    }

    pub(super) fn times(&self) -> u32 {
        self.times.load(Relaxed)
    }

    /// Whether it is out at `now`.
    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        match self.until.load(Acquire) {
            IN => false,
            FOR_GOOD => true,
            until => self.nanos(now) < until,
        }
    }

    /// Whether nobody has put it back yet, be its time over or not.
    pub(super) fn is_marked(&self) -> bool {
        self.until.load(Acquire) != IN
    }

    pub(super) fn is_forced(&self) -> bool {
        self.until.load(Acquire) == FOR_GOOD
    }

    /// When its ejection ends, if it is out and that is known.
    pub(super) fn until(&self) -> Option<Instant> {
        match self.until.load(Acquire) {
            IN | FOR_GOOD => None,
            until => self.epoch.checked_add(Duration::from_nanos(until)),
        }
    }

    pub(super) fn reason(&self) -> Reason {
        let index = usize::from(self.reason.load(Relaxed));
        Reason::ALL.get(index).copied().unwrap_or(Reason::Forced)
    }

    /// Takes it out until then; `None` is for good.
    pub(super) fn eject(&self, until: Option<Instant>, reason: Reason) {
        let until = until.map_or(FOR_GOOD, |at| self.nanos(at).clamp(IN + 1, FOR_GOOD - 1));
        if reason != Reason::Forced {
            self.times.store(self.times().saturating_add(1), Relaxed);
        }
        self.reason.store(reason as u8, Relaxed);
        self.until.store(until, Release);
    }

    /// Puts it back with a clean sheet, if it is out and `now` is past its time, or at all events.
    pub(super) fn restore(&self, now: Instant, early: bool) -> bool {
        let until = self.until.load(Acquire);
        let is_over = until != FOR_GOOD && until <= self.nanos(now);
        if until == IN || !(early || is_over) {
            return false;
        }
        self.take_tally();
        self.forget_row();
        self.back.store(self.nanos(now).min(until), Relaxed);
        // Another detector of the same endpoint may be doing this too: one of them says so.
        self.until
            .compare_exchange(until, IN, AcqRel, Relaxed)
            .is_ok()
    }

    /// A healthy time from `since` to `now`, which counts from the last ejection at the earliest:
    /// whole intervals make the next ejection shorter.
    pub(super) fn healthy(&self, since: Instant, now: Instant, interval: Duration) {
        let times = self.times();
        if times == 0 {
            return;
        }
        let since = self.nanos(since).max(self.back.load(Relaxed));
        let healthy = Duration::from_nanos(self.nanos(now).saturating_sub(since));
        let intervals = healthy.as_nanos() / interval.as_nanos().max(1);
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
        self.times.store(times.saturating_sub(intervals), Relaxed);
    }

    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}
