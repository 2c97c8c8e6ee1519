//! `go_plugin`.

use std::path::PathBuf;

use tower_plugins_proto::go_plugin::env::{self, DEFAULT_MAX_PORT, DEFAULT_MIN_PORT};

use super::breaker::list;
use super::endpoints::Transport;
use super::error::ProblemKind;
use super::fault::Fault;
use super::given::Given;
use super::table::Table;
use super::tree::Value;
use super::{GoPluginSpec, PluginTls, Reattach};

const COOKIE_KEY: &str = "TOWER_PLUGINS_COOKIE";
const COOKIE_VALUE: &str = "tower-plugins-1";

impl Default for GoPluginSpec {
    fn default() -> Self {
        Self {
            cookie_key: COOKIE_KEY.to_owned(),
            cookie_value: COOKIE_VALUE.to_owned(),
            protocol_versions: vec![1],
            tls: PluginTls::Auto,
            multiplex: false,
            socket_dir: None,
            socket_group: None,
            min_port: DEFAULT_MIN_PORT,
            max_port: DEFAULT_MAX_PORT,
        }
    }
}

impl GoPluginSpec {
    /// What is left of it with a process that somebody else started: nothing was agreed on.
    pub(super) fn attached(self) -> Self {
        Self {
            tls: PluginTls::Off,
            socket_dir: self.socket_dir,
            socket_group: self.socket_group,
            ..Self::default()
        }
    }
}

/// Whether `table`, of a plugin, names a process that somebody else started.
pub(super) fn is_attached(table: &Table<'_>) -> bool {
    let block = table.get("go_plugin");
    block.is_some_and(|block| block.get("reattach").is_some())
}

/// `go_plugin` of a plugin whose `transport` speaks it, which has a `tls` of its own if `has_tls`, and the process that it
/// names.
pub(super) fn read(
    table: &mut Table<'_>,
    transport: Option<&Transport>,
    has_tls: bool,
) -> (GoPluginSpec, Option<Reattach>) {
    match transport {
        Some(Transport::Subprocess) => {}
        Some(_) => {
            let why = "is for a plugin that speaks HashiCorp's go-plugin, with transport: subprocess: remove it";
            table.refuse("go_plugin", why);
            return Default::default();
        }
        // What is wrong with the transport has been said.
        None => {
            table.pass(&["go_plugin"]);
            return Default::default();
        }
    }
    let usual = if has_tls {
        PluginTls::Static
    } else {
        PluginTls::Auto
    };
    match table.table("go_plugin") {
        Some(block) if block.has("reattach") => attached(block, usual),
        Some(block) => (block_of(block, usual), None),
        None => {
            let spec = GoPluginSpec {
                tls: usual,
                ..GoPluginSpec::default()
            };
            (spec, None)
        }
    }
}

fn attached(mut table: Table<'_>, usual: PluginTls) -> (GoPluginSpec, Option<Reattach>) {
    let reattach = table.read("reattach", |given, _| reattach(given));
    if usual == PluginTls::Static {
        let message = "names a plugin that is spoken to without TLS, and `tls` or `auth` says what certificates there are: keep one of them";
        table.conflict("reattach", message);
    }
    for key in ["auto_mtls", "multiplex"] {
        if table.bool(key) == Some(true) {
            let message = "is agreed on at a plugin's start, and `reattach` names one that runs already: keep one of them";
            table.conflict(key, message);
        }
    }
    for key in [
        "cookie_key",
        "cookie_value",
        "protocol_versions",
        "min_port",
        "max_port",
    ] {
        let why = "is told to a plugin at its start, and `reattach` names one that runs already: keep one of them";
        table.refuse(key, why);
    }
    let (socket_dir, socket_group) = sockets(&mut table);
    table.finish();
    let spec = GoPluginSpec {
        socket_dir,
        socket_group,
        ..GoPluginSpec::default()
    };
    (spec.attached(), reattach)
}

fn reattach(given: &Given<'_>) -> Result<Reattach, Fault> {
    if matches!(given.node.value, Value::Table(_)) {
        return Err(given.expected("the JSON as a text, in quotes"));
    }
    serde_json::from_str(given.text()?)
        .map_err(|error| Fault::of_value(format!("does not say where a plugin runs: {error}")))
}

fn sockets(table: &mut Table<'_>) -> (Option<PathBuf>, Option<String>) {
    let (report, doc) = (table.report(), table.doc());
    (
        table.read("socket_dir", |given, _| report.resolve(doc, given.text()?)),
        table.read("socket_group", |given, _| group(given.text()?)),
    )
}

fn block_of(mut table: Table<'_>, usual: PluginTls) -> GoPluginSpec {
    let library = GoPluginSpec::default();
    let auto_mtls = table.bool("auto_mtls");
    if auto_mtls == Some(true) && usual == PluginTls::Static {
        let message =
            "is true beside `tls`, which says what certificates there are: keep one of them";
        table.conflict("auto_mtls", message);
    }
    let tls = match auto_mtls {
        Some(false) if usual == PluginTls::Auto => PluginTls::Off,
        _ => usual,
    };
    table.pass(&["reattach"]);
    let mut port = |key, usual| {
        let port = table.integer(key).and_then(|port| u16::try_from(port).ok());
        port.unwrap_or(usual)
    };
    let (min_port, max_port) = (
        port("min_port", library.min_port),
        port("max_port", library.max_port),
    );
    if min_port > max_port {
        let key = if table.has("max_port") {
            "max_port"
        } else {
            "min_port"
        };
        let message =
            format!("min_port, {min_port}, is above max_port, {max_port}: no port is left");
        table.conflict(key, message);
    }
    let (socket_dir, socket_group) = sockets(&mut table);
    let spec = GoPluginSpec {
        cookie_key: table
            .read("cookie_key", |given, _| cookie_key(given.text()?))
            .unwrap_or(library.cookie_key),
        cookie_value: table
            .read("cookie_value", |given, _| cookie_value(given.text()?))
            .unwrap_or(library.cookie_value),
        protocol_versions: protocol_versions(&mut table).unwrap_or(library.protocol_versions),
        tls,
        multiplex: table.bool("multiplex").unwrap_or(library.multiplex),
        socket_dir,
        socket_group,
        min_port,
        max_port,
    };
    table.finish();
    spec
}

fn cookie_key(key: &str) -> Result<String, Fault> {
    if key.is_empty() || key.contains(['=', '\0']) {
        return Err(Fault::of_value(
            "is no name of a variable: write one such as \"GREETER_PLUGIN\"",
        ));
    }
    if env::ALL.contains(&key) {
        return Err(Fault::of_value(
            "is a variable of the protocol itself: choose another",
        ));
    }
    Ok(key.to_owned())
}

fn cookie_value(value: &str) -> Result<String, Fault> {
    if value.is_empty() || value.contains('\0') {
        return Err(Fault::of_value(
            "is empty, or has a NUL in it: no plugin takes it for a cookie",
        ));
    }
    Ok(value.to_owned())
}

fn group(name: &str) -> Result<String, Fault> {
    if name.is_empty() || name.contains([':', '\0', '\n']) {
        return Err(Fault::of_value("is no group: write its name or its number"));
    }
    Ok(name.to_owned())
}

fn protocol_versions(table: &mut Table<'_>) -> Option<Vec<u32>> {
    let mut versions = list(table, "protocol_versions", version)?;
    versions.sort_unstable();
    versions.dedup();
    if versions.is_empty() {
        let fault = Fault::new(
            ProblemKind::Conflict,
            "is empty: a plugin speaks at least one version, as a rule 1",
        );
        table.problem("protocol_versions", fault);
        return None;
    }
    Some(versions)
}

fn version(given: &Given<'_>) -> Result<u32, Fault> {
    let whole = given.whole();
    let version = whole.and_then(|whole| u32::try_from(whole).ok());
    version.ok_or_else(|| given.expected_here("a whole number of 0 or more"))
}
