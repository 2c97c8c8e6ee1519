//! The blocks that a plugin may have and that have a default at the root.
//!
//! Each block is read over a base: `default_retry` over the library's defaults, a plugin's `retry`
//! over `default_retry`. That is the whole of merging: field by field, and what is absent stays as
//! it is in the base. Only `enabled` is not inherited by a block that is there: absent, it is on.

use std::time::Duration;

use super::limits::{Concurrency, RateLimit};
use super::table::{Table, text};
use super::{
    BalanceStrategy, BreakerSpec, ConnectionSpec, CredentialsSpec, Policy, Protocol, RetrySpec,
};

/// The blocks, as far as they are known.
#[derive(Clone)]
pub(super) struct Blocks {
    drain_timeout: Duration,
    retry: Retry,
    breaker: Breaker,
    connection: Connection,
    rate_limit: RateLimit,
    concurrency: Concurrency,
    balance: BalanceStrategy,
}

/// What the blocks are called where they are read.
pub(super) struct Names {
    retry: &'static str,
    breaker: &'static str,
    connection: &'static str,
    rate_limit: &'static str,
    concurrency: &'static str,
    balance: &'static str,
}

/// In a plugin.
pub(super) const IN_PLUGIN: Names = Names {
    retry: "retry",
    breaker: "circuit_breaker",
    connection: "connection",
    rate_limit: "rate_limit",
    concurrency: "concurrency",
    balance: "load_balancing",
};

/// At the root.
pub(super) const AT_ROOT: Names = Names {
    retry: "default_retry",
    breaker: "default_circuit_breaker",
    connection: "default_connection",
    rate_limit: "default_rate_limit",
    concurrency: "default_concurrency",
    balance: "default_load_balancing",
};

impl Blocks {
    /// What is so when a config says nothing.
    pub(super) fn library() -> Self {
        let policy = Policy::default();
        Self {
            drain_timeout: policy.drain_timeout,
            retry: Retry {
                enabled: true,
                spec: RetrySpec::default(),
                attempt_timeout: policy.attempt_timeout,
            },
            breaker: Breaker {
                enabled: true,
                spec: BreakerSpec::default(),
            },
            connection: Connection {
                spec: ConnectionSpec::default(),
                max_idle: None,
                deadline: policy.deadline,
                stream_idle_timeout: policy.stream_idle_timeout,
            },
            rate_limit: RateLimit::default(),
            concurrency: Concurrency::default(),
            balance: policy.balance,
        }
    }

    /// These blocks, overlaid with those of `table`.
    pub(super) fn overlaid(&self, table: &mut Table<'_>, names: &Names) -> Self {
        Self {
            drain_timeout: table
                .duration("drain_timeout")
                .unwrap_or(self.drain_timeout),
            retry: self.retry.overlaid(table, names.retry),
            breaker: self.breaker.overlaid(table, names.breaker),
            connection: self.connection.overlaid(table, names.connection),
            rate_limit: self.rate_limit.overlaid(table, names.rate_limit),
            concurrency: self.concurrency.overlaid(table, names.concurrency),
            balance: self.balance.overlaid(table, names.balance),
        }
    }

    pub(super) fn policy(&self, credentials: CredentialsSpec) -> Policy {
        Policy {
            drain_timeout: self.drain_timeout,
            deadline: self.connection.deadline,
            stream_idle_timeout: self.connection.stream_idle_timeout,
            attempt_timeout: self.retry.attempt_timeout.filter(|_| self.retry.enabled),
            rate_limit: self.rate_limit.armed(),
            concurrency: self.concurrency.armed(),
            retry: self.retry.armed(),
            breaker: self.breaker.armed(),
            balance: self.balance,
            credentials,
        }
    }

    pub(super) fn connection(&self) -> ConnectionSpec {
        let spec = &self.connection.spec;
        ConnectionSpec {
            // The default gives way to a lower `max_connections`; a value that was written does not.
            max_idle_connections: self
                .connection
                .max_idle
                .unwrap_or(spec.max_idle_connections.min(spec.max_connections)),
            ..spec.clone()
        }
    }
}

pub(super) trait Block: Clone {
    /// This block, overlaid with `table`.
    fn read(&self, table: &mut Table<'_>) -> Self;

    fn overlaid(&self, parent: &mut Table<'_>, key: &'static str) -> Self {
        let Some(mut table) = parent.table(key) else {
            return self.clone();
        };
        let block = self.read(&mut table);
        table.finish();
        block
    }
}

#[derive(Clone)]
struct Retry {
    enabled: bool,
    spec: RetrySpec,
    attempt_timeout: Option<Duration>,
}

impl Block for Retry {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let base = &self.spec;
        let enabled = table.bool("enabled").unwrap_or(true);
        let spec = RetrySpec {
            max_retries: table
                .integer("max_retries", 0..=100)
                .unwrap_or(base.max_retries),
            initial_interval: table
                .timeout("initial_interval")
                .unwrap_or(base.initial_interval),
            max_interval: table.timeout("max_interval").unwrap_or(base.max_interval),
            multiplier: table
                .number("multiplier", 1.0..=100.0)
                .unwrap_or(base.multiplier),
            random_jitter: table.bool("random_jitter").unwrap_or(base.random_jitter),
            budget_ratio: table
                .number("budget_ratio", 0.0..=1.0)
                .unwrap_or(base.budget_ratio),
            budget_min_per_second: table
                .integer("budget_min_per_second", 0..=1_000_000)
                .unwrap_or(base.budget_min_per_second),
            idempotent: paths(table, "idempotent").unwrap_or_else(|| base.idempotent.clone()),
            max_replay_bytes: table
                .size("max_replay_bytes", 0..=1 << 30)
                .unwrap_or(base.max_replay_bytes),
        };
        let attempt_timeout = table
            .timeout_or_off("attempt_timeout")
            .unwrap_or(self.attempt_timeout);
        if table.is_sound() && spec.initial_interval > spec.max_interval {
            table.problem(
                "initial_interval",
                format!(
                    "{:?} is longer than max_interval, {:?}",
                    spec.initial_interval, spec.max_interval
                ),
            );
        }
        Self {
            enabled,
            spec,
            attempt_timeout,
        }
    }
}

impl Retry {
    fn armed(&self) -> Option<RetrySpec> {
        (self.enabled && self.spec.max_retries > 0).then(|| self.spec.clone())
    }
}

/// A list of paths, each with at most one `*`, at its end.
fn paths(table: &mut Table<'_>, key: &'static str) -> Option<Vec<String>> {
    let list = table.list(key)?;
    let mut paths = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        match text(value) {
            Ok(path)
                if path.starts_with('/')
                    && path.find('*').is_none_or(|at| at + 1 == path.len()) =>
            {
                paths.push(path.to_owned());
            }
            Ok(path) => table.report().add(
                value.tag(),
                format!("{}[{index}]", table.path_of(key)),
                format!(
                    "{path:?} is not a path: it begins with `/`, and `*` is allowed at its end"
                ),
            ),
            Err(message) => {
                let path = format!("{}[{index}]", table.path_of(key));
                table.report().add(value.tag(), path, message);
            }
        }
    }
    Some(paths)
}

#[derive(Clone)]
struct Breaker {
    enabled: bool,
    spec: BreakerSpec,
}

impl Block for Breaker {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let base = &self.spec;
        let enabled = table.bool("enabled").unwrap_or(true);
        let spec = BreakerSpec {
            failure_threshold: match table.integer("failure_threshold", 0..=1_000_000) {
                Some(threshold) => Some(threshold).filter(|threshold| *threshold > 0),
                None => base.failure_threshold,
            },
            failure_rate: match table.number("failure_rate", 0.0..=1.0) {
                Some(rate) => Some(rate).filter(|rate| rate.get() > 0.0),
                None => base.failure_rate,
            },
            window: table.timeout("window").unwrap_or(base.window),
            min_request_threshold: table
                .integer("min_request_threshold", 1..=1_000_000)
                .unwrap_or(base.min_request_threshold),
            recovery_timeout: table
                .timeout("recovery_timeout")
                .unwrap_or(base.recovery_timeout),
            success_threshold: table
                .integer("success_threshold", 1..=1_000)
                .unwrap_or(base.success_threshold),
        };
        let inert = spec.failure_rate.is_none() && spec.failure_threshold.is_none();
        if enabled && inert && table.is_sound() {
            table.problem(
                "failure_threshold",
                "0 leaves nothing that opens the breaker: set failure_rate, or enabled: false",
            );
        }
        Self { enabled, spec }
    }
}

impl Breaker {
    fn armed(&self) -> Option<BreakerSpec> {
        self.enabled.then(|| self.spec.clone())
    }
}

#[derive(Clone)]
struct Connection {
    spec: ConnectionSpec,
    max_idle: Option<u32>,
    deadline: Option<Duration>,
    stream_idle_timeout: Option<Duration>,
}

impl Block for Connection {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let base = &self.spec;
        let protocols = [("http1", Protocol::Http1), ("http2", Protocol::Http2)];
        let max_idle = table
            .integer("max_idle_connections", 0..=100_000)
            .or(self.max_idle);
        let spec = ConnectionSpec {
            protocol: table.word("protocol", &protocols).unwrap_or(base.protocol),
            max_connections: table
                .integer("max_connections", 1..=100_000)
                .unwrap_or(base.max_connections),
            max_idle_connections: base.max_idle_connections,
            idle_timeout: table.timeout("idle_timeout").unwrap_or(base.idle_timeout),
            connection_timeout: table
                .timeout("connection_timeout")
                .unwrap_or(base.connection_timeout),
            keep_alive: table.bool("keep_alive").unwrap_or(base.keep_alive),
            max_response_head: table
                .size("max_response_head", 8 << 10..=16 << 20)
                .and_then(|bytes| u32::try_from(bytes).ok())
                .unwrap_or(base.max_response_head),
            max_response_body: table
                .size_or_off("max_response_body", 0..=u64::MAX >> 1)
                .unwrap_or(base.max_response_body),
        };
        if let Some(idle) = max_idle.filter(|idle| *idle > spec.max_connections) {
            table.problem(
                "max_idle_connections",
                format!(
                    "{idle} is more than max_connections, {}",
                    spec.max_connections
                ),
            );
        }
        Self {
            spec,
            max_idle,
            deadline: table
                .timeout_or_off("request_timeout")
                .unwrap_or(self.deadline),
            stream_idle_timeout: table
                .timeout_or_off("stream_idle_timeout")
                .unwrap_or(self.stream_idle_timeout),
        }
    }
}

impl Block for BalanceStrategy {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let strategies = [
            ("peak-ewma", Self::PeakEwma),
            ("round-robin", Self::RoundRobin),
        ];
        table.require("strategy");
        table.word("strategy", &strategies).unwrap_or(*self)
    }
}
