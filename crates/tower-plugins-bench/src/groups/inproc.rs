//! A call in this process, and what of it each part costs.

use tower_plugins::Plugins;
use tower_service::Service;

use super::{Group, forms, full};
use crate::Result;
use crate::harness::{Calls, Run, Variant, in_turn, runtime};

pub(super) const GROUP: Group = Group {
    name: "inproc",
    about: "A service in this process that answers at once: thread CPU time of making the request, the call and reading the body.",
    variants,
    prepare: None,
    summary: None,
};

const FLOOR: &str = "bare";
const CALLS: Calls = Calls::Counted(4000);

fn variants() -> Vec<Variant> {
    let mut variants = vec![
        Variant::new(FLOOR, FLOOR, CALLS, bare),
        plugin("full", full::ARMED.to_owned(), 3),
        plugin("full-1-endpoint", full::ARMED.to_owned(), 1),
        plugin("full-scored", format!("{}{SCORED}", full::ARMED), 3),
        plugin("nothing-armed", NOTHING.to_owned(), 1),
    ];
    variants.extend(KEYS.map(|key| plugin(&format!("full-without-{key}"), without(key), 3)));
    variants.extend(forms::variants(FLOOR, CALLS));
    variants
}

/// The blocks of a policy, each of which is left out once.
const KEYS: [&str; 6] = [
    "auth",
    "rate_limit",
    "concurrency",
    "retry",
    "attempt_timeout",
    "circuit_breaker",
];

/// Has score kept of what becomes of calls.
const SCORED: &str = "
reload: { strategy: blue-green }
";

const NOTHING: &str = "
    retry: { enabled: false }
    circuit_breaker: { enabled: false }
";

fn without(key: &str) -> String {
    if key == "attempt_timeout" {
        return full::ARMED.replace(", attempt_timeout: 5s", "");
    }
    let block = |line: &str| line.trim_start().starts_with(&format!("{key}:"));
    let mut text: String = full::ARMED
        .split_inclusive('\n')
        .filter(|line| !block(line))
        .collect();
    if ["retry", "circuit_breaker"].contains(&key) {
        text.push_str(&format!("    {key}: {{ enabled: false }}\n"));
    }
    text
}

fn plugin(name: &str, policy: String, endpoints: usize) -> Variant {
    Variant::new(name, FLOOR, CALLS, move || {
        let runtime = runtime()?;
        let plugins = runtime.block_on(full::in_process(&policy, endpoints))?;
        Ok(calls(runtime, plugins))
    })
}

fn calls(runtime: tokio::runtime::Runtime, plugins: Plugins) -> Run {
    let mut plugin = plugins.plugin("full");
    in_turn(runtime, async move || {
        let _alive = &plugins;
        full::drain(plugin.call(full::request()).await?).await
    })
}

fn bare() -> Result<Run> {
    let mut service = full::null();
    Ok(in_turn(runtime()?, async move || {
        full::drain(service.call(full::request()).await?).await
    }))
}
