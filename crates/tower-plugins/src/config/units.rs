//! Durations and sizes, written as text.

use std::time::Duration;

use super::fault::Fault;

/// The longest duration a config may hold. A year is longer than any sensible timeout, and short
/// enough for a deadline to be computed without overflow.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

const SIZES: [(&str, u64); 7] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// A duration such as `100ms`, `1.5s` or `1h30m`; `0` needs no unit.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    let wrong = || Fault::of_value("is not a duration: write one such as \"100ms\" or \"1h30m\"");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() || text.len() > 64 {
        return Err(wrong());
    }
    let mut nanos: u128 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = split(after, |c| !c.is_ascii_digit() && c != '.');
        let scale = UNITS.iter().find(|(name, _)| *name == unit);
        let (_, scale) = scale.ok_or_else(wrong)?;
        nanos = scaled(number, *scale)
            .and_then(|part| nanos.checked_add(part))
            .ok_or_else(wrong)?;
        rest = after;
    }
    match u64::try_from(nanos).map(Duration::from_nanos) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        _ => Err(Fault::of_value("is longer than 365d, the longest allowed")),
    }
}

/// A rate such as `90/m` or `0.5/s`, as times a second.
pub(super) fn rate(text: &str) -> Result<f64, Fault> {
    let (number, unit) = text.split_once('/').unwrap_or((text, ""));
    let seconds = match unit {
        "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3_600.0),
        _ => None,
    };
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number = number.parse::<f64>().ok().filter(|_| plain);
    match (number, seconds) {
        (Some(number), Some(seconds)) => Ok(number / seconds),
        _ => Err(Fault::of_value(
            "is not a rate: write a number a second, or a text such as \"90/m\"; units s, m, h",
        )),
    }
}

/// A size such as `64KiB`, `1MB` or `512`, in bytes.
pub(super) fn size(text: &str) -> Result<u64, Fault> {
    let (number, unit) = split(text, |c| c.is_ascii_digit() || c == '.');
    let scale = match unit {
        "" => Some(1),
        unit => SIZES.iter().find(|(name, _)| *name == unit).map(|s| s.1),
    };
    scale
        .and_then(|scale| scaled(number, scale))
        .and_then(|bytes| u64::try_from(bytes).ok())
        .ok_or_else(|| {
            Fault::of_value("is not a size: write bytes, or a text such as \"64KiB\" or \"1MB\"")
        })
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// `number`, which may have decimals, times `scale`; `None` if the product is no whole number.
fn scaled(number: &str, scale: u64) -> Option<u128> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    if decimals.is_empty() || decimals.len() > 9 {
        return None;
    }
    let unit = 10_u128.pow(u32::try_from(decimals.len()).ok()?);
    let parts = whole
        .parse::<u64>()
        .ok()
        .map(u128::from)?
        .checked_mul(unit)?
        .checked_add(decimals.parse().ok()?)?
        .checked_mul(u128::from(scale))?;
    (parts % unit == 0).then_some(parts / unit)
}

/// `duration` as a config writes it, exactly.
pub(crate) fn write_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let (unit, scale) = UNITS
        .into_iter()
        .rev()
        .find(|(_, scale)| nanos.is_multiple_of(u128::from(*scale)))
        .unwrap_or(UNITS[0]);
    format!("{}{unit}", nanos / u128::from(scale))
}

/// `bytes` as a config writes them, exactly.
pub(super) fn write_size(bytes: u64) -> String {
    let binary = SIZES.iter().rev().filter(|(unit, _)| unit.contains('i'));
    match binary
        .copied()
        .find(|(_, scale)| bytes > 0 && bytes.is_multiple_of(*scale))
    {
        Some((unit, scale)) => format!("{}{unit}", bytes / scale),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_exact() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("1ns", 1),
            ("7us", 7_000),
            ("7\u{b5}s", 7_000),
            ("100ms", 100_000_000),
            ("1.5s", 1_500_000_000),
            ("0.000000001s", 1),
            ("1h30m", 5_400_000_000_000),
            ("1m0.25s", 60_250_000_000),
            ("365d", 31_536_000_000_000_000),
        ] {
            let expected = Duration::from_nanos(nanos);
            assert_eq!(duration(text).ok(), Some(expected), "{text}");
            let written = write_duration(expected);
            assert_eq!(duration(&written).ok(), Some(expected), "{written}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_and_never_clamped() {
        for text in [
            "",
            " ",
            "30",
            "-1s",
            "+1s",
            "s",
            "1",
            "1 s",
            "1s ",
            "10 parsecs",
            "10parsecs",
            "1e3s",
            "NaN",
            "inf",
            "1.s",
            ".5s",
            "1..5s",
            "1.5.5s",
            "0.5ns",
            "366d",
            "365d1ns",
            "1S",
            "99999999999999999999999999d",
            "18446744073709551615d",
            "1.0000000001s",
            "\u{661}s",
        ] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn rates_are_times_a_second() {
        for (text, per_second) in [
            ("10/s", 10.0),
            ("0.5/s", 0.5),
            ("90/m", 1.5),
            ("36/h", 0.01),
        ] {
            assert_eq!(rate(text).ok(), Some(per_second), "{text}");
        }
        for text in [
            "", "10", "/s", "10/", "10/d", "-1/s", "1e3/s", "NaN/s", "10 /s", "10/s/m",
        ] {
            assert!(rate(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_bytes() {
        for (text, bytes) in [
            ("512", 512),
            ("512B", 512),
            ("64KiB", 65_536),
            ("1MB", 1_000_000),
            ("1.5MiB", 1_572_864),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(size(text).ok(), Some(bytes), "{text}");
            assert_eq!(size(&write_size(bytes)).ok(), Some(bytes), "{text}");
        }
        for text in [
            "",
            "KiB",
            "-1",
            "1 KiB",
            "1kib",
            "1.1B",
            "99999999999999999999GiB",
        ] {
            assert!(size(text).is_err(), "{text:?}");
        }
    }
}
