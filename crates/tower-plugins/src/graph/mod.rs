//! The service graph: an immutable snapshot of all plugins, swapped as a whole.

mod build;
mod cell;
mod entry;
mod plan;
mod retire;

use std::collections::HashMap;
use std::sync::Arc;

pub(crate) use self::build::{Built, check_names, exchange};
pub(crate) use self::cell::{Found, GraphCell};
pub(crate) use self::entry::{Entry, Gate, Held, Split};
pub use self::plan::{Change, Plan};
pub use self::retire::Retired;
pub(crate) use self::retire::{Patience, retire};
use crate::config::PluginName;
use crate::node::{HealthReport, Node};

/// Counts the graphs that have served, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl Generation {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

pub(crate) type Entries = HashMap<PluginName, Entry, foldhash::fast::RandomState>;

/// All plugins, as calls see them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    generation: Generation,
    entries: Entries,
    shutdown: bool,
}

impl Graph {
    pub(crate) const fn generation(&self) -> Generation {
        self.generation
    }

    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    pub(crate) const fn entries(&self) -> &Entries {
        &self.entries
    }

    pub(crate) const fn entries_mut(&mut self) -> &mut Entries {
        &mut self.entries
    }

    /// The node of `name`; of two the one that was there before.
    pub(crate) fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.entry(name).and_then(Entry::node)
    }

    /// Each node that calls may go to.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&PluginName, &Arc<Node>)> {
        let entries = self.entries.iter();
        entries.flat_map(|(name, entry)| entry.nodes().map(move |node| (name, node)))
    }

    /// The names of its plugins, in no order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &PluginName> {
        self.entries.keys()
    }

    /// How its plugins are.
    pub(crate) fn health(&self) -> HealthReport {
        let plugins = self.entries.iter();
        let plugins =
            plugins.filter_map(|(name, entry)| Some((name.clone(), entry.node()?.health())));
        HealthReport {
            plugins: plugins.collect(),
        }
    }

    pub(crate) const fn is_shutdown(&self) -> bool {
        self.shutdown
    }

    /// The graph that comes after this one and has these plugins.
    pub(crate) const fn next(&self, entries: Entries) -> Self {
        Self {
            generation: self.generation.next(),
            entries,
            shutdown: false,
        }
    }

    /// The graph that comes after this one and refuses every call.
    pub(crate) fn shut_down(&self) -> Self {
        Self {
            shutdown: true,
            ..self.next(Entries::default())
        }
    }
}
