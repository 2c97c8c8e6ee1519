use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Samples over which the latency of the gradient's past is averaged.
const LONG_WINDOW: f64 = 600.0;
/// Samples for which that average is a plain mean.
const WARM_UP: f64 = 10.0;

/// How a limit finds its own size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Algorithm {
    /// By latency: the limit shrinks while calls take longer than they used to, before any of them fails.
    ///
    /// *Gradient2* of Netflix concurrency-limits: with the latency `short` of a call and its average `long`
    /// over some 600, `gradient = clamp(tolerance × long / short, 0.5, 1)`, and the limit goes a fifth of the
    /// way to `limit × gradient + 4`. While `long > 2 × short`, `long` shrinks by 5 % a call, to come down
    /// after an overload. A drop, which that algorithm does not look at, is taken as AIMD takes it.
    #[default]
    Gradient,
    /// By drops: additive increase, multiplicative decrease, as TCP does and *AIMDLimit* of Netflix
    /// concurrency-limits: a success adds one, a drop multiplies by `backoff`.
    Aimd,
}

/// The bounds of a limit that adapts, and how it does.
///
/// It goes up only while at least half of it is in use: what is not used has not been tried. A *drop* is a
/// call that failed, that was answered with 429 or `RESOURCE_EXHAUSTED`, that was cut by its deadline, or that
/// had no head within [`timeout`](Self::timeout). A call that was given up or refused on this side counts as
/// nothing.
///
/// | option | default | |
/// | --- | --- | --- |
/// | [`algorithm`](Self::algorithm) | gradient | |
/// | [`initial`](Self::initial) | 20 | the limit at first |
/// | [`min`](Self::min), [`max`](Self::max) | 1, 1000 | its bounds |
/// | [`backoff`](Self::backoff) | 0.9 | what a drop multiplies the limit by, 0.1 to 1 |
/// | [`tolerance`](Self::tolerance) | 1.5 | how much slower than before a call may be, 1 to 10; of the gradient |
/// | [`timeout`](Self::timeout) | 5 s | a slower head is a drop |
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, try_from = "Unchecked")
)]
pub struct AdaptivePolicy {
    algorithm: Algorithm,
    initial: usize,
    min: usize,
    max: usize,
    backoff: f64,
    tolerance: f64,
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    timeout: Duration,
}

impl AdaptivePolicy {
    /// The default policy.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            algorithm: Algorithm::Gradient,
            initial: 20,
            min: 1,
            max: 1000,
            backoff: 0.9,
            tolerance: 1.5,
            timeout: Duration::from_secs(5),
        }
    }

    /// Sets how the limit finds its size.
    #[must_use]
    pub const fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Sets the limit at first, which is moved into its bounds.
    #[must_use]
    pub const fn initial(mut self, limit: usize) -> Self {
        self.initial = limit;
        self
    }

    /// Sets the lowest limit, at least 1.
    #[must_use]
    pub fn min(mut self, limit: usize) -> Self {
        self.min = limit.max(1);
        self
    }

    /// Sets the highest limit; not below the lowest.
    #[must_use]
    pub fn max(mut self, limit: usize) -> Self {
        self.max = limit.max(1);
        self
    }

    /// Sets what a drop multiplies the limit by, 0.1 to 1.
    #[must_use]
    pub fn backoff(mut self, share: f64) -> Self {
        self.backoff = within(share, 0.1, 1.0, 0.9);
        self
    }

    /// Sets how many times as slow as the average a call may be before the limit shrinks, 1 to 10.
    #[must_use]
    pub fn tolerance(mut self, times: f64) -> Self {
        self.tolerance = within(times, 1.0, 10.0, 1.5);
        self
    }

    /// Sets the time after which a head is a drop.
    #[must_use]
    pub const fn timeout(mut self, time: Duration) -> Self {
        self.timeout = time;
        self
    }

    fn bounded(&self, limit: f64) -> f64 {
        limit.min(self.max as f64).max(self.min as f64)
    }
}

impl Default for AdaptivePolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// What is no number is the default.
fn within(value: f64, least: f64, most: f64, default: f64) -> f64 {
    if value.is_nan() {
        default
    } else {
        value.clamp(least, most)
    }
}

/// A policy as it was written, whose values may make no sense.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Unchecked {
    algorithm: Algorithm,
    initial: usize,
    min: usize,
    max: usize,
    backoff: f64,
    tolerance: f64,
    #[serde(with = "humantime_serde")]
    timeout: Duration,
}

#[cfg(feature = "serde")]
impl Default for Unchecked {
    fn default() -> Self {
        let AdaptivePolicy {
            algorithm,
            initial,
            min,
            max,
            backoff,
            tolerance,
            timeout,
        } = AdaptivePolicy::new();
        Self {
            algorithm,
            initial,
            min,
            max,
            backoff,
            tolerance,
            timeout,
        }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for AdaptivePolicy {
    type Error = String;

    fn try_from(raw: Unchecked) -> Result<Self, String> {
        if raw.min == 0 || raw.min > raw.max {
            return Err(format!(
                "`min` ({}) must be at least 1 and at most `max` ({})",
                raw.min, raw.max
            ));
        }
        if !(raw.min..=raw.max).contains(&raw.initial) {
            return Err(format!(
                "`initial` ({}) must be between `min` and `max`",
                raw.initial
            ));
        }
        if !(0.1..=1.0).contains(&raw.backoff) {
            return Err(format!(
                "`backoff` must be between 0.1 and 1, and is {}",
                raw.backoff
            ));
        }
        if !(1.0..=10.0).contains(&raw.tolerance) {
            return Err(format!(
                "`tolerance` must be between 1 and 10, and is {}",
                raw.tolerance
            ));
        }
        if raw.timeout.is_zero() {
            return Err("`timeout` must be more than 0".to_owned());
        }
        Ok(Self {
            algorithm: raw.algorithm,
            initial: raw.initial,
            min: raw.min,
            max: raw.max,
            backoff: raw.backoff,
            tolerance: raw.tolerance,
            timeout: raw.timeout,
        })
    }
}

/// What a call says of the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sample {
    Success(Duration),
    Drop,
}

#[derive(Debug)]
pub(super) struct Adaptive {
    policy: AdaptivePolicy,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: f64,
    /// The average latency, in seconds.
    long: f64,
    samples: f64,
}

impl Adaptive {
    pub(super) fn new(policy: AdaptivePolicy) -> Self {
        Self {
            state: Mutex::new(State {
                limit: policy.bounded(policy.initial as f64),
                long: 0.0,
                samples: 0.0,
            }),
            policy,
        }
    }

    pub(super) const fn timeout(&self) -> Duration {
        self.policy.timeout
    }

    pub(super) fn limit(&self) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.limit as usize
    }

    /// The limit after one more sample, of a call that was one of `in_flight`.
    pub(super) fn observe(&self, sample: Sample, in_flight: usize) -> usize {
        let sample = match sample {
            Sample::Success(latency) if latency > self.policy.timeout => Sample::Drop,
            sample => sample,
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = state.limit;
        let used = in_flight as f64 * 2.0 >= limit;
        let next = match (sample, self.policy.algorithm) {
            (Sample::Drop, _) => limit * self.policy.backoff,
            (Sample::Success(_), Algorithm::Aimd) if used => limit + 1.0,
            (Sample::Success(_), Algorithm::Aimd) => limit,
            (Sample::Success(latency), Algorithm::Gradient) => {
                let gradient = state.gradient(latency, self.policy.tolerance);
                if used {
                    0.8 * limit + 0.2 * (limit * gradient + 4.0)
                } else {
                    limit
                }
            }
        };
        state.limit = self.policy.bounded(next);
        state.limit as usize
    }
}

impl State {
    fn gradient(&mut self, latency: Duration, tolerance: f64) -> f64 {
        // A latency of none, as paused clocks measure, is a nanosecond.
        let short = latency.as_secs_f64().max(1e-9);
        if self.samples < WARM_UP {
            self.samples += 1.0;
            self.long += (short - self.long) / self.samples;
        } else {
            self.long += (short - self.long) * 2.0 / (LONG_WINDOW + 1.0);
        }
        let long = self.long;
        if long > 2.0 * short {
            self.long *= 0.95;
        }
        (tolerance * long / short).clamp(0.5, 1.0)
    }
}
