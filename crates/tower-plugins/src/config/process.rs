//! Plugins that are executables: `executable`, `args`, `env`, `work_dir` and `process`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::endpoints::Transport;
use super::error::ProblemKind;
use super::fault::Fault;
use super::given::Given;
use super::go_plugin;
use super::table::{Table, join};
use super::tree::Value;
use super::values::read_secret;
use super::{
    Address, Checksum, EndpointSpec, ProcessInput, ProcessLimits, ProcessSpec, Restart, Rlimits,
    Secret,
};

pub(super) const RESTARTS: [(&str, Restart); 3] = [
    ("always", Restart::Always),
    ("on-failure", Restart::OnFailure),
    ("never", Restart::Never),
];

pub(super) const INPUTS: [(&str, ProcessInput); 3] = [
    ("none", ProcessInput::None),
    ("inherit", ProcessInput::Inherit),
    ("terminal", ProcessInput::Terminal),
];

/// What a plugin says of its process.
const KEYS: [&str; 5] = ["executable", "args", "env", "work_dir", "process"];

impl Default for ProcessSpec {
    fn default() -> Self {
        Self {
            args: Vec::new(),
            env: BTreeMap::new(),
            work_dir: None,
            inherit_env: false,
            checksum: None,
            watch: false,
            stdin: ProcessInput::None,
            digest: None,
            umask: None,
            no_new_privileges: true,
            pid_namespace: false,
            limits: None,
            rlimits: Rlimits::default(),
            start_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(5),
            idle_timeout: None,
            restart: Restart::Always,
            max_restarts: 5,
            restart_window: Duration::from_secs(60),
        }
    }
}

/// The process, and the endpoints that it is, of a plugin whose `transport` runs one; nothing of another.
pub(super) fn read(
    table: &mut Table<'_>,
    transport: Option<&Transport>,
) -> (ProcessSpec, Vec<EndpointSpec>) {
    match transport {
        Some(transport) if transport.is_process() => {}
        Some(_) => {
            for key in KEYS {
                table.refuse(
                    key,
                    "is for a plugin that is an executable, with transport: exec-json or subprocess: remove it",
                );
            }
            return Default::default();
        }
        // What is wrong with the transport has been said.
        None => {
            table.pass(&KEYS);
            return Default::default();
        }
    }
    for key in ["endpoint", "endpoints"] {
        let why = "is what `executable` and `process.instances` say of a plugin that is an executable: remove it";
        table.refuse(key, why);
    }
    if transport == Some(&Transport::Subprocess) && go_plugin::is_attached(table) {
        for key in KEYS.into_iter().filter(|key| table.has(key)) {
            let message = "is of a process that this program starts, and `go_plugin.reattach` names one that runs already: keep one of them";
            table.conflict(key, message);
        }
        table.pass(&KEYS);
        return Default::default();
    }
    table.require("executable");
    let executable = path(table, "executable");
    let work_dir = path(table, "work_dir");
    let args = table.texts("args", |arg| no_nul(arg).map(|()| arg.to_owned()));
    let env = env(table);
    let block = table.table("process");
    let begins_at_once = transport == Some(&Transport::ExecJson);
    let block = block.map(|block| block_of(block, begins_at_once, executable.as_deref()));
    let (spec, instances) = block.unwrap_or_default();
    let spec = ProcessSpec {
        args: args.unwrap_or_default(),
        env,
        work_dir,
        ..spec
    };
    let address = |instance| {
        let executable = executable.clone()?;
        Some(EndpointSpec::from(match transport {
            Some(Transport::Subprocess) => Address::Subprocess {
                executable,
                instance,
            },
            _ => Address::ExecJson {
                executable,
                instance,
            },
        }))
    };
    let endpoints = (1..=instances.max(1)).filter_map(address).collect();
    (spec, endpoints)
}

fn block_of(
    mut table: Table<'_>,
    begins_at_once: bool,
    executable: Option<&Path>,
) -> (ProcessSpec, u32) {
    let library = ProcessSpec::default();
    if begins_at_once {
        let why = "does nothing with exec-json, which waits for no word of the plugin: remove it. What a start with \
                   `start: ready` waits for stands beside `process`";
        table.refuse("start_timeout", why);
        let why = "is how a plugin is asked with exec-json: remove it";
        table.refuse("stdin", why);
    }
    let mut spec = ProcessSpec {
        inherit_env: table.bool("inherit_env").unwrap_or(library.inherit_env),
        checksum: table.read("checksum", |given, _| {
            let parsed = given.text()?.parse::<Checksum>();
            parsed.map_err(|error| Fault::of_value(error.to_string()))
        }),
        watch: table.bool("watch").unwrap_or(library.watch),
        stdin: table.word("stdin", &INPUTS).unwrap_or(library.stdin),
        umask: table.read("umask", |given, _| umask(given.text()?)),
        no_new_privileges: table
            .bool("no_new_privileges")
            .unwrap_or(library.no_new_privileges),
        start_timeout: table
            .duration("start_timeout")
            .unwrap_or(library.start_timeout),
        pid_namespace: table.bool("pid_namespace").unwrap_or(library.pid_namespace),
        limits: table.table("limits").map(limits),
        rlimits: table.table("rlimits").map(rlimits).unwrap_or_default(),
        stop_timeout: table
            .duration("stop_timeout")
            .unwrap_or(library.stop_timeout),
        idle_timeout: table.duration("idle_timeout"),
        restart: table.word("restart", &RESTARTS).unwrap_or(library.restart),
        max_restarts: table
            .integer("max_restarts")
            .unwrap_or(library.max_restarts),
        restart_window: table
            .duration("restart_window")
            .unwrap_or(library.restart_window),
        ..library
    };
    if spec.restart == Restart::Never {
        for key in ["max_restarts", "restart_window"] {
            if table.has(key) {
                let why = "does nothing with restart: never: remove it";
                table.problem(key, Fault::new(ProblemKind::Ineffective, why));
            }
        }
    }
    if let Some(executable) = executable.filter(|_| spec.watch) {
        spec.digest = digest(&table, executable, spec.checksum);
    }
    let instances = table.integer("instances").unwrap_or(1);
    table.finish();
    (spec, instances)
}

/// What is in `executable`, which is to be what `checksum` says.
fn digest(table: &Table<'_>, executable: &Path, checksum: Option<Checksum>) -> Option<Checksum> {
    let shown = executable.display();
    match table.report().files.digest(executable) {
        Err(error) => {
            let why = format!("{shown} cannot be read: {error}");
            table.problem("watch", Fault::new(ProblemKind::File, why));
            None
        }
        Ok(found) => {
            let found = Checksum::sha256(found);
            if checksum.is_some_and(|checksum| checksum != found) {
                let why = format!(
                    "is not that of {shown}, which is {found}: put the right file there, or set the checksum to this, if it is meant"
                );
                table.problem("checksum", Fault::new(ProblemKind::File, why));
            }
            Some(found)
        }
    }
}

fn limits(mut table: Table<'_>) -> ProcessLimits {
    let limits = ProcessLimits {
        memory: table.size("memory"),
        cpu: table.number("cpu"),
        pids: table.integer("pids"),
        cgroup: table.read("cgroup", |given, _| {
            let text = given.text()?;
            if text.is_empty() {
                return Err(Fault::of_value(
                    "is no cgroup: write one as /proc/self/cgroup does, such as \"/plugins.slice\", or \"..\" for the one above this program's",
                ));
            }
            no_nul(text).map(|()| text.to_owned())
        }),
    };
    table.finish();
    limits
}

fn rlimits(mut table: Table<'_>) -> Rlimits {
    let rlimits = Rlimits {
        nofile: table.integer("nofile"),
        address_space: table.size("address_space"),
        core: table.size("core"),
        fsize: table.size("fsize"),
        cpu: table.integer("cpu"),
        nproc: table.integer("nproc"),
    };
    table.finish();
    rlimits
}

/// A path; it is looked for in no other place.
fn path(table: &mut Table<'_>, key: &'static str) -> Option<PathBuf> {
    let (report, doc) = (table.report(), table.doc());
    table.read(key, |given, _| {
        let text = given.text()?;
        if key == "executable" && !text.is_empty() && !text.contains('/') {
            return Err(Fault::of_value(
                "is no path, and is looked for nowhere: write one such as \"/usr/bin/plugin\", or \"./plugin\" beside this file",
            ));
        }
        report.resolve(doc, text)
    })
}

fn umask(text: &str) -> Result<u32, Fault> {
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mask = digits.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    mask.filter(|mask| *mask <= 0o777)
        .ok_or_else(|| Fault::of_value("is not an octal mask such as \"077\""))
}

fn no_nul(text: &str) -> Result<(), Fault> {
    if text.contains('\0') {
        return Err(Fault::of_secret(
            "holds a NUL, which no process can be given",
        ));
    }
    Ok(())
}

/// A table from names to secrets, or a list of `NAME=value`.
fn env(table: &mut Table<'_>) -> BTreeMap<String, Secret> {
    let mut env = BTreeMap::new();
    let mut add = |name: &str, value: &Given<'_>, report: &super::report::Report<'_>, doc| {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Fault::of_secret("is not the name of a variable"));
        }
        let value = read_secret(report, doc, value)?;
        no_nul(value.expose())?;
        match env.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(Fault::of_secret(format!("{name} is there twice"))),
        }
    };
    let (report, doc, path) = (table.report(), table.doc(), table.path_of("env"));
    match table.get("env").map(|node| &node.value) {
        Some(Value::Table(entries)) => {
            table.pass(&["env"]);
            for entry in entries {
                let added = report
                    .given(&entry.node)
                    .and_then(|given| add(&entry.key, &given, report, doc));
                if let Err(fault) = added {
                    report.add(doc, entry.at, join(&path, &entry.key), fault);
                }
            }
        }
        _ => {
            for item in table.list("env").unwrap_or_default() {
                let added = item
                    .given
                    .text()
                    .and_then(|text| match text.split_once('=') {
                        Some((name, value)) => {
                            add(name, &item.given.part(value.to_owned()), report, doc)
                        }
                        None => Err(Fault::of_secret(
                            "is not NAME=value, as an entry of the environment is",
                        )),
                    });
                if let Err(mut fault) = added {
                    // It may be the secret itself.
                    fault.names_value = false;
                    report.add(doc, item.given.node.at, item.path, fault);
                }
            }
        }
    }
    env
}
