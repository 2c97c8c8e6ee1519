//! Which endpoints an attempt went to, told to whoever made it.
//!
//! A call's context goes inwards only, and a place in it that can be read from outside would be an allocation for
//! each call, of which few are repeated. Calling a service and polling its future take place on one thread: what
//! balancers leave there is found when either returns.

use std::cell::Cell;

/// Balancers that one attempt asks: others are passed over.
const MOST: usize = 3;

thread_local! {
    static LAST: Cell<Picked> = const { Cell::new(Picked::NONE) };
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// The endpoints that an attempt went to, one for each balancer that it asked: one after the other, or one inside the
/// other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Picked {
    /// A balancer, and the endpoint: no endpoint is 0.
    ends: [(usize, u64); MOST],
    /// The last balancer has nobody who would take a retry.
    exhausted: bool,
}

impl Picked {
    pub(crate) const NONE: Self = Self {
        ends: [(0, 0); MOST],
        exhausted: false,
    };

    pub(crate) fn is_none(&self) -> bool {
        self.ends[0].1 == 0
    }

    /// The endpoints.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u64> {
        let ids = self.ends.into_iter().map(|(_, id)| id);
        ids.take_while(|id| *id != 0)
    }

    /// Whether no other attempt would be taken.
    pub(crate) const fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// The endpoint that `balancer` went to in the end, and which it was not known to have gone to.
    fn add(&mut self, balancer: usize, id: u64) -> bool {
        let place = |(by, known): &&mut (usize, u64)| *known == 0 || *by == balancer;
        match self.ends.iter_mut().find(place) {
            Some(place) => std::mem::replace(place, (balancer, id)) != (balancer, id),
            None => false,
        }
    }

    /// Takes in what is known `now`, and gives the endpoints that are new to `new`.
    #[inline]
    pub(crate) fn learn(&mut self, now: &Self, mut new: impl FnMut(u64)) {
        self.exhausted = now.exhausted;
        for (balancer, id) in now.ends {
            if id == 0 {
                return;
            }
            if self.add(balancer, id) {
                new(id);
            }
        }
    }
}

/// What `f` gives, which calls a service or polls its future, and the endpoints that the balancers in it went to:
/// none, if they were not asked on this thread.
#[inline]
pub(crate) fn watched<T>(f: impl FnOnce() -> T) -> (T, Picked) {
    LAST.set(Picked::NONE);
    let made = f();
    (made, LAST.get())
}

/// A call of `balancer` went to the endpoint `id`: to be said last, for an endpoint may have a balancer inside.
#[inline]
pub(crate) fn tell(balancer: usize, id: u64) {
    let mut last = LAST.get();
    last.add(balancer, id);
    last.exhausted = false;
    LAST.set(last);
}

/// What an endpoint was asked has failed, and it has a bound on retries: somebody may want to know whether another
/// endpoint takes one.
pub(crate) fn ask() {
    ASKED.set(true);
}

/// Whether somebody may want to know; not any more.
#[inline]
pub(crate) fn take_asked() -> bool {
    ASKED.replace(false)
}

/// Nobody takes a retry, of those whom the balancer has that was told of last.
pub(crate) fn exhausted() {
    let mut last = LAST.get();
    last.exhausted = true;
    LAST.set(last);
}
