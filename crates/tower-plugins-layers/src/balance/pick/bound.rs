use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::super::Member;
use super::health::Stamp;
use super::view::View;

/// How many calls an endpoint may have beside the others. (Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing
/// with Bounded Loads", 2016.)
///
/// The sum over all endpoints is known from time to time, and taken anew before one is passed over.
#[derive(Debug)]
pub(super) struct Bound {
    factor: f64,
    weights: Box<[u32]>,
    stamp: Stamp,
    calls: AtomicUsize,
    /// An `f64`: the weights of those that are usable.
    weight: AtomicU64,
}

impl Bound {
    pub(super) fn new(factor: f64, weights: &[u32]) -> Self {
        Self {
            factor,
            weights: weights.into(),
            stamp: Stamp::new(),
            calls: AtomicUsize::new(0),
            weight: AtomicU64::new(1.0_f64.to_bits()),
        }
    }

    pub(super) fn room<'a, S: Member>(&'a self, view: &'a View<'a, S>) -> Room<'a, S> {
        let mut room = Room {
            bound: self,
            view,
            calls: self.calls.load(Relaxed),
            weight: f64::from_bits(self.weight.load(Relaxed)),
            fresh: false,
        };
        if self.stamp.is_over(view.now) {
            room.look();
        }
        room
    }
}

/// A bound, for one call.
pub(super) struct Room<'a, S> {
    bound: &'a Bound,
    view: &'a View<'a, S>,
    calls: usize,
    weight: f64,
    fresh: bool,
}

impl<S: Member> Room<'_, S> {
    fn look(&mut self) {
        let view = self.view;
        (self.calls, self.weight) = (0, 0.0);
        for i in 0..view.len() {
            self.calls += view.member(i).in_flight();
            if view.is_usable(i, view.now) {
                self.weight += f64::from(self.bound.weights[i]);
            }
        }
        self.fresh = true;
        self.bound.calls.store(self.calls, Relaxed);
        self.bound.weight.store(self.weight.to_bits(), Relaxed);
    }

    /// Whether an endpoint has room for this call, as far as is known.
    pub(super) fn takes_now(&self, i: usize) -> bool {
        let share = f64::from(self.bound.weights[i]) / self.weight.max(1.0);
        let most = (self.bound.factor * share * (self.calls + 1) as f64).ceil();
        ((self.view.member(i).in_flight() + 1) as f64) <= most
    }

    /// Whether an endpoint has room for this call.
    pub(super) fn takes(&mut self, i: usize) -> bool {
        if self.takes_now(i) {
            return true;
        }
        if self.fresh {
            return false;
        }
        self.look();
        self.takes_now(i)
    }
}
