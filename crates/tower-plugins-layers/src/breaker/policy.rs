use std::time::Duration;

use super::count::MOST;
use super::window::Sums;
use crate::Reason;

/// When a breaker opens, for how long, and what it takes to close it.
///
/// The circuit opens at any of three things: so many failures without a success between them, a
/// share of failures, or a share of slow calls. The shares are those of a window, of the last
/// [time](Self::window) or of the last [calls](Self::window_calls), and are looked at when a call in it
/// failed or was slow. Setters move values that make no sense to the nearest that does; read by serde, these
/// are errors.
///
/// | setting | default |
/// | --- | --- |
/// | [`consecutive_failures`](Self::consecutive_failures) | 5 |
/// | [`failure_rate`](Self::failure_rate) | 0.5 |
/// | [`slow_call`](Self::slow_call) | none |
/// | [`slow_rate`](Self::slow_rate) | 1, if `slow_call` is set |
/// | [`window`](Self::window) or [`window_calls`](Self::window_calls) | 10 s |
/// | [`min_requests`](Self::min_requests) | 20 |
/// | [`recovery`](Self::recovery) | 1 s |
/// | [`max_recovery`](Self::max_recovery) | 60 s |
/// | [`jitter`](Self::jitter) | 0.5 |
/// | [`success_threshold`](Self::success_threshold) | 3 |
///
/// ```
/// use std::time::Duration;
/// use tower_plugins_layers::breaker::BreakerPolicy;
///
/// let policy = BreakerPolicy::new()
///     .consecutive_failures(3)
///     .failure_rate(None)
///     .recovery(Duration::from_secs(5));
/// # let _ = policy;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(try_from = "super::text::Text", into = "super::text::Text")
)]
pub struct BreakerPolicy {
    pub(super) consecutive_failures: Option<u32>,
    pub(super) failure_rate: Option<f64>,
    pub(super) slow_call: Option<Duration>,
    pub(super) slow_rate: f64,
    pub(super) window: Duration,
    /// In place of the time.
    pub(super) window_calls: Option<u32>,
    pub(super) min_requests: u32,
    pub(super) recovery: Duration,
    pub(super) max_recovery: Duration,
    pub(super) jitter: f64,
    pub(super) success_threshold: u16,
}

impl BreakerPolicy {
    /// The default policy.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            consecutive_failures: Some(5),
            failure_rate: Some(0.5),
            slow_call: None,
            slow_rate: 1.0,
            window: Duration::from_secs(10),
            window_calls: None,
            min_requests: 20,
            recovery: Duration::from_secs(1),
            max_recovery: Duration::from_secs(60),
            jitter: 0.5,
            success_threshold: 3,
        }
    }

    /// Opens at this many failures without a success between them; `None` for never.
    #[must_use]
    pub fn consecutive_failures(mut self, n: impl Into<Option<u32>>) -> Self {
        self.consecutive_failures = n.into().map(|n| n.max(1));
        self
    }

    /// Opens when this share, of 1, of the window's calls have failed; `None` for never, which also
    /// saves each call the counting.
    #[must_use]
    pub fn failure_rate(mut self, share: impl Into<Option<f64>>) -> Self {
        self.failure_rate = share
            .into()
            .filter(|share| *share > 0.0)
            .map(|share| share.min(1.0));
        self
    }

    /// A call that takes longer than this is slow, whatever its outcome: to the end of its body, and of a
    /// stream to its head. `None` for none, which also saves each call the clock.
    #[must_use]
    pub fn slow_call(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.slow_call = time.into();
        self
    }

    /// Opens when this share, of 1, of the window's calls were [slow](Self::slow_call). A slow probe is a failed
    /// one.
    #[must_use]
    pub const fn slow_rate(mut self, share: f64) -> Self {
        if share > 0.0 && share <= 1.0 {
            self.slow_rate = share;
        }
        self
    }

    /// The time over which calls are counted for the shares, to a tenth of it; at least 10 ms.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window.max(Duration::from_millis(10));
        self.window_calls = None;
        self
    }

    /// The shares are those of the last `n` calls, whenever they ended; between 1 and 65,536, a byte each.
    #[must_use]
    pub fn window_calls(mut self, n: u32) -> Self {
        self.window_calls = Some(n.clamp(1, MOST));
        self
    }

    /// The shares do not count before this many calls are in the window, or, in a window of fewer calls,
    /// before it is full.
    #[must_use]
    pub const fn min_requests(mut self, n: u32) -> Self {
        self.min_requests = n;
        self
    }

    /// How long the circuit stays open the first time. It doubles each time a half-open circuit
    /// opens again, up to [`max_recovery`](Self::max_recovery). At least 1 ms.
    #[must_use]
    pub fn recovery(mut self, time: Duration) -> Self {
        self.recovery = time.max(Duration::from_millis(1));
        self
    }

    /// The longest that the circuit stays open, jitter aside. Not below [`recovery`](Self::recovery),
    /// so that zero stops it from growing.
    #[must_use]
    pub const fn max_recovery(mut self, time: Duration) -> Self {
        self.max_recovery = time;
        self
    }

    /// Up to this share of the open time is added to it at random, so that many clients do not come
    /// back at one moment. Between 0 and 1.
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = if share.is_nan() {
            0.0
        } else {
            share.clamp(0.0, 1.0)
        };
        self
    }

    /// A half-open circuit lets this many calls in, and closes when all have succeeded. At least 1.
    #[must_use]
    pub fn success_threshold(mut self, n: u16) -> Self {
        self.success_threshold = n.max(1);
        self
    }

    pub(super) const fn judges_rates(&self) -> bool {
        self.failure_rate.is_some() || self.slow_call.is_some()
    }

    pub(super) const fn judges_time(&self) -> bool {
        self.window_calls.is_none() && self.judges_rates()
    }

    /// Why a window with `sums` opens the circuit, to which a call was added that `failed` or was `slow`.
    pub(super) fn rate_too_high(&self, sums: Sums, failed: bool, slow: bool) -> Option<Reason> {
        let full = self.window_calls.unwrap_or(u32::MAX);
        if sums.calls < u64::from(self.min_requests.min(full)) {
            return None;
        }
        let reaches = |part: u64, share: f64| part as f64 >= share * sums.calls as f64;
        if failed
            && self
                .failure_rate
                .is_some_and(|rate| reaches(sums.failed, rate))
        {
            return Some(Reason::FailureRate);
        }
        let slow = slow && self.slow_call.is_some() && reaches(sums.slow, self.slow_rate);
        slow.then_some(Reason::SlowCalls)
    }

    /// How many nanoseconds a circuit stays open that has opened `trips` times in a row; `draw`, of 1, is chance.
    pub(super) fn open_nanos(&self, trips: u8, draw: f64) -> u64 {
        let doubled = 1_u64
            .checked_shl(trips.saturating_sub(1).into())
            .unwrap_or(u64::MAX);
        let most = self.max_recovery.max(self.recovery);
        let time = nanos(self.recovery)
            .saturating_mul(doubled)
            .min(nanos(most));
        time.saturating_add((time as f64 * self.jitter * draw) as u64)
    }
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self::new()
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
