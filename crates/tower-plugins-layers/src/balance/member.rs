use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::Breaker;
use crate::breaker::BreakerState;

/// What a balancer asks of an endpoint. The questions are asked on every call: they must be cheap.
///
/// Only [`load`](Self::load) and [`is_available`](Self::is_available) have to be answered. A layer that
/// wraps a member hands on what it does not know better.
pub trait Member {
    /// What a call costs here: of two members the one with less is picked. The unit is the same for
    /// all members of a set; [`Load`](super::Load)'s is seconds of waiting.
    fn load(&self, now: Instant) -> f64;

    /// Whether it would take a call at `now`. One that would not is never picked, whatever the others say.
    fn is_available(&self, now: Instant) -> bool;

    /// Whether it would take an attempt beyond a call's first at `now`. It is asked only for such attempts: those go to
    /// members that would, and to none if there is none.
    fn takes_retry(&self, _now: Instant) -> bool {
        true
    }

    /// How long after `now` it may take a call again, if that is known.
    fn retry_after(&self, _now: Instant) -> Option<Duration> {
        None
    }

    /// Whether it was taken out of the set for a time, as an outlier or as unhealthy. It would take calls, and gets
    /// them when too few are left without it.
    fn is_ejected(&self, _now: Instant) -> bool {
        false
    }

    /// The part of its weight that counts at `now`, above 0 and at most 1: less than 1 for one that starts slowly.
    fn ramp(&self, _now: Instant) -> f64 {
        1.0
    }

    /// Whether it was away until lately, so that it has not met what made the others slow meanwhile: it is taken to need
    /// as long as the fastest of them at the least.
    fn is_back(&self, _now: Instant) -> bool {
        false
    }

    /// Calls under way.
    fn in_flight(&self) -> usize {
        0
    }

    /// How long a call is thought to take.
    fn rtt(&self, _now: Instant) -> Duration {
        Duration::ZERO
    }

    /// [`load`](Self::load) for one that takes `weight` times the calls of a member whose weight is 1.
    fn weighted_load(&self, now: Instant, weight: f64) -> f64 {
        self.load(now) / weight
    }
}

impl<S: Member, C> Member for Breaker<S, C> {
    fn load(&self, now: Instant) -> f64 {
        match self.circuit().state() {
            BreakerState::Closed => self.get_ref().load(now),
            BreakerState::Open | BreakerState::HalfOpen => 0.0,
        }
    }

    fn is_available(&self, now: Instant) -> bool {
        self.circuit().is_available(now) && self.get_ref().is_available(now)
    }

    fn takes_retry(&self, now: Instant) -> bool {
        self.get_ref().takes_retry(now)
    }

    fn retry_after(&self, now: Instant) -> Option<Duration> {
        self.circuit()
            .retry_after(now)
            .max(self.get_ref().retry_after(now))
    }

    fn is_ejected(&self, now: Instant) -> bool {
        self.get_ref().is_ejected(now)
    }

    fn ramp(&self, now: Instant) -> f64 {
        self.get_ref().ramp(now)
    }

    /// A probe is a probe.
    fn is_back(&self, now: Instant) -> bool {
        self.circuit().state() == BreakerState::Closed && self.get_ref().is_back(now)
    }

    fn in_flight(&self) -> usize {
        self.get_ref().in_flight()
    }

    fn rtt(&self, now: Instant) -> Duration {
        match self.circuit().state() {
            BreakerState::Closed => self.get_ref().rtt(now),
            BreakerState::Open | BreakerState::HalfOpen => Duration::ZERO,
        }
    }

    fn weighted_load(&self, now: Instant, weight: f64) -> f64 {
        match self.circuit().state() {
            BreakerState::Closed => self.get_ref().weighted_load(now, weight),
            BreakerState::Open | BreakerState::HalfOpen => 0.0,
        }
    }
}

impl<T: Member + ?Sized> Member for Arc<T> {
    fn load(&self, now: Instant) -> f64 {
        (**self).load(now)
    }

    fn is_available(&self, now: Instant) -> bool {
        (**self).is_available(now)
    }

    fn takes_retry(&self, now: Instant) -> bool {
        (**self).takes_retry(now)
    }

    fn retry_after(&self, now: Instant) -> Option<Duration> {
        (**self).retry_after(now)
    }

    fn is_ejected(&self, now: Instant) -> bool {
        (**self).is_ejected(now)
    }

    fn ramp(&self, now: Instant) -> f64 {
        (**self).ramp(now)
    }

    fn is_back(&self, now: Instant) -> bool {
        (**self).is_back(now)
    }

    fn in_flight(&self) -> usize {
        (**self).in_flight()
    }

    fn rtt(&self, now: Instant) -> Duration {
        (**self).rtt(now)
    }

    fn weighted_load(&self, now: Instant, weight: f64) -> f64 {
        (**self).weighted_load(now, weight)
    }
}
