use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

use super::Quota;
use crate::gate::Admission;
use crate::{OnEnd, Reason, Refused};

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
/// time* of the generic cell rate algorithm, ATM Forum TM 4.0), so that taking tokens is one
/// compare-and-swap. The two algorithms decide the same of every call; with a burst of 1 it is the strict
/// spacing that the second is known for.
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
/// limiter.set_rate(100.0, 20);
/// assert_eq!(limiter.try_take(now), Err(Duration::from_millis(10)));
/// limiter.reset();
/// assert_eq!(limiter.available(now), 20.0);
/// # });
/// ```
#[derive(Debug)]
pub struct RateLimiter {
    origin: Instant,
    /// When the bucket is full again, in ticks since `origin`.
    full_at: AtomicU64,
    /// Ticks that one token takes to come back.
    interval: AtomicU64,
    burst: AtomicU32,
    /// Tokens that those who wait want.
    waiting: AtomicU64,
    /// Whose turn it is: one permit, which goes round first come, first served.
    turn: Semaphore,
}

/// Ticks a token and tokens of a bucket, both within what can be counted.
fn settings(per_second: f64, burst: u32) -> (u64, u32) {
    // What is no number is no rate: `clamp` would let a NaN through.
    let per_second = if per_second.is_nan() {
        SLOWEST
    } else {
        per_second
    };
    let interval = (1e9 * TICKS_PER_NANO / per_second.clamp(SLOWEST, 1e9)).round() as u64;
    let most = u32::try_from(MAX_CAPACITY / interval).unwrap_or(u32::MAX);
    (interval, burst.clamp(1, most))
}

#[expect(clippy::cast_possible_truncation, reason = "64")]
/// Rounded up: a nanosecond early is a token too many.
const fn duration(ticks: u64) -> Duration {
    Duration::from_nanos(ticks.div_ceil(TICKS_PER_NANO as u64))
}

fn ticks(time: Duration) -> u64 {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    nanos.saturating_mul(TICKS_PER_NANO as u64)
}

/// The time in which a whole bucket comes back.
#[cfg(feature = "redis")]
pub(super) fn window(per_second: f64, burst: u32) -> Duration {
    let (interval, burst) = settings(per_second, burst);
    duration(interval.saturating_mul(burst.into()))
}

impl RateLimiter {
    /// A full bucket of `burst` tokens that gains `per_second` of them.
    ///
    /// `per_second` is taken to lie between one token in three years, which anything that is no
    /// positive number counts as, and 10^9. `burst` is at least 1, and at most what comes back in
    /// four years.
    #[must_use]
    pub fn new(per_second: f64, burst: u32) -> Self {
        Self::since(Instant::now(), per_second, burst)
    }

    /// A full bucket whose clock began at `origin`.
    pub(super) fn since(origin: Instant, per_second: f64, burst: u32) -> Self {
        let (interval, burst) = settings(per_second, burst);
        Self {
            origin,
            full_at: AtomicU64::new(0),
            interval: AtomicU64::new(interval),
            burst: AtomicU32::new(burst),
            waiting: AtomicU64::new(0),
            turn: Semaphore::new(1),
        }
    }

    /// A bucket with new settings, filled to the same proportion as `self` is now.
    #[must_use]
    pub fn resized(&self, per_second: f64, burst: u32) -> Self {
        let new = Self::since(self.origin, per_second, burst);
        let now = self.ticks(Instant::now());
        let full_at = self.full_at.load(Relaxed);
        let full_at = scaled(full_at, now, self.capacity(), new.capacity());
        new.full_at.store(full_at, Relaxed);
        new
    }

    /// Gives this bucket new settings; it stays filled in proportion. The bounds are those of
    /// [`new`](Self::new).
    ///
    /// A call on another thread at the same moment may be counted at either rate. Who waits goes on
    /// waiting at the new one, from when its present wait ends.
    pub fn set_rate(&self, per_second: f64, burst: u32) {
        let old = self.capacity();
        let (interval, burst) = settings(per_second, burst);
        self.interval.store(interval, Relaxed);
        self.burst.store(burst, Relaxed);
        let (now, new) = (self.ticks(Instant::now()), self.capacity());
        let _ = self.full_at.fetch_update(Relaxed, Relaxed, |full_at| {
            Some(scaled(full_at, now, old, new))
        });
    }

    /// Fills the bucket.
    pub fn reset(&self) {
        self.full_at.store(0, Relaxed);
    }

    /// The tokens in the bucket at `now`; nobody has promised them to who reads this.
    #[must_use]
    pub fn available(&self, now: Instant) -> f64 {
        self.free(self.ticks(now)) as f64 / self.interval.load(Relaxed) as f64
    }

    /// Tokens that the bucket gains in a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        1e9 * TICKS_PER_NANO / self.interval.load(Relaxed) as f64
    }

    /// Tokens that the bucket holds when it is full.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.burst.load(Relaxed)
    }

    /// How a caller stands at `now`.
    #[must_use]
    pub fn quota(&self, now: Instant) -> Quota {
        self.quota_at(self.ticks(now))
    }

    fn quota_at(&self, now: u64) -> Quota {
        let remaining = self.free(now) / self.interval.load(Relaxed);
        let remaining = u32::try_from(remaining).unwrap_or(u32::MAX);
        Quota::new(self.burst(), remaining, duration(self.capacity()))
    }

    /// What of the capacity is there at `now`.
    fn free(&self, now: u64) -> u64 {
        let empty = self.full_at().saturating_sub(now);
        self.capacity().saturating_sub(empty)
    }

    pub(super) fn full_at(&self) -> u64 {
        self.full_at.load(Relaxed)
    }

    /// How long after `now` it is `at`.
    pub(super) fn time_to(&self, at: u64, now: Instant) -> Duration {
        duration(at.saturating_sub(self.ticks(now)))
    }

    fn capacity(&self) -> u64 {
        let burst = u64::from(self.burst.load(Relaxed));
        self.interval.load(Relaxed).saturating_mul(burst)
    }

    pub(super) fn ticks(&self, at: Instant) -> u64 {
        ticks(at.saturating_duration_since(self.origin))
    }

    /// Takes a token that is not for those who wait.
    ///
    /// # Errors
    /// The time after which there is one, if there is none at `now`.
    pub fn try_take(&self, now: Instant) -> Result<(), Duration> {
        self.try_take_n(now, 1)
    }

    /// Takes `n` tokens, all or none, that are not for those who wait.
    ///
    /// # Errors
    /// The time after which they are there, if they are not at `now`; [`Duration::MAX`] if the bucket
    /// does not hold that many.
    pub fn try_take_n(&self, now: Instant, n: u32) -> Result<(), Duration> {
        self.take_by(self.ticks(now), 0, n, self.waiting.load(Relaxed))
    }

    /// Takes `n` tokens as of `since`, if with `ahead` more gone they are there when `elapsed` has gone
    /// by since then, both in ticks.
    fn take_by(&self, since: u64, elapsed: u64, n: u32, ahead: u64) -> Result<(), Duration> {
        if n == 0 {
            return Ok(());
        }
        if n > self.burst() {
            return Err(Duration::MAX);
        }
        let interval = self.interval.load(Relaxed);
        let (cost, ahead) = (
            interval.saturating_mul(n.into()),
            interval.saturating_mul(ahead),
        );
        let mut full_at = self.full_at.load(Relaxed);
        loop {
            let next = full_at.max(since).saturating_add(cost);
            let wait = next.saturating_add(ahead).saturating_sub(since);
            let wait = wait.saturating_sub(self.capacity());
            if wait > elapsed {
                return Err(duration(wait));
            }
            let taken = self
                .full_at
                .compare_exchange_weak(full_at, next, Relaxed, Relaxed);
            match taken {
                Ok(_) => return Ok(()),
                Err(current) => full_at = current,
            }
        }
    }

    /// Takes `n` tokens, or says how to wait for them.
    pub(super) fn admit(
        self: &Arc<Self>,
        now: Instant,
        n: u32,
        terms: Terms,
    ) -> Admission<Standing> {
        let since = self.ticks(now);
        loop {
            let ahead = self.waiting.load(Relaxed);
            let Err(wait) = self.take_by(since, 0, n, ahead) else {
                return Admission::Granted(self.standing(since, terms));
            };
            if wait > terms.max_wait || wait == Duration::MAX {
                return Admission::Refused(self.refused(since, wait));
            }
            // Only when the line is as long as it was when the wait was worked out.
            let tokens = u64::from(n);
            if self
                .waiting
                .compare_exchange(ahead, ahead.saturating_add(tokens), Relaxed, Relaxed)
                .is_ok()
            {
                let place = Place(Arc::clone(self), n);
                return Admission::Wait(Box::pin(place.wait(now, terms)));
            }
        }
    }

    fn standing(&self, now: u64, terms: Terms) -> Standing {
        Standing(terms.headers.then(|| self.quota_at(now)))
    }

    fn refused(&self, now: u64, wait: Duration) -> Refused {
        let refused = Refused::new(Reason::RateLimited).with_quota(self.quota_at(now));
        if wait == Duration::MAX {
            return refused;
        }
        refused.retry_after(wait)
    }
}

/// When a bucket of capacity `old` that is full at `full_at` would be, were it one of capacity `new`.
fn scaled(full_at: u64, now: u64, old: u64, new: u64) -> u64 {
    let empty = full_at.saturating_sub(now);
    if empty == 0 {
        // A call may come by a clock that was read before.
        return full_at;
    }
    let share = u128::from(new) * u128::from(empty) / u128::from(old.max(1));
    u64::try_from(share).unwrap_or(u64::MAX).saturating_add(now)
}

/// What a layer asks of a limiter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) max_wait: Duration,
    /// Whether the caller is told how it stands.
    pub(super) headers: bool,
}

/// What a call that was let through takes along.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing(pub(super) Option<Quota>);

impl OnEnd for Standing {}

/// A place in the line, left when dropped, and the tokens wanted.
struct Place(Arc<RateLimiter>, u32);

impl Place {
    async fn wait(self, since: Instant, terms: Terms) -> Result<Standing, Refused> {
        let (limiter, max_wait) = (&*self.0, terms.max_wait);
        // The turn may be with a future that is alive and that nobody polls: after `max_wait` a
        // token that is there is taken without it.
        let _turn = timeout(max_wait, limiter.turn.acquire()).await;
        // As of when this call came: a timer that fires late costs those behind no token.
        let began = limiter.ticks(since);
        while let Err(wait) = limiter.take_by(began, ticks(since.elapsed()), self.1, 0) {
            if wait > max_wait || wait == Duration::MAX {
                let left = wait.saturating_sub(since.elapsed());
                return Err(limiter.refused(limiter.ticks(Instant::now()), left));
            }
            sleep_until(since + wait).await;
        }
        Ok(limiter.standing(limiter.ticks(Instant::now()), terms))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(u64::from(self.1), Relaxed);
    }
}
