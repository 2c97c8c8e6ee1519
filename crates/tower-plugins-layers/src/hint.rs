//! How long a server asks to be left alone.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

/// The longest wait a server can ask for.
pub(crate) const MAX_HINT: Duration = Duration::from_secs(300);

/// How long a server asks to be left alone, in a head or in trailers.
pub(crate) fn asked(headers: &HeaderMap) -> Option<Duration> {
    let millis = headers.get(&crate::header::GRPC_PUSHBACK);
    millis
        .and_then(|millis| pushback(millis.as_bytes()))
        .or_else(|| retry_after(headers))
}

/// `Retry-After`: seconds or a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
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
pub(crate) fn pushback(text: &[u8]) -> Option<Duration> {
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
