//! `circuit_breaker`.

use std::ops::RangeInclusive;

use super::blocks::Overlay;
use super::fault::Fault;
use super::given::Given;
use super::table::Table;
use super::units::write_duration;
use super::{BreakerSpec, Number, RetryOn};

#[derive(Clone)]
pub(super) struct Breaker {
    enabled: bool,
    spec: BreakerSpec,
}

impl Overlay for Breaker {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let base = &self.spec;
        let enabled = table.bool("enabled").unwrap_or(true);
        let spec = BreakerSpec {
            failure_threshold: match table.integer("failure_threshold") {
                Some(threshold) => Some(threshold).filter(|threshold| *threshold > 0),
                None => base.failure_threshold,
            },
            failure_rate: match table.number("failure_rate") {
                Some(rate) => Some(rate).filter(|rate| rate.get() > 0.0),
                None => base.failure_rate,
            },
            failure_statuses: list(table, "failure_statuses", statuses)
                .map(|ranges| ranges.into_iter().flatten().collect())
                .or_else(|| base.failure_statuses.clone()),
            failure_grpc_codes: list(table, "failure_grpc_codes", grpc_code)
                .map(|codes| codes.into_iter().collect())
                .or_else(|| base.failure_grpc_codes.clone()),
            slow_call_duration: table
                .timeout_or_off("slow_call_duration")
                .unwrap_or(base.slow_call_duration),
            slow_call_rate: slow_call_rate(table).unwrap_or(base.slow_call_rate),
            window: table.duration("window").unwrap_or(base.window),
            window_calls: window_calls(table, base),
            min_request_threshold: table
                .integer("min_request_threshold")
                .unwrap_or(base.min_request_threshold),
            recovery_timeout: table
                .duration("recovery_timeout")
                .unwrap_or(base.recovery_timeout),
            max_recovery_timeout: table
                .duration("max_recovery_timeout")
                .or(base.max_recovery_timeout),
            recovery_jitter: table
                .number("recovery_jitter")
                .unwrap_or(base.recovery_jitter),
            success_threshold: table
                .integer("success_threshold")
                .unwrap_or(base.success_threshold),
        };
        if enabled && table.is_sound() {
            check(&spec, table);
        }
        Self { enabled, spec }
    }

    fn off(&self) -> Option<Self> {
        Some(Self {
            enabled: false,
            ..self.clone()
        })
    }
}

impl Breaker {
    /// What is so when a config says nothing.
    pub(super) fn library() -> Self {
        Self {
            enabled: true,
            spec: BreakerSpec::default(),
        }
    }

    /// Without what does nothing, which is as if nobody had said it.
    pub(super) fn armed(&self) -> Option<BreakerSpec> {
        let mut spec = self.enabled.then(|| self.spec.clone())?;
        let library = BreakerSpec::default();
        if !spec.judges_shares() {
            spec.window = library.window;
            spec.window_calls = library.window_calls;
            spec.min_request_threshold = library.min_request_threshold;
        }
        if spec.window_calls.is_some() {
            spec.window = library.window;
        }
        if spec.slow_call_duration.is_none() {
            spec.slow_call_rate = library.slow_call_rate;
        }
        spec.max_recovery_timeout =
            (spec.max_recovery_timeout).filter(|longest| *longest > spec.recovery_timeout);
        Some(spec)
    }
}

impl BreakerSpec {
    /// Whether anything is judged by a window of calls.
    pub(super) const fn judges_shares(&self) -> bool {
        self.failure_rate.is_some() || self.slow_call_duration.is_some()
    }
}

/// A list of what `parse` understands.
pub(super) fn list<T>(
    table: &mut Table<'_>,
    key: &'static str,
    parse: impl Fn(&Given<'_>) -> Result<T, Fault>,
) -> Option<Vec<T>> {
    let items = table.list(key)?;
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        match parse(&item.given) {
            Ok(value) => values.push(value),
            Err(fault) => {
                let at = item.given.node.at;
                let report = table.report();
                report.add_given(table.doc(), at, item.path, fault, &item.given);
            }
        }
    }
    Some(values)
}

fn statuses(given: &Given<'_>) -> Result<RangeInclusive<u16>, Fault> {
    status_range(given, 400..=655)
}

/// A status of `all`, or a range such as `502-504`.
pub(super) fn status_range(
    given: &Given<'_>,
    all: RangeInclusive<u16>,
) -> Result<RangeInclusive<u16>, Fault> {
    let wrong = || {
        let (least, most) = (all.start(), all.end());
        Fault::of_value(format!(
            "is no status from {least} to {most}, nor a range of them such as \"502-504\""
        ))
    };
    let (first, last) = match given.whole() {
        Some(status) => (u16::try_from(status).ok(), u16::try_from(status).ok()),
        None => {
            let text = given.text()?;
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            (first.parse().ok(), last.parse().ok())
        }
    };
    let within = |status: &u16| all.contains(status);
    let (first, last) = (first.filter(within), last.filter(within));
    let (first, last) = first.zip(last).ok_or_else(wrong)?;
    if first > last {
        return Err(wrong());
    }
    Ok(first..=last)
}

/// A code by its name, in the words of `retry.on`.
fn grpc_code(given: &Given<'_>) -> Result<u8, Fault> {
    match format!("grpc:{}", given.text()?).parse() {
        Ok(RetryOn::Grpc(code)) => Ok(code),
        _ => Err(Fault::of_value(
            "is no gRPC code: write its name, such as `unavailable` or `deadline-exceeded`",
        )),
    }
}

fn slow_call_rate(table: &mut Table<'_>) -> Option<Number> {
    let rate = table.number("slow_call_rate")?;
    if rate.get() > 0.0 {
        return Some(rate);
    }
    let message =
        "is 0, a share that is always reached: write one above 0, or slow_call_duration: off";
    table.problem("slow_call_rate", Fault::of_secret(message));
    None
}

/// The two kinds of window take each other's place: the one that is written nearest counts.
fn window_calls(table: &mut Table<'_>, base: &BreakerSpec) -> Option<u32> {
    let has_window = table.has("window");
    match table.integer("window_calls") {
        Some(0) => None,
        Some(calls) => {
            if has_window {
                table.conflict(
                    "window_calls",
                    "and window are two kinds of window, by calls and by time: keep one of them",
                );
            }
            Some(calls)
        }
        None => base.window_calls.filter(|_| !has_window),
    }
}

fn check(spec: &BreakerSpec, table: &Table<'_>) {
    if spec.failure_threshold.is_none() && !spec.judges_shares() {
        table.conflict(
            "failure_threshold",
            "0 leaves nothing that opens the breaker: set failure_rate or slow_call_duration, \
             or enabled: false",
        );
    }
    if let Some(longest) = spec.max_recovery_timeout
        && longest < spec.recovery_timeout
    {
        let key = if table.has("max_recovery_timeout") {
            "max_recovery_timeout"
        } else {
            "recovery_timeout"
        };
        table.conflict(
            key,
            format!(
                "max_recovery_timeout, {}, is shorter than recovery_timeout, {}: make it as long, \
                 which is no growth, or longer",
                write_duration(longest),
                write_duration(spec.recovery_timeout)
            ),
        );
    }
}
