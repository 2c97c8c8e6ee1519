//! `circuit_breaker` and `outlier_detection`.

use std::collections::BTreeSet;

use super::super::tree::Node;
use super::super::{BreakerSpec, Number, OutlierSpec, RetryOn};
use super::values::{bool, duration, duration_or_off, integer, list, number, table, text};

pub(super) fn breaker(breaker: &BreakerSpec) -> Option<Node<'static>> {
    let BreakerSpec {
        failure_threshold,
        failure_rate,
        failure_statuses,
        failure_grpc_codes,
        slow_call_duration,
        slow_call_rate,
        window,
        window_calls,
        min_request_threshold,
        recovery_timeout,
        max_recovery_timeout,
        recovery_jitter,
        success_threshold,
    } = breaker;
    // What would do nothing is refused when it is read.
    let judges = breaker.judges_shares();
    Some(table([
        ("failure_threshold", integer(failure_threshold.unwrap_or(0))),
        ("failure_rate", failure_rate.and_then(number)),
        ("failure_statuses", failure_statuses.as_ref().map(statuses)),
        (
            "failure_grpc_codes",
            failure_grpc_codes.as_ref().map(grpc_codes),
        ),
        ("slow_call_duration", duration_or_off(*slow_call_duration)),
        (
            "slow_call_rate",
            number(*slow_call_rate).filter(|_| slow_call_duration.is_some()),
        ),
        (
            "window",
            duration(*window).filter(|_| judges && window_calls.is_none()),
        ),
        (
            "window_calls",
            window_calls.and_then(integer).filter(|_| judges),
        ),
        (
            "min_request_threshold",
            integer(*min_request_threshold).filter(|_| judges),
        ),
        ("recovery_timeout", duration(*recovery_timeout)),
        (
            "max_recovery_timeout",
            max_recovery_timeout.and_then(duration),
        ),
        ("recovery_jitter", number(*recovery_jitter)),
        ("success_threshold", integer(*success_threshold)),
    ]))
}

pub(super) fn outlier(outlier: &OutlierSpec) -> Option<Node<'static>> {
    let OutlierSpec {
        consecutive_failures,
        success_rate_stdev_factor,
        failure_percentage_threshold,
        min_requests,
        min_hosts,
        interval,
        base_ejection_time,
        max_ejection_time,
        max_ejection_time_jitter,
        max_ejection_percent,
        always_eject_one_host,
    } = outlier;
    let factor = success_rate_stdev_factor.unwrap_or(Number::finite(0.0));
    // Without a rate two are refused, as they do nothing.
    let by_rates = success_rate_stdev_factor.is_some() || failure_percentage_threshold.is_some();
    Some(table([
        (
            "consecutive_failures",
            integer(consecutive_failures.unwrap_or(0)),
        ),
        ("success_rate_stdev_factor", number(factor)),
        (
            "failure_percentage_threshold",
            integer(failure_percentage_threshold.unwrap_or(0)),
        ),
        ("min_requests", integer(*min_requests).filter(|_| by_rates)),
        ("min_hosts", integer(*min_hosts).filter(|_| by_rates)),
        ("interval", duration(*interval)),
        ("base_ejection_time", duration(*base_ejection_time)),
        ("max_ejection_time", duration(*max_ejection_time)),
        (
            "max_ejection_time_jitter",
            duration(*max_ejection_time_jitter),
        ),
        ("max_ejection_percent", integer(*max_ejection_percent)),
        ("always_eject_one_host", bool(*always_eject_one_host)),
    ]))
}

pub(super) fn statuses(statuses: &BTreeSet<u16>) -> Node<'static> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for status in statuses {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *status => *last = *status,
            _ => ranges.push((*status, *status)),
        }
    }
    let nodes = ranges.into_iter().filter_map(|(first, last)| {
        if first == last {
            integer(first.into())
        } else {
            text(&format!("{first}-{last}"))
        }
    });
    list(nodes.collect())
}

fn grpc_codes(codes: &BTreeSet<u8>) -> Node<'static> {
    let names = codes.iter().filter_map(|code| {
        let word = RetryOn::Grpc(*code).to_string();
        text(word.strip_prefix("grpc:")?)
    });
    list(names.collect())
}
