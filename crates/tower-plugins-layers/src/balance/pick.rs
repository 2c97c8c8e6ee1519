use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crossbeam_utils::CachePadded;
use tokio::time::Instant;

use super::Member;

/// How a balancer picks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BalancePolicy {
    /// The one with less load of two that are drawn at random, by the peak EWMA of
    /// [`Load`](super::Load) as a rule. After Mitzenmacher, "The Power of Two Choices in Randomized
    /// Load Balancing" (2001), and Finagle's P2C.
    #[default]
    PeakEwma,
    /// Each in turn, whatever its load.
    RoundRobin,
}

/// Pairs drawn before all members are looked at.
const DRAWS: usize = 4;

/// Picks members. It looks at few of them as long as most are available.
#[derive(Debug)]
pub(super) struct Picker {
    policy: BalancePolicy,
    next: CachePadded<AtomicUsize>,
}

impl Picker {
    pub(super) const fn new(policy: BalancePolicy) -> Self {
        Self {
            policy,
            next: CachePadded::new(AtomicUsize::new(0)),
        }
    }

    /// The index of an available member that was not `tried`.
    pub(super) fn pick<S: Member>(
        &self,
        members: &[S],
        now: Instant,
        tried: &[usize],
    ) -> Option<usize> {
        let usable = |i: usize, now| !tried.contains(&i) && members[i].is_available(now);
        match self.policy {
            BalancePolicy::PeakEwma => two_choices(members, now, usable),
            BalancePolicy::RoundRobin => self.round_robin(members.len(), now, usable),
        }
    }

    fn round_robin(
        &self,
        len: usize,
        now: Instant,
        usable: impl Fn(usize, Instant) -> bool,
    ) -> Option<usize> {
        // A member that is skipped uses up its turn, or its successor would get it every time.
        (0..len)
            .map(|_| self.next.fetch_add(1, Relaxed) % len)
            .find(|&i| usable(i, now))
            .or_else(|| scan(len, usable))
    }
}

/// The first usable member from a random one on, by the clock: a call's own time stamp may be old.
fn scan(len: usize, usable: impl Fn(usize, Instant) -> bool) -> Option<usize> {
    let start = fastrand::usize(..len.max(1));
    let now = Instant::now();
    (start..len).chain(0..start).find(|&i| usable(i, now))
}

fn two_choices<S: Member>(
    members: &[S],
    now: Instant,
    usable: impl Fn(usize, Instant) -> bool,
) -> Option<usize> {
    let len = members.len();
    let mut found = None;
    let draws = if len > 1 { DRAWS } else { 0 };
    for _ in 0..draws {
        let one = fastrand::usize(..len);
        let other = (one + fastrand::usize(1..len)) % len;
        for i in [one, other] {
            if found == Some(i) || !usable(i, now) {
                continue;
            }
            match found {
                None => found = Some(i),
                Some(first) => return Some(lighter(members, now, first, i)),
            }
        }
    }
    let first = found.or_else(|| scan(len, &usable))?;
    let second = scan(len, |i, now| i != first && usable(i, now));
    Some(second.map_or(first, |second| lighter(members, now, first, second)))
}

fn lighter<S: Member>(members: &[S], now: Instant, one: usize, other: usize) -> usize {
    if members[other].load(now) < members[one].load(now) {
        other
    } else {
        one
    }
}
