//! What an attempt's outcome means for the next.

use std::error::Error as StdError;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Response, StatusCode, header};

use super::RetryPolicy;
use crate::{Reason, Refused};

/// The longest wait a server can ask for.
const MAX_HINT: Duration = Duration::from_secs(300);

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
        let retry_after = retry_after(headers);
        let retryable = self.retries_status(status)
            || status == StatusCode::TOO_MANY_REQUESTS && retry_after.is_some()
            || headers
                .get("grpc-status")
                .is_some_and(|code| code == UNAVAILABLE);
        if !retryable {
            return None;
        }
        let after = match headers.get("grpc-retry-pushback-ms") {
            Some(millis) => Some(pushback(millis.as_bytes())?),
            None => retry_after,
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
        | Reason::Panicked => None,
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

/// `Retry-After`: seconds or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Some(number) = digits(text.as_bytes()) {
        Duration::from_secs(number)
    } else {
        let at = httpdate::parse_http_date(text).ok()?;
        // A date that has passed is no wait.
        at.duration_since(SystemTime::now()).unwrap_or_default()
    };
    Some(wait.min(MAX_HINT))
}

/// `grpc-retry-pushback-ms`; anything but a number is the server's word for no retry (gRFC A6).
fn pushback(text: &[u8]) -> Option<Duration> {
    Some(Duration::from_millis(digits(text)?).min(MAX_HINT))
}

/// A number of digits only; one too large is the largest.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    })
}
