//! An endpoint that is new, or comes back, gets its share of the calls by and by.
//!
//! [`SlowStartLayer`] stands outermost among an endpoint's own layers. For the time of its window after the endpoint was
//! made known, or was last seen ejected or refusing, the endpoint's weight is a part of what it will be:
//!
//! ```text
//! weight * max(min_weight, (age / window) ^ (1 / aggression))
//! ```
//!
//! which is Envoy's formula. Weights are relative: a set whose endpoints are all new shares its calls as it always will.
//! A strategy that knows no weights passes the endpoint over as often as is missing of its weight.
//!
//! | option | default | |
//! | --- | --- | --- |
//! | [`window`](SlowStartPolicy::window) | 30 s | after which it has all of its weight |
//! | [`min_weight`](SlowStartPolicy::min_weight) | 0.1 | of 1: the part it has from the beginning |
//! | [`aggression`](SlowStartPolicy::aggression) | 1 | 1 grows evenly, more grows faster at first |
//!
//! # Errors and cancellation
//! It hands calls on as they are: it adds nothing to them, refuses none and has no errors. A call that is dropped is no
//! matter to it.
//!
//! # Order
//! Outside of [`Outlier`](crate::Outlier) and [`Breaker`](crate::Breaker), whose comebacks it has to see.
//!
//! ```
//! use std::time::Duration;
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, service_fn};
//! use tower_plugins_layers::balance::{LoadLayer, SlowStartLayer, SlowStartPolicy, Strategy};
//! use tower_plugins_layers::{Balance, BoxError};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let policy = SlowStartPolicy::new().window(Duration::from_secs(60));
//! let endpoints = (0..3).map(|_| {
//!     ServiceBuilder::new()
//!         .layer(SlowStartLayer::new(policy))
//!         .layer(LoadLayer::new())
//!         .service(service_fn(|_: Request<String>| async {
//!             Ok::<_, BoxError>(Response::new(String::from("here")))
//!         }))
//! });
//! let balance = Balance::new(Strategy::PeakEwma, endpoints);
//! # let _ = balance;
//! # });
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;
use tower_layer::Layer;

use super::Member;

/// How slowly an endpoint starts.
///
/// Setters move a value that makes no sense to the nearest that does; reading such a value by serde is an error.
///
/// | setting | default | |
/// | --- | --- | --- |
/// | [`window`](Self::window) | 30 s | after which it has all of its weight |
/// | [`min_weight`](Self::min_weight) | 0.1 | of 1: the part it has from the beginning |
/// | [`aggression`](Self::aggression) | 1 | 1 grows evenly, more grows faster at first |
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "text::Fields", into = "text::Fields")
)]
pub struct SlowStartPolicy {
    window: Duration,
    min_weight: f64,
    aggression: f64,
}

impl SlowStartPolicy {
    /// The default policy.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            window: Duration::from_secs(30),
            min_weight: 0.1,
            aggression: 1.0,
        }
    }

    /// The time after which the endpoint has all of its weight. Zero is at once.
    #[must_use]
    pub const fn window(mut self, time: Duration) -> Self {
        self.window = time;
        self
    }

    /// The part of its weight that the endpoint has from the beginning: above 0 and at most 1.
    #[must_use]
    pub fn min_weight(mut self, part: f64) -> Self {
        if !part.is_nan() {
            self.min_weight = part.clamp(0.001, 1.0);
        }
        self
    }

    /// How the weight grows: evenly at 1, faster at first above it, slower below it. At least 0.01.
    #[must_use]
    pub fn aggression(mut self, aggression: f64) -> Self {
        if aggression.is_finite() {
            self.aggression = aggression.max(0.01);
        }
        self
    }

    /// The part of its weight that an endpoint has at this age.
    #[must_use]
    pub fn part(&self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        let share = age.as_secs_f64() / self.window.as_secs_f64();
        let grown = if self.aggression == 1.0 {
            share
        } else {
            share.powf(self.aggression.recip())
        };
        grown.max(self.min_weight)
    }
}

impl Default for SlowStartPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// When an endpoint has come, or come back. It may be handed on to the next layer of the same endpoint, which is then not
/// new.
#[derive(Debug)]
pub struct Arrival {
    epoch: Instant,
    /// Nanoseconds since the epoch.
    since: AtomicU64,
    /// Why it gets no calls, as it was last seen: [`REFUSES`], [`EJECTED`].
    away: AtomicU8,
}

const REFUSES: u8 = 1;
const EJECTED: u8 = 2;

impl Arrival {
    /// It has come just now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            epoch: Instant::now(),
            since: AtomicU64::new(0),
            away: AtomicU8::new(0),
        }
    }

    /// How long it has been here.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        let since = Duration::from_nanos(self.since.load(Relaxed));
        now.saturating_duration_since(self.epoch)
            .saturating_sub(since)
    }

    /// It was seen to be away, or not, for `reason`.
    fn see(&self, reason: u8, is_away: bool, now: Instant) {
        let was_away = self.away.load(Relaxed) & reason != 0;
        match (was_away, is_away) {
            (false, true) => {
                self.away.fetch_or(reason, Relaxed);
            }
            (true, false) if self.away.fetch_and(!reason, Relaxed) == reason => {
                let since = now.saturating_duration_since(self.epoch).as_nanos();
                let since = u64::try_from(since).unwrap_or(u64::MAX);
                self.since.store(since, Relaxed);
            }
            _ => {}
        }
    }
}

impl Default for Arrival {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes [`SlowStart`] services of one endpoint.
#[derive(Clone, Debug)]
pub struct SlowStartLayer {
    policy: Option<SlowStartPolicy>,
    arrival: Arc<Arrival>,
}

impl SlowStartLayer {
    /// The endpoint has come just now.
    #[must_use]
    pub fn new(policy: SlowStartPolicy) -> Self {
        Self::with_arrival(policy, Arc::default())
    }

    /// The endpoint has come when `arrival` says.
    #[must_use]
    pub const fn with_arrival(policy: SlowStartPolicy, arrival: Arc<Arrival>) -> Self {
        Self {
            policy: Some(policy),
            arrival,
        }
    }

    /// It has all of its weight at once.
    #[must_use]
    pub fn off() -> Self {
        Self {
            policy: None,
            arrival: Arc::default(),
        }
    }

    /// When the endpoint has come, for another layer of it.
    #[must_use]
    pub fn arrival(&self) -> Arc<Arrival> {
        Arc::clone(&self.arrival)
    }

    fn see(&self, reason: u8, is_away: bool, now: Instant) -> bool {
        if self.policy.is_some() {
            self.arrival.see(reason, is_away, now);
        }
        is_away
    }
}

impl<S> Layer<S> for SlowStartLayer {
    type Service = SlowStart<S>;

    fn layer(&self, inner: S) -> SlowStart<S> {
        SlowStart {
            inner,
            layer: self.clone(),
        }
    }
}

/// An endpoint that starts slowly. See [`SlowStartLayer`].
#[derive(Clone, Debug)]
pub struct SlowStart<S> {
    inner: S,
    layer: SlowStartLayer,
}

impl<S> SlowStart<S> {
    /// The service inside.
    #[must_use]
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: Member> Member for SlowStart<S> {
    fn load(&self, now: Instant) -> f64 {
        self.inner.load(now)
    }

    fn is_available(&self, now: Instant) -> bool {
        let refuses = !self.inner.is_available(now);
        !self.layer.see(REFUSES, refuses, now)
    }

    fn takes_retry(&self, now: Instant) -> bool {
        self.inner.takes_retry(now)
    }

    fn retry_after(&self, now: Instant) -> Option<Duration> {
        self.inner.retry_after(now)
    }

    fn is_ejected(&self, now: Instant) -> bool {
        self.layer.see(EJECTED, self.inner.is_ejected(now), now)
    }

    fn ramp(&self, now: Instant) -> f64 {
        let part = self.layer.policy.map_or(1.0, |policy| {
            let age = self.layer.arrival.age(now);
            policy.part(age)
        });
        part * self.inner.ramp(now)
    }

    fn is_back(&self, now: Instant) -> bool {
        self.inner.is_back(now)
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn rtt(&self, now: Instant) -> Duration {
        self.inner.rtt(now)
    }

    fn weighted_load(&self, now: Instant, weight: f64) -> f64 {
        self.inner.weighted_load(now, weight)
    }
}

super::inside::calls_inside!(SlowStart);

#[cfg(feature = "serde")]
mod text {
    use std::time::Duration;

    use serde::{Deserialize, Serialize};

    use super::SlowStartPolicy;

    /// The policy as it is written.
    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    pub(super) struct Fields {
        #[serde(with = "humantime_serde")]
        window: Duration,
        min_weight: f64,
        aggression: f64,
    }

    impl Default for Fields {
        fn default() -> Self {
            SlowStartPolicy::new().into()
        }
    }

    impl From<SlowStartPolicy> for Fields {
        fn from(policy: SlowStartPolicy) -> Self {
            Self {
                window: policy.window,
                min_weight: policy.min_weight,
                aggression: policy.aggression,
            }
        }
    }

    impl TryFrom<Fields> for SlowStartPolicy {
        type Error = &'static str;

        fn try_from(fields: Fields) -> Result<Self, &'static str> {
            if !(0.001..=1.0).contains(&fields.min_weight) {
                return Err("`min_weight` must be between 0.001 and 1");
            }
            if !fields.aggression.is_finite() || fields.aggression < 0.01 {
                return Err("`aggression` must be at least 0.01");
            }
            Ok(Self {
                window: fields.window,
                min_weight: fields.min_weight,
                aggression: fields.aggression,
            })
        }
    }
}
