use std::time::Duration;

/// How a wait differs from its ceiling, so that callers that failed together do not come back
/// together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Jitter {
    /// Drawn between zero and the ceiling.
    #[default]
    Full,
    /// Drawn between `initial` and three times the wait before, at most `max`. The multiplier
    /// says nothing.
    Decorrelated,
    /// The ceiling itself.
    None,
}

/// How long to wait before each retry: exponential, by default with full jitter.
///
/// The ceiling before the n-th retry is `min(max, initial * multiplier^(n-1))`; the [`Jitter`] says
/// what is drawn below it. Full and decorrelated jitter are those of the AWS Architecture Blog,
/// "Exponential Backoff And Jitter" (2015).
///
/// ```
/// use std::time::Duration;
/// use tower_plugins_layers::retry::Backoff;
///
/// let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5)).without_jitter();
/// assert_eq!(backoff.wait(1), Duration::from_millis(100));
/// assert_eq!(backoff.wait(3), Duration::from_millis(400));
/// assert_eq!(backoff.wait(100), Duration::from_secs(5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(remote = "Self", default, deny_unknown_fields)
)]
pub struct Backoff {
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    initial: Duration,
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    max: Duration,
    multiplier: f64,
    jitter: Jitter,
}

impl Backoff {
    /// Ceilings that begin at `initial`, double, and end at `max`; full jitter.
    #[must_use]
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            multiplier: 2.0,
            jitter: Jitter::Full,
        }
    }

    /// How fast the ceiling grows. 2 by default.
    #[must_use]
    pub const fn multiplier(mut self, multiplier: f64) -> Self {
        self.multiplier = multiplier;
        self
    }

    /// What is drawn below the ceiling.
    #[must_use]
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// Waits as long as the ceiling each time.
    #[must_use]
    pub const fn without_jitter(self) -> Self {
        self.jitter(Jitter::None)
    }

    /// The wait before the `retry`-th retry, counted from 1, of which the one before is not known.
    #[must_use]
    pub fn wait(&self, retry: u32) -> Duration {
        self.wait_after(self.initial, retry)
    }

    /// The wait before the `retry`-th retry, counted from 1, after one of `previous`.
    #[must_use]
    pub fn wait_after(&self, previous: Duration, retry: u32) -> Duration {
        match self.jitter {
            Jitter::Full => part(self.ceiling(retry)),
            Jitter::None => self.ceiling(retry),
            Jitter::Decorrelated => {
                let most = previous.max(self.initial).saturating_mul(3);
                let spread = most.saturating_sub(self.initial);
                self.initial.saturating_add(part(spread)).min(self.max)
            }
        }
    }

    fn ceiling(&self, retry: u32) -> Duration {
        let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.initial.as_secs_f64() * self.multiplier.powi(exponent);
        // Infinity and what else is no duration is more than any ceiling.
        Duration::try_from_secs_f64(seconds).map_or(self.max, |d| d.min(self.max))
    }
}

/// A part of `time`, by chance. Of the longest there is, a float may make one that is longer.
fn part(time: Duration) -> Duration {
    let seconds = time.as_secs_f64() * fastrand::f64();
    Duration::try_from_secs_f64(seconds).unwrap_or(time)
}

impl Default for Backoff {
    /// 100 ms to 5 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }
}

#[cfg(feature = "serde")]
impl crate::checked::Check for Backoff {
    fn check(&self) -> Result<(), &'static str> {
        if self.initial > self.max {
            return Err("a backoff's `initial` is not longer than its `max`");
        }
        if !(1.0..=100.0).contains(&self.multiplier) {
            return Err("a backoff's `multiplier` is from 1 to 100");
        }
        Ok(())
    }
}

#[cfg(feature = "serde")]
crate::checked::checked!(Backoff);
