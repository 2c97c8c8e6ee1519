//! Untyped values to the plugins of a config.

use std::collections::BTreeMap;
use std::time::Duration;

use super::address;
use super::auth;
use super::blocks::{AT_ROOT, Blocks, IN_PLUGIN};
use super::error::ProblemKind;
use super::fault::Fault;
use super::given::Given;
use super::keys::{ALLOWLIST, ENDPOINT, MANIFEST, PLUGIN, ROOT};
use super::report::Report;
use super::table::{Table, is_unset, join};
use super::tree::{Span, Value};
use super::units::write_duration;
use super::{
    Address, ConnectionSpec, EndpointSpec, PluginName, PluginSpec, Policy, Protocol, TlsSpec,
    Upstream,
};

/// The plugins that the docs of `report` say together.
pub(super) fn plugins<'t>(report: &'t Report<'t>) -> BTreeMap<PluginName, PluginSpec> {
    let tables = report.docs().filter_map(|(doc, root)| {
        let table = report.table(doc, &ROOT, String::new(), root.at, root)?;
        if let Some(what) = is_something_else(&table) {
            let at = root.entries().and_then(|entries| Some(entries.first()?.at));
            let at = at.unwrap_or(root.at);
            report.add(doc, at, "", Fault::new(ProblemKind::Unavailable, what));
            return None;
        }
        Some(table)
    });
    let mut tables: Vec<_> = tables.collect();
    refuse_twice(&tables);

    let library = Blocks::library();
    let mut defaults = library.clone();
    let mut allow_empty = false;
    for table in &mut tables {
        defaults = defaults.overlaid(table, &AT_ROOT, &library);
        allow_empty |= table.bool("allow_empty").unwrap_or(false);
        match (table.doc(), report.is_file(table.doc())) {
            (0, true) => table.pass(&["include"]),
            (0, false) => table.refuse(
                "include",
                "is read in a config file only: give the text of all, or merge the layers in the \
                 program",
            ),
            _ => table.refuse("include", "is read in the main file only"),
        }
    }
    let mut reader = Reader {
        library: &library,
        defaults: &defaults,
        declared: BTreeMap::new(),
        plugins: BTreeMap::new(),
    };
    for table in &mut tables {
        reader.read(table);
    }
    let Reader {
        declared, plugins, ..
    } = reader;
    let place = tables
        .first()
        .map(|main| (main.doc(), main.place_of("plugins")));
    tables.into_iter().for_each(Table::finish);
    if let Some((doc, at)) = place
        && declared.is_empty()
        && !allow_empty
        && report.problem_count() == 0
    {
        let message = "no plugins; set allow_empty: true if that is meant";
        report.add(
            doc,
            at,
            "plugins",
            Fault::new(ProblemKind::Missing, message),
        );
    }
    plugins
}

/// What is said of a root that is another sort of file.
fn is_something_else(root: &Table<'_>) -> Option<&'static str> {
    let has = |keys: &[&str]| keys.iter().any(|key| root.has(key));
    if !root.has("plugins") {
        let of_plugin = root.has("name") && has(&["transport", "endpoint"]);
        return of_plugin.then_some(MANIFEST);
    }
    has(&["default_policy", "hash_algorithm", "global_constraints"]).then_some(ALLOWLIST)
}

/// What two files of a config say must not depend on their order: only `plugins` is in several.
fn refuse_twice(tables: &[Table<'_>]) {
    for (index, table) in tables.iter().enumerate() {
        for entry in table.entries() {
            let adds_up = entry.key == "plugins" || entry.key == "include";
            if adds_up || ROOT.key(&entry.key).is_none() {
                continue;
            }
            let before = tables.iter().take(index);
            if let Some(first) = before.into_iter().find(|table| table.has(&entry.key)) {
                table.report().add_with(
                    (table.doc(), entry.at),
                    entry.key.clone().into_owned(),
                    Fault::new(
                        ProblemKind::Conflict,
                        "is in two files of this config, keep one of them; the other is",
                    ),
                    (first.doc(), first.place_of(&entry.key)),
                );
            }
        }
    }
}

struct Reader<'a> {
    library: &'a Blocks,
    defaults: &'a Blocks,
    /// Where each name was first used.
    declared: BTreeMap<PluginName, Declared>,
    plugins: BTreeMap<PluginName, PluginSpec>,
}

/// The name of a plugin, and how a message shows it where that is not the name itself.
struct Named {
    name: PluginName,
    shown: Option<String>,
}

struct Declared {
    path: String,
    place: (usize, Span),
}

impl Reader<'_> {
    fn read(&mut self, root: &mut Table<'_>) {
        let (report, doc) = (root.report(), root.doc());
        let plugins = root.read("plugins", |given, _| Ok(given.node));
        match plugins.map(|node| (node, &node.value)) {
            Some((_, Value::List(list))) => {
                for (index, node) in list.iter().enumerate() {
                    let path = format!("plugins[{index}]");
                    if let Some(mut table) = report.table(doc, &PLUGIN, path, node.at, node) {
                        table.require("name");
                        let name = table.read("name", |given, _| {
                            let name = parse_name(given.text()?)?;
                            // What a variable holds is in no message.
                            let hidden = given.is_from_environment();
                            let shown = hidden.then(|| given.shown(true).0);
                            Ok(Named { name, shown })
                        });
                        let place = table.place_of("name");
                        self.read_plugin(table, name, place);
                    }
                }
            }
            Some((_, Value::Table(entries))) => {
                for entry in entries {
                    let path = join("plugins", &entry.key);
                    let name = parse_name(&entry.key).map_err(|fault| {
                        let given = Given::key(&entry.key, &entry.node);
                        report.add_given(doc, entry.at, path.clone(), fault, &given);
                    });
                    let table = report.table(doc, &PLUGIN, path, entry.at, &entry.node);
                    if let Some(mut table) = table {
                        table.refuse("name", "is said by the key of the table already: remove it");
                        let named = name.ok().map(|name| Named { name, shown: None });
                        self.read_plugin(table, named, entry.at);
                    }
                }
            }
            Some((node, _)) => {
                let given = Given::of(node);
                let fault = given.expected("a list or a table of plugins");
                report.add_given(doc, node.at, "plugins".to_owned(), fault, &given);
            }
            None => {}
        }
    }

    /// Reads a plugin to its end, even if it is not to be kept.
    fn read_plugin(&mut self, mut table: Table<'_>, name: Option<Named>, place: Span) {
        let enabled = table.bool("enabled").unwrap_or(true);
        let blocks = self.defaults.overlaid(&mut table, &IN_PLUGIN, self.library);
        let auth = table
            .table("auth")
            .map(|auth| auth::read(auth, &blocks.tls));
        let (credentials, mtls) = auth
            .map(|auth| (auth.credentials, auth.tls))
            .unwrap_or_default();
        let transport = read_transport(&mut table);
        let endpoints = read_endpoints(&mut table, transport);
        let policy = blocks.policy(credentials);
        let connection = match transport {
            Some(Transport::InProcess) => ConnectionSpec::default(),
            _ => blocks.connection(),
        };
        refuse_inert(&table, transport, &connection, &policy);
        refuse_tls(&table, transport, mtls.is_some());
        warn_of_vain(&table, &connection, &policy);
        let tls = match transport {
            Some(Transport::Https) => mtls.unwrap_or_else(|| blocks.tls.clone()),
            _ => TlsSpec::default(),
        };
        if let Some(name) = name {
            let upstream = Upstream {
                endpoints,
                connection,
                tls,
            };
            self.declare(&table, name, place, enabled, policy, upstream);
        }
        table.finish();
    }

    fn declare(
        &mut self,
        table: &Table<'_>,
        Named { name, shown }: Named,
        place: Span,
        enabled: bool,
        policy: Policy,
        upstream: Upstream,
    ) {
        if let Some(first) = self.declared.get(&name) {
            let shown = shown.as_deref().unwrap_or(name.as_str());
            let message = format!("{shown} is the name of {} already", first.path);
            table.report().add_with(
                (table.doc(), place),
                table.path_of("name"),
                Fault::new(ProblemKind::Conflict, message),
                first.place,
            );
            return;
        }
        let declared = Declared {
            path: table.path().to_owned(),
            place: (table.doc(), place),
        };
        self.declared.insert(name.clone(), declared);
        if enabled {
            let plugin = PluginSpec {
                name: name.clone(),
                policy,
                upstream,
            };
            self.plugins.insert(name, plugin);
        }
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
        let written = table.get(block).and_then(|block| block.entries());
        let Some(entries) = written.filter(|entries| !is_unset(table.block_of(block), entries))
        else {
            return;
        };
        if let Some(entry) = entries.iter().find(|entry| entry.key == key) {
            let path = join(&table.path_of(block), key);
            let fault = Fault::new(ProblemKind::Ineffective, why);
            table.report().add(table.doc(), entry.at, path, fault);
        }
    };
    let breaker = policy.breaker.as_ref();
    if breaker.is_some_and(|breaker| breaker.failure_rate.is_none()) {
        for key in ["window", "min_request_threshold"] {
            refuse(
                "circuit_breaker",
                key,
                "does nothing without failure_rate: set that, or remove this",
            );
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
}

fn refuse_tls(table: &Table<'_>, transport: Option<Transport>, mtls: bool) {
    if transport.is_none_or(|transport| transport == Transport::Https) {
        return;
    }
    let ineffective = |why| Fault::new(ProblemKind::Ineffective, why);
    if table.has("tls") {
        table.problem("tls", ineffective("does nothing without transport: https"));
    }
    if mtls {
        table.problem("auth", ineffective("method: mtls takes transport: https"));
    }
}

/// Warns of what can hardly be meant, and does no harm.
fn warn_of_vain(table: &Table<'_>, connection: &ConnectionSpec, policy: &Policy) {
    let deadline = policy.deadline;
    let never_reached = |block: &str, key: &str, time: Option<Duration>| {
        let Some(time) = time else { return };
        if let Some(deadline) = deadline.filter(|deadline| time >= *deadline) {
            let (time, deadline) = (write_duration(time), write_duration(deadline));
            let message = format!(
                "{key}, {time}, is never reached: connection.request_timeout, {deadline}, is over first"
            );
            table.warn(block, message);
        }
    };
    never_reached("retry", "attempt_timeout", policy.attempt_timeout);
    let wait = policy.rate_limit.as_ref().map(|limit| limit.max_wait);
    never_reached("rate_limit", "max_wait", wait);
    let wait = policy.concurrency.as_ref().map(|limit| limit.max_wait);
    never_reached("concurrency", "max_wait", wait);
    // The library's own is longer than most calls, and no mistake of anybody.
    let timeout = Some(connection.connection_timeout)
        .filter(|timeout| *timeout != ConnectionSpec::default().connection_timeout);
    never_reached("connection", "connection_timeout", timeout);

    let Some(retry) = &policy.retry else { return };
    if retry.budget_ratio.get() == 0.0 && retry.budget_min_per_second == 0 {
        let message = "is on and its budget is nothing: no attempt is ever repeated";
        table.warn("retry", message);
    }
    if !retry.random_jitter {
        never_reached("retry", "initial_interval", Some(retry.initial_interval));
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

fn parse_name(name: &str) -> Result<PluginName, Fault> {
    PluginName::new(name)
        .ok_or_else(|| Fault::of_value(format!("cannot name a plugin: {}", PluginName::RULE)))
}

#[derive(Clone, Copy, PartialEq)]
enum Transport {
    Http,
    Https,
    Unix,
    InProcess,
}

const TRANSPORTS: [(&str, Transport); 4] = [
    ("http", Transport::Http),
    ("https", Transport::Https),
    ("unix", Transport::Unix),
    ("in-process", Transport::InProcess),
];

/// Transports that there are names for, and that this version does not have.
const LATER: [&str; 6] = [
    "grpc",
    "grpc-tls",
    "exec",
    "subprocess",
    "unix-json",
    "exec-json",
];

fn read_transport(table: &mut Table<'_>) -> Option<Transport> {
    let (has_transport, has_type) = (table.has("transport"), table.has("type"));
    if has_transport && has_type {
        let message =
            "named a factory in go-plugins, and is another word for `transport` here: remove it";
        table.conflict("type", message);
    }
    let key = if has_type && !has_transport {
        "type"
    } else {
        "transport"
    };
    table.pass(&["transport", "type"]);
    table.require(key);
    table.read(key, |given, _| {
        let word = given.text()?;
        let known = TRANSPORTS.iter().map(|(name, _)| *name);
        if LATER.contains(&word) {
            let all = known.collect::<Vec<_>>().join(", ");
            let message = format!(
                "is not available in this version, which has {all}: remove the plugin until then"
            );
            return Err(Fault {
                allowed: Some(all),
                ..Fault::of_value(message).kind(ProblemKind::Unavailable)
            });
        }
        let meaning = TRANSPORTS.iter().find(|(name, _)| *name == word);
        meaning
            .map(|(_, transport)| *transport)
            .ok_or_else(|| Fault::unknown_word(word, known))
    })
}

fn read_endpoints(table: &mut Table<'_>, transport: Option<Transport>) -> Vec<EndpointSpec> {
    let (has_one, has_many) = (table.has("endpoint"), table.has("endpoints"));
    match (has_one, has_many) {
        // What `path` is here is said of it.
        (false, false) if table.has("path") => {}
        (false, false) => table.require("endpoint"),
        (true, true) => table.conflict("endpoints", "is there beside endpoint: keep one of them"),
        _ => {}
    }
    let path = table.path_of("endpoint");
    let one = table.read("endpoint", |given, _| Ok(given.clone()));
    let many = table.list("endpoints");
    table.pass(&["endpoints"]);
    if many.as_ref().is_some_and(Vec::is_empty) {
        let fault = Fault::of_secret("is empty: a plugin needs at least one endpoint");
        table.problem("endpoints", fault);
    }
    let one = one.map(|given| (path, given));
    let many = many
        .into_iter()
        .flatten()
        .map(|item| (item.path, item.given));
    let mut endpoints: Vec<(String, EndpointSpec)> = Vec::new();
    for (path, given) in one.into_iter().chain(many) {
        let place = given.node.at;
        let Some(address) = read_endpoint(table, &path, &given, transport) else {
            continue;
        };
        let endpoint = EndpointSpec { address };
        match endpoints.iter().find(|(_, other)| *other == endpoint) {
            Some((first, _)) => {
                let message = format!("is the same endpoint as {first}");
                let fault = Fault::new(ProblemKind::Conflict, message);
                table.report().add(table.doc(), place, path, fault);
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
fn read_endpoint<'t>(
    plugin: &Table<'t>,
    path: &str,
    given: &Given<'t>,
    transport: Option<Transport>,
) -> Option<Address> {
    let parse = |given: &Given<'_>| {
        let text = given.text()?;
        match transport {
            Some(Transport::Http) => address::parse_http(text).map(Some),
            Some(Transport::Https) => address::parse_https(text).map(Some),
            Some(Transport::Unix) => address::parse_unix(text).map(Some),
            Some(Transport::InProcess) => address::parse_in_process(text).map(Some),
            // What is wrong with the transport has been said.
            None => Ok(None),
        }
    };
    let (report, doc, at) = (plugin.report(), plugin.doc(), given.node.at);
    if !matches!(given.node.value, Value::Table(_)) {
        return parse(given)
            .map_err(|fault| report.add_given(doc, at, path.to_owned(), fault, given))
            .ok()?;
    }
    let mut table = report.table(doc, &ENDPOINT, path.to_owned(), at, given.node)?;
    table.require("url");
    let address = table.read("url", |given, _| parse(given)).flatten();
    let prefix = table.read("path", |given, _| address::parse_prefix(given.text()?));
    let address = match (address, prefix) {
        (Some(mut address), Some(own)) => {
            match &mut address {
                Address::Http { prefix, .. }
                | Address::Https { prefix, .. }
                | Address::Unix { prefix, .. } => {
                    if !prefix.is_empty() {
                        table.conflict("path", "is there beside a path in url: keep one of them");
                    }
                    *prefix = own;
                }
                Address::InProcess { .. } => {
                    let why = "does nothing for an in-process plugin";
                    table.problem("path", Fault::new(ProblemKind::Ineffective, why));
                }
            }
            Some(address)
        }
        (address, _) => address,
    };
    table.finish();
    address
}
