use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::window::Sums;

/// The most calls that a window of calls can hold, a byte each.
pub(super) const MOST: u32 = 1 << 16;

const PRESENT: u8 = 1;
const FAILED: u8 = 2;
const SLOW: u8 = 4;

/// The last calls, whenever they ended: a ring of their outcomes and the totals of what is in it.
///
/// Recording takes the next place, swaps the outcome in it and adds the difference to the totals, so that
/// these are those of the ring whenever nobody is in between.
#[derive(Debug)]
pub(super) struct CountWindow {
    ring: Box<[AtomicU8]>,
    next: AtomicUsize,
    /// calls:21 | failed:21 | slow:22
    totals: AtomicU64,
}

fn share(outcome: u8) -> u64 {
    let bit = |flag: u8| u64::from(outcome & flag != 0);
    bit(PRESENT) | bit(FAILED) << 21 | bit(SLOW) << 42
}

impl CountWindow {
    pub(super) fn new(calls: u32) -> Self {
        Self {
            ring: (0..calls.clamp(1, MOST))
                .map(|_| AtomicU8::new(0))
                .collect(),
            next: AtomicUsize::new(0),
            totals: AtomicU64::new(0),
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.ring.len()
    }

    pub(super) fn copy(&self) -> Self {
        let copy = Self::new(u32::try_from(self.len()).unwrap_or(MOST));
        copy.next.store(self.next.load(Relaxed), Relaxed);
        for (new, old) in copy.ring.iter().zip(&self.ring) {
            copy.put(new, old.load(Relaxed));
        }
        copy
    }

    pub(super) fn record(&self, failed: bool, slow: bool) {
        let next = self.next.fetch_add(1, Relaxed);
        let outcome = PRESENT | if failed { FAILED } else { 0 } | if slow { SLOW } else { 0 };
        self.put(&self.ring[next % self.ring.len()], outcome);
    }

    pub(super) fn clear(&self) {
        for place in &self.ring {
            self.put(place, 0);
        }
    }

    fn put(&self, place: &AtomicU8, outcome: u8) {
        let old = place.swap(outcome, Relaxed);
        if old != outcome {
            self.totals
                .fetch_add(share(outcome).wrapping_sub(share(old)), Relaxed);
        }
    }

    pub(super) fn sums(&self) -> Sums {
        let totals = self.totals.load(Relaxed);
        Sums {
            calls: totals & 0x1F_FFFF,
            failed: totals >> 21 & 0x1F_FFFF,
            slow: totals >> 42,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn it_holds_the_last_calls_and_their_sums() {
        for length in [1, 2, 7, 100] {
            let window = CountWindow::new(length);
            let mut model = VecDeque::new();
            for n in 0..500_u32 {
                let outcome = (n % 3 == 0, n % 5 == 0);
                window.record(outcome.0, outcome.1);
                model.push_back(outcome);
                if model.len() > length as usize {
                    model.pop_front();
                }
                let count = |of: fn(&(bool, bool)) -> bool| {
                    model.iter().filter(|outcome| of(outcome)).count() as u64
                };
                let expected = Sums {
                    calls: model.len() as u64,
                    failed: count(|outcome| outcome.0),
                    slow: count(|outcome| outcome.1),
                };
                assert_eq!(window.sums(), expected);
                assert_eq!(window.copy().sums(), expected);
            }
            window.clear();
            assert_eq!(window.sums(), Sums::default());
        }
    }

    #[test]
    fn threads_that_race_leave_the_sums_of_the_ring() {
        let window = CountWindow::new(64);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let window = &window;
                scope.spawn(move || {
                    for n in 0..20_000 {
                        window.record((n + thread) % 2 == 0, n % 3 == 0);
                        if n % 1000 == 0 {
                            window.clear();
                        }
                    }
                });
            }
        });
        let counted = window.sums();
        let ring: u64 = window
            .ring
            .iter()
            .map(|place| share(place.load(Relaxed)))
            .sum();
        assert_eq!(window.totals.load(Relaxed), ring);
        assert!(counted.calls <= 64);
    }
}
