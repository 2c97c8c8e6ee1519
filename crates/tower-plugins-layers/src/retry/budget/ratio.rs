//! Retries as a share of the calls of the last ten seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::sharded::ShardedCount;

/// Slots of a second each, the current one among them.
const SLOTS: u64 = 10;

#[derive(Clone, Debug)]
pub(super) struct Ratio {
    /// In thousandths.
    ratio: u64,
    reserve: u64,
    history: Arc<History>,
}

impl Ratio {
    pub(super) fn new(ratio: f64, min_per_second: u32) -> Self {
        let history = History {
            epoch: Instant::now(),
            calls: ShardedCount::new(),
            slot: AtomicU64::new(0),
            window: Mutex::default(),
        };
        Self::of(Arc::new(history), ratio, min_per_second)
    }

    /// Other limits, the same history.
    pub(super) fn with_limits(&self, ratio: f64, min_per_second: u32) -> Self {
        Self::of(Arc::clone(&self.history), ratio, min_per_second)
    }

    fn of(history: Arc<History>, ratio: f64, min_per_second: u32) -> Self {
        Self {
            // NaN becomes 0.
            ratio: (ratio.clamp(0.0, 1000.0) * 1000.0).round() as u64,
            reserve: u64::from(min_per_second) * SLOTS,
            history,
        }
    }

    pub(super) fn deposit(&self, now: Instant) {
        let history = &*self.history;
        let slot = history.slot_at(now);
        // Once a second the first call closes the slot. If another does so just now, this call may
        // count in either.
        if slot > history.slot.load(Ordering::Relaxed)
            && let Ok(mut window) = history.window.try_lock()
        {
            history.advance(&mut window, slot);
        }
        history.calls.add(1);
    }

    pub(super) fn withdraw(&self, now: Instant) -> bool {
        let mut window = self.history.window_at(now);
        let (calls, retries) = window.sums();
        let allow = retries < self.allowed(calls);
        if allow {
            window.current().retries += 1;
        }
        allow
    }

    /// Whether there is a retry to take.
    pub(super) fn allows(&self, now: Instant) -> bool {
        let (calls, retries) = self.history.window_at(now).sums();
        retries < self.allowed(calls)
    }

    const fn allowed(&self, calls: u64) -> u64 {
        (self.ratio.saturating_mul(calls) / 1000).saturating_add(self.reserve)
    }

    /// Puts back a retry that was taken and not made, which may have been some seconds ago.
    pub(super) fn give_back(&self, now: Instant) {
        let mut window = self.history.window_at(now);
        let last = window.slot;
        let slots = (0..SLOTS.min(last + 1)).map(|ago| last - ago);
        for slot in slots {
            let slot = window.at(slot);
            if slot.retries > 0 {
                slot.retries -= 1;
                return;
            }
        }
    }
}

#[derive(Debug)]
struct History {
    epoch: Instant,
    /// Every call there ever was. The window learns of them when it is looked at.
    calls: ShardedCount,
    /// The window's slot, to be seen without its lock.
    slot: AtomicU64,
    window: Mutex<Window>,
}

impl History {
    fn slot_at(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs()
    }

    fn window_at(&self, now: Instant) -> MutexGuard<'_, Window> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        self.advance(&mut window, self.slot_at(now));
        window
    }

    fn advance(&self, window: &mut Window, slot: u64) {
        window.advance(slot, self.calls.sum());
        self.slot.store(window.slot, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Window {
    slot: u64,
    /// The calls there were when it was last looked at.
    seen: usize,
    slots: [Slot; SLOTS as usize],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    calls: u64,
    retries: u64,
}

impl Window {
    fn at(&mut self, slot: u64) -> &mut Slot {
        &mut self.slots[(slot % SLOTS) as usize]
    }

    fn current(&mut self) -> &mut Slot {
        self.at(self.slot)
    }

    /// Books the calls that are new to the slot they were made in, and moves on.
    fn advance(&mut self, to: u64, calls: usize) {
        self.current().calls += calls.wrapping_sub(self.seen) as u64;
        self.seen = calls;
        let passed = to.saturating_sub(self.slot);
        for n in 1..=passed.min(SLOTS) {
            *self.at(self.slot + n) = Slot::default();
        }
        self.slot += passed;
    }

    fn sums(&self) -> (u64, u64) {
        self.slots.iter().fold((0, 0), |(calls, retries), slot| {
            (calls + slot.calls, retries + slot.retries)
        })
    }
}
