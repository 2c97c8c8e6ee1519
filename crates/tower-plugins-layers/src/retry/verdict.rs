//! What an attempt's outcome means for the next.

use std::error::Error as StdError;
use std::time::Duration;

use http::{Response, StatusCode};

use super::RetryPolicy;
use crate::hint::{MAX_HINT, pushback, retry_after};
use crate::{Reason, Refused, header as names};

/// The gRPC status `UNAVAILABLE`.
const UNAVAILABLE: &str = "14";

/// An outcome that calls for another attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retryable {
    /// How long the other side says to wait.
    pub(super) after: Option<Duration>,
}

impl RetryPolicy {
    pub(super) fn judge_response<B>(&self, response: &Response<B>) -> Option<Retryable> {
        let headers = response.headers();
        let status = response.status();
        let retryable = self.retries_status(status)
            || status == StatusCode::TOO_MANY_REQUESTS && retry_after(headers).is_some()
            || headers
                .get(&names::GRPC_STATUS)
                .is_some_and(|code| code == UNAVAILABLE);
        if !retryable {
            return None;
        }
        let after = match headers.get(&names::GRPC_PUSHBACK) {
            Some(millis) => Some(pushback(millis.as_bytes())?),
            None => retry_after(headers),
        };
        Some(Retryable { after })
    }
}

pub(super) fn judge_error(error: &(dyn StdError + 'static)) -> Option<Retryable> {
    let Some(refused) = Refused::find(error) else {
        return Some(Retryable { after: None });
    };
    match refused.reason() {
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
        | Reason::Forced => None,
        Reason::AttemptTimeout
        | Reason::StreamIdle
        | Reason::ConnectFailed
        | Reason::PoolExhausted
        | Reason::ConnectionLost
        | Reason::Status => Some(Retryable {
            after: refused.wait().map(|wait| wait.min(MAX_HINT)),
        }),
    }
}
