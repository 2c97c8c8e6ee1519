use std::error::Error as StdError;

use http::{HeaderMap, StatusCode};

use super::{Classify, Outcome, of_error};
use crate::End;
use crate::deadline::is_of_type;
use crate::header::content_type;

/// The first status that may be called a failure, and how many there are.
pub(super) const FIRST: u16 = 400;
pub(super) const STATUSES: u16 = 256;

/// The last code of gRPC.
pub(super) const LAST_CODE: u8 = 16;

/// What a failure is, by status and gRPC code; else as [`HttpGrpc`](super::HttpGrpc) has it.
///
/// | setting | default |
/// | --- | --- |
/// | [`failure_statuses`](Self::failure_statuses) | 500 to 599 but 501 and 505 |
/// | [`failure_grpc_codes`](Self::failure_grpc_codes) | `UNKNOWN`, `DEADLINE_EXCEEDED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS` |
///
/// A 5xx that is no failure is a success at its head. 429, `RESOURCE_EXHAUSTED` and `CANCELLED` keep their
/// meaning unless they are among the failures. Read by serde, a list holds statuses and ranges, `[500,
/// "502-504"]`, or codes and their names, `[14, "internal"]`; any other status than 400 to 655 and any other code
/// than 1 to 16 is an error.
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_plugins_layers::breaker::{BreakerLayer, BreakerPolicy};
/// use tower_plugins_layers::classify::{Classify, ClassifyPolicy, Outcome};
///
/// let classify = ClassifyPolicy::new().failure_statuses([500].into_iter().chain(502..=504));
/// let of = |status| classify.head(status, &HeaderMap::new());
/// assert_eq!(of(StatusCode::BAD_GATEWAY), Some(Outcome::Failure));
/// assert_eq!(of(StatusCode::INSUFFICIENT_STORAGE), Some(Outcome::Success));
///
/// let layer = BreakerLayer::new(BreakerPolicy::new()).classify(classify);
/// # let _ = layer;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(try_from = "super::text::Text", into = "super::text::Text")
)]
pub struct ClassifyPolicy {
    /// A bit for each status from [`FIRST`] on.
    statuses: [u64; 4],
    /// A bit for each code.
    codes: u32,
}

impl ClassifyPolicy {
    /// As [`HttpGrpc`](super::HttpGrpc).
    #[must_use]
    pub const fn new() -> Self {
        let policy = Self {
            statuses: [0; 4],
            codes: 1 << 2 | 1 << 4 | 1 << 13 | 1 << 14 | 1 << 15,
        };
        let mut policy = policy;
        let mut status = 500;
        while status < 600 {
            if status != 501 && status != 505 {
                policy = policy.and(status);
            }
            status += 1;
        }
        policy
    }

    /// These statuses are failures, and no others. Those below 400 and above 655 are passed over.
    #[must_use]
    pub fn failure_statuses(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.statuses = [0; 4];
        statuses.into_iter().fold(self, Self::and)
    }

    /// These gRPC codes are failures, and no others. Those that are not from 1 to 16 are passed over.
    #[must_use]
    pub fn failure_grpc_codes(mut self, codes: impl IntoIterator<Item = u8>) -> Self {
        let codes = codes.into_iter().filter(|code| is_code(*code));
        self.codes = codes.fold(0, |codes, code| codes | 1 << code);
        self
    }

    const fn and(mut self, status: u16) -> Self {
        if is_status(status) {
            let bit = status - FIRST;
            self.statuses[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        self
    }

    pub(super) const fn is_failure(&self, status: u16) -> bool {
        let bit = status.wrapping_sub(FIRST);
        bit < STATUSES && self.statuses[(bit / 64) as usize] & 1 << (bit % 64) != 0
    }

    pub(super) const fn is_failure_code(&self, code: u8) -> bool {
        code < 32 && self.codes & 1 << code != 0
    }

    /// The outcome of the `grpc-status` in a head or in trailers.
    fn grpc_status(&self, headers: &HeaderMap) -> Option<Outcome> {
        let code = headers.get(&crate::header::GRPC_STATUS)?.as_bytes();
        let code = match *code {
            [ones @ b'0'..=b'9'] => ones - b'0',
            [b'1', ones @ b'0'..=b'9'] => 10 + ones - b'0',
            // No code of gRPC, but one of somebody; or none at all.
            [_, ..] if code.iter().all(u8::is_ascii_digit) => return Some(Outcome::Success),
            _ => return Some(Outcome::Failure),
        };
        Some(match code {
            _ if self.is_failure_code(code) => Outcome::Failure,
            1 => Outcome::Ignored,
            8 => Outcome::Overloaded,
            _ => Outcome::Success,
        })
    }
}

/// Whether it may be called a failure.
pub(super) const fn is_status(status: u16) -> bool {
    status.wrapping_sub(FIRST) < STATUSES
}

pub(super) const fn is_code(code: u8) -> bool {
    code >= 1 && code <= LAST_CODE
}

impl Default for ClassifyPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl Classify for ClassifyPolicy {
    fn head(&self, status: StatusCode, headers: &HeaderMap) -> Option<Outcome> {
        match status {
            _ if self.is_failure(status.as_u16()) => return Some(Outcome::Failure),
            StatusCode::TOO_MANY_REQUESTS => return Some(Outcome::Overloaded),
            StatusCode::SWITCHING_PROTOCOLS => return Some(Outcome::Success),
            _ if status.is_server_error() => return Some(Outcome::Success),
            _ => {}
        }
        if headers.is_empty() {
            return None;
        }
        let Some(kind) = content_type(headers) else {
            return self.grpc_status(headers);
        };
        if is_of_type(kind, b"text/event-stream") {
            return Some(Outcome::Success);
        }
        is_of_type(kind, b"application/grpc")
            .then(|| self.grpc_status(headers))
            .flatten()
    }

    fn end(&self, end: &End<'_>) -> Outcome {
        match end {
            End::Complete(trailers) => {
                let status = trailers.and_then(|trailers| self.grpc_status(trailers));
                status.unwrap_or(Outcome::Success)
            }
            End::Error(error) => self.error(*error),
        }
    }

    fn error(&self, error: &(dyn StdError + 'static)) -> Outcome {
        of_error(error)
    }
}
