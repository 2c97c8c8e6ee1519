//! `reload`.

use super::super::ReloadSpec;
use super::super::tree::Node;
use super::values::{bool, duration, duration_or_off, integer, list, number, table, text};

pub(super) fn reload(reload: &ReloadSpec) -> Node<'static> {
    let ReloadSpec {
        strategy,
        graceful_timeout,
        health_check_timeout,
        validation_timeout,
        max_concurrent_reloads,
        rollback_on_failure,
        observe_for,
        canary_steps,
        canary_step_time,
        canary_min_calls,
        stick_to,
        max_failure_increase,
        max_latency_factor,
        min_calls,
        history,
        max_retiring,
        max_held,
    } = reload;
    let steps = canary_steps.iter().filter_map(|percent| integer(*percent));
    let stick_to = stick_to.as_ref();
    table([
        ("strategy", text(strategy.as_str())),
        ("graceful_timeout", duration_or_off(*graceful_timeout)),
        ("health_check_timeout", duration(*health_check_timeout)),
        ("validation_timeout", duration(*validation_timeout)),
        ("max_concurrent_reloads", integer(*max_concurrent_reloads)),
        ("rollback_on_failure", bool(*rollback_on_failure)),
        ("observe_for", duration(*observe_for)),
        ("canary_steps", Some(list(steps.collect()))),
        ("canary_step_time", duration(*canary_step_time)),
        ("canary_min_calls", integer(*canary_min_calls)),
        ("stick_to", stick_to.and_then(|name| text(name.as_str()))),
        ("max_failure_increase", number(*max_failure_increase)),
        ("max_latency_factor", number(*max_latency_factor)),
        ("min_calls", integer(*min_calls)),
        ("history", integer(*history)),
        ("max_retiring", integer(*max_retiring)),
        ("max_held", integer(*max_held)),
    ])
}
