//! Durations as text, the way Go prints and reads them: `30s`, `1m30s`, `1.5s`, `100ms`.
//!
//! The functions [`serialize`] and [`deserialize`] make the module usable as
//! `#[serde(with = "tower_plugins_proto::duration")]`.

use std::time::Duration;

use serde::{Deserializer, Serializer, de};

const SECOND: u128 = 1_000_000_000;

/// Units that [`parse`] reads, in nanoseconds. The two micro signs are U+00B5 and U+03BC.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];

/// The shortest text that says `duration` exactly, as Go's `time.Duration` prints it.
///
/// From a second up it is in hours, minutes and seconds; below that in the largest of `ms`, `µs` and
/// `ns` that is not a fraction of one. Zero is `0s`. A Go program cannot read more than about 292
/// years; more than that is written as that.
///
/// ```
/// use std::time::Duration;
/// use tower_plugins_proto::duration;
///
/// assert_eq!(duration::format(Duration::from_millis(90_500)), "1m30.5s");
/// ```
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos().min(i64::MAX as u128);
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => decimal(nanos, 1_000) + "\u{b5}s",
        1_000_000..SECOND => decimal(nanos, 1_000_000) + "ms",
        _ => {
            let (minutes, rest) = (nanos / (60 * SECOND), nanos % (60 * SECOND));
            let seconds = decimal(rest, SECOND) + "s";
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// `nanos / unit` without trailing zeros; `unit` is a power of ten.
fn decimal(nanos: u128, unit: u128) -> String {
    let (whole, fraction) = (nanos / unit, nanos % unit);
    if fraction == 0 {
        return whole.to_string();
    }
    let digits = unit.ilog10() as usize;
    let fraction = format!("{fraction:0digits$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a duration: write a number and a unit (ns, us, ms, s, m, h), such as \"1m30s\""
)]
pub struct ParseError {
    text: String,
}

/// Reads what [`format()`] and Go write: numbers, each with its unit, as in `1h0m1.5s`; or plain `0`.
///
/// A fraction below a nanosecond is dropped.
///
/// # Errors
///
/// If a unit is missing or unknown, if the text is empty, negative, or not a number, and if the
/// duration is longer than about 292 years, which is as far as Go counts.
///
/// ```
/// use std::time::Duration;
/// use tower_plugins_proto::duration;
///
/// assert_eq!(duration::parse("1m30s"), Ok(Duration::from_secs(90)));
/// assert!(duration::parse("30").is_err());
/// ```
pub fn parse(text: &str) -> Result<Duration, ParseError> {
    nanos(text)
        .map(Duration::from_nanos)
        .ok_or_else(|| ParseError { text: text.into() })
}

fn nanos(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total = 0_u128;
    loop {
        let number = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
                .len();
        let (number, after) = rest.split_at(number);
        let unit = after.len() - after.trim_start_matches(|c: char| c.is_alphabetic()).len();
        let (unit, after) = after.split_at(unit);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(scaled(number, *unit)?)?;
        if total > i64::MAX as u128 {
            return None;
        }
        if after.is_empty() {
            return total.try_into().ok();
        }
        rest = after;
    }
}

/// `number`, which may have a fraction, times `unit`.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    // Digits past the ninth say less than a nanosecond of an hour's 3.6e12; twelve keep all that count.
    let mut part = 0;
    let mut scale = 1_u128;
    for digit in fraction.chars() {
        let digit = u128::from(digit.to_digit(10)?);
        if scale < 1_000_000_000_000_000 {
            part = part * 10 + digit;
            scale *= 10;
        }
    }
    whole.checked_mul(unit)?.checked_add(part * unit / scale)
}

/// Writes the duration with [`format()`].
///
/// # Errors
///
/// The serializer's own.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// Reads the duration with [`parse`].
///
/// # Errors
///
/// If the value is not text, or not a duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;

    impl de::Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a duration as text, such as \"30s\"")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_duration_is_written_as_go_writes_it() {
        let table = [
            (Duration::ZERO, "0s"),
            (Duration::from_nanos(1), "1ns"),
            (Duration::from_nanos(999), "999ns"),
            (Duration::from_nanos(1_000), "1µs"),
            (Duration::from_nanos(1_100), "1.1µs"),
            (Duration::from_nanos(1_001), "1.001µs"),
            (Duration::from_millis(100), "100ms"),
            (Duration::from_micros(2_200), "2.2ms"),
            (Duration::from_nanos(999_999_999), "999.999999ms"),
            (Duration::from_secs(1), "1s"),
            (Duration::from_millis(1_500), "1.5s"),
            (Duration::from_nanos(1_000_000_001), "1.000000001s"),
            (Duration::from_secs(30), "30s"),
            (Duration::from_secs(60), "1m0s"),
            (Duration::from_secs(90), "1m30s"),
            (Duration::from_secs(3600), "1h0m0s"),
            (Duration::from_millis(3_605_001), "1h0m5.001s"),
            (Duration::from_secs(100 * 3600), "100h0m0s"),
            (Duration::MAX, "2562047h47m16.854775807s"),
        ];
        for (duration, text) in table {
            assert_eq!(format(duration), text);
        }
    }

    #[test]
    fn a_duration_is_read_as_go_reads_it() {
        let table = [
            ("0", 0),
            ("0s", 0),
            ("30s", 30_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1m30.5s", 90_500_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("100us", 100_000),
            ("100µs", 100_000),
            ("100μs", 100_000),
            ("1.0000000005s", 1_000_000_000),
            ("0.3333333333333333333h", 1_200_000_000_000 - 1),
            ("2562047h47m16.854775807s", i64::MAX as u64),
        ];
        for (text, nanos) in table {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_text_to_write() {
        let refused = [
            "", "30", "s", ".s", "-1s", "+1s", "1 s", "1x", "1.2.3s", "1s ", "1e3s", "2562048h",
        ];
        for text in refused {
            assert!(parse(text).is_err(), "{text:?}");
        }
        let error = parse("30").unwrap_err().to_string();
        assert!(
            error.contains("\"30\"") && error.contains("1m30s"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanos in 0..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9.hmsunµ+ -]{0,40}") {
            let _ = parse(&text);
        }
    }
}
