use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::sharded::ShardedCount;

/// Slots of a second each, the current one among them.
const SLOTS: u64 = 10;

/// What keeps retries from multiplying the load on a service that fails: over the last ten seconds
/// there may be `ratio` retries for each call, and `min_per_second` more of them a second, so that
/// a quiet service can retry too.
///
/// This is the budget of Finagle and Linkerd. It is a handle: clones share one history, and so do
/// budgets made with [`with_limits`](Self::with_limits). Every operation takes constant time;
/// [`deposit`](Self::deposit), which each call pays, adds to its thread's part of a sharded count.
///
/// ```
/// use tokio::time::Instant;
/// use tower_plugins_layers::retry::Budget;
///
/// let budget = Budget::new(0.5, 0);
/// let now = Instant::now();
/// budget.deposit(now);
/// assert!(!budget.withdraw(now));
/// budget.deposit(now);
/// assert!(budget.withdraw(now));
/// assert!(!budget.withdraw(now));
/// ```
#[derive(Clone, Debug)]
pub struct Budget {
    /// In thousandths.
    ratio: u64,
    reserve: u64,
    history: Arc<History>,
}

impl Budget {
    /// `ratio` retries for each call (in thousandths; at most 1000, and 0 for what is no number),
    /// and `min_per_second` retries a second whatever the calls.
    #[must_use]
    pub fn new(ratio: f64, min_per_second: u32) -> Self {
        let history = History {
            epoch: Instant::now(),
            calls: ShardedCount::new(),
            slot: AtomicU64::new(0),
            window: Mutex::default(),
        };
        Self::of(Arc::new(history), ratio, min_per_second)
    }

    /// A budget with other limits and the same history: what was spent stays spent.
    #[must_use]
    pub fn with_limits(&self, ratio: f64, min_per_second: u32) -> Self {
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

    /// Counts a call.
    pub fn deposit(&self, now: Instant) {
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

    /// Takes one retry out of the budget, if there is one.
    #[must_use = "without it there must be no retry"]
    pub fn withdraw(&self, now: Instant) -> bool {
        let mut window = self.history.window_at(now);
        let (calls, retries) = window.sums();
        let allowed = self.ratio.saturating_mul(calls) / 1000 + self.reserve;
        let allow = retries < allowed;
        if allow {
            window.current().retries += 1;
        }
        allow
    }

    /// Puts back a retry that was taken and not made.
    pub(crate) fn give_back(&self, now: Instant) {
        let mut window = self.history.window_at(now);
        let current = window.current();
        current.retries = current.retries.saturating_sub(1);
    }
}

impl Default for Budget {
    /// One retry for five calls, and ten a second.
    fn default() -> Self {
        Self::new(0.2, 10)
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
