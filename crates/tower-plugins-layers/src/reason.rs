//! One word for why something was refused, retried, hedged, ejected, cut or failed.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::BoxError;
use crate::rate_limit::Quota;

/// Why something was refused, retried, hedged, ejected, cut or failed: the same word in the error, the
/// metric, the span and the docs.
///
/// ```
/// use tower_plugins_layers::{Reason, Refused};
///
/// let error: tower_plugins_layers::BoxError = Refused::new(Reason::RateLimited).into();
/// assert_eq!(Reason::of(&*error), Some(Reason::RateLimited));
/// assert_eq!(Reason::RateLimited.as_str(), "rate_limited");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// No token was free within the time that may be waited for one.
    RateLimited,
    /// No place was free within the time that may be waited for one.
    ConcurrencyLimited,
    /// The circuit breaker is open, or half-open with all its permits out.
    BreakerOpen,
    /// No endpoint can take the call.
    NoEndpoint,
    /// The call's total time is over.
    DeadlineExceeded,
    /// The attempt's time is over.
    AttemptTimeout,
    /// A streamed response was silent for too long.
    StreamIdle,
    /// The service takes no new calls.
    Draining,
    /// The call outlived the time it was given to finish, and was cancelled.
    DrainCancelled,
    /// The endpoint could not be reached.
    ConnectFailed,
    /// No connection to the endpoint was free within the time that may be waited for one.
    PoolExhausted,
    /// The connection broke while the call was under way.
    ConnectionLost,
    /// The response's head or body is larger than allowed.
    ResponseTooLarge,
    /// A service or layer of the program panicked.
    Panicked,
    /// The answer was a status that may be retried.
    Status,
    /// The request's own body failed or broke off: its sender went away, as a rule.
    RequestBroken,
    /// Calls of more importance had the place that was left.
    Shed,
    /// The caller showed no credentials, or none that are known.
    Unauthenticated,
    /// The caller is known and may not do this.
    Forbidden,
    /// The service that is asked about each call, or the server of a shared rate limit, could not be asked.
    FilterFailed,
    /// This side has no credentials to show, and could get none.
    CredentialsFailed,
    /// The endpoint's own budget had nothing left for a repeated attempt.
    RetryBudget,
    /// The attempt before it was slow: why a second one was begun, and why the loser was cut.
    Hedged,
    /// Failures in a row: why a circuit opened or an endpoint was ejected.
    ConsecutiveFailures,
    /// The share of failures: why a circuit opened or an endpoint was ejected.
    FailureRate,
    /// The share of slow calls: why a circuit opened.
    SlowCalls,
    /// A success rate far below that of the other endpoints: why one was ejected.
    SuccessRate,
    /// A probe failed or was slow: why a half-open circuit opened again.
    ProbeFailed,
    /// Somebody steered it by hand.
    Forced,
    /// The request, or a message of it, is larger than allowed.
    RequestTooLarge,
    /// The endpoint cannot be asked for the connection itself: an upgrade over HTTP/2, or a tunnel.
    UpgradeUnsupported,
}

impl Reason {
    /// All reasons, in the order of their discriminants.
    pub const ALL: [Self; 31] = [
        Self::RateLimited,
        Self::ConcurrencyLimited,
        Self::BreakerOpen,
        Self::NoEndpoint,
        Self::DeadlineExceeded,
        Self::AttemptTimeout,
        Self::StreamIdle,
        Self::Draining,
        Self::DrainCancelled,
        Self::ConnectFailed,
        Self::PoolExhausted,
        Self::ConnectionLost,
        Self::ResponseTooLarge,
        Self::Panicked,
        Self::Status,
        Self::RequestBroken,
        Self::Shed,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::FilterFailed,
        Self::CredentialsFailed,
        Self::RetryBudget,
        Self::Hedged,
        Self::ConsecutiveFailures,
        Self::FailureRate,
        Self::SlowCalls,
        Self::SuccessRate,
        Self::ProbeFailed,
        Self::Forced,
        Self::RequestTooLarge,
        Self::UpgradeUnsupported,
    ];

    /// The word, as it stands in metrics, spans and docs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::ConcurrencyLimited => "concurrency_limited",
            Self::BreakerOpen => "breaker_open",
            Self::NoEndpoint => "no_endpoint",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::AttemptTimeout => "attempt_timeout",
            Self::StreamIdle => "stream_idle",
            Self::Draining => "draining",
            Self::DrainCancelled => "drain_cancelled",
            Self::ConnectFailed => "connect_failed",
            Self::PoolExhausted => "pool_exhausted",
            Self::ConnectionLost => "connection_lost",
            Self::ResponseTooLarge => "response_too_large",
            Self::Panicked => "panicked",
            Self::Status => "status",
            Self::RequestBroken => "request_broken",
            Self::Shed => "shed",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::FilterFailed => "filter_failed",
            Self::CredentialsFailed => "credentials_failed",
            Self::RetryBudget => "retry_budget",
            Self::Hedged => "hedged",
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailureRate => "failure_rate",
            Self::SlowCalls => "slow_calls",
            Self::SuccessRate => "success_rate",
            Self::ProbeFailed => "probe_failed",
            Self::Forced => "forced",
            Self::RequestTooLarge => "request_too_large",
            Self::UpgradeUnsupported => "upgrade_unsupported",
        }
    }

    const fn message(self) -> &'static str {
        match self {
            Self::RateLimited => "rate limit reached",
            Self::ConcurrencyLimited => "too many calls under way",
            Self::BreakerOpen => "circuit breaker open",
            Self::NoEndpoint => "no endpoint can take the call",
            Self::DeadlineExceeded => "deadline exceeded",
            Self::AttemptTimeout => "attempt timed out",
            Self::StreamIdle => "stream silent for too long",
            Self::Draining => "draining: no new calls are taken",
            Self::DrainCancelled => "cancelled: the call outlived its drain",
            Self::ConnectFailed => "could not connect",
            Self::PoolExhausted => "no connection free in time",
            Self::ConnectionLost => "connection lost",
            Self::ResponseTooLarge => "response larger than allowed",
            Self::Panicked => "a service panicked",
            Self::Status => "the answer was a retryable status",
            Self::RequestBroken => "the request's own body failed before its end",
            Self::Shed => "too many calls under way, and this one is of less importance",
            Self::Unauthenticated => "the caller did not say who it is, or could not prove it",
            Self::Forbidden => "the caller may not do this",
            Self::FilterFailed => "the service that decides about calls could not be asked",
            Self::CredentialsFailed => "no credentials to show could be had",
            Self::RetryBudget => "no endpoint may be asked again so soon",
            Self::Hedged => "an earlier attempt was slow",
            Self::ConsecutiveFailures => "too many failures in a row",
            Self::FailureRate => "too large a share of failures",
            Self::SlowCalls => "too large a share of slow calls",
            Self::SuccessRate => "a success rate far below that of the others",
            Self::ProbeFailed => "a probe failed",
            Self::Forced => "forced by hand",
            Self::RequestTooLarge => "request larger than allowed",
            Self::UpgradeUnsupported => "this kind of connection cannot be passed on",
        }
    }

    /// The reason of the first [`Refused`] in `error`'s chain.
    #[must_use]
    pub fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        Refused::find(error).map(Refused::reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error of a layer or transport that ended a call, with its [`Reason`].
#[derive(Debug)]
pub struct Refused {
    reason: Reason,
    /// In nanoseconds; the largest is none.
    retry_after: u64,
    quota: Option<Quota>,
    source: Option<BoxError>,
}

impl Refused {
    /// A refusal for `reason`.
    #[must_use]
    pub const fn new(reason: Reason) -> Self {
        Self {
            reason,
            retry_after: u64::MAX,
            quota: None,
            source: None,
        }
    }

    /// Says how long to wait before another call has a chance.
    #[must_use]
    pub const fn retry_after(mut self, after: Duration) -> Self {
        // 584 years are as good as more.
        let most = u64::MAX - 1;
        let nanos = after.as_nanos();
        self.retry_after = if nanos > most as u128 {
            most
        } else {
            nanos as u64
        };
        self
    }

    /// Says how the caller stands with the rate limit that refused it.
    #[must_use]
    pub const fn with_quota(mut self, quota: Quota) -> Self {
        self.quota = Some(quota);
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Why.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// How long to wait before another call has a chance, if that is known.
    #[must_use]
    pub const fn wait(&self) -> Option<Duration> {
        match self.retry_after {
            u64::MAX => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// How the caller stands with the rate limit, if it was one that refused it.
    #[must_use]
    pub const fn quota(&self) -> Option<Quota> {
        self.quota
    }

    /// The first refusal in `error`'s chain.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(refused) = error.downcast_ref() {
                return Some(refused);
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.message())
    }
}

impl StdError for Refused {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
