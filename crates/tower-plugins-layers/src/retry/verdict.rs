//! What an attempt's outcome means for the next.

use std::error::Error as StdError;
use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};

use super::RetryPolicy;
use crate::hint::{MAX_HINT, pushback, retry_after};
use crate::{Reason, Refused, header as names};

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Success,
    /// A failure that another attempt would meet again.
    Fatal,
    /// A failure of a kind that is retried, of which the server says: not this one.
    Stop,
    Retryable(Retryable),
}

/// An outcome that calls for another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retryable {
    /// How long the other side says to wait.
    pub(crate) after: Option<Duration>,
    pub(crate) reason: Option<Reason>,
}

impl Verdict {
    const fn retryable(after: Option<Duration>, reason: Option<Reason>) -> Self {
        Self::Retryable(Retryable { after, reason })
    }
}

impl RetryPolicy {
    pub(super) fn judge_response<B>(&self, response: &Response<B>) -> Verdict {
        let headers = response.headers();
        let status = response.status();
        let retryable = self.on.status(status)
            || self.on.retry_after
                && status == StatusCode::TOO_MANY_REQUESTS
                && retry_after(headers).is_some();
        match headers.get(&names::GRPC_STATUS) {
            _ if retryable => hinted(headers),
            Some(_) => self.judge_trailers(headers),
            None if status.is_client_error() || status.is_server_error() => Verdict::Fatal,
            None => Verdict::Success,
        }
    }

    /// What headers with a `grpc-status` say.
    pub(super) fn judge_trailers(&self, trailers: &HeaderMap) -> Verdict {
        match trailers.get(&names::GRPC_STATUS) {
            Some(code) if self.on.code(code.as_bytes()) => hinted(trailers),
            Some(code) if code == "0" => Verdict::Success,
            _ => Verdict::Fatal,
        }
    }

    pub(super) fn judge_error(&self, error: &(dyn StdError + 'static), unsent: bool) -> Verdict {
        let refused = Refused::find(error);
        let reason = refused.map(Refused::reason);
        let on = &self.on;
        let listed = match reason {
            Some(
                Reason::RateLimited
                | Reason::ConcurrencyLimited
                | Reason::BreakerOpen
                | Reason::NoEndpoint
                | Reason::DeadlineExceeded
                | Reason::Draining
                | Reason::DrainCancelled
                | Reason::ResponseTooLarge
                | Reason::Panicked
                | Reason::RequestBroken
                | Reason::Shed
                | Reason::Unauthenticated
                | Reason::Forbidden
                | Reason::FilterFailed
                | Reason::CredentialsFailed
                | Reason::Hedged
                | Reason::ConsecutiveFailures
                | Reason::FailureRate
                | Reason::SlowCalls
                | Reason::SuccessRate
                | Reason::ProbeFailed
                | Reason::Forced
                | Reason::RequestTooLarge
                | Reason::UpgradeUnsupported,
            ) => return Verdict::Fatal,
            Some(Reason::RetryBudget) => {
                self.meter.refused();
                return Verdict::Fatal;
            }
            Some(Reason::AttemptTimeout) => on.attempt_timeout,
            Some(Reason::ConnectFailed | Reason::PoolExhausted) => on.connect_failure,
            Some(Reason::StreamIdle | Reason::ConnectionLost | Reason::Status) | None => on.reset,
        };
        if !(listed || unsent && on.refused_stream) {
            return Verdict::Fatal;
        }
        let after = refused.and_then(Refused::wait);
        Verdict::retryable(after.map(|wait| wait.min(MAX_HINT)), reason)
    }
}

/// A failure in a head or in trailers that is retried unless they say otherwise.
fn hinted(headers: &HeaderMap) -> Verdict {
    let after = match headers.get(&names::GRPC_PUSHBACK) {
        Some(millis) => match pushback(millis.as_bytes()) {
            Some(wait) => Some(wait),
            None => return Verdict::Stop,
        },
        None => retry_after(headers),
    };
    Verdict::retryable(after, Some(Reason::Status))
}
