use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use tokio::time::Instant;

/// What is known of an endpoint's load: calls under way, and a peak EWMA of the time they take.
///
/// A call that took longer than the estimate becomes the estimate; a shorter one draws it down by a
/// weight that grows with the time since the last. Between calls the estimate decays, so that a slow
/// endpoint is asked again. (Finagle's peak EWMA.) A failure counts as at least 5 seconds, or
/// as long as the endpoint asks to be left alone, up to 300 seconds: an endpoint that fails fast would
/// attract calls otherwise.
#[derive(Debug)]
pub struct EndpointLoad {
    /// On one cache line, which a call writes when it begins and when it ends. Updates that are lost
    /// between the two halves of the estimate do no harm.
    hot: CachePadded<Hot>,
    epoch: Instant,
    decay: f64,
}

#[derive(Debug)]
struct Hot {
    in_flight: AtomicUsize,
    /// The estimate in seconds, an `f64`, and when it was made, in nanoseconds.
    estimate: AtomicU64,
    at: AtomicU64,
}

impl EndpointLoad {
    /// An endpoint that was never called and is taken to need `rtt`; its estimate loses two thirds in
    /// `decay` (a factor of e). By default these are 30 ms and 10 s.
    #[must_use]
    pub fn new(rtt: Duration, decay: Duration) -> Self {
        Self::with(rtt.as_secs_f64(), 0, Instant::now(), decay.as_secs_f64())
    }

    fn with(estimate: f64, at: u64, epoch: Instant, decay: f64) -> Self {
        Self {
            hot: CachePadded::new(Hot {
                in_flight: AtomicUsize::new(0),
                estimate: estimate.to_bits().into(),
                at: at.into(),
            }),
            epoch,
            decay,
        }
    }

    /// Another load that begins with this one's estimate, and no calls.
    #[must_use]
    pub fn copy(&self) -> Self {
        let (estimate, at) = self.estimate();
        Self::with(estimate, at, self.epoch, self.decay)
    }

    /// Calls under way: those whose response body has not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.hot.in_flight.load(Relaxed)
    }

    /// How long a call is thought to take.
    #[must_use]
    pub fn rtt(&self, now: Instant) -> Duration {
        Duration::try_from_secs_f64(self.decayed(now)).unwrap_or(Duration::MAX)
    }

    /// How long a call would wait, in seconds, if those under way went before it.
    #[must_use]
    pub fn load(&self, now: Instant) -> f64 {
        // Never nothing, or the calls under way would not count.
        self.decayed(now).max(1e-9) * (self.in_flight() as f64 + 1.0)
    }

    pub(super) fn begin(&self) {
        self.hot.in_flight.fetch_add(1, Relaxed);
    }

    pub(super) fn end(&self) {
        self.hot.in_flight.fetch_sub(1, Relaxed);
    }

    fn estimate(&self) -> (f64, u64) {
        let estimate = f64::from_bits(self.hot.estimate.load(Relaxed));
        (estimate, self.hot.at.load(Relaxed))
    }

    fn decayed(&self, now: Instant) -> f64 {
        let (estimate, at) = self.estimate();
        estimate * self.weight(at, self.nanos(now))
    }

    /// The weight of what was known at one time at a later one.
    fn weight(&self, then: u64, now: u64) -> f64 {
        let age = Duration::from_nanos(now.saturating_sub(then)).as_secs_f64();
        (-age / self.decay.max(1e-9)).exp()
    }

    /// A call that ended `now` took `time`.
    pub(super) fn took(&self, time: Duration, now: Instant) {
        let (estimate, at) = self.estimate();
        let (time, now) = (time.as_secs_f64(), self.nanos(now));
        let next = if time > estimate {
            time
        } else {
            let weight = self.weight(at, now);
            estimate * weight + time * (1.0 - weight)
        };
        self.set(next, now);
    }

    /// A call that was given up `now` would have taken more than `time`. That is no news if it was
    /// thought to.
    pub(super) fn took_more_than(&self, time: Duration, now: Instant) {
        let time = time.as_secs_f64();
        if time > self.decayed(now) {
            self.set(time, self.nanos(now));
        }
    }

    fn set(&self, estimate: f64, now: u64) {
        self.hot.estimate.store(estimate.to_bits(), Relaxed);
        self.hot.at.store(now, Relaxed);
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Default for EndpointLoad {
    fn default() -> Self {
        Self::new(Duration::from_millis(30), Duration::from_secs(10))
    }
}
