//! The blocks that a plugin may have and that have a default at the root.
//!
//! Each block is read over a base: `default_retry` over the library's defaults, a plugin's `retry`
//! over `default_retry`. That is the whole of merging: field by field, and what is absent stays as
//! it is in the base. Only `enabled` is not inherited by a block that is there: absent, it is on.

use std::time::Duration;

use http::HeaderName;

use super::address;
use super::attempts::{Hedge, Retry};
use super::auth;
use super::breaker::Breaker;
use super::endpoints::Transport;
use super::fault::Fault;
use super::given::Given;
use super::grpc::Grpc;
use super::health::Health;
use super::limits::{Concurrency, RateLimit};
use super::outlier::Outlier;
use super::table::{Table, Written};
use super::tls;
use super::{
    BalanceSpec, ConnectionSpec, CredentialsSpec, DnsSpec, Policy, Protocol, ProxySpec, TlsSpec,
};

/// The blocks, as far as they are known.
#[derive(Clone)]
pub(super) struct Blocks {
    drain_timeout: Duration,
    retry: Retry,
    hedge: Hedge,
    breaker: Breaker,
    outlier: Outlier,
    health: Health,
    connection: Connection,
    rate_limit: RateLimit,
    concurrency: Concurrency,
    balance: BalanceSpec,
    pub(super) tls: TlsSpec,
    pub(super) grpc: Grpc,
    pub(super) dns: DnsSpec,
}

/// What the blocks are called where they are read.
pub(super) struct Names {
    retry: &'static str,
    hedge: &'static str,
    breaker: &'static str,
    outlier: &'static str,
    health: &'static str,
    connection: &'static str,
    rate_limit: &'static str,
    concurrency: &'static str,
    balance: &'static str,
    tls: &'static str,
    grpc: &'static str,
    dns: &'static str,
}

/// In a plugin.
pub(super) const IN_PLUGIN: Names = Names {
    retry: "retry",
    hedge: "hedge",
    breaker: "circuit_breaker",
    outlier: "outlier_detection",
    health: "health_check",
    connection: "connection",
    rate_limit: "rate_limit",
    concurrency: "concurrency",
    balance: "load_balancing",
    tls: "tls",
    grpc: "grpc",
    dns: "dns",
};

/// At the root.
pub(super) const AT_ROOT: Names = Names {
    retry: "default_retry",
    hedge: "default_hedge",
    breaker: "default_circuit_breaker",
    outlier: "default_outlier_detection",
    health: "default_health_check",
    connection: "default_connection",
    rate_limit: "default_rate_limit",
    concurrency: "default_concurrency",
    balance: "default_load_balancing",
    tls: "default_tls",
    grpc: "default_grpc",
    dns: "default_dns",
};

impl Blocks {
    /// What is so when a config says nothing.
    pub(super) fn library() -> Self {
        let policy = Policy::default();
        Self {
            drain_timeout: policy.drain_timeout,
            retry: Retry::library(policy.attempt_timeout),
            hedge: Hedge::default(),
            breaker: Breaker::library(),
            outlier: Outlier::default(),
            health: Health::default(),
            connection: Connection {
                spec: ConnectionSpec::default(),
                max_idle: None,
                deadline: policy.deadline,
                timeout_header: policy.timeout_header,
                stream_idle_timeout: policy.stream_idle_timeout,
            },
            rate_limit: RateLimit::default(),
            concurrency: Concurrency::default(),
            balance: policy.balance,
            tls: TlsSpec::default(),
            grpc: Grpc::default(),
            dns: DnsSpec::default(),
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
            outlier: self
                .outlier
                .overlaid(table, names.outlier, &library.outlier),
            health: self.health.overlaid(table, names.health, &library.health),
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
            grpc: self.grpc.overlaid(table, names.grpc, &library.grpc),
            dns: self.dns.overlaid(table, names.dns, &library.dns),
        }
    }

    pub(super) fn policy(
        &self,
        credentials: CredentialsSpec,
        transport: Option<&Transport>,
    ) -> Policy {
        Policy {
            drain_timeout: self.drain_timeout,
            ready_within: None,
            exclusive: false,
            deadline: self.connection.deadline,
            timeout_header: self.connection.timeout_header.clone(),
            stream_idle_timeout: self.connection.stream_idle_timeout,
            attempt_timeout: self.retry.attempt_timeout(),
            rate_limit: self.rate_limit.armed(),
            concurrency: self.concurrency.armed(),
            retry: self.retry.armed(),
            // Inherited, it does nothing where retry is off.
            hedge: self.hedge.armed().filter(|_| self.retry.armed().is_some()),
            breaker: self.breaker.armed(),
            outlier: self.outlier.armed(),
            health: self.health.armed(transport),
            balance: self.balance.armed(),
            credentials,
            allow_plaintext: false,
            authorize: None,
            filter: None,
            fallback: None,
            split: None,
            shadow: None,
            layers: Vec::new(),
        }
    }

    /// Whether there is a hedge without the rules and the budget of retry.
    pub(super) fn hedges_alone(&self) -> bool {
        self.hedge.armed().is_some() && self.retry.armed().is_none()
    }

    /// The protocol that is asked for, by whatever transport.
    pub(super) const fn protocol(&self) -> Protocol {
        self.connection.spec.protocol
    }

    /// How connections are made, for a plugin that makes some. What does nothing is as if nobody had
    /// said it: inherited, it makes no difference between two plugins, nor between two configs.
    pub(super) fn connection(&self, is_grpc: bool) -> ConnectionSpec {
        let mut spec = self.connection.spec.clone();
        if is_grpc {
            spec.protocol = Protocol::Http2;
            spec.disable_compression = ConnectionSpec::default().disable_compression;
        }
        self.connection_of(spec)
    }

    /// The same where connections are not HTTP's.
    pub(super) fn connection_without_http(&self) -> ConnectionSpec {
        let library = ConnectionSpec::default();
        self.connection_of(ConnectionSpec {
            protocol: library.protocol,
            max_age: library.max_age,
            proxy: library.proxy,
            disable_compression: library.disable_compression,
            max_response_head: library.max_response_head,
            ..self.connection.spec.clone()
        })
    }

    /// The same where there are no connections, but a process.
    pub(super) fn connection_to_process(&self) -> ConnectionSpec {
        let own = &self.connection.spec;
        ConnectionSpec {
            connection_timeout: own.connection_timeout,
            max_response_body: own.max_response_body,
            ..ConnectionSpec::default()
        }
    }

    /// The same to a process that speaks HTTP: as many as calls need, for as long as it runs.
    pub(super) fn connection_within_process(&self) -> ConnectionSpec {
        let own = &self.connection.spec;
        ConnectionSpec {
            max_connections: own.max_connections,
            max_streams: own.max_streams,
            connection_timeout: own.connection_timeout,
            max_response_head: own.max_response_head,
            max_response_body: own.max_response_body,
            ..ConnectionSpec::of_process()
        }
    }

    /// The same over a socket of this machine.
    pub(super) fn connection_over_socket(&self, is_grpc: bool) -> ConnectionSpec {
        let spec = self.connection(is_grpc);
        ConnectionSpec {
            proxy: ProxySpec::Off,
            proxy_auth: None,
            disable_compression: ConnectionSpec::default().disable_compression,
            ..spec
        }
    }

    fn connection_of(&self, mut spec: ConnectionSpec) -> ConnectionSpec {
        let library = ConnectionSpec::default();
        let mut max_idle = self.connection.max_idle;
        if !matches!(spec.proxy, ProxySpec::At(_)) {
            spec.proxy_auth = None;
        }
        if spec.protocol == Protocol::Http1 {
            spec.max_streams = library.max_streams;
        }
        if !spec.keep_alive {
            max_idle = None;
            spec.max_age = library.max_age;
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
struct Connection {
    spec: ConnectionSpec,
    max_idle: Option<u32>,
    deadline: Option<Duration>,
    timeout_header: Option<HeaderName>,
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
            max_streams: table.integer("max_streams").unwrap_or(base.max_streams),
            max_idle_connections: base.max_idle_connections,
            idle_timeout: table.duration("idle_timeout").unwrap_or(base.idle_timeout),
            max_age: table.timeout_or_off("max_age").unwrap_or(base.max_age),
            connection_timeout: table
                .duration("connection_timeout")
                .unwrap_or(base.connection_timeout),
            proxy: table
                .read("proxy", |given, _| proxy(given))
                .unwrap_or_else(|| base.proxy.clone()),
            proxy_auth: table
                .secret("proxy_auth", check_proxy_auth)
                .or_else(|| base.proxy_auth.clone()),
            keep_alive: table.bool("keep_alive").unwrap_or(base.keep_alive),
            disable_compression: table
                .bool("disable_compression")
                .unwrap_or(base.disable_compression),
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
            timeout_header: table
                .read("timeout_header", |given, _| timeout_header(given))
                .unwrap_or_else(|| self.timeout_header.clone()),
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

/// The name of a header, or `off`.
fn timeout_header(given: &Given<'_>) -> Result<Option<HeaderName>, Fault> {
    let text = given.text()?;
    if text == "off" {
        return Ok(None);
    }
    let name = auth::header_name(text)?;
    if name == "grpc-timeout" {
        return Err("is read and written for gRPC always, in a form of its own: remove it".into());
    }
    Ok(Some(name))
}

fn proxy(given: &Given<'_>) -> Result<ProxySpec, Fault> {
    match given.text()? {
        "off" => Ok(ProxySpec::Off),
        "environment" => Ok(ProxySpec::Environment),
        url => address::parse_proxy(url).map(ProxySpec::At),
    }
}

fn check_proxy_auth(text: &str) -> Result<(), String> {
    let (user, _) = text.split_once(':').unwrap_or_default();
    if user.is_empty() || text.chars().any(char::is_control) || text.len() > 8 << 10 {
        return Err(
            "is not a user and a password with a colon between them, in at most 8 KiB".into(),
        );
    }
    Ok(())
}

pub(super) const PROTOCOLS: [(&str, Protocol); 2] =
    [("http1", Protocol::Http1), ("http2", Protocol::Http2)];
