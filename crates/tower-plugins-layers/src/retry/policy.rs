use std::time::Duration;

use http::{HeaderName, Request, header};

use super::meter::Meter;
use super::on::OnSet;
use super::paths::Paths;
use super::{Backoff, Budget, RetryOn};
use crate::CallContext;
use crate::hedge::HedgePolicy;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// When, how often and how fast a call is repeated.
///
/// | setting | default | |
/// | --- | --- | --- |
/// | [`max_retries`](Self::max_retries) | 3 | attempts beyond the first |
/// | [`backoff`](Self::backoff) | 100 ms to 5 s, doubling, full jitter | the wait before each |
/// | [`budget`](Self::budget) | 0.2 for each call and 10 a second, its own | what all calls together may repeat |
/// | [`on`](Self::on) | [`RetryOn::DEFAULT`] | the failures that are retried |
/// | [`idempotent`](Self::idempotent) | none | paths that may be repeated whatever their method |
/// | [`never`](Self::never) | none | paths that may not, whatever their method |
/// | [`max_replay`](Self::max_replay) | 64 KiB | bytes of a request's body that are kept |
/// | [`attempt_header`](Self::attempt_header) | none | the header with the number of attempts before |
/// | [`first_frame_wait`](Self::first_frame_wait) | 100 ms | how long a gRPC response's head waits for its first frame |
/// | [`hedge`](Self::hedge) | none | calls that are [hedged](crate::hedge) instead |
///
/// # What is retried
/// What [`on`](Self::on) lists, by default: the statuses 502, 503 and 504; 429 when it says in `Retry-After`
/// how long to wait; gRPC's `UNAVAILABLE`; and any error of the service inside, but for refusals that
/// another attempt would only meet again. Those are never retried: `rate_limited`,
/// `concurrency_limited`, `shed`, `draining`, `drain_cancelled`, `deadline_exceeded`, `response_too_large`, `panicked`,
/// `request_broken`, `request_too_large`, `upgrade_unsupported`, `unauthenticated`, `forbidden`, `filter_failed`; and `breaker_open` and `no_endpoint`: what picks an
/// endpoint has tried them all, and a breaker is there to fail fast; and `retry_budget`. `pool_exhausted` is retried, for
/// the next endpoint may have a connection.
///
/// `Retry-After` (seconds or a date, at most 300 s; anything else is ignored) and
/// `grpc-retry-pushback-ms` (at most 300 s; anything but a number from 0 up means no retry) take
/// the place of the backoff, and so does [`Refused::wait`](crate::Refused::wait).
///
/// ```
/// use std::time::Duration;
/// use tower_plugins_layers::RetryPolicy;
/// use tower_plugins_layers::retry::{Backoff, Budget, RetryOn};
///
/// let policy = RetryPolicy::new()
///     .max_retries(2)
///     .backoff(Backoff::new(Duration::from_millis(20), Duration::from_millis(200)))
///     .on([RetryOn::GatewayError, RetryOn::ConnectFailure, RetryOn::Grpc(14)])
///     .idempotent(["/search", "pkg.Catalog/Get*"])
///     .budget(Budget::in_flight(0.2, 3));
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(remote = "Self", default, deny_unknown_fields)
)]
pub struct RetryPolicy {
    pub(super) max_retries: u32,
    pub(super) backoff: Backoff,
    pub(super) budget: Budget,
    pub(super) max_replay: usize,
    pub(super) on: OnSet,
    idempotent: Paths,
    never: Paths,
    #[cfg_attr(feature = "serde", serde(with = "header_name"))]
    pub(super) attempt_header: Option<HeaderName>,
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub(super) first_frame_wait: Duration,
    pub(super) hedge: Option<HedgePolicy>,
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(super) meter: Meter,
}

/// How often a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    Yes,
    /// Only if it was never processed.
    Unsent,
    Never,
}

impl RetryPolicy {
    /// At most three retries, with the default backoff and a default budget of its own. Clones
    /// share the budget.
    #[must_use]
    pub fn new() -> Self {
        Self {
            max_retries: 3,
            backoff: Backoff::default(),
            budget: Budget::default(),
            max_replay: 64 * 1024,
            on: RetryOn::DEFAULT.into_iter().collect(),
            idempotent: Paths::default(),
            never: Paths::default(),
            attempt_header: None,
            first_frame_wait: Duration::from_millis(100),
            hedge: None,
            meter: Meter::default(),
        }
    }

    /// Attempts beyond the first; 0 switches retries off.
    #[must_use]
    pub const fn max_retries(mut self, n: u32) -> Self {
        self.max_retries = n;
        self
    }

    /// Sets the waits between attempts.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets the budget, which may be shared with others.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// The bytes of a request's body that are kept for another attempt. 64 KiB by default.
    #[must_use]
    pub const fn max_replay(mut self, bytes: usize) -> Self {
        self.max_replay = bytes;
        self
    }

    /// The failures that are retried, instead of [`RetryOn::DEFAULT`].
    #[must_use]
    pub fn on(mut self, failures: impl IntoIterator<Item = RetryOn>) -> Self {
        self.on = failures.into_iter().collect();
        self
    }

    /// Paths, or gRPC methods, whose calls may be repeated whatever their HTTP method. A trailing
    /// `*` matches any rest, and the leading `/` may be left out. None by default.
    #[must_use]
    pub fn idempotent<P: AsRef<str>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.idempotent = paths.into_iter().collect();
        self
    }

    /// Paths, or gRPC methods, whose calls are never repeated: whatever their HTTP method, their
    /// headers and [`idempotent`](Self::idempotent) say, and not even if they were never processed.
    /// None by default.
    #[must_use]
    pub fn never<P: AsRef<str>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.never = paths.into_iter().collect();
        self
    }

    /// The header that tells the other side how many attempts there were before, on those beyond
    /// the first. None by default; a gRPC request has `grpc-previous-rpc-attempts` in any case.
    #[must_use]
    pub fn attempt_header(mut self, name: impl Into<Option<HeaderName>>) -> Self {
        self.attempt_header = name.into();
        self
    }

    /// How long the head of a gRPC response that says nothing waits for the first frame, which
    /// may be trailers with a status that is retried; then the call is committed. It holds up the
    /// head of a stream that is silent at first. 100 ms by default; zero looks at no frame.
    #[must_use]
    pub const fn first_frame_wait(mut self, wait: Duration) -> Self {
        self.first_frame_wait = wait;
        self
    }

    /// Hedges the calls that may be repeated and that `hedge` is for, instead of retrying them; with
    /// this policy's budget, and the failures of [`on`](Self::on) as those that are waited out.
    #[must_use]
    pub fn hedge(mut self, hedge: impl Into<Option<HedgePolicy>>) -> Self {
        self.hedge = hedge.into();
        self
    }

    /// Whether a first frame may say anything that its head did not.
    pub(super) fn looks(&self) -> bool {
        self.on.has_codes() && !self.first_frame_wait.is_zero()
    }

    /// Whether it ever makes more than one attempt.
    pub(super) fn is_armed(&self) -> bool {
        self.max_retries > 0 || self.hedge.is_some()
    }

    /// Whether a call with `request` may be repeated.
    pub(super) fn repeat<B>(&self, request: &Request<B>) -> Repeat {
        let path = request.uri().path();
        if self.never.matches(path) {
            Repeat::Never
        } else if request.headers().contains_key(header::UPGRADE) {
            // What it may lead to, a talk over the connection, is not idempotent, whatever its method is.
            Repeat::Unsent
        } else if request.method().is_idempotent()
            || CallContext::of(request).is_some_and(CallContext::is_idempotent)
            || request.headers().contains_key(IDEMPOTENCY_KEY)
            || self.idempotent.matches(path)
        {
            Repeat::Yes
        } else {
            Repeat::Unsent
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "serde")]
impl crate::checked::Check for RetryPolicy {
    fn check(&self) -> Result<(), &'static str> {
        if self.max_retries > 100 {
            return Err("`max_retries` is from 0 to 100");
        }
        Ok(())
    }
}

#[cfg(feature = "serde")]
crate::checked::checked!(RetryPolicy);

#[cfg(feature = "serde")]
mod header_name {
    use http::HeaderName;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        name: &Option<HeaderName>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        name.as_ref().map(HeaderName::as_str).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<HeaderName>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}
