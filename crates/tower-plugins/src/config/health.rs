//! `health_check`.

use std::collections::BTreeSet;
use std::time::Duration;

use http::uri::PathAndQuery;

use super::blocks::Overlay;
use super::breaker::{list, status_range};
use super::endpoints::Transport;
use super::fault::Fault;
use super::table::Table;
use super::units::write_duration;
use super::{ConnectionSpec, HealthKind, HealthSpec, Protocol};

impl HealthKind {
    const fn word(&self) -> Word {
        match self {
            Self::Http { .. } => Word::Http,
            Self::Grpc { .. } => Word::Grpc,
            Self::GrpcWatch { .. } => Word::GrpcWatch,
            Self::Tcp => Word::Tcp,
            Self::Process => Word::Process,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Http,
    Grpc,
    GrpcWatch,
    Tcp,
    Process,
}

const KINDS: [(&str, Word); 5] = [
    ("http", Word::Http),
    ("grpc", Word::Grpc),
    ("grpc-watch", Word::GrpcWatch),
    ("tcp", Word::Tcp),
    ("process", Word::Process),
];

/// Off until it is there. What belongs to a kind is kept until the kind is known.
#[derive(Clone, Default)]
pub(super) struct Health {
    enabled: bool,
    kind: Option<Word>,
    path: Option<PathAndQuery>,
    statuses: Option<BTreeSet<u16>>,
    service: Option<String>,
    timeout: Option<Duration>,
    /// Its kind and timeout are of no concern.
    spec: HealthSpec,
}

impl Overlay for Health {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let base = &self.spec;
        let read = Self {
            enabled: table.bool("enabled").unwrap_or(true),
            kind: kind(table).or(self.kind),
            path: table
                .read("endpoint", |given, _| path(given.text()?))
                .or_else(|| self.path.clone()),
            statuses: list(table, "statuses", |given| status_range(given, 200..=599))
                .map(|ranges| ranges.into_iter().flatten().collect())
                .or_else(|| self.statuses.clone()),
            service: table
                .read("service", |given, _| Ok(given.text()?.to_owned()))
                .or_else(|| self.service.clone()),
            timeout: table.duration("timeout").or(self.timeout),
            spec: HealthSpec {
                interval: table.duration("interval").unwrap_or(base.interval),
                unhealthy_interval: table
                    .duration("unhealthy_interval")
                    .or(base.unhealthy_interval),
                jitter: table.number("jitter").unwrap_or(base.jitter),
                failure_limit: table.integer("failure_limit").unwrap_or(base.failure_limit),
                healthy_threshold: table
                    .integer("healthy_threshold")
                    .unwrap_or(base.healthy_threshold),
                degraded_after: table
                    .timeout_or_off("degraded_after")
                    .unwrap_or(base.degraded_after),
                ..base.clone()
            },
        };
        if read.enabled && table.is_sound() {
            read.check(table);
        }
        read
    }

    fn off(&self) -> Option<Self> {
        Some(Self {
            enabled: false,
            ..self.clone()
        })
    }
}

impl Health {
    fn check(&self, table: &Table<'_>) {
        let spec = self.spec(Word::Http, "");
        if spec.timeout > spec.interval {
            let message = format!(
                "timeout, {}, is longer than interval, {}: a check is over before the next is due",
                write_duration(spec.timeout),
                write_duration(spec.interval)
            );
            let key = if table.has("timeout") {
                "timeout"
            } else {
                "interval"
            };
            table.conflict(key, message);
        }
        if let Some(slow) = spec.degraded_after.filter(|slow| *slow >= spec.timeout) {
            let message = format!(
                "{} is never reached: timeout, {}, is over first",
                write_duration(slow),
                write_duration(spec.timeout)
            );
            table.conflict("degraded_after", message);
        }
        if self.statuses.as_ref().is_some_and(BTreeSet::is_empty) {
            let message = "is empty: no answer would be well";
            table.problem("statuses", Fault::of_secret(message));
        }
    }

    fn timeout(&self) -> Duration {
        let library = HealthSpec::default().timeout.min(self.spec.interval);
        self.timeout.unwrap_or(library)
    }

    fn spec(&self, usual: Word, usual_service: &str) -> HealthSpec {
        let service = || {
            let service = self.service.as_deref();
            service.unwrap_or(usual_service).to_owned()
        };
        let kind = match self.kind.unwrap_or(usual) {
            Word::Http => HealthKind::Http {
                path: self
                    .path
                    .clone()
                    .unwrap_or(PathAndQuery::from_static("/health")),
                statuses: self.statuses.clone().unwrap_or((200..300).collect()),
            },
            Word::Grpc => HealthKind::Grpc { service: service() },
            Word::GrpcWatch => HealthKind::GrpcWatch { service: service() },
            Word::Tcp => HealthKind::Tcp,
            Word::Process => HealthKind::Process,
        };
        HealthSpec {
            kind,
            timeout: self.timeout(),
            unhealthy_interval: (self.spec.unhealthy_interval)
                .filter(|interval| *interval != self.spec.interval),
            ..self.spec.clone()
        }
    }

    /// A plugin that speaks gRPC is asked by gRPC where nobody says how, and one that is sent lines whether it lives.
    pub(super) fn armed(&self, transport: Option<&Transport>) -> Option<HealthSpec> {
        let (usual, service) = match transport {
            // What each has that is served by go-plugin.
            Some(Transport::Subprocess) => (Word::Grpc, "plugin"),
            Some(transport) if transport.is_grpc() => (Word::Grpc, ""),
            Some(Transport::ExecJson) => (Word::Process, ""),
            _ => (Word::Http, ""),
        };
        self.enabled.then(|| self.spec(usual, service))
    }
}

fn kind(table: &mut Table<'_>) -> Option<Word> {
    table.read("kind", |given, _| {
        let word = given.text()?;
        let known = KINDS.iter().find(|(name, _)| *name == word);
        let names = KINDS.iter().map(|(name, _)| *name);
        known
            .map(|(_, kind)| *kind)
            .ok_or_else(|| Fault::unknown_word(word, names))
    })
}

fn path(text: &str) -> Result<PathAndQuery, Fault> {
    if text.contains("://") {
        return Err(Fault::of_value(
            "is a URL: each endpoint of the plugin is asked at its own address; write the path, such as \"/health\"",
        ));
    }
    let path = text.starts_with('/') && !text.contains('#');
    let path = path.then(|| PathAndQuery::try_from(text).ok()).flatten();
    path.ok_or_else(|| Fault::of_value("is not a path, such as \"/health\""))
}

/// Refuses what cannot be asked of the plugin `table`, and what would do nothing. What is inherited may do nothing.
pub(super) fn refuse_inert(
    table: &Table<'_>,
    transport: Option<&Transport>,
    connection: &ConnectionSpec,
    health: Option<&HealthSpec>,
    refuse: impl Fn(&str, &str, &str),
) {
    let Some(health) = health else { return };
    let kind = health.kind.word();
    if kind != Word::Http {
        let why = "does nothing with another kind than http: remove it";
        refuse("health_check", "endpoint", why);
        refuse("health_check", "statuses", why);
    }
    if !matches!(kind, Word::Grpc | Word::GrpcWatch) {
        let why = "does nothing without kind: grpc or grpc-watch: set one of them, or remove this";
        refuse("health_check", "service", why);
    }
    let is_grpc = matches!(kind, Word::Grpc | Word::GrpcWatch);
    match transport {
        Some(Transport::InProcess) if kind == Word::Tcp => {
            let message = "is of kind tcp, and an in-process plugin has no connection: take kind: http, or \
                           health_check: off";
            table.conflict("health_check", message);
        }
        Some(Transport::ExecJson) if kind != Word::Process => {
            let message = "is not of the kind process, and nothing else can be asked of exec-json: remove kind";
            table.conflict("health_check", message);
        }
        Some(transport) if kind == Word::Process && !transport.is_process() => {
            let message =
                "is of kind process, which asks whether an executable runs: take another kind";
            table.conflict("health_check", message);
        }
        Some(Transport::UnixJson) if is_grpc => {
            let message = "is of a grpc kind, and unix-json is not gRPC: take kind: http, which asks it by its \
                           own question for health";
            table.conflict("health_check", message);
        }
        Some(Transport::Http | Transport::Https | Transport::Unix)
            if is_grpc && connection.protocol != Protocol::Http2 =>
        {
            let message = "is of a grpc kind, which takes connection.protocol: http2";
            table.conflict("health_check", message);
        }
        _ => {}
    }
}
