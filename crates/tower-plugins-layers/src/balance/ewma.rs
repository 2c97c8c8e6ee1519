use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use tokio::time::Instant;

/// What is known of an endpoint's load: calls under way, and a peak EWMA of the time they take.
///
/// A call that took longer than the estimate becomes the estimate; a shorter one draws it down by a
/// weight that grows with the time since the last. Between calls the estimate decays, so that a slow
/// endpoint is asked again. (Finagle's peak EWMA.) An endpoint that was never called gets a first call at once, and what
/// that took takes the place of what was guessed.
///
/// After a failure a call is thought to wait for 5 seconds from then, or for as long as the endpoint asks to be left
/// alone, up to 300 seconds: an endpoint that fails fast would attract calls otherwise. It is over with that time, or
/// with the success of a call that began after the failure, and the estimate is what it was before: it does not decay
/// meanwhile.
#[derive(Debug)]
pub struct EndpointLoad {
    /// Each call under way has a clone, and nobody else: the count of these is that of the calls.
    estimate: Arc<CachePadded<Estimate>>,
}

impl EndpointLoad {
    /// An endpoint that was never called and is taken to need `rtt`; its estimate loses two thirds in
    /// `decay` (a factor of e). By default these are 30 ms and 10 s.
    #[must_use]
    pub fn new(rtt: Duration, decay: Duration) -> Self {
        Self::of(Estimate {
            seconds: rtt.as_secs_f64().to_bits().into(),
            at: 0.into(),
            failed: 0.into(),
            shunned: 0.into(),
            back: 0.into(),
            epoch: Instant::now(),
            decay: decay.as_secs_f64().max(1e-9),
        })
    }

    fn of(estimate: Estimate) -> Self {
        Self {
            estimate: Arc::new(CachePadded::new(estimate)),
        }
    }

    /// Another load that begins with this one's estimate, and no calls.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self::of(self.estimate.copy())
    }

    /// Calls under way: those whose response body has not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        Arc::strong_count(&self.estimate).saturating_sub(1)
    }

    /// How long a call is thought to take.
    #[must_use]
    pub fn rtt(&self, now: Instant) -> Duration {
        Duration::try_from_secs_f64(self.estimate.at(now)).unwrap_or(Duration::MAX)
    }

    /// How long a call would wait, in seconds, if those under way went before it.
    #[must_use]
    pub fn load(&self, now: Instant) -> f64 {
        self.weighted_load(now, 1.0)
    }

    /// The same for an endpoint that takes `weight` calls at once as others take one.
    pub(super) fn weighted_load(&self, now: Instant, weight: f64) -> f64 {
        let in_flight = self.in_flight();
        if in_flight == 0 && self.estimate.is_guess() {
            return 0.0;
        }
        // Never nothing, or the calls under way would not count.
        self.estimate.at(now).max(1e-9) * (in_flight as f64 / weight + 1.0)
    }

    /// Whether it was left alone for a failure, and has been back for less time than it takes to forget what was
    /// measured meanwhile of others.
    pub(super) fn is_back(&self, now: Instant) -> bool {
        self.estimate.is_back(now)
    }

    /// A call is under way as long as what this returns is kept.
    pub(super) fn begin(&self) -> Arc<CachePadded<Estimate>> {
        Arc::clone(&self.estimate)
    }
}

impl Default for EndpointLoad {
    fn default() -> Self {
        Self::new(Duration::from_millis(30), Duration::from_secs(10))
    }
}

/// A peak EWMA. Updates that are lost between its two halves do no harm.
#[derive(Debug)]
pub(super) struct Estimate {
    /// An `f64`.
    seconds: AtomicU64,
    /// From when on that decays, in nanoseconds since the epoch; 0 of what is a guess.
    at: AtomicU64,
    /// When it failed last, and until when it is left alone for it: in nanoseconds since the epoch.
    failed: AtomicU64,
    shunned: AtomicU64,
    /// When a success ended that; 0 if none has.
    back: AtomicU64,
    epoch: Instant,
    decay: f64,
}

impl Estimate {
    fn copy(&self) -> Self {
        Self {
            seconds: self.seconds.load(Relaxed).into(),
            at: self.at.load(Relaxed).into(),
            failed: self.failed.load(Relaxed).into(),
            shunned: self.shunned.load(Relaxed).into(),
            back: self.back.load(Relaxed).into(),
            ..*self
        }
    }

    /// Seconds, as far as they have not decayed.
    fn at(&self, now: Instant) -> f64 {
        let now = self.nanos(now);
        let took = self.seconds() * self.weight(now);
        match self.shunned.load(Relaxed).checked_sub(now) {
            Some(left) if left > 0 => took.max(Duration::from_nanos(left).as_secs_f64()),
            _ => took,
        }
    }

    fn is_back(&self, now: Instant) -> bool {
        let back = self.back.load(Relaxed);
        let since = Duration::from_nanos(self.nanos(now).saturating_sub(back));
        back > 0 && since.as_secs_f64() < self.decay
    }

    /// Whether no call has told yet.
    fn is_guess(&self) -> bool {
        self.at.load(Relaxed) == 0 && self.shunned.load(Relaxed) == 0
    }

    fn seconds(&self) -> f64 {
        f64::from_bits(self.seconds.load(Relaxed))
    }

    /// The weight at `now` of what is known.
    fn weight(&self, now: u64) -> f64 {
        let age = now.saturating_sub(self.at.load(Relaxed));
        (-Duration::from_nanos(age).as_secs_f64() / self.decay).exp()
    }

    /// A call that ended `now`, and well, took `time`.
    pub(super) fn took(&self, time: Duration, now: Instant) {
        let begun = self
            .nanos(now)
            .saturating_sub(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        if self.shunned.load(Relaxed) > 0 && begun >= self.failed.load(Relaxed) {
            self.shunned.store(0, Relaxed);
            self.back.store(self.nanos(now), Relaxed);
        }
        let (time, old) = (time.as_secs_f64(), self.seconds());
        let next = if time > old || self.is_guess() {
            time
        } else {
            let weight = self.weight(self.nanos(now));
            old * weight + time * (1.0 - weight)
        };
        self.set(next, now);
    }

    /// A call that ended `now` failed: a call would wait for `time`.
    ///
    /// What was known is kept for that time as it is: that nobody calls makes an endpoint no faster, and one that came
    /// back with less than the others' peaks would draw most of the calls.
    pub(super) fn failed(&self, time: Duration, now: Instant) {
        let now = self.nanos(now);
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let until = now.saturating_add(time);
        self.failed.store(now, Relaxed);
        self.shunned.fetch_max(until, Relaxed);
        if self.at.load(Relaxed) > 0 {
            let left = self.seconds() * self.weight(now);
            self.seconds.store(left.to_bits(), Relaxed);
            self.at.fetch_max(until, Relaxed);
        }
    }

    /// A call that was given up `now` would have taken more than `time`. That is no news if it was
    /// thought to.
    pub(super) fn took_more_than(&self, time: Duration, now: Instant) {
        let time = time.as_secs_f64();
        if time > self.at(now) {
            self.set(time, now);
        }
    }

    fn set(&self, seconds: f64, now: Instant) {
        self.seconds.store(seconds.to_bits(), Relaxed);
        let from = self.nanos(now).max(self.shunned.load(Relaxed));
        self.at.store(from.max(1), Relaxed);
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }
}
