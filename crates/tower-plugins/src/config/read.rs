//! Untyped values to the plugins of a config.

use std::collections::BTreeMap;
use std::time::Duration;

use super::blocks::{AT_ROOT, Blocks, IN_PLUGIN};
use super::endpoints::{Transport, are_sockets, read_endpoints, read_transport};
use super::error::ProblemKind;
use super::fault::Fault;
use super::given::Given;
use super::keys::{ALLOWLIST, MANIFEST, PLUGIN, ROOT};
use super::report::Report;
use super::sense::{
    refuse_grpc, refuse_hedge_alone, refuse_inert, refuse_proxy, refuse_shared_header, refuse_tls,
    warn_of_vain,
};
use super::table::{Table, join};
use super::tree::{Span, Value};
use super::{
    Address, Config, ConnectionSpec, PluginName, PluginSpec, PluginTls, Policy, ProcessSpec,
    Reattach, ReloadSpec, TlsSpec, Upstream,
};
use super::{
    access, auth, dns, elsewhere, go_plugin, layers, own_transport, plaintext, process, reattach,
    reload,
};

/// The config that the docs of `report` say together. There may be no plugin only if docs are missing, or
/// they say so. Plugins in `attached` run already, whatever the docs say of how.
pub(super) fn config<'t>(
    report: &'t Report<'t>,
    attached: &BTreeMap<String, Reattach>,
    is_whole: bool,
) -> Config {
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
    let mut reload = ReloadSpec::default();
    for table in &mut tables {
        defaults = defaults.overlaid(table, &AT_ROOT, &library);
        allow_empty |= table.bool("allow_empty").unwrap_or(false);
        reload = reload::read(table).unwrap_or(reload);
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
        attached,
        declared: BTreeMap::new(),
        config: Config {
            reload,
            ..Config::default()
        },
    };
    for table in &mut tables {
        reader.read(table);
    }
    let Reader {
        declared, config, ..
    } = reader;
    let place = tables
        .first()
        .map(|main| (main.doc(), main.place_of("plugins")));
    tables.into_iter().for_each(Table::finish);
    if let Some((doc, at)) = place
        && declared.is_empty()
        && !allow_empty
        && is_whole
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
    config
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
    attached: &'a BTreeMap<String, Reattach>,
    /// Where each name was first used.
    declared: BTreeMap<PluginName, Declared>,
    config: Config,
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
                            let shown = hidden.then(|| given.shown());
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
        let of_tls = table.get("tls");
        let auth = table.table("auth");
        let auth = auth.map(|auth| auth::read(auth, &blocks.tls, of_tls));
        let allow_plaintext = auth.as_ref().is_some_and(|auth| auth.allow_plaintext);
        let (credentials, mtls) = auth
            .map(|auth| (auth.credentials, auth.tls))
            .unwrap_or_default();
        let transport = read_transport(&mut table);
        let transport = transport.as_ref();
        let (mut process, processes) = process::read(&mut table, transport);
        let is_process = transport.is_some_and(Transport::is_process);
        let mut endpoints = match is_process {
            true => processes,
            false => read_endpoints(&mut table, transport),
        };
        let dns = dns::of(&table, &endpoints, &blocks.dns);
        let (options, origin) = own_transport::read(&mut table, transport);
        let is_grpc = transport.is_some_and(Transport::is_grpc);
        let has_tls = table.has("tls") || mtls.is_some();
        let (mut go_plugin, reattach) = go_plugin::read(&mut table, transport, has_tls);
        let is_go_plugin = transport == Some(&Transport::Subprocess);
        let named = name.as_ref().filter(|_| is_go_plugin);
        let over = named.and_then(|named| self.attached.get(named.name.as_str()));
        if let Some(reattach) = over {
            reattach::warn(&table, reattach, process.checksum.is_some());
        }
        if let Some(reattach) = over.cloned().or(reattach) {
            (process, go_plugin) = (ProcessSpec::default(), go_plugin.attached());
            endpoints = vec![Address::Attached(reattach).into()];
        }
        let mut policy = blocks.policy(credentials, transport);
        policy.allow_plaintext = allow_plaintext;
        if matches!(transport, Some(Transport::UnixJson | Transport::ExecJson)) {
            // Inherited, it is about streams of others.
            policy.stream_idle_timeout = None;
        }
        policy.authorize = table.table("authorize").map(access::authorize);
        policy.filter = table.table("filter").and_then(access::filter);
        policy.fallback = table.table("fallback").map(access::fallback);
        let own = name.as_ref().map(|named| &named.name);
        policy.split = table
            .table("split")
            .and_then(|it| elsewhere::split(it, own));
        policy.shadow = table
            .table("shadow")
            .and_then(|it| elsewhere::shadow(it, own));
        policy.layers = layers::read(&mut table);
        policy.ready_within = ready_within(&mut table);
        if process.watch && policy.ready_within.is_none() {
            table.conflict(
                "process",
                "`watch` takes `start: ready`, beside `process`, so that a new file whose process does not run is refused: set that, or remove this",
            );
        }
        policy.exclusive = table.bool("exclusive").unwrap_or(policy.exclusive);
        let over_socket = transport == Some(&Transport::Unix) || are_sockets(&endpoints);
        let connection = match transport {
            Some(Transport::InProcess) => ConnectionSpec::default(),
            _ if over_socket => blocks.connection_over_socket(is_grpc),
            Some(Transport::UnixJson) => blocks.connection_without_http(),
            Some(Transport::ExecJson) => blocks.connection_to_process(),
            Some(Transport::Subprocess) => blocks.connection_within_process(),
            _ => blocks.connection(is_grpc),
        };
        refuse_inert(&table, transport, &connection, &policy);
        refuse_proxy(&table, over_socket);
        plaintext::refuse(&table, &endpoints, &connection, &policy);
        refuse_tls(&table, transport, mtls.is_some());
        refuse_grpc(&table, transport, blocks.protocol());
        refuse_shared_header(&table, &policy);
        refuse_hedge_alone(&table, &blocks);
        warn_of_vain(&table, &connection, &policy);
        let tls = match transport {
            Some(transport) if transport.is_tls() => mtls.unwrap_or_else(|| blocks.tls.clone()),
            Some(Transport::Subprocess) if go_plugin.tls == PluginTls::Static => {
                mtls.unwrap_or_else(|| blocks.tls.clone())
            }
            _ => TlsSpec::default(),
        };
        if let Some(name) = name {
            let upstream = Upstream {
                endpoints,
                connection,
                tls,
                dns,
                process,
                go_plugin,
                options,
                origin,
                grpc: blocks.grpc.armed(transport),
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
        let plugin = PluginSpec {
            name: name.clone(),
            policy: policy.into(),
            upstream: upstream.into(),
        };
        let Config {
            plugins, disabled, ..
        } = &mut self.config;
        let among = if enabled { plugins } else { disabled };
        among.insert(name, plugin);
    }
}

/// What a plugin has to be before it serves.
fn ready_within(table: &mut Table<'_>) -> Option<Duration> {
    let is_ready = table.word("start", &STARTS).unwrap_or(false);
    let limit = table.duration("start_timeout");
    if limit.is_some() && !is_ready {
        let why = "does nothing without start: ready: set that, or remove this";
        table.problem("start_timeout", Fault::new(ProblemKind::Ineffective, why));
    }
    is_ready.then(|| limit.unwrap_or(READY_WITHIN))
}

const STARTS: [(&str, bool); 2] = [("lazy", false), ("ready", true)];

const READY_WITHIN: Duration = Duration::from_secs(10);

fn parse_name(name: &str) -> Result<PluginName, Fault> {
    PluginName::new(name)
        .ok_or_else(|| Fault::of_value(format!("cannot name a plugin: {}", PluginName::RULE)))
}
