//! `retry` and `hedge`: the blocks about attempts beyond the first.

use std::time::Duration;

use super::auth::header_name;
use super::blocks::Overlay;
use super::fault::Fault;
use super::table::Table;
use super::units::write_duration;
use super::{BudgetKind, HedgeSpec, JitterKind, Number, RetryOn, RetrySpec};

#[derive(Clone)]
pub(super) struct Retry {
    enabled: bool,
    spec: RetrySpec,
    attempt_timeout: Option<Duration>,
}

impl Overlay for Retry {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let base = &self.spec;
        let enabled = table.bool("enabled").unwrap_or(true);
        let attempt_header = table.read("attempt_header", |given, _| match given.text()? {
            "off" => Ok(None),
            name => header_name(name).map(Some),
        });
        let spec = RetrySpec {
            max_retries: table.integer("max_retries").unwrap_or(base.max_retries),
            initial_interval: table
                .duration("initial_interval")
                .unwrap_or(base.initial_interval),
            max_interval: table.duration("max_interval").unwrap_or(base.max_interval),
            multiplier: table.number("multiplier").unwrap_or(base.multiplier),
            random_jitter: table.bool("random_jitter").unwrap_or(base.random_jitter),
            jitter: table.word("jitter", &JITTERS).unwrap_or(base.jitter),
            on: table
                .texts("on", retry_on)
                .unwrap_or_else(|| base.on.clone()),
            budget: table.word("budget", &BUDGETS).unwrap_or(base.budget),
            budget_ratio: table.number("budget_ratio").unwrap_or(base.budget_ratio),
            budget_min_per_second: table
                .integer("budget_min_per_second")
                .unwrap_or(base.budget_min_per_second),
            budget_min_in_flight: table
                .integer("budget_min_in_flight")
                .unwrap_or(base.budget_min_in_flight),
            budget_max_tokens: table
                .integer("budget_max_tokens")
                .unwrap_or(base.budget_max_tokens),
            budget_token_ratio: table
                .number("budget_token_ratio")
                .unwrap_or(base.budget_token_ratio),
            endpoint_budget: table
                .bool("endpoint_budget")
                .unwrap_or(base.endpoint_budget),
            idempotent: table
                .texts("idempotent", path)
                .unwrap_or_else(|| base.idempotent.clone()),
            never: table
                .texts("never", path)
                .unwrap_or_else(|| base.never.clone()),
            max_replay_bytes: table
                .size("max_replay_bytes")
                .unwrap_or(base.max_replay_bytes),
            attempt_header: attempt_header.unwrap_or_else(|| base.attempt_header.clone()),
            first_frame_wait: table
                .timeout_or_off("first_frame_wait")
                .unwrap_or(base.first_frame_wait),
        };
        let attempt_timeout = table
            .timeout_or_off("attempt_timeout")
            .unwrap_or(self.attempt_timeout);
        if table.is_sound() {
            contradictions(table, &spec);
        }
        Self {
            enabled,
            spec,
            attempt_timeout,
        }
    }

    fn off(&self) -> Option<Self> {
        Some(Self {
            enabled: false,
            ..self.clone()
        })
    }
}

fn contradictions(table: &Table<'_>, spec: &RetrySpec) {
    if spec.initial_interval > spec.max_interval {
        table.conflict(
            "initial_interval",
            format!(
                "{} is longer than max_interval, {}",
                write_duration(spec.initial_interval),
                write_duration(spec.max_interval)
            ),
        );
    }
    if !spec.random_jitter && table.has("jitter") {
        table.conflict(
            "jitter",
            "says how a backoff is drawn, and random_jitter is off: remove one of them",
        );
    }
    let kind = BUDGETS.iter().find(|(_, kind)| *kind == spec.budget);
    let kind = kind.map_or("", |(word, _)| word);
    for (key, kinds) in BUDGET_KEYS {
        if table.has(key) && !kinds.contains(&spec.budget) {
            let message = format!("is of another budget: this one is `{kind}`");
            table.conflict(key, message);
        }
    }
}

/// The keys of a budget, and the kinds that heed them.
const BUDGET_KEYS: [(&str, &[BudgetKind]); 5] = [
    ("budget_ratio", &[BudgetKind::Ratio, BudgetKind::InFlight]),
    ("budget_min_per_second", &[BudgetKind::Ratio]),
    ("budget_min_in_flight", &[BudgetKind::InFlight]),
    ("budget_max_tokens", &[BudgetKind::Tokens]),
    ("budget_token_ratio", &[BudgetKind::Tokens]),
];

impl Retry {
    pub(super) fn library(attempt_timeout: Option<Duration>) -> Self {
        Self {
            enabled: true,
            spec: RetrySpec::default(),
            attempt_timeout,
        }
    }

    pub(super) fn attempt_timeout(&self) -> Option<Duration> {
        self.attempt_timeout.filter(|_| self.enabled)
    }

    /// What does nothing is as if nobody had said it.
    pub(super) fn armed(&self) -> Option<RetrySpec> {
        if !self.enabled || self.spec.max_retries == 0 {
            return None;
        }
        let library = RetrySpec::default();
        let mut spec = self.spec.clone();
        if !spec.random_jitter {
            spec.jitter = library.jitter;
        }
        if spec.budget != BudgetKind::Ratio {
            spec.budget_min_per_second = library.budget_min_per_second;
        }
        if spec.budget != BudgetKind::InFlight {
            spec.budget_min_in_flight = library.budget_min_in_flight;
        }
        if spec.budget == BudgetKind::Tokens {
            spec.budget_ratio = library.budget_ratio;
        } else {
            spec.budget_max_tokens = library.budget_max_tokens;
            spec.budget_token_ratio = library.budget_token_ratio;
        }
        Some(spec)
    }
}

/// Without a quantile and a delay the quantile is the library's.
#[derive(Clone)]
pub(super) struct Hedge {
    enabled: bool,
    quantile: Option<Number>,
    delay: Option<Duration>,
    min_samples: u32,
    max_hedges: u32,
    paths: Vec<String>,
}

impl Default for Hedge {
    fn default() -> Self {
        let spec = HedgeSpec::default();
        Self {
            enabled: false,
            quantile: None,
            delay: None,
            min_samples: spec.min_samples,
            max_hedges: spec.max_hedges,
            paths: spec.paths,
        }
    }
}

impl Overlay for Hedge {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let own = table.has("quantile") || table.has("delay");
        let (quantile, delay) = (table.number("quantile"), table.duration("delay"));
        let (quantile, delay) = if own {
            (quantile, delay)
        } else {
            (self.quantile, self.delay)
        };
        let min_samples = table.integer("min_samples");
        if min_samples.is_some() && quantile.is_none() && delay.is_some() {
            table.conflict(
                "min_samples",
                "is of a quantile, and the delay is fixed: remove it, or write a quantile",
            );
        }
        Self {
            enabled: table.bool("enabled").unwrap_or(true),
            quantile,
            delay,
            min_samples: min_samples.unwrap_or(self.min_samples),
            max_hedges: table.integer("max_hedges").unwrap_or(self.max_hedges),
            paths: table
                .texts("paths", path)
                .unwrap_or_else(|| self.paths.clone()),
        }
    }

    fn off(&self) -> Option<Self> {
        Some(Self {
            enabled: false,
            ..self.clone()
        })
    }
}

impl Hedge {
    pub(super) fn armed(&self) -> Option<HedgeSpec> {
        let library = HedgeSpec::default();
        let fixed = self.quantile.is_none() && self.delay.is_some();
        self.enabled.then(|| HedgeSpec {
            quantile: if fixed {
                None
            } else {
                self.quantile.or(library.quantile)
            },
            delay: self.delay,
            min_samples: if fixed {
                library.min_samples
            } else {
                self.min_samples
            },
            max_hedges: self.max_hedges,
            paths: self.paths.clone(),
        })
    }
}

/// A list of texts, each of which `parse` understands.
/// A path with at most one `*`, at its end.
fn path(path: &str) -> Result<String, Fault> {
    let is_path = path.starts_with('/') && path.find('*').is_none_or(|at| at + 1 == path.len());
    is_path.then(|| path.to_owned()).ok_or_else(|| {
        Fault::of_value("is not a path: it begins with `/`, and `*` is allowed at its end")
    })
}

fn retry_on(word: &str) -> Result<RetryOn, Fault> {
    word.parse().map_err(|_| {
        Fault::of_value(
            "is no failure: `5xx`, `gateway-error`, `retry-after`, `connect-failure`, `refused-stream`, \
             `attempt-timeout`, `reset`, a status from 400 to 599, or `grpc:` and a code such as \
             `grpc:unavailable`",
        )
    })
}

pub(super) const JITTERS: [(&str, JitterKind); 2] = [
    ("full", JitterKind::Full),
    ("decorrelated", JitterKind::Decorrelated),
];

pub(super) const BUDGETS: [(&str, BudgetKind); 3] = [
    ("ratio", BudgetKind::Ratio),
    ("in_flight", BudgetKind::InFlight),
    ("tokens", BudgetKind::Tokens),
];
