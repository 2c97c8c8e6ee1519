use std::time::Duration;

/// How long to wait before each retry: exponential, by default with full jitter.
///
/// The wait before the n-th retry is drawn between zero and a ceiling of
/// `min(max, initial * multiplier^(n-1))`; without jitter it is the ceiling. Full jitter spreads
/// callers that failed together, as the AWS Architecture Blog measured in "Exponential Backoff And
/// Jitter" (2015).
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
pub struct Backoff {
    initial: Duration,
    max: Duration,
    multiplier: f64,
    jitter: bool,
}

impl Backoff {
    /// Ceilings that begin at `initial`, double, and end at `max`; full jitter.
    #[must_use]
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            multiplier: 2.0,
            jitter: true,
        }
    }

    /// How fast the ceiling grows. 2 by default.
    #[must_use]
    pub const fn multiplier(mut self, multiplier: f64) -> Self {
        self.multiplier = multiplier;
        self
    }

    /// Waits as long as the ceiling each time.
    #[must_use]
    pub const fn without_jitter(mut self) -> Self {
        self.jitter = false;
        self
    }

    /// The wait before the `retry`-th retry, counted from 1.
    #[must_use]
    pub fn wait(&self, retry: u32) -> Duration {
        let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.initial.as_secs_f64() * self.multiplier.powi(exponent);
        // Infinity and what else is no duration is more than any ceiling.
        let ceiling = Duration::try_from_secs_f64(seconds).map_or(self.max, |d| d.min(self.max));
        if self.jitter {
            ceiling.mul_f64(fastrand::f64())
        } else {
            ceiling
        }
    }
}

impl Default for Backoff {
    /// 100 ms to 5 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }
}
