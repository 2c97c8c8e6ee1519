use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

use crate::gate::Admission;
use crate::{Reason, Refused};

/// Parts of a nanosecond in a tick: fine enough that 10^6 calls at 10^5 a second are counted to
/// within a token, coarse enough that a u64 lasts for nine years.
const TICKS_PER_NANO: f64 = 64.0;

/// Tokens a second: one in three years.
const SLOWEST: f64 = 1e-8;

/// Half of what a u64 holds, so that a bucket that is empty still has years of clock ahead.
const MAX_CAPACITY: u64 = u64::MAX / 2;

/// A token bucket, shared by all who draw from it.
///
/// It is kept as one number, the time at which the bucket is full again (the *theoretical arrival
/// time* of the generic cell rate algorithm, ATM Forum TM 4.0), so that taking a token is one
/// compare-and-swap.
///
/// Those who may wait stand in line, and only the first of them watches the clock. A token is taken
/// when a turn comes and not before, so that one who leaves the line has nothing to give back and
/// those behind move up.
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
    waiting: AtomicUsize,
    /// Whose turn it is: one permit, which goes round first come, first served.
    turn: Semaphore,
}

impl RateLimiter {
    /// A full bucket of `burst` tokens that gains `per_second` of them.
    ///
    /// `per_second` is taken to lie between one token in three years, which anything that is no
    /// positive number counts as, and 10^9. `burst` is at least 1, and at most what comes back in
    /// four years.
    #[must_use]
    pub fn new(per_second: f64, burst: u32) -> Self {
        // What is no number is no rate: `clamp` would let a NaN through.
        let per_second = if per_second.is_nan() {
            SLOWEST
        } else {
            per_second
        };
        let interval = (1e9 * TICKS_PER_NANO / per_second.clamp(SLOWEST, 1e9)).round() as u64;
        let most = u32::try_from(MAX_CAPACITY / interval).unwrap_or(u32::MAX);
        Self {
            origin: Instant::now(),
            full_at: AtomicU64::new(0),
            interval,
            burst: burst.clamp(1, most),
            waiting: AtomicUsize::new(0),
            turn: Semaphore::new(1),
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
        let share = u128::from(new.capacity()) * u128::from(empty) / u128::from(self.capacity());
        new.full_at
            .store(u64::try_from(share).unwrap_or(u64::MAX), Ordering::Relaxed);
        new
    }

    const fn capacity(&self) -> u64 {
        self.interval * self.burst as u64
    }

    fn ticks(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.origin).as_nanos();
        u64::try_from(nanos * TICKS_PER_NANO as u128).unwrap_or(u64::MAX)
    }

    /// Takes a token that is not for those who wait.
    ///
    /// # Errors
    /// The time after which there is one, if there is none at `now`.
    pub fn try_take(&self, now: Instant) -> Result<(), Duration> {
        self.take_by(now, Duration::ZERO, self.waiting.load(Ordering::Relaxed))
    }

    /// Takes a token as of `since`, if with `ahead` more gone it is there when `elapsed` has gone by
    /// since then.
    fn take_by(&self, since: Instant, elapsed: Duration, ahead: usize) -> Result<(), Duration> {
        let since = self.ticks(since);
        let ahead = self.interval.saturating_mul(ahead as u64);
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let next = full_at.max(since).saturating_add(self.interval);
            let wait = next.saturating_add(ahead).saturating_sub(since);
            #[expect(clippy::cast_possible_truncation, reason = "64")]
            // Rounded up: a nanosecond early is a token too many.
            let wait = Duration::from_nanos(
                wait.saturating_sub(self.capacity())
                    .div_ceil(TICKS_PER_NANO as u64),
            );
            if wait > elapsed {
                return Err(wait);
            }
            match self.full_at.compare_exchange_weak(
                full_at,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(current) => full_at = current,
            }
        }
    }

    /// Takes a token, or says how to wait for one.
    pub(super) fn admit(self: &Arc<Self>, now: Instant, max_wait: Duration) -> Admission<()> {
        loop {
            let ahead = self.waiting.load(Ordering::Relaxed);
            let Err(wait) = self.take_by(now, Duration::ZERO, ahead) else {
                return Admission::Granted(());
            };
            if wait > max_wait {
                let refused = Refused::new(Reason::RateLimited).retry_after(wait);
                return Admission::Refused(refused);
            }
            // Only when the line is as long as it was when the wait was worked out.
            if self
                .waiting
                .compare_exchange(ahead, ahead + 1, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                let place = Place(Arc::clone(self));
                return Admission::Wait(Box::pin(place.wait(now, max_wait)));
            }
        }
    }
}

/// A place in the line, left when dropped.
struct Place(Arc<RateLimiter>);

impl Place {
    async fn wait(self, since: Instant, max_wait: Duration) -> Result<(), Refused> {
        let limiter = &*self.0;
        // The turn may be with a future that is alive and that nobody polls: after `max_wait` a
        // token that is there is taken without it.
        let _turn = timeout(max_wait, limiter.turn.acquire()).await;
        // As of when this call came: a timer that fires late costs those behind no token.
        while let Err(wait) = limiter.take_by(since, since.elapsed(), 0) {
            if wait > max_wait {
                let left = wait.saturating_sub(since.elapsed());
                return Err(Refused::new(Reason::RateLimited).retry_after(left));
            }
            sleep_until(since + wait).await;
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
