//! The arithmetic of a token bucket, in whole ticks.

use std::time::Duration;

/// Parts of a nanosecond in a tick: a u64 of them lasts for nine years.
const TICKS_PER_NANO: u64 = 64;

/// Tokens a second: one in three years.
const SLOWEST: f64 = 1e-8;

/// Half of what a u64 holds, so that a bucket that is empty still has years of clock ahead.
const MAX_CAPACITY: u64 = u64::MAX / 2;

/// Ticks from which on what a token takes is a whole number: 10^6 tokens of at least as many are counted to
/// within half a token, however they are rounded.
const LONG: f64 = (1_u32 << 20) as f64;

/// Rounded up: a nanosecond early is a token too many.
pub(super) const fn duration(ticks: u64) -> Duration {
    Duration::from_nanos(ticks.div_ceil(TICKS_PER_NANO))
}

pub(super) fn ticks(time: Duration) -> u64 {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    nanos.saturating_mul(TICKS_PER_NANO)
}

/// Ticks that one token takes to come back: whole ones, and of short intervals a part of 2^32 as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) whole: u64,
    pub(super) part: u32,
}

impl Interval {
    fn new(per_second: f64) -> Self {
        // What is no number is no rate: `clamp` would let a NaN through.
        let per_second = if per_second.is_nan() {
            SLOWEST
        } else {
            per_second
        };
        let ticks = 1e9 * TICKS_PER_NANO as f64 / per_second.clamp(SLOWEST, 1e9);
        if ticks >= LONG {
            return Self {
                whole: ticks.round() as u64,
                part: 0,
            };
        }
        let fixed = (ticks * 2_f64.powi(32)).round() as u64;
        Self {
            whole: fixed >> 32,
            part: fixed as u32,
        }
    }

    fn per_second(self) -> f64 {
        1e9 * TICKS_PER_NANO as f64 / self.ticks()
    }

    fn ticks(self) -> f64 {
        self.whole as f64 + f64::from(self.part) / 2_f64.powi(32)
    }

    /// 2^32 times the ticks.
    fn fixed(self) -> u128 {
        u128::from(self.whole) << 32 | u128::from(self.part)
    }

    /// Ticks that `n` tokens take, rounded up.
    fn of(self, n: u64) -> u64 {
        if self.part == 0 {
            return self.whole.saturating_mul(n);
        }
        let ticks = (self.fixed() * u128::from(n)).div_ceil(1 << 32);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// Tokens that come back in `ticks`, whole ones.
    fn within(self, ticks: u64) -> u128 {
        (u128::from(ticks) << 32) / self.fixed()
    }

    /// The tick at which `n` tokens more have come back after `from`.
    ///
    /// Rounded one by one, intervals that are no whole ticks would add up to another rate. So each is as long as
    /// the steps between whole ticks nearest to a grid of exact ones, at the place where `from` is on it.
    fn after(self, from: u64, n: u64) -> u64 {
        if self.part == 0 {
            return from.saturating_add(self.whole.saturating_mul(n));
        }
        let fixed = self.fixed();
        let at = self.within(from);
        let place = |at: u128| (at * fixed) >> 32;
        let step = place(at + u128::from(n)) - place(at);
        u64::try_from(u128::from(from) + step).unwrap_or(u64::MAX)
    }
}

/// How fast a bucket is filled, and what it holds, both within what can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) interval: Interval,
    pub(super) burst: u32,
}

impl Settings {
    pub(super) fn new(per_second: f64, burst: u32) -> Self {
        let interval = Interval::new(per_second);
        Self {
            interval,
            burst: burst.clamp(1, most(interval)),
        }
    }

    pub(super) fn per_second(self) -> f64 {
        self.interval.per_second()
    }

    /// Ticks that an empty bucket takes to be full: one more than that where they are rounded, since each of its
    /// tokens may be.
    fn capacity(self) -> u64 {
        let rounding = u64::from(self.interval.part > 0);
        self.interval.of(self.burst.into()).saturating_add(rounding)
    }

    /// The time in which a whole bucket comes back.
    pub(super) fn window(self) -> Duration {
        duration(self.interval.of(self.burst.into()))
    }
}

fn most(interval: Interval) -> u32 {
    let most = MAX_CAPACITY / interval.whole.max(1);
    u32::try_from(most).unwrap_or(u32::MAX)
}

/// The most tokens that a bucket holds which gains `per_second`.
pub(super) fn max_burst(per_second: f64) -> u32 {
    most(Interval::new(per_second))
}

/// A bucket at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    pub(super) settings: Settings,
    /// When it is full again.
    pub(super) full_at: u64,
}

impl Bucket {
    /// When it is full again if `n` tokens are taken as of `since`, and how many ticks after that they are there
    /// with `ahead` more gone.
    pub(super) fn taking(self, since: u64, n: u32, ahead: u64) -> (u64, u64) {
        let interval = self.settings.interval;
        let next = interval.after(self.full_at.max(since), n.into());
        let wait = next
            .saturating_add(interval.of(ahead))
            .saturating_sub(since)
            .saturating_sub(self.settings.capacity());
        (next, wait)
    }

    /// Ticks' worth of tokens that are there at `now`.
    fn free(self, now: u64) -> u64 {
        let empty = self.full_at.saturating_sub(now);
        self.settings.capacity().saturating_sub(empty)
    }

    /// The tokens that are there at `now`.
    pub(super) fn tokens(self, now: u64) -> f64 {
        let tokens = self.free(now) as f64 / self.settings.interval.ticks();
        tokens.min(self.settings.burst.into())
    }

    /// Those of them that are whole.
    pub(super) fn whole_tokens(self, now: u64) -> u32 {
        let tokens = self.settings.interval.within(self.free(now));
        u32::try_from(tokens).map_or(self.settings.burst, |n| n.min(self.settings.burst))
    }

    /// When it is full, were it one of other settings and as full in proportion at `now`.
    pub(super) fn full_at_with(self, new: Settings, now: u64) -> u64 {
        let empty = self.full_at.saturating_sub(now);
        if empty == 0 {
            // A call may come by a clock that was read before.
            return self.full_at;
        }
        let old = u128::from(self.settings.capacity().max(1));
        let share = u128::from(new.capacity()) * u128::from(empty) / old;
        u64::try_from(share).unwrap_or(u64::MAX).saturating_add(now)
    }
}
