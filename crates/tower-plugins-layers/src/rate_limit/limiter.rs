use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::Quota;
use super::bucket::{self, Bucket, Interval, Settings, duration, ticks};
use crate::gate::Admission;
use crate::{OnEnd, Reason, Refused};

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
    settings: SharedSettings,
    /// Tokens that those who wait want.
    waiting: AtomicU64,
    /// Whose turn it is: one permit, which goes round first come, first served.
    turn: Semaphore,
    /// Wakes whose turn it is when there are other settings, or more tokens.
    changed: Notify,
}

/// Settings that change as a whole, and with them what the bucket holds.
#[derive(Debug)]
struct SharedSettings {
    /// Odd while they change.
    version: AtomicU32,
    burst: AtomicU32,
    whole: AtomicU64,
    part: AtomicU32,
    changing: Mutex<()>,
}

impl SharedSettings {
    fn new(settings: Settings) -> Self {
        Self {
            version: AtomicU32::new(0),
            burst: AtomicU32::new(settings.burst),
            whole: AtomicU64::new(settings.interval.whole),
            part: AtomicU32::new(settings.interval.part),
            changing: Mutex::new(()),
        }
    }

    fn get(&self) -> Settings {
        Settings {
            interval: Interval {
                whole: self.whole.load(Relaxed),
                part: self.part.load(Relaxed),
            },
            burst: self.burst.load(Relaxed),
        }
    }

    /// The settings and what `also` reads, as they were together at one moment.
    fn with<T>(&self, also: impl Fn() -> T) -> (Settings, T) {
        loop {
            let before = self.version.load(Acquire);
            if before.is_multiple_of(2) {
                let read = (self.get(), also());
                fence(Acquire);
                if self.version.load(Relaxed) == before {
                    return read;
                }
            } else {
                drop(self.changing.lock());
            }
        }
    }

    /// Sets `new` where it is something else, and with it what `also` changes by the old settings.
    fn set(&self, new: Settings, also: impl FnOnce(Settings)) -> bool {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.get();
        if new == old {
            return false;
        }
        let version = self.version.load(Relaxed);
        self.version.store(version.wrapping_add(1), Relaxed);
        fence(Release);
        self.burst.store(new.burst, Relaxed);
        self.whole.store(new.interval.whole, Relaxed);
        self.part.store(new.interval.part, Relaxed);
        also(old);
        self.version.store(version.wrapping_add(2), Release);
        true
    }
}

impl RateLimiter {
    /// A full bucket of `burst` tokens that gains `per_second` of them.
    ///
    /// `per_second` is taken to lie between one token in three years, which anything that is no
    /// positive number counts as, and 10^9. `burst` is at least 1, and at most
    /// [`max_burst`](Self::max_burst).
    #[must_use]
    pub fn new(per_second: f64, burst: u32) -> Self {
        Self::since(Instant::now(), Settings::new(per_second, burst))
    }

    /// The most tokens that a bucket holds which gains `per_second`: what comes back in four and a half years.
    ///
    /// ```
    /// use tower_plugins_layers::RateLimiter;
    ///
    /// assert_eq!(RateLimiter::max_burst(1000.0), u32::MAX);
    /// assert_eq!(RateLimiter::new(0.000_001, 1000).burst(), RateLimiter::max_burst(0.000_001));
    /// ```
    #[must_use]
    pub fn max_burst(per_second: f64) -> u32 {
        bucket::max_burst(per_second)
    }

    /// A full bucket whose clock began at `origin`.
    pub(super) fn since(origin: Instant, settings: Settings) -> Self {
        Self {
            origin,
            full_at: AtomicU64::new(0),
            settings: SharedSettings::new(settings),
            waiting: AtomicU64::new(0),
            turn: Semaphore::new(1),
            changed: Notify::new(),
        }
    }

    /// Gives this bucket new settings; it stays filled in proportion. The bounds are those of
    /// [`new`](Self::new).
    ///
    /// Who waits goes on waiting at the new rate: it is let through, or refused, when it would be had it come
    /// at the new rate.
    pub fn set_rate(&self, per_second: f64, burst: u32) {
        self.set(Settings::new(per_second, burst));
    }

    pub(super) fn set(&self, new: Settings) {
        let now = self.ticks(Instant::now());
        let changed = self.settings.set(new, |old| {
            // Who has read the old settings takes by them before this, or reads anew after it.
            let _ = self.full_at.fetch_update(Relaxed, Relaxed, |full_at| {
                let settings = old;
                Some(Bucket { settings, full_at }.full_at_with(new, now))
            });
        });
        if changed {
            self.changed.notify_waiters();
        }
    }

    /// Fills the bucket.
    pub fn reset(&self) {
        self.full_at.store(0, Relaxed);
        self.changed.notify_waiters();
    }

    fn bucket(&self) -> Bucket {
        let (settings, full_at) = self.settings.with(|| self.full_at.load(Relaxed));
        Bucket { settings, full_at }
    }

    /// The tokens in the bucket at `now`; nobody has promised them to who reads this.
    #[must_use]
    pub fn available(&self, now: Instant) -> f64 {
        self.bucket().tokens(self.ticks(now))
    }

    /// Tokens that the bucket gains in a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.bucket().settings.per_second()
    }

    /// Tokens that the bucket holds when it is full.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.bucket().settings.burst
    }

    /// How a caller stands at `now`.
    #[must_use]
    pub fn quota(&self, now: Instant) -> Quota {
        self.quota_at(self.ticks(now))
    }

    fn quota_at(&self, now: u64) -> Quota {
        let bucket = self.bucket();
        let remaining = bucket.whole_tokens(now);
        Quota::new(bucket.settings.burst, remaining, bucket.settings.window())
    }

    pub(super) fn full_at(&self) -> u64 {
        self.full_at.load(Relaxed)
    }

    /// How long after `now` it is `at`.
    pub(super) fn time_to(&self, at: u64, now: Instant) -> Duration {
        duration(at.saturating_sub(self.ticks(now)))
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
        loop {
            let bucket = self.bucket();
            if n > bucket.settings.burst {
                return Err(Duration::MAX);
            }
            let (next, wait) = bucket.taking(since, n, ahead);
            if wait > elapsed {
                return Err(duration(wait));
            }
            let taken = self
                .full_at
                .compare_exchange_weak(bucket.full_at, next, Relaxed, Relaxed);
            if taken.is_ok() {
                return Ok(());
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
        loop {
            let changed = limiter.changed.notified();
            let elapsed = ticks(since.elapsed());
            let Err(wait) = limiter.take_by(began, elapsed, self.1, 0) else {
                break;
            };
            if wait > max_wait || wait == Duration::MAX {
                let left = wait.saturating_sub(since.elapsed());
                return Err(limiter.refused(limiter.ticks(Instant::now()), left));
            }
            let _ = timeout_at(since + wait, changed).await;
        }
        Ok(limiter.standing(limiter.ticks(Instant::now()), terms))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(u64::from(self.1), Relaxed);
    }
}
