//! The block `reload`.

use super::breaker::list;
use super::fault::Fault;
use super::given::Given;
use super::spec::STRATEGIES;
use super::table::Table;
use super::{ReloadSpec, auth};

/// What `root` says of reloads; `None` if it has no such block.
pub(super) fn read(root: &mut Table<'_>) -> Option<ReloadSpec> {
    let mut table = root.table("reload")?;
    let usual = ReloadSpec::default();
    let spec = ReloadSpec {
        strategy: table
            .word("strategy", &STRATEGIES)
            .unwrap_or(usual.strategy),
        graceful_timeout: table
            .timeout_or_off("graceful_timeout")
            .unwrap_or(usual.graceful_timeout),
        health_check_timeout: table
            .duration("health_check_timeout")
            .unwrap_or(usual.health_check_timeout),
        validation_timeout: table
            .duration("validation_timeout")
            .unwrap_or(usual.validation_timeout),
        max_concurrent_reloads: table
            .integer("max_concurrent_reloads")
            .unwrap_or(usual.max_concurrent_reloads),
        rollback_on_failure: table
            .bool("rollback_on_failure")
            .unwrap_or(usual.rollback_on_failure),
        observe_for: table.duration("observe_for").unwrap_or(usual.observe_for),
        canary_steps: canary_steps(&mut table).unwrap_or(usual.canary_steps),
        canary_step_time: table
            .duration("canary_step_time")
            .unwrap_or(usual.canary_step_time),
        canary_min_calls: table
            .integer("canary_min_calls")
            .unwrap_or(usual.canary_min_calls),
        stick_to: table.read("stick_to", |given, _| auth::header_name(given.text()?)),
        max_failure_increase: table
            .number("max_failure_increase")
            .unwrap_or(usual.max_failure_increase),
        max_latency_factor: table
            .number("max_latency_factor")
            .unwrap_or(usual.max_latency_factor),
        min_calls: table.integer("min_calls").unwrap_or(usual.min_calls),
        history: table.integer("history").unwrap_or(usual.history),
        max_retiring: table.integer("max_retiring").unwrap_or(usual.max_retiring),
        max_held: table.integer("max_held").unwrap_or(usual.max_held),
    };
    table.finish();
    Some(spec)
}

/// Percents, of which each is more than the one before; none is all calls at once.
fn canary_steps(table: &mut Table<'_>) -> Option<Vec<u32>> {
    let steps = list(table, "canary_steps", percent)?;
    if !steps.is_sorted_by(|one, next| one < next) {
        let message = "do not rise: each step is more than the one before";
        table.problem("canary_steps", Fault::of_secret(message));
        return None;
    }
    Some(steps)
}

fn percent(given: &Given<'_>) -> Result<u32, Fault> {
    let whole = given.whole();
    let percent = whole.and_then(|whole| u32::try_from(whole).ok());
    percent
        .filter(|percent| (1..=99).contains(percent))
        .ok_or_else(|| match whole {
            _ if given.is_from_environment() => {
                Fault::of_value("is no whole number of percent, 1 to 99")
            }
            Some(whole) => Fault::out_of_range(whole, 1, 99, " percent"),
            None => given.expected_here("a whole number of percent"),
        })
}
