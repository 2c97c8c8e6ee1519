use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::{Reason, Refused};

/// Parts of a nanosecond in a tick: fine enough that 10^6 calls at 10^5 a second are counted to
/// within a token, coarse enough that a u64 lasts for nine years.
const TICKS_PER_NANO: f64 = 64.0;

/// A token bucket, shared by all who draw from it.
///
/// It is kept as one number, the time at which the bucket is full again (the *theoretical arrival
/// time* of the generic cell rate algorithm, ATM Forum TM 4.0), so that taking a token is one
/// compare-and-swap.
///
/// ```
/// use std::time::Duration;
/// use tower_plugins_layers::RateLimiter;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let limiter = RateLimiter::new(10.0, 2);
/// let now = tokio::time::Instant::now();
/// assert!(limiter.try_take(now).is_ok());
/// assert!(limiter.try_take(now).is_ok());
/// assert_eq!(limiter.try_take(now), Err(Duration::from_millis(100)));
/// # });
/// ```
#[derive(Debug)]
pub struct RateLimiter {
    origin: Instant,
    /// When the bucket is full again, in ticks since `origin`.
    full_at: AtomicU64,
    /// Ticks that one token takes to come back.
    interval: u64,
    burst: u32,
}

impl RateLimiter {
    /// A full bucket of `burst` tokens that gains `per_second` of them.
    ///
    /// `per_second` is taken to lie between one token in three years and 10^9; `burst` is at least 1.
    #[must_use]
    pub fn new(per_second: f64, burst: u32) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to a range that fits"
        )]
        let interval = (1e9 * TICKS_PER_NANO / per_second)
            .round()
            .clamp(1.0, 6.4e18) as u64;
        Self {
            origin: Instant::now(),
            full_at: AtomicU64::new(0),
            interval,
            burst: burst.max(1),
        }
    }

    /// A bucket with new settings, filled to the same proportion as `self` is now.
    #[must_use]
    pub fn resized(&self, per_second: f64, burst: u32) -> Self {
        let new = Self::new(per_second, burst);
        let empty = self
            .full_at
            .load(Ordering::Relaxed)
            .saturating_sub(self.ticks(Instant::now()));
        let share =
            u128::from(new.capacity()) * u128::from(empty) / u128::from(self.capacity().max(1));
        new.full_at
            .store(u64::try_from(share).unwrap_or(u64::MAX), Ordering::Relaxed);
        new
    }

    const fn capacity(&self) -> u64 {
        self.interval.saturating_mul(self.burst as u64)
    }

    fn ticks(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.origin).as_nanos();
        u64::try_from(nanos * TICKS_PER_NANO as u128).unwrap_or(u64::MAX)
    }

    /// Takes a token.
    ///
    /// # Errors
    /// The time after which there is one, if there is none at `now`.
    pub fn try_take(&self, now: Instant) -> Result<(), Duration> {
        self.take_within(now, Duration::ZERO).map(|_| ())
    }

    /// Takes a token that is there `max_wait` after `now` at the latest, and says how long to wait
    /// for it.
    fn take_within(&self, now: Instant, max_wait: Duration) -> Result<Duration, Duration> {
        let now = self.ticks(now);
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let next = full_at.max(now).saturating_add(self.interval);
            let wait = next.saturating_sub(now).saturating_sub(self.capacity());
            #[expect(clippy::cast_possible_truncation, reason = "64")]
            // Rounded up: a nanosecond early is a token too many.
            let wait = Duration::from_nanos(wait.div_ceil(TICKS_PER_NANO as u64));
            if wait > max_wait {
                return Err(wait);
            }
            match self.full_at.compare_exchange_weak(
                full_at,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(wait),
                Err(current) => full_at = current,
            }
        }
    }

    /// Gives a token back that was taken and not used.
    fn give_back(&self) {
        let _ = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                Some(full_at.saturating_sub(self.interval))
            });
    }

    /// Takes a token, or says how to wait for one.
    pub(super) fn admit(
        self: &Arc<Self>,
        now: Instant,
        max_wait: Duration,
    ) -> crate::gate::Admission<()> {
        use crate::gate::Admission;
        match self.take_within(now, max_wait) {
            Ok(Duration::ZERO) => Admission::Granted(()),
            Ok(wait) => Admission::Wait(Box::pin(Arc::clone(self).wait(now + wait))),
            Err(wait) => Admission::Refused(Refused::new(Reason::RateLimited).retry_after(wait)),
        }
    }

    /// Waits for a token that is taken already; a caller that goes away gives it back.
    fn wait(self: Arc<Self>, until: Instant) -> impl Future<Output = Result<(), Refused>> + Send {
        struct Taken(Option<Arc<RateLimiter>>);
        impl Drop for Taken {
            fn drop(&mut self) {
                if let Some(limiter) = &self.0 {
                    limiter.give_back();
                }
            }
        }
        let taken = Taken(Some(self));
        async move {
            let mut taken = taken;
            sleep_until(until).await;
            taken.0 = None;
            Ok(())
        }
    }
}
