//! Untyped values to a [`Config`].

use std::collections::BTreeMap;
use std::path::Path;

use figment::Figment;
use figment::value::Value;

use super::address;
use super::auth;
use super::blocks::{AT_ROOT, Blocks, IN_PLUGIN};
use super::error::{ConfigError, Problem};
use super::source::{Format, Source};
use super::table::{Origin, Report, Table, expected, text};
use super::{
    Address, Config, ConnectionSpec, EndpointSpec, PluginName, PluginSpec, Policy, Protocol,
    Upstream,
};

impl Config {
    /// The config in the file at `path`: JSON, YAML or TOML, by its extension.
    ///
    /// This blocks while it reads the file, which is opened once.
    ///
    /// # Errors
    ///
    /// As [`Source::file`] and [`Config::from_figment`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::from_source(Source::file(path)?)
    }

    /// The config that `text` says.
    ///
    /// ```
    /// use tower_plugins::config::{Config, Format};
    ///
    /// let config = Config::parse(
    ///     "
    ///     plugins:
    ///       auth:
    ///         transport: http
    ///         endpoint: http://127.0.0.1:8080
    ///         connection: { request_timeout: 2s }
    ///     ",
    ///     Format::Yaml,
    /// )?;
    /// assert_eq!(config.plugins["auth"].policy.deadline.unwrap().as_secs(), 2);
    /// # Ok::<(), tower_plugins::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Source::text`] and [`Config::from_figment`].
    pub fn parse(text: &str, format: Format) -> Result<Self, ConfigError> {
        Self::from_source(Source::text(text, format)?)
    }

    /// The config that the layers of `figment` say together; see [`Source`].
    ///
    /// # Errors
    ///
    /// Every key that is unknown, missing, of the wrong type or out of its range, and every two
    /// values that contradict each other, at once.
    pub fn from_figment(figment: &Figment) -> Result<Self, ConfigError> {
        let root = figment.find_value("").map_err(foreign)?;
        Self::from_root(&root, Origin::Layers(figment))
    }

    /// The config of one source: what [`Config::from_figment`] makes of it alone, without the copies
    /// that merging takes.
    pub(crate) fn from_source(source: Source) -> Result<Self, ConfigError> {
        let (file, root) = source.into_parts();
        Self::from_root(&root, Origin::One(file.as_deref()))
    }

    fn from_root(root: &Value, origin: Origin<'_>) -> Result<Self, ConfigError> {
        let report = Report::new(origin);
        let plugins = report.table("", root).map(read_root).unwrap_or_default();
        let problems = report.into_problems();
        if problems.is_empty() {
            Ok(Self { plugins })
        } else {
            Err(ConfigError::from_problems(problems))
        }
    }
}

/// The problems of a provider that is not ours.
fn foreign(error: figment::Error) -> ConfigError {
    let problems = error.into_iter().map(|error| {
        let problem = Problem::new(error.path.join("."), error.kind.to_string());
        let source = error.metadata.and_then(|metadata| metadata.source);
        match source.as_ref().and_then(figment::Source::file_path) {
            Some(file) => problem.in_file(file),
            None => problem,
        }
    });
    ConfigError::from_problems(problems.collect())
}

fn read_root(mut table: Table<'_>) -> BTreeMap<PluginName, PluginSpec> {
    let defaults = Blocks::library().overlaid(&mut table, &AT_ROOT);
    let allow_empty = table.bool("allow_empty").unwrap_or(false);
    let plugins = table.value("plugins");
    let mut reader = Reader {
        defaults: &defaults,
        declared: BTreeMap::new(),
        plugins: BTreeMap::new(),
    };
    match plugins {
        Some(Value::Array(_, list)) => reader.read_list(&table, list),
        Some(map @ Value::Dict(..)) => {
            if let Some(plugins) = table.report().table("plugins", map) {
                reader.read_map(&plugins);
            }
        }
        Some(other) => table.problem("plugins", expected("a list or a table of plugins", other)),
        None => {}
    }
    let Reader {
        declared, plugins, ..
    } = reader;
    if declared.is_empty() && !allow_empty && table.is_sound() {
        table.problem(
            "plugins",
            "no plugins; set allow_empty: true if that is meant",
        );
    }
    table.finish();
    plugins
}

struct Reader<'a> {
    defaults: &'a Blocks,
    /// Where each name was first used.
    declared: BTreeMap<PluginName, String>,
    plugins: BTreeMap<PluginName, PluginSpec>,
}

impl Reader<'_> {
    fn read_list(&mut self, root: &Table<'_>, list: &[Value]) {
        for (index, value) in list.iter().enumerate() {
            let Some(mut table) = root.report().table(format!("plugins[{index}]"), value) else {
                continue;
            };
            table.require("name");
            let name = table.read("name", |value| parse_name(text(value)?));
            self.read_plugin(table, name);
        }
    }

    fn read_map(&mut self, plugins: &Table<'_>) {
        for (key, value) in plugins.entries() {
            let Some(mut table) = plugins.report().table(plugins.path_of(key), value) else {
                continue;
            };
            let name = parse_name(key)
                .map_err(|message| plugins.problem(key, message))
                .ok();
            table.refuse("name", "is said by the key of the table already: remove it");
            self.read_plugin(table, name);
        }
    }

    /// Reads a plugin to its end, even if it is not to be kept.
    fn read_plugin(&mut self, mut table: Table<'_>, name: Option<PluginName>) {
        let enabled = table.bool("enabled").unwrap_or(true);
        let blocks = self.defaults.overlaid(&mut table, &IN_PLUGIN);
        let credentials = table.table("auth").map(auth::read).unwrap_or_default();
        let transport = read_transport(&mut table);
        let endpoints = read_endpoints(&mut table, transport);
        let policy = blocks.policy(credentials);
        let connection = blocks.connection();
        refuse_inert(&table, transport, &connection, &policy);
        if let Some(name) = name {
            if let Some(first) = self.declared.get(&name) {
                let message = format!("{name} is the name of {first} already");
                table.problem("name", message);
            } else {
                self.declared.insert(name.clone(), table.path().to_owned());
            }
            if enabled {
                let upstream = Upstream {
                    endpoints,
                    connection,
                    tls: super::TlsSpec::default(),
                };
                let plugin = PluginSpec {
                    name: name.clone(),
                    policy,
                    upstream,
                };
                self.plugins.insert(name, plugin);
            }
        }
        table.finish();
    }
}

/// Refuses keys of the plugin `table` that would do nothing. One that is inherited may: it is not
/// about this plugin.
fn refuse_inert(
    table: &Table<'_>,
    transport: Option<Transport>,
    connection: &ConnectionSpec,
    policy: &Policy,
) {
    let refuse = |block: &str, key: &str, why: &str| {
        let written = table.entries().get(block).and_then(Value::as_dict);
        if let Some(value) = written.and_then(|written| written.get(key)) {
            let path = format!("{}.{key}", table.path_of(block));
            table.report().add(value.tag(), path, why);
        }
    };
    let breaker = policy.breaker.as_ref();
    if breaker.is_some_and(|breaker| breaker.failure_rate.is_none()) {
        for key in ["window", "min_request_threshold"] {
            refuse("circuit_breaker", key, "does nothing without failure_rate");
        }
    }
    if transport == Some(Transport::InProcess) {
        for key in ON_THE_WIRE {
            refuse("connection", key, "does nothing for an in-process plugin");
        }
    } else {
        if connection.protocol == Protocol::Http2 {
            for key in ["max_connections", "max_idle_connections"] {
                let why =
                    "does nothing with protocol: http2, which keeps one connection per endpoint";
                refuse("connection", key, why);
            }
        } else if !connection.keep_alive {
            let why = "does nothing with keep_alive: false";
            refuse("connection", "max_idle_connections", why);
        }
        if !connection.keep_alive || connection.max_idle_connections == 0 {
            let why = "does nothing where no connection is kept without a call";
            refuse("connection", "idle_timeout", why);
        }
    }
    if let (Some(attempt), Some(whole)) = (policy.attempt_timeout, policy.deadline)
        && attempt > whole
    {
        let why = format!("{attempt:?} is longer than connection.request_timeout, {whole:?}");
        refuse("retry", "attempt_timeout", &why);
    }
}

/// The keys of `connection` that are about a connection, rather than a call.
const ON_THE_WIRE: [&str; 8] = [
    "protocol",
    "max_connections",
    "max_idle_connections",
    "idle_timeout",
    "connection_timeout",
    "keep_alive",
    "max_response_head",
    "max_response_body",
];

fn parse_name(name: &str) -> Result<PluginName, String> {
    PluginName::new(name)
        .ok_or_else(|| format!("{name:?} cannot name a plugin: {}", PluginName::RULE))
}

#[derive(Clone, Copy, PartialEq)]
enum Transport {
    Http,
    Unix,
    InProcess,
}

const TRANSPORTS: [(&str, Transport); 3] = [
    ("http", Transport::Http),
    ("unix", Transport::Unix),
    ("in-process", Transport::InProcess),
];

fn read_transport(table: &mut Table<'_>) -> Option<Transport> {
    if table.has("transport") && table.has("type") {
        table.problem("type", "is another word for transport: remove one of them");
    }
    let key = if table.has("type") {
        "type"
    } else {
        "transport"
    };
    table.allow("transport");
    table.allow("type");
    table.require(key);
    table.read(key, |value| {
        let word = text(value)?;
        let known = TRANSPORTS.iter().find(|(name, _)| *name == word);
        known.map(|(_, transport)| *transport).ok_or_else(|| {
            format!("{word:?} is not available, this version has http, unix and in-process")
        })
    })
}

fn read_endpoints(table: &mut Table<'_>, transport: Option<Transport>) -> Vec<EndpointSpec> {
    let one = table.value("endpoint");
    let many = table.list("endpoints");
    match (table.has("endpoint"), table.has("endpoints")) {
        (false, false) => table.problem("endpoint", "is missing"),
        (true, true) => table.problem("endpoints", "is there beside endpoint: keep one of them"),
        _ => {}
    }
    if many.is_some_and(<[Value]>::is_empty) {
        table.problem(
            "endpoints",
            "is empty: a plugin needs at least one endpoint",
        );
    }
    let one = one.map(|value| (table.path_of("endpoint"), value));
    let path = table.path_of("endpoints");
    let many = many.into_iter().flatten().enumerate();
    let many = many.map(|(index, value)| (format!("{path}[{index}]"), value));
    let mut endpoints: Vec<(String, EndpointSpec)> = Vec::new();
    for (path, value) in one.into_iter().chain(many) {
        let Some(address) = read_endpoint(table.report(), &path, value, transport) else {
            continue;
        };
        let endpoint = EndpointSpec { address };
        match endpoints.iter().find(|(_, other)| *other == endpoint) {
            Some((first, _)) => {
                let message = format!("is the same endpoint as {first}");
                table.report().add(value.tag(), path, message);
            }
            None => endpoints.push((path, endpoint)),
        }
    }
    endpoints
        .into_iter()
        .map(|(_, endpoint)| endpoint)
        .collect()
}

/// An endpoint: its address as text, or a table of `url` and `path`.
fn read_endpoint<'a>(
    report: &'a Report<'a>,
    path: &str,
    value: &'a Value,
    transport: Option<Transport>,
) -> Option<Address> {
    let parse = |value| match (transport, text(value)?) {
        (Some(Transport::Http), text) => address::parse_http(text).map(Some),
        (Some(Transport::Unix), text) => address::parse_unix(text).map(Some),
        (Some(Transport::InProcess), text) => address::parse_in_process(text).map(Some),
        // What is wrong with the transport has been said.
        (None, _) => Ok(None),
    };
    if !matches!(value, Value::Dict(..)) {
        return parse(value)
            .map_err(|message| report.add(value.tag(), path, message))
            .ok()?;
    }
    let mut table = report.table(path, value)?;
    table.require("url");
    let address = table.read("url", parse).flatten();
    let prefix = table.read("path", |value| address::parse_prefix(text(value)?));
    let address = match (address, prefix) {
        (Some(mut address), Some(own)) => {
            match &mut address {
                Address::Http { prefix, .. }
                | Address::Https { prefix, .. }
                | Address::Unix { prefix, .. } => {
                    if !prefix.is_empty() {
                        table.problem("path", "is there beside a path in url: keep one of them");
                    }
                    *prefix = own;
                }
                Address::InProcess { .. } => {
                    table.problem("path", "does nothing for an in-process plugin");
                }
            }
            Some(address)
        }
        (address, _) => address,
    };
    table.finish();
    address
}
