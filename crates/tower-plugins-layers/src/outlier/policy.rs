use std::time::Duration;

/// What makes an endpoint an outlier, and for how long it is left out.
///
/// Setters move a value that makes no sense to the nearest that does; reading such a value by serde is
/// an error.
///
/// | setting | default | unit |
/// | --- | --- | --- |
/// | [`consecutive_failures`](Self::consecutive_failures) | 5 | calls |
/// | [`success_rate_stdev`](Self::success_rate_stdev) | 1.9 | standard deviations |
/// | [`failure_percentage`](Self::failure_percentage) | off | percent of an endpoint's calls |
/// | [`min_requests`](Self::min_requests) | 100 | calls of an endpoint in an interval |
/// | [`min_hosts`](Self::min_hosts) | 5 | endpoints |
/// | [`interval`](Self::interval) | 10 s | |
/// | [`base_ejection`](Self::base_ejection) | 30 s | |
/// | [`max_ejection`](Self::max_ejection) | 300 s | |
/// | [`jitter`](Self::jitter) | 0 s | |
/// | [`max_ejection_percent`](Self::max_ejection_percent) | 10 | percent of the endpoints |
/// | [`always_eject_one`](Self::always_eject_one) | true | |
///
/// ```
/// use std::time::Duration;
/// use tower_plugins_layers::outlier::OutlierPolicy;
///
/// let policy = OutlierPolicy::new()
///     .consecutive_failures(3)
///     .failure_percentage(50)
///     .max_ejection_percent(30)
///     .base_ejection(Duration::from_secs(10));
/// # let _ = policy;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "text::Fields", into = "text::Fields")
)]
pub struct OutlierPolicy {
    pub(super) consecutive_failures: Option<u32>,
    pub(super) success_rate_stdev: Option<f64>,
    pub(super) failure_percentage: Option<u8>,
    pub(super) min_requests: u32,
    pub(super) min_hosts: usize,
    pub(super) interval: Duration,
    pub(super) base_ejection: Duration,
    pub(super) max_ejection: Duration,
    pub(super) jitter: Duration,
    pub(super) max_ejection_percent: u8,
    pub(super) always_eject_one: bool,
}

/// The shortest interval and ejection.
const SHORTEST: Duration = Duration::from_millis(1);

impl OutlierPolicy {
    /// The default policy.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            consecutive_failures: Some(5),
            success_rate_stdev: Some(1.9),
            failure_percentage: None,
            min_requests: 100,
            min_hosts: 5,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            jitter: Duration::ZERO,
            max_ejection_percent: 10,
            always_eject_one: true,
        }
    }

    /// Ejects an endpoint at once at this many failures without a success between them; `None` for
    /// never.
    #[must_use]
    pub fn consecutive_failures(mut self, n: impl Into<Option<u32>>) -> Self {
        self.consecutive_failures = n.into().map(|n| n.max(1));
        self
    }

    /// Ejects, at the end of an interval, an endpoint whose success rate is below the mean of all by
    /// more than this many standard deviations; `None` for never.
    #[must_use]
    pub fn success_rate_stdev(mut self, factor: impl Into<Option<f64>>) -> Self {
        self.success_rate_stdev = factor
            .into()
            .filter(|factor| factor.is_finite() && *factor >= 0.0);
        self
    }

    /// Ejects, at the end of an interval, an endpoint of whose calls at least this percentage has
    /// failed, whatever the others do; `None` for never. Between 1 and 100.
    #[must_use]
    pub fn failure_percentage(mut self, percent: impl Into<Option<u8>>) -> Self {
        self.failure_percentage = percent.into().map(|percent| percent.clamp(1, 100));
        self
    }

    /// An endpoint with fewer calls in the interval is not judged by its rates. At least 1.
    #[must_use]
    pub fn min_requests(mut self, n: u32) -> Self {
        self.min_requests = n.max(1);
        self
    }

    /// With fewer endpoints that have enough calls no rates are judged. At least 1. By success rate a
    /// single failing endpoint stands out only among five or more: with `n` of them the worst is
    /// `sqrt(n - 1)` deviations below the mean at most.
    #[must_use]
    pub fn min_hosts(mut self, n: usize) -> Self {
        self.min_hosts = n.max(1);
        self
    }

    /// How often rates are judged. At least 1 ms.
    #[must_use]
    pub fn interval(mut self, time: Duration) -> Self {
        self.interval = time.max(SHORTEST);
        self
    }

    /// How long the first ejection lasts; the n-th lasts n times as long. At least 1 ms.
    #[must_use]
    pub fn base_ejection(mut self, time: Duration) -> Self {
        self.base_ejection = time.max(SHORTEST);
        self
    }

    /// The longest ejection, jitter aside. Not below [`base_ejection`](Self::base_ejection).
    #[must_use]
    pub const fn max_ejection(mut self, time: Duration) -> Self {
        self.max_ejection = time;
        self
    }

    /// Up to this time is added to an ejection at random, so that many clients do not come back at one
    /// moment.
    #[must_use]
    pub const fn jitter(mut self, time: Duration) -> Self {
        self.jitter = time;
        self
    }

    /// The most endpoints that are out at a time, in percent of all: one is ejected only if no more
    /// than this are out afterwards. At most 100.
    #[must_use]
    pub fn max_ejection_percent(mut self, percent: u8) -> Self {
        self.max_ejection_percent = percent.min(100);
        self
    }

    /// Whether one endpoint of two or more may be out although it is a larger share than
    /// [`max_ejection_percent`](Self::max_ejection_percent) of them.
    #[must_use]
    pub const fn always_eject_one(mut self, yes: bool) -> Self {
        self.always_eject_one = yes;
        self
    }

    /// How many of `endpoints` may be out at a time.
    pub(super) fn most_ejected(&self, endpoints: usize) -> usize {
        let share = endpoints.saturating_mul(usize::from(self.max_ejection_percent)) / 100;
        let least = usize::from(self.always_eject_one && endpoints > 1);
        share.max(least)
    }

    /// How long the `times`-th ejection lasts; `draw`, of 1, is chance.
    pub(super) fn ejection(&self, times: u32, draw: f64) -> Duration {
        let longest = self.max_ejection.max(self.base_ejection);
        let time = self.base_ejection.saturating_mul(times.max(1)).min(longest);
        time.saturating_add(
            Duration::try_from_secs_f64(self.jitter.as_secs_f64() * draw).unwrap_or_default(),
        )
    }
}

impl Default for OutlierPolicy {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "serde")]
mod text {
    use std::time::Duration;

    use serde::{Deserialize, Serialize};

    use super::{OutlierPolicy, SHORTEST};

    /// The policy as it is written.
    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    pub(super) struct Fields {
        consecutive_failures: Option<u32>,
        success_rate_stdev: Option<f64>,
        failure_percentage: Option<u8>,
        min_requests: u32,
        min_hosts: usize,
        #[serde(with = "humantime_serde")]
        interval: Duration,
        #[serde(with = "humantime_serde")]
        base_ejection: Duration,
        #[serde(with = "humantime_serde")]
        max_ejection: Duration,
        #[serde(with = "humantime_serde")]
        jitter: Duration,
        max_ejection_percent: u8,
        always_eject_one: bool,
    }

    impl Default for Fields {
        fn default() -> Self {
            OutlierPolicy::new().into()
        }
    }

    impl From<OutlierPolicy> for Fields {
        fn from(policy: OutlierPolicy) -> Self {
            Self {
                consecutive_failures: policy.consecutive_failures,
                success_rate_stdev: policy.success_rate_stdev,
                failure_percentage: policy.failure_percentage,
                min_requests: policy.min_requests,
                min_hosts: policy.min_hosts,
                interval: policy.interval,
                base_ejection: policy.base_ejection,
                max_ejection: policy.max_ejection,
                jitter: policy.jitter,
                max_ejection_percent: policy.max_ejection_percent,
                always_eject_one: policy.always_eject_one,
            }
        }
    }

    impl TryFrom<Fields> for OutlierPolicy {
        type Error = &'static str;

        fn try_from(fields: Fields) -> Result<Self, &'static str> {
            if fields.consecutive_failures == Some(0) {
                return Err("`consecutive_failures` must be at least 1, or null for never");
            }
            if fields
                .success_rate_stdev
                .is_some_and(|factor| !factor.is_finite() || factor < 0.0)
            {
                return Err("`success_rate_stdev` must not be negative; null is never");
            }
            if fields
                .failure_percentage
                .is_some_and(|percent| !(1..=100).contains(&percent))
            {
                return Err("`failure_percentage` must be between 1 and 100, or null for never");
            }
            if fields.min_requests == 0 || fields.min_hosts == 0 {
                return Err("`min_requests` and `min_hosts` must be at least 1");
            }
            if fields.interval < SHORTEST || fields.base_ejection < SHORTEST {
                return Err("`interval` and `base_ejection` must be at least 1ms");
            }
            if fields.max_ejection < fields.base_ejection {
                return Err("`max_ejection` must not be below `base_ejection`");
            }
            if fields.max_ejection_percent > 100 {
                return Err("`max_ejection_percent` must be at most 100");
            }
            Ok(Self {
                consecutive_failures: fields.consecutive_failures,
                success_rate_stdev: fields.success_rate_stdev,
                failure_percentage: fields.failure_percentage,
                min_requests: fields.min_requests,
                min_hosts: fields.min_hosts,
                interval: fields.interval,
                base_ejection: fields.base_ejection,
                max_ejection: fields.max_ejection,
                jitter: fields.jitter,
                max_ejection_percent: fields.max_ejection_percent,
                always_eject_one: fields.always_eject_one,
            })
        }
    }
}
