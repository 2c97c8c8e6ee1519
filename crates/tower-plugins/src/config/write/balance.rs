//! `load_balancing`.

use super::super::balance::{FALLBACKS, STRATEGIES};
use super::super::tree::Node;
use super::super::{BalanceSpec, BalanceStrategy, KeySpec, Number};
use super::values::{duration_or_off, named, number, table, text, word};

pub(super) fn balance(spec: &BalanceSpec) -> Node<'static> {
    let BalanceSpec {
        strategy,
        hash_on,
        load_factor,
        least_request_bias,
        panic_threshold,
        overprovisioning,
        zone,
        subset,
        subset_on,
        subset_fallback,
        slow_start_window,
        slow_start_min_weight,
        slow_start_aggression,
    } = spec;
    // What does nothing beside the others is refused, so it is left out.
    let by_calls = *strategy == BalanceStrategy::LeastRequest;
    let in_subsets = !(subset.is_empty() && subset_on.is_empty());
    let bound = load_factor.unwrap_or(Number::finite(0.0));
    table([
        ("strategy", word(&STRATEGIES, strategy)),
        ("hash_on", hash_on.as_ref().and_then(key)),
        ("load_factor", number(bound).filter(|_| strategy.is_hash())),
        (
            "least_request_bias",
            number(*least_request_bias).filter(|_| by_calls),
        ),
        ("panic_threshold", number(*panic_threshold)),
        ("overprovisioning", number(*overprovisioning)),
        ("zone", text(zone.as_deref().unwrap_or("off"))),
        ("subset", named(subset, |value| text(value))),
        ("subset_on", named(subset_on, key)),
        (
            "subset_fallback",
            word(&FALLBACKS, subset_fallback).filter(|_| in_subsets),
        ),
        (
            "slow_start_window",
            duration_or_off(*slow_start_window).filter(|_| !strategy.is_hash()),
        ),
        (
            "slow_start_min_weight",
            number(*slow_start_min_weight).filter(|_| slow_start_window.is_some()),
        ),
        (
            "slow_start_aggression",
            number(*slow_start_aggression).filter(|_| slow_start_window.is_some()),
        ),
    ])
}

pub(super) fn key(key: &KeySpec) -> Option<Node<'static>> {
    match key {
        KeySpec::Header(name) => text(&format!("header:{name}")),
        KeySpec::Cookie(name) => text(&format!("cookie:{name}")),
    }
}
