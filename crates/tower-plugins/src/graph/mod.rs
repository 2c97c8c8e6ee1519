//! The service graph: an immutable snapshot of all plugins, swapped as a whole.

mod build;
mod cell;
mod plan;
mod retire;

use std::collections::HashMap;
use std::sync::Arc;

pub(crate) use self::cell::{Found, GraphCell};
pub use self::plan::{Change, Plan};
pub use self::retire::Retired;
pub(crate) use self::retire::retire;
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

type Nodes = HashMap<PluginName, Arc<Node>, foldhash::fast::RandomState>;

/// All plugins, as calls see them.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    generation: Generation,
    nodes: Nodes,
    shutdown: bool,
}

impl Graph {
    pub(crate) const fn generation(&self) -> Generation {
        self.generation
    }

    pub(crate) fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&PluginName, &Arc<Node>)> {
        self.nodes.iter()
    }

    /// How its plugins are.
    pub(crate) fn health(&self) -> HealthReport {
        let plugins = self.nodes.iter();
        let plugins = plugins.map(|(name, node)| (name.clone(), node.health()));
        HealthReport {
            plugins: plugins.collect(),
        }
    }

    pub(crate) const fn is_shutdown(&self) -> bool {
        self.shutdown
    }

    /// The graph that comes after this one and refuses every call.
    pub(crate) fn shut_down(&self) -> Self {
        Self {
            generation: self.generation.next(),
            nodes: Nodes::default(),
            shutdown: true,
        }
    }
}
