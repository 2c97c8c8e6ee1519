//! The blocks that a plugin may have and that have a default at the root.
//!
//! Each block is read over a base: `default_retry` over the library's defaults, a plugin's `retry`
//! over `default_retry`. That is the whole of merging: field by field, and what is absent stays as
//! it is in the base. Only `enabled` is not inherited by a block that is there: absent, it is on.

use std::time::Duration;

use super::attempts::{Hedge, Retry};
use super::fault::Fault;
use super::limits::{Concurrency, RateLimit};
use super::table::{Table, Written};
use super::tls;
use super::{BalanceSpec, BreakerSpec, ConnectionSpec, CredentialsSpec, Policy, Protocol, TlsSpec};

/// The blocks, as far as they are known.
#[derive(Clone)]
pub(super) struct Blocks {
    drain_timeout: Duration,
    retry: Retry,
    hedge: Hedge,
    breaker: Breaker,
    connection: Connection,
    rate_limit: RateLimit,
    concurrency: Concurrency,
    balance: BalanceSpec,
    pub(super) tls: TlsSpec,
}

/// What the blocks are called where they are read.
pub(super) struct Names {
    retry: &'static str,
    hedge: &'static str,
    breaker: &'static str,
    connection: &'static str,
    rate_limit: &'static str,
    concurrency: &'static str,
    balance: &'static str,
    tls: &'static str,
}

/// In a plugin.
pub(super) const IN_PLUGIN: Names = Names {
    retry: "retry",
    hedge: "hedge",
    breaker: "circuit_breaker",
    connection: "connection",
    rate_limit: "rate_limit",
    concurrency: "concurrency",
    balance: "load_balancing",
    tls: "tls",
};

/// At the root.
pub(super) const AT_ROOT: Names = Names {
    retry: "default_retry",
    hedge: "default_hedge",
    breaker: "default_circuit_breaker",
    connection: "default_connection",
    rate_limit: "default_rate_limit",
    concurrency: "default_concurrency",
    balance: "default_load_balancing",
    tls: "default_tls",
};

impl Blocks {
    /// What is so when a config says nothing.
    pub(super) fn library() -> Self {
        let policy = Policy::default();
        Self {
            drain_timeout: policy.drain_timeout,
            retry: Retry::library(policy.attempt_timeout),
            hedge: Hedge::default(),
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
            tls: TlsSpec::default(),
        }
    }

    /// These blocks, overlaid with those of `table`. `library` is what `default` stands for.
    pub(super) fn overlaid(&self, table: &mut Table<'_>, names: &Names, library: &Self) -> Self {
        Self {
            drain_timeout: table
                .duration("drain_timeout")
                .unwrap_or(self.drain_timeout),
            retry: self.retry.overlaid(table, names.retry, &library.retry),
            hedge: self.hedge.overlaid(table, names.hedge, &library.hedge),
            breaker: self
                .breaker
                .overlaid(table, names.breaker, &library.breaker),
            connection: self
                .connection
                .overlaid(table, names.connection, &library.connection),
            rate_limit: self
                .rate_limit
                .overlaid(table, names.rate_limit, &library.rate_limit),
            concurrency: self
                .concurrency
                .overlaid(table, names.concurrency, &library.concurrency),
            balance: self
                .balance
                .overlaid(table, names.balance, &library.balance),
            tls: self.tls.overlaid(table, names.tls, &library.tls),
        }
    }

    pub(super) fn policy(&self, credentials: CredentialsSpec) -> Policy {
        Policy {
            drain_timeout: self.drain_timeout,
            deadline: self.connection.deadline,
            stream_idle_timeout: self.connection.stream_idle_timeout,
            attempt_timeout: self.retry.attempt_timeout(),
            rate_limit: self.rate_limit.armed(),
            concurrency: self.concurrency.armed(),
            retry: self.retry.armed(),
            // Inherited, it does nothing where retry is off.
            hedge: self.hedge.armed().filter(|_| self.retry.armed().is_some()),
            breaker: self.breaker.armed(),
            balance: self.balance.armed(),
            credentials,
            authorize: None,
            fallback: None,
        }
    }

    /// Whether there is a hedge without the rules and the budget of retry.
    pub(super) fn hedges_alone(&self) -> bool {
        self.hedge.armed().is_some() && self.retry.armed().is_none()
    }

    /// How connections are made, for a plugin that makes some. What does nothing is as if nobody had
    /// said it: inherited, it makes no difference between two plugins, nor between two configs.
    pub(super) fn connection(&self) -> ConnectionSpec {
        let library = ConnectionSpec::default();
        let mut spec = self.connection.spec.clone();
        let mut max_idle = self.connection.max_idle;
        if spec.protocol == Protocol::Http2 {
            spec.max_connections = library.max_connections;
        }
        if spec.protocol == Protocol::Http2 || !spec.keep_alive {
            max_idle = None;
        }
        // The default gives way to a lower `max_connections`; a value that was written does not.
        spec.max_idle_connections =
            max_idle.unwrap_or(spec.max_idle_connections.min(spec.max_connections));
        if !spec.keep_alive || spec.max_idle_connections == 0 {
            spec.idle_timeout = library.idle_timeout;
        }
        spec
    }
}

pub(super) trait Overlay: Clone {
    /// This block, overlaid with `table`.
    fn read(&self, table: &mut Table<'_>) -> Self;

    /// This block switched off, if it can be.
    fn off(&self) -> Option<Self> {
        None
    }

    fn overlaid(&self, parent: &mut Table<'_>, key: &'static str, library: &Self) -> Self {
        match parent.block(key) {
            None => self.clone(),
            Some(Written::Default) => library.clone(),
            Some(Written::Off) => self.off().unwrap_or_else(|| {
                parent.problem(
                    key,
                    Fault::of_secret("cannot be off: write `default` or a table"),
                );
                self.clone()
            }),
            Some(Written::Table(mut table)) => {
                let block = self.read(&mut table);
                table.finish();
                block
            }
        }
    }
}

#[derive(Clone)]
struct Breaker {
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
            window: table.duration("window").unwrap_or(base.window),
            min_request_threshold: table
                .integer("min_request_threshold")
                .unwrap_or(base.min_request_threshold),
            recovery_timeout: table
                .duration("recovery_timeout")
                .unwrap_or(base.recovery_timeout),
            success_threshold: table
                .integer("success_threshold")
                .unwrap_or(base.success_threshold),
        };
        let inert = spec.failure_rate.is_none() && spec.failure_threshold.is_none();
        if enabled && inert && table.is_sound() {
            table.conflict(
                "failure_threshold",
                "0 leaves nothing that opens the breaker: set failure_rate, or enabled: false",
            );
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
    fn armed(&self) -> Option<BreakerSpec> {
        let mut spec = self.enabled.then(|| self.spec.clone())?;
        if spec.failure_rate.is_none() {
            // They do nothing, so they are as if nobody had said them.
            let library = BreakerSpec::default();
            spec.window = library.window;
            spec.min_request_threshold = library.min_request_threshold;
        }
        Some(spec)
    }
}

#[derive(Clone)]
struct Connection {
    spec: ConnectionSpec,
    max_idle: Option<u32>,
    deadline: Option<Duration>,
    stream_idle_timeout: Option<Duration>,
}

impl Overlay for Connection {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let base = &self.spec;
        let max_idle = table.integer("max_idle_connections").or(self.max_idle);
        let spec = ConnectionSpec {
            protocol: table.word("protocol", &PROTOCOLS).unwrap_or(base.protocol),
            max_connections: table
                .integer("max_connections")
                .unwrap_or(base.max_connections),
            max_idle_connections: base.max_idle_connections,
            idle_timeout: table.duration("idle_timeout").unwrap_or(base.idle_timeout),
            connection_timeout: table
                .duration("connection_timeout")
                .unwrap_or(base.connection_timeout),
            keep_alive: table.bool("keep_alive").unwrap_or(base.keep_alive),
            max_response_head: table
                .size("max_response_head")
                .and_then(|bytes| u32::try_from(bytes).ok())
                .unwrap_or(base.max_response_head),
            max_response_body: table
                .size_or_off("max_response_body")
                .unwrap_or(base.max_response_body),
        };
        if let Some(idle) = max_idle.filter(|idle| *idle > spec.max_connections) {
            table.conflict(
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

impl Overlay for TlsSpec {
    fn read(&self, table: &mut Table<'_>) -> Self {
        tls::read(table, self)
    }
}

pub(super) const PROTOCOLS: [(&str, Protocol); 2] =
    [("http1", Protocol::Http1), ("http2", Protocol::Http2)];
