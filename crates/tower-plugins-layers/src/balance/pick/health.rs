use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::super::BalancePolicy;

/// How old what is known of the levels may be: they are counted anew at most so often, whatever the number of calls.
const FRESH: Duration = Duration::from_millis(10);

/// Something that is looked at now and then.
#[derive(Debug)]
pub(super) struct Stamp {
    epoch: Instant,
    /// Nanoseconds from the epoch to when it goes off.
    until: AtomicU64,
}

impl Stamp {
    pub(super) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            until: AtomicU64::new(0),
        }
    }

    /// Whether the caller is the one to look again. The others go on with what there is.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let now = nanos(now.saturating_duration_since(self.epoch));
        let until = self.until.load(Relaxed);
        let next = now.saturating_add(nanos(FRESH));
        now >= until
            && self
                .until
                .compare_exchange(until, next, Relaxed, Relaxed)
                .is_ok()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What part of the calls each level gets, and whether it ignores ejection.
#[derive(Debug)]
pub(super) struct Health {
    stamp: Stamp,
    levels: Box<[State]>,
}

#[derive(Debug)]
struct State {
    /// An `f64`: the share of this level and of all before it.
    share_to: AtomicU64,
    panic: AtomicBool,
}

impl Health {
    pub(super) fn new(levels: usize) -> Self {
        let state = |_| State {
            share_to: AtomicU64::new(1.0_f64.to_bits()),
            panic: AtomicBool::new(false),
        };
        Self {
            stamp: Stamp::new(),
            levels: (0..levels).map(state).collect(),
        }
    }

    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.stamp.is_over(now)
    }

    /// Counts anew: `levels` are the endpoints of each that may be picked, and all of them.
    pub(super) fn set(&self, policy: &BalancePolicy, levels: &[(usize, usize)]) {
        let mut share_to = 0.0;
        for (state, (share, panic)) in self.levels.iter().zip(spill(policy, levels)) {
            share_to += share;
            state.share_to.store(f64::to_bits(share_to), Relaxed);
            state.panic.store(panic, Relaxed);
        }
    }

    pub(super) fn panics(&self, level: usize) -> bool {
        self.levels[level].panic.load(Relaxed)
    }

    /// The level at `part` of all calls, from 0 to 1.
    pub(super) fn level(&self, part: f64) -> usize {
        let mut levels = self.levels.iter();
        levels
            .position(|state| part < f64::from_bits(state.share_to.load(Relaxed)))
            .unwrap_or(0)
    }
}

/// What part of the calls each level gets, and whether it ignores ejection. (Envoy's priority levels, degraded
/// hosts left out, without its rounding to whole percents.)
pub(super) fn spill(policy: &BalancePolicy, levels: &[(usize, usize)]) -> Vec<(f64, bool)> {
    let health = |&(usable, all): &(usize, usize)| {
        let share = usable as f64 / all.max(1) as f64;
        (share * policy.overprovisioning).min(1.0)
    };
    let total: f64 = levels.iter().map(health).sum::<f64>().min(1.0);
    let panics = |&(usable, all): &(usize, usize)| {
        total < 1.0 && (usable as f64) < policy.panic_threshold * all as f64
    };
    if levels.iter().all(panics) {
        let all: usize = levels.iter().map(|level| level.1).sum();
        let share = |level: &(usize, usize)| level.1 as f64 / all.max(1) as f64;
        return levels.iter().map(|level| (share(level), true)).collect();
    }
    let mut left = 1.0_f64;
    let mut take = |level| {
        let share = if total > 0.0 {
            health(level) / total
        } else {
            0.0
        };
        let share = share.min(left);
        left -= share;
        share
    };
    levels
        .iter()
        .map(|level| (take(level), panics(level)))
        .collect()
}
