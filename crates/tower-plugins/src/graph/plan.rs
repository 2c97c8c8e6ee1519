//! What a reload has to do, found without doing any of it.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::{Beside, Config, EndpointSpec, PluginName, PluginSpec, Policy, Upstream};

/// What becomes of each plugin between two configs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    changes: BTreeMap<PluginName, Change>,
}

/// What becomes of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Its spec is equal: the node stays as it is.
    Keep,
    /// Its policy differs, or what endpoints it has, of which some stay: a new stack over the same connections and
    /// histories.
    Restack {
        /// The new spec.
        spec: Box<PluginSpec>,
        /// The keys that differ.
        keys: Vec<&'static str>,
    },
    /// How it is reached differs, or it is at other endpoints: what is equal is kept, the rest is new.
    Replace {
        /// The new spec.
        spec: Box<PluginSpec>,
        /// The keys that differ.
        keys: Vec<&'static str>,
    },
    /// It is new.
    Add {
        /// Its spec.
        spec: Box<PluginSpec>,
    },
    /// It is gone.
    Remove,
}

impl Plan {
    /// What turns `old` into `new`. Every name of either is in exactly one class.
    #[must_use]
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut before = Beside::new(&old.plugins);
        let mut stay = 0;
        let mut changes: BTreeMap<_, _> = new
            .plugins
            .iter()
            .map(|(name, new)| {
                let before = before.get(name);
                stay += usize::from(before.is_some());
                let change = match before {
                    None => Change::Add {
                        spec: Box::new(new.clone()),
                    },
                    Some(old) if old == new => Change::Keep,
                    Some(old) => {
                        let (spec, keys) = (Box::new(new.clone()), differing_keys(old, new));
                        if stays(&old.upstream, &new.upstream) {
                            Change::Restack { spec, keys }
                        } else {
                            Change::Replace { spec, keys }
                        }
                    }
                };
                (name.clone(), change)
            })
            .collect();
        if stay < old.plugins.len() {
            let mut after = Beside::new(&new.plugins);
            let gone = old.plugins.keys().filter(|name| after.get(name).is_none());
            changes.extend(gone.map(|name| (name.clone(), Change::Remove)));
        }
        Self { changes }
    }

    /// As this, and a new node for the plugin `spec` although nothing of it differs.
    pub(crate) fn renew(&mut self, spec: &PluginSpec) {
        if let Some(change @ Change::Keep) = self.changes.get_mut(&spec.name) {
            *change = Change::Restack {
                spec: Box::new(spec.clone()),
                keys: Vec::new(),
            };
        }
    }

    /// The changes by plugin, `Keep` among them.
    #[must_use]
    pub const fn changes(&self) -> &BTreeMap<PluginName, Change> {
        &self.changes
    }

    /// Those that are not kept, by plugin.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (&PluginName, &Change)> {
        let changes = self.changes.iter();
        changes.filter(|(_, change)| !matches!(change, Change::Keep))
    }

    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed().next().is_none()
    }

    /// The config that this plan makes of `old`.
    #[must_use]
    pub fn apply(&self, old: &Config) -> Config {
        let mut config = old.clone();
        for (name, change) in &self.changes {
            match change {
                Change::Keep => {}
                Change::Restack { spec, .. }
                | Change::Replace { spec, .. }
                | Change::Add { spec } => {
                    config.plugins.insert(name.clone(), PluginSpec::clone(spec));
                }
                Change::Remove => {
                    config.plugins.remove(name);
                }
            }
        }
        config
    }
}

/// Whether nothing but the list of endpoints differs, and some of them stay.
fn stays(old: &Upstream, new: &Upstream) -> bool {
    let is_old = |end: &EndpointSpec| old.endpoints.iter().any(|old| old.address == end.address);
    let mut new_but_endpoints = new.clone();
    new_but_endpoints.endpoints.clone_from(&old.endpoints);
    new.endpoints.iter().any(is_old) && new_but_endpoints == *old
}

/// The keys by which two specs of one plugin differ, as they stand in a config file.
fn differing_keys(old: &PluginSpec, new: &PluginSpec) -> Vec<&'static str> {
    fn policy(keys: &mut Vec<&'static str>, old: &Policy, new: &Policy) {
        let mut differ = |key, equal: bool| {
            if !equal {
                keys.push(key);
            }
        };
        differ("drain_timeout", old.drain_timeout == new.drain_timeout);
        differ("start", old.ready_within == new.ready_within);
        differ("exclusive", old.exclusive == new.exclusive);
        differ("connection.request_timeout", old.deadline == new.deadline);
        differ(
            "connection.timeout_header",
            old.timeout_header == new.timeout_header,
        );
        differ(
            "connection.stream_idle_timeout",
            old.stream_idle_timeout == new.stream_idle_timeout,
        );
        differ(
            "retry.attempt_timeout",
            old.attempt_timeout == new.attempt_timeout,
        );
        differ("rate_limit", old.rate_limit == new.rate_limit);
        differ("concurrency", old.concurrency == new.concurrency);
        differ("retry", old.retry == new.retry);
        differ("hedge", old.hedge == new.hedge);
        differ("circuit_breaker", old.breaker == new.breaker);
        differ("outlier_detection", old.outlier == new.outlier);
        differ("health_check", old.health == new.health);
        differ("load_balancing", old.balance == new.balance);
        let auth = |policy: &Policy| (policy.credentials.clone(), policy.allow_plaintext);
        differ("auth", auth(old) == auth(new));
        differ("authorize", old.authorize == new.authorize);
        differ("filter", old.filter == new.filter);
        differ("fallback", old.fallback == new.fallback);
        differ("split", old.split == new.split);
        differ("shadow", old.shadow == new.shadow);
        differ("layers", old.layers == new.layers);
    }
    let mut keys = Vec::new();
    policy(&mut keys, &old.policy, &new.policy);
    if old.upstream.endpoints != new.upstream.endpoints {
        keys.push("endpoints");
    }
    if old.upstream.connection != new.upstream.connection {
        keys.push("connection");
    }
    if old.upstream.tls != new.upstream.tls {
        keys.push("tls");
    }
    if old.upstream.dns != new.upstream.dns {
        keys.push("dns");
    }
    if old.upstream.process != new.upstream.process {
        keys.push("process");
    }
    if old.upstream.grpc != new.upstream.grpc {
        keys.push("grpc");
    }
    if old.upstream.options != new.upstream.options {
        keys.push("options");
    }
    keys
}

impl Change {
    /// The word for it: `keep`, `restack`, `replace`, `add` or `remove`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Restack { .. } => "restack",
            Self::Replace { .. } => "replace",
            Self::Add { .. } => "add",
            Self::Remove => "remove",
        }
    }

    /// The spec that a node has to be made of, if one has to.
    #[must_use]
    pub fn spec(&self) -> Option<&PluginSpec> {
        match self {
            Self::Restack { spec, .. } | Self::Replace { spec, .. } | Self::Add { spec } => {
                Some(spec)
            }
            Self::Keep | Self::Remove => None,
        }
    }

    /// The keys by which the new spec differs from the old; none where one of them is missing.
    #[must_use]
    pub fn keys(&self) -> &[&'static str] {
        match self {
            Self::Restack { keys, .. } | Self::Replace { keys, .. } => keys,
            Self::Keep | Self::Add { .. } | Self::Remove => &[],
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (name, change) in self.changed() {
            if !std::mem::take(&mut first) {
                f.write_str(", ")?;
            }
            write!(f, "{} {name}", change.as_str())?;
            if !change.keys().is_empty() {
                write!(f, " ({})", change.keys().join(", "))?;
            }
        }
        if first {
            f.write_str("nothing to do")
        } else {
            Ok(())
        }
    }
}
