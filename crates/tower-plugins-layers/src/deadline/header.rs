//! A time in a header.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

/// A header in which a caller says how long it waits, such as `x-request-timeout`.
///
/// A value is a number and a unit: `250ms`, `1.5s`, `2m`, `900us`. A number alone is in seconds, or in
/// milliseconds if the header's name ends in `-ms`, as Envoy's `x-envoy-expected-rq-timeout-ms` does. It is
/// written as such a number. Anything else is no deadline.
///
/// ```
/// use std::time::Duration;
/// use http::{HeaderName, HeaderValue};
/// use tower_plugins_layers::deadline::TimeoutHeader;
///
/// let seconds = TimeoutHeader::new(HeaderName::from_static("x-request-timeout"));
/// assert_eq!(seconds.read(&HeaderValue::from_static("1.5")), Some(Duration::from_millis(1500)));
/// assert_eq!(seconds.read(&HeaderValue::from_static("250ms")), Some(Duration::from_millis(250)));
/// assert_eq!(seconds.write(Duration::from_millis(250)), "0.25");
///
/// let millis = TimeoutHeader::new(HeaderName::from_static("x-envoy-expected-rq-timeout-ms"));
/// assert_eq!(millis.read(&HeaderValue::from_static("250")), Some(Duration::from_millis(250)));
/// assert_eq!(millis.write(Duration::from_millis(250)), "250");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(try_from = "String", into = "String")
)]
pub struct TimeoutHeader {
    name: HeaderName,
    millis: bool,
}

impl TimeoutHeader {
    /// The header `name`.
    #[must_use]
    pub fn new(name: HeaderName) -> Self {
        let millis = name.as_str().ends_with("-ms");
        Self { name, millis }
    }

    /// The header's name.
    #[must_use]
    pub const fn name(&self) -> &HeaderName {
        &self.name
    }

    /// The time that `value` says, if it says one.
    #[must_use]
    pub fn read(&self, value: &HeaderValue) -> Option<Duration> {
        let text = value.to_str().ok()?.trim();
        let end = text
            .bytes()
            .position(|byte| !byte.is_ascii_digit() && byte != b'.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let number: f64 = number.parse().ok()?;
        let seconds = match unit.trim_start() {
            "" if self.millis => number / 1e3,
            "" | "s" => number,
            "us" => number / 1e6,
            "ms" => number / 1e3,
            "m" => number * 60.0,
            _ => return None,
        };
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// What says `time`, to the millisecond.
    #[must_use]
    pub fn write(&self, time: Duration) -> HeaderValue {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if self.millis {
            return HeaderValue::from(millis);
        }
        let mut text = format!("{}.{:03}", millis / 1000, millis % 1000);
        let kept = text.trim_end_matches('0').trim_end_matches('.').len();
        text.truncate(kept);
        number(text)
    }
}

/// The value of `grpc-timeout`: at most eight digits and a unit. Anything else is no deadline.
pub(super) fn read_grpc(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

/// `time` in the finest unit of which eight digits are enough, rounded down.
pub(super) fn write_grpc(time: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let units = [
        (time.as_nanos(), 'n'),
        (time.as_micros(), 'u'),
        (time.as_millis(), 'm'),
        (u128::from(time.as_secs()), 'S'),
        (u128::from(time.as_secs() / 60), 'M'),
    ];
    let (n, unit) = units
        .into_iter()
        .find(|(n, _)| *n <= MOST)
        .unwrap_or((u128::from(time.as_secs() / 3600).min(MOST), 'H'));
    number(format!("{n}{unit}"))
}

/// Digits, dots and letters are always a header's value.
fn number(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

impl TryFrom<String> for TimeoutHeader {
    type Error = http::header::InvalidHeaderName;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        HeaderName::try_from(name).map(Self::new)
    }
}

impl From<TimeoutHeader> for String {
    fn from(header: TimeoutHeader) -> Self {
        header.name.as_str().to_owned()
    }
}
