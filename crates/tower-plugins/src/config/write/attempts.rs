//! `retry` and `hedge`.

use super::super::attempts::{BUDGETS, JITTERS};
use super::super::tree::Node;
use super::super::{BudgetKind, HedgeSpec, Policy, RetrySpec};
use super::values::{
    bool, duration, duration_or_off, header_or_off, integer, number, off, size, table, texts, word,
};

pub(super) fn retry(policy: &Policy) -> Option<Node<'static>> {
    let Some(retry) = &policy.retry else {
        // A limit for the one attempt there is may be set all the same.
        return match policy.attempt_timeout {
            Some(_) => Some(table([
                ("max_retries", integer(0)),
                ("attempt_timeout", duration_or_off(policy.attempt_timeout)),
            ])),
            None => off(),
        };
    };
    let RetrySpec {
        max_retries,
        initial_interval,
        max_interval,
        multiplier,
        random_jitter,
        jitter,
        on,
        budget,
        budget_ratio,
        budget_min_per_second,
        budget_min_in_flight,
        budget_max_tokens,
        budget_token_ratio,
        endpoint_budget,
        idempotent,
        never,
        max_replay_bytes,
        attempt_header,
        first_frame_wait,
    } = retry;
    let on: Vec<_> = on.iter().map(ToString::to_string).collect();
    // The keys of another budget are refused, as they do nothing.
    let of =
        |kinds: &[BudgetKind], node: Option<Node<'static>>| node.filter(|_| kinds.contains(budget));
    let share = [BudgetKind::Ratio, BudgetKind::InFlight];
    Some(table([
        ("max_retries", integer(*max_retries)),
        ("initial_interval", duration(*initial_interval)),
        ("max_interval", duration(*max_interval)),
        ("multiplier", number(*multiplier)),
        ("random_jitter", bool(*random_jitter)),
        ("jitter", word(&JITTERS, jitter).filter(|_| *random_jitter)),
        ("on", texts(&on)),
        ("budget", word(&BUDGETS, budget)),
        ("budget_ratio", of(&share, number(*budget_ratio))),
        (
            "budget_min_per_second",
            of(&[BudgetKind::Ratio], integer(*budget_min_per_second)),
        ),
        (
            "budget_min_in_flight",
            of(&[BudgetKind::InFlight], integer(*budget_min_in_flight)),
        ),
        (
            "budget_max_tokens",
            of(&[BudgetKind::Tokens], integer(*budget_max_tokens)),
        ),
        (
            "budget_token_ratio",
            of(&[BudgetKind::Tokens], number(*budget_token_ratio)),
        ),
        ("endpoint_budget", bool(*endpoint_budget)),
        ("idempotent", texts(idempotent)),
        ("never", texts(never)),
        ("attempt_header", header_or_off(attempt_header.as_ref())),
        ("first_frame_wait", duration_or_off(*first_frame_wait)),
        ("max_replay_bytes", size(*max_replay_bytes)),
        ("attempt_timeout", duration_or_off(policy.attempt_timeout)),
    ]))
}

pub(super) fn hedge(hedge: &HedgeSpec) -> Option<Node<'static>> {
    let HedgeSpec {
        quantile,
        delay,
        min_samples,
        max_hedges,
        paths,
    } = hedge;
    // Without a quantile this is refused, as it does nothing.
    let min_samples = quantile.and_then(|_| integer(*min_samples));
    Some(table([
        ("quantile", quantile.and_then(number)),
        ("delay", delay.and_then(duration)),
        ("min_samples", min_samples),
        ("max_hedges", integer(*max_hedges)),
        ("paths", texts(paths)),
    ]))
}
