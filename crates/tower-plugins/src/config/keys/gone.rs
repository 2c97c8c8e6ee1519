//! Keys of go-plugins, and of later versions: what to do about each.

type Gone = &'static [(&'static str, &'static str)];

pub(super) const ROOT: Gone = &[];
pub(super) const PLUGIN: Gone = &[];
pub(super) const ENDPOINT: Gone = &[];
pub(super) const AUTH: Gone = &[];
pub(super) const RETRY: Gone = &[];
pub(super) const CIRCUIT_BREAKER: Gone = &[];
pub(super) const CONNECTION: Gone = &[];
pub(super) const RATE_LIMIT: Gone = &[];
pub(super) const LOAD_BALANCING: Gone = &[];
pub(super) const TLS: Gone = &[];

/// What is said of a file that is a plugin's manifest.
pub(in super::super) const MANIFEST: &str =
    "this is a plugin's manifest, and not a config: put it, as an entry of a list, under `plugins`";
