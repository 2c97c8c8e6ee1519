use std::cell::OnceCell;

use tokio::time::Instant;

use super::super::Member;
use super::super::snapshot::Slot;

/// The endpoints of a level, as one call sees them. Indices are those within the level.
pub(super) struct View<'a, S> {
    pub(super) slots: &'a [Slot<S>],
    pub(super) indices: &'a [u32],
    /// Relative to their mean, if they are not all the same.
    pub(super) weights: Option<&'a [f64]>,
    pub(super) now: Instant,
    /// Endpoints that may not be picked.
    pub(super) tried: &'a [u64],
    /// And others.
    pub(super) avoid: &'a [u64],
    /// Whether the call is an attempt beyond the first.
    pub(super) retry: bool,
    /// Asked only when an ejected endpoint is met.
    pub(super) panics: &'a dyn Fn() -> bool,
    pub(super) panic: OnceCell<bool>,
}

/// What a strategy may do with an endpoint it has come upon.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    No,
    /// It starts slowly: if there is no other.
    Spare,
    Yes,
}

impl<S: Member> View<'_, S> {
    pub(super) const fn len(&self) -> usize {
        self.indices.len()
    }

    pub(super) fn slot(&self, i: usize) -> &Slot<S> {
        &self.slots[self.indices[i] as usize]
    }

    pub(super) fn member(&self, i: usize) -> &S {
        &self.slot(i).core.member
    }

    pub(super) fn is_usable(&self, i: usize, now: Instant) -> bool {
        let core = &self.slot(i).core;
        let out = self.tried.contains(&core.id) || self.avoid.contains(&core.id);
        !out && core.member.is_available(now)
            && (!self.retry || core.member.takes_retry(now))
            && (!core.member.is_ejected(now) || *self.panic.get_or_init(self.panics))
    }

    pub(super) fn ramp(&self, i: usize) -> f64 {
        self.member(i).ramp(self.now)
    }

    /// The weight that counts now; 1 is the mean.
    pub(super) fn weight(&self, i: usize) -> f64 {
        let weight = self.weights.map_or(1.0, |weights| weights[i]);
        // Never nothing: it is divided by.
        (weight * self.ramp(i)).max(1e-9)
    }

    /// One that starts slowly is passed over as often as its weight is away from the whole.
    pub(super) fn verdict(&self, i: usize) -> Verdict {
        if !self.is_usable(i, self.now) {
            return Verdict::No;
        }
        let ramp = self.ramp(i);
        if ramp < 1.0 && fastrand::f64() >= ramp {
            Verdict::Spare
        } else {
            Verdict::Yes
        }
    }

    /// The first usable one from a random one on, by the clock: a call's own time stamp may be old.
    pub(super) fn scan(&self) -> Option<usize> {
        self.scan_from(fastrand::usize(..self.len().max(1)), |_| true)
    }

    pub(super) fn scan_from(&self, start: usize, also: impl Fn(usize) -> bool) -> Option<usize> {
        let now = Instant::now();
        (start..self.len())
            .chain(0..start)
            .find(|&i| also(i) && self.is_usable(i, now))
    }
}
