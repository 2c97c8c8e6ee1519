//! Keys of go-plugins that are none here, and keys of later versions: what to do about each.

type Gone = &'static [(&'static str, &'static str)];

pub(super) const RELOAD: Gone = &[
    (
        "drain_timeout",
        "stands at the root, or in a plugin: move it there",
    ),
    ("reload_strategy", "is `strategy` here: rename it"),
    (
        "poll_interval",
        "is not read: the system tells of changes; a program that wants another pace sets `Timing::poll`",
    ),
];

pub(super) const ROOT: Gone = &[
    ("version", "is not read: a config has no version; remove it"),
    (
        "log_level",
        "is not read: a program sets its own log level; remove it",
    ),
    (
        "metrics_port",
        "is not read: a program serves its own metrics; remove it",
    ),
    (
        "health_check",
        "is a plugin's: write it in an entry under `plugins`, or for all of them as `default_health_check`",
    ),
    (
        "discovery",
        "discovery comes with a later version: remove the block, and list the plugins under `plugins`",
    ),
    (
        "extended_discovery",
        "discovery comes with a later version: remove the block, and list the plugins under `plugins`",
    ),
    (
        "security",
        "allowlists come with a later version: remove the block; until then nothing checks the plugins",
    ),
    (
        "environment",
        "is not read: a variable and its default stand in the value, `${NAME:-default}`; remove the block",
    ),
    (
        "logging",
        "is not read: a program sets up its own logging; remove the block",
    ),
    (
        "observability",
        "is not read: a program chooses its own metrics and traces; remove the block",
    ),
    (
        "performance",
        "is not read: there is nothing to set about watching files; remove the block",
    ),
    ("metadata", "is not read: remove the block"),
    (
        "audit",
        "an audit log comes with a later version: remove the block",
    ),
    (
        "default_policies",
        "its blocks stand at the root: move them there, as `default_retry`, `default_circuit_breaker`, `default_health_check`, `default_connection`, `default_rate_limit`",
    ),
    (
        "load_balancer",
        "is `default_load_balancing` here: rename it, and keep only its `strategy`",
    ),
    (
        "name",
        "is a plugin's: write it in an entry under `plugins`",
    ),
    (
        "transport",
        "is a plugin's: write it in an entry under `plugins`",
    ),
    (
        "type",
        "is a plugin's: write it in an entry under `plugins`",
    ),
    (
        "endpoint",
        "is a plugin's: write it in an entry under `plugins`",
    ),
    (
        "endpoints",
        "is a plugin's: write it in an entry under `plugins`",
    ),
    (
        "auth",
        "is a plugin's: write it in an entry under `plugins`",
    ),
    (
        "hedge",
        "is a plugin's: write it in an entry under `plugins`, or for all of them as `default_hedge`",
    ),
    (
        "retry",
        "is a plugin's: write it in an entry under `plugins`, or for all of them as `default_retry`",
    ),
    (
        "circuit_breaker",
        "is a plugin's: write it in an entry under `plugins`, or for all of them as `default_circuit_breaker`",
    ),
    (
        "outlier_detection",
        "is a plugin's: write it in an entry under `plugins`, or for all of them as `default_outlier_detection`",
    ),
    (
        "connection",
        "is a plugin's: write it in an entry under `plugins`, or for all of them as `default_connection`",
    ),
    (
        "rate_limit",
        "is a plugin's: write it in an entry under `plugins`, or for all of them as `default_rate_limit`",
    ),
    (
        "concurrency",
        "is a plugin's: write it in an entry under `plugins`, or for all of them as `default_concurrency`",
    ),
    (
        "load_balancing",
        "is a plugin's: write it in an entry under `plugins`, or for all of them as `default_load_balancing`",
    ),
    (
        "tls",
        "is a plugin's: write it in an entry under `plugins`, or for all of them as `default_tls`",
    ),
    (
        "dns",
        "is a plugin's: write it in an entry under `plugins`, or for all of them as `default_dns`",
    ),
    (
        "enabled",
        "is a plugin's or a block's: write it there, or remove it",
    ),
    (
        "executable",
        "is a plugin's: write it in an entry under `plugins`",
    ),
    (
        "args",
        "is a plugin's: write it in an entry under `plugins`",
    ),
    ("env", "is a plugin's: write it in an entry under `plugins`"),
    (
        "work_dir",
        "is a plugin's: write it in an entry under `plugins`",
    ),
    (
        "directories",
        "discovery comes with a later version: remove it",
    ),
    (
        "patterns",
        "discovery comes with a later version: remove it",
    ),
    (
        "watch_mode",
        "discovery comes with a later version: remove it",
    ),
    (
        "search_paths",
        "discovery comes with a later version: remove it",
    ),
    (
        "file_patterns",
        "discovery comes with a later version: remove it",
    ),
    (
        "max_depth",
        "discovery comes with a later version: remove it",
    ),
    (
        "follow_symlinks",
        "discovery comes with a later version: remove it",
    ),
    (
        "exclude_paths",
        "discovery comes with a later version: remove it",
    ),
    (
        "enable_mdns",
        "discovery comes with a later version: remove it",
    ),
    (
        "mdns_service",
        "discovery comes with a later version: remove it",
    ),
    (
        "network_interfaces",
        "discovery comes with a later version: remove it",
    ),
    (
        "discovery_timeout",
        "discovery comes with a later version: remove it",
    ),
    (
        "allowed_transports",
        "discovery comes with a later version: remove it",
    ),
    (
        "required_capabilities",
        "discovery comes with a later version: remove it",
    ),
    (
        "validate_manifests",
        "discovery comes with a later version: remove it",
    ),
    (
        "updated_at",
        "is of an allowlist, which comes with a later version: remove it",
    ),
    (
        "description",
        "is of an allowlist, which comes with a later version: remove it",
    ),
    (
        "default_policy",
        "is of an allowlist, which comes with a later version: remove it",
    ),
    (
        "hash_algorithm",
        "is of an allowlist, which comes with a later version: remove it",
    ),
    (
        "global_constraints",
        "is of an allowlist, which comes with a later version: remove it",
    ),
];

pub(super) const PLUGIN: Gone = &[
    (
        "version",
        "is not read: a plugin has no version here; remove it",
    ),
    ("description", "is not read: remove it"),
    ("author", "is not read: remove it"),
    ("homepage", "is not read: remove it"),
    ("license", "is not read: remove it"),
    ("tags", "is not read: remove it"),
    (
        "capabilities",
        "is not read: a plugin is called by its name; remove it",
    ),
    ("metadata", "is not read: remove the block"),
    (
        "requirements",
        "dependencies between plugins come with a later version: remove the block",
    ),
    (
        "resources",
        "limits of a process come with a later version: remove the block; `concurrency` and `rate_limit` limit calls",
    ),
    (
        "labels",
        "is not read: metrics and logs have the plugin's name; remove the block",
    ),
    (
        "annotations",
        "is not read: metrics and logs have the plugin's name; remove the block",
    ),
    (
        "priority",
        "is not read: `load_balancing` chooses among the `endpoints` of a plugin; remove it",
    ),
    (
        "path",
        "is `endpoint` here: rename it, and write a URL, such as `http://127.0.0.1:8080`",
    ),
    (
        "algorithm",
        "is of an allowlist, which comes with a later version: remove it",
    ),
    (
        "hash",
        "is of an allowlist, which comes with a later version: remove it",
    ),
    (
        "file_path",
        "is of an allowlist, which comes with a later version: remove it",
    ),
    (
        "allowed_endpoints",
        "is of an allowlist, which comes with a later version: remove it",
    ),
    (
        "max_file_size",
        "is of an allowlist, which comes with a later version: remove it",
    ),
    (
        "added_at",
        "is of an allowlist, which comes with a later version: remove it",
    ),
    (
        "updated_at",
        "is of an allowlist, which comes with a later version: remove it",
    ),
    (
        "discovered_at",
        "is written by go-plugins' discovery and is not read: remove it",
    ),
    (
        "discovery_type",
        "is written by go-plugins' discovery and is not read: remove it",
    ),
    (
        "manifest_path",
        "is written by go-plugins' discovery and is not read: remove it",
    ),
    (
        "network_address",
        "is written by go-plugins' discovery and is not read: remove it",
    ),
];

pub(super) const AUTH: Gone = &[("type", "is `method` here: rename it")];

pub(super) const CIRCUIT_BREAKER: Gone = &[(
    "half_open_requests",
    "is `success_threshold` here, which also bounds the probes: rename it",
)];

pub(super) const CONNECTION: Gone = &[
    ("connect_timeout", "is `connection_timeout` here: rename it"),
    (
        "read_timeout",
        "is not read: `request_timeout` is the time of the whole call, and `stream_idle_timeout` that of a silent stream; remove it",
    ),
    (
        "write_timeout",
        "is not read: `request_timeout` is the time of the whole call, and `stream_idle_timeout` that of a silent stream; remove it",
    ),
    (
        "max_idle_conns",
        "is `max_idle_connections` here: rename it",
    ),
    ("max_conns", "is `max_connections` here: rename it"),
    (
        "tls_enabled",
        "is said by the transport: write `transport: https`, and remove it",
    ),
];

pub(super) const RATE_LIMIT: Gone = &[
    (
        "time_window",
        "is not read: the rate is that of a second; remove it",
    ),
    ("algorithm", "is not read: it is a token bucket; remove it"),
];

pub(super) const LOAD_BALANCING: Gone = &[
    ("algorithm", "is `strategy` here: rename it"),
    (
        "weight",
        "is an endpoint's: write it there, as `endpoints: [{ url: …, weight: 3 }]`",
    ),
    (
        "health_check_enabled",
        "is a plugin's `health_check: { enabled: … }`: write it there",
    ),
];

/// What is said of a file that is a plugin's manifest.
pub(in super::super) const MANIFEST: &str =
    "this is a plugin's manifest, and not a config: put it, as an entry of a list, under `plugins`";

/// What is said of a file that is an allowlist.
pub(in super::super) const ALLOWLIST: &str =
    "this is an allowlist, and not a config: allowlists come with a later version";
