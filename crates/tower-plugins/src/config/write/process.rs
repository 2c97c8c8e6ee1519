//! `executable`, `args`, `env`, `work_dir` and `process`.

use super::super::process::{INPUTS, RESTARTS};
use super::super::tree::Node;
use super::super::{
    Address, GoPluginSpec, PluginTls, ProcessLimits, Reattach, Restart, Rlimits, Upstream,
};
use super::Writer;
use super::values::{bool, duration, integer, list, named, number, size, table, text, texts, word};

/// The keys of a plugin that is an executable.
#[derive(Default)]
pub(super) struct Process {
    pub(super) executable: Option<Node<'static>>,
    pub(super) args: Option<Node<'static>>,
    pub(super) env: Option<Node<'static>>,
    pub(super) work_dir: Option<Node<'static>>,
    pub(super) process: Option<Node<'static>>,
    pub(super) go_plugin: Option<Node<'static>>,
}

impl Writer {
    pub(super) fn process(&self, upstream: &Upstream) -> Process {
        let first = upstream.endpoints.first().map(|endpoint| &endpoint.address);
        if let Some(Address::Attached(reattach)) = first {
            return Process {
                go_plugin: Some(attached(reattach, &upstream.go_plugin)),
                ..Process::default()
            };
        }
        let Some(
            first @ (Address::ExecJson { executable, .. } | Address::Subprocess { executable, .. }),
        ) = first
        else {
            return Process::default();
        };
        let is_go_plugin = matches!(first, Address::Subprocess { .. });
        let spec = &upstream.process;
        let restarts = spec.restart != Restart::Never;
        let instances = u32::try_from(upstream.endpoints.len());
        Process {
            executable: executable.to_str().and_then(text),
            args: texts(&spec.args),
            env: named(&spec.env, |value| Some(self.secret(value))),
            work_dir: (spec.work_dir.as_ref())
                .and_then(|directory| directory.to_str())
                .and_then(text),
            go_plugin: is_go_plugin.then(|| go_plugin(&upstream.go_plugin)),
            process: Some(table([
                ("instances", integer(instances.unwrap_or(u32::MAX))),
                ("inherit_env", bool(spec.inherit_env)),
                (
                    "checksum",
                    (spec.checksum.as_ref()).and_then(|checksum| text(&checksum.to_string())),
                ),
                ("watch", bool(spec.watch)),
                ("stdin", word(&INPUTS, &spec.stdin).filter(|_| is_go_plugin)),
                (
                    "umask",
                    spec.umask.and_then(|mask| text(&format!("{mask:03o}"))),
                ),
                ("no_new_privileges", bool(spec.no_new_privileges)),
                (
                    "start_timeout",
                    duration(spec.start_timeout).filter(|_| is_go_plugin),
                ),
                ("pid_namespace", bool(spec.pid_namespace)),
                ("limits", spec.limits.as_ref().map(limits)),
                ("rlimits", rlimits(&spec.rlimits)),
                ("stop_timeout", duration(spec.stop_timeout)),
                ("idle_timeout", spec.idle_timeout.and_then(duration)),
                ("restart", word(&RESTARTS, &spec.restart)),
                (
                    "max_restarts",
                    integer(spec.max_restarts).filter(|_| restarts),
                ),
                (
                    "restart_window",
                    duration(spec.restart_window).filter(|_| restarts),
                ),
            ])),
        }
    }
}

fn attached(reattach: &Reattach, spec: &GoPluginSpec) -> Node<'static> {
    let json = serde_json::to_string(reattach).ok();
    let [directory, group] = sockets(spec);
    table([
        ("reattach", json.as_deref().and_then(text)),
        directory,
        group,
    ])
}

fn sockets(spec: &GoPluginSpec) -> [(&'static str, Option<Node<'static>>); 2] {
    let directory = spec.socket_dir.as_ref();
    let directory = directory.and_then(|path| path.to_str()).and_then(text);
    [
        ("socket_dir", directory),
        ("socket_group", spec.socket_group.as_deref().and_then(text)),
    ]
}

fn go_plugin(spec: &GoPluginSpec) -> Node<'static> {
    let versions = spec.protocol_versions.iter();
    let versions = versions.filter_map(|version| integer(*version)).collect();
    let [directory, group] = sockets(spec);
    table([
        ("cookie_key", text(&spec.cookie_key)),
        ("cookie_value", text(&spec.cookie_value)),
        ("protocol_versions", Some(list(versions))),
        (
            "auto_mtls",
            bool(spec.tls == PluginTls::Auto).filter(|_| spec.tls != PluginTls::Static),
        ),
        ("multiplex", bool(spec.multiplex)),
        directory,
        group,
        ("min_port", integer(spec.min_port.into())),
        ("max_port", integer(spec.max_port.into())),
    ])
}

fn limits(limits: &ProcessLimits) -> Node<'static> {
    table([
        ("memory", limits.memory.and_then(size)),
        ("cpu", limits.cpu.and_then(number)),
        ("pids", limits.pids.and_then(integer)),
        ("cgroup", limits.cgroup.as_deref().and_then(text)),
    ])
}

fn rlimits(rlimits: &Rlimits) -> Option<Node<'static>> {
    let is_some = *rlimits != Rlimits::default();
    is_some.then(|| {
        table([
            ("nofile", rlimits.nofile.and_then(integer)),
            ("address_space", rlimits.address_space.and_then(size)),
            ("core", rlimits.core.and_then(size)),
            ("fsize", rlimits.fsize.and_then(size)),
            ("cpu", rlimits.cpu.and_then(integer)),
            ("nproc", rlimits.nproc.and_then(integer)),
        ])
    })
}
