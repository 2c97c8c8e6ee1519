//! The one place where the service graph is swapped.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;

use super::{Entry, Graph, Held};
use crate::node::Node;

/// Holds the graph that serves.
#[derive(Debug)]
pub(crate) struct GraphCell(ArcSwap<Graph>);

/// What a name leads to.
pub(crate) enum Found {
    Node(Arc<Node>),
    /// To a node soon.
    Held(Arc<Held>),
    Nothing,
    Shutdown,
}

impl GraphCell {
    pub(crate) fn new(graph: Graph) -> Self {
        Self(ArcSwap::from_pointee(graph))
    }

    /// The node of `name` for a call with these headers, in one load. The clone is made while the snapshot is alive,
    /// and holds the node: whoever retires it later waits for this clone.
    pub(crate) fn find(&self, name: &str, headers: &HeaderMap) -> Found {
        let graph = self.0.load();
        match graph.entry(name) {
            Some(Entry::Node(node)) => Found::Node(Arc::clone(node)),
            Some(Entry::Split(split)) => Found::Node(Arc::clone(split.side(headers))),
            Some(Entry::Held(held)) => Found::Held(Arc::clone(held)),
            None if graph.is_shutdown() => Found::Shutdown,
            None => Found::Nothing,
        }
    }

    pub(crate) fn load(&self) -> Arc<Graph> {
        self.0.load_full()
    }

    /// Lets `graph` serve every later call, and gives back the one that served until now.
    pub(crate) fn publish(&self, graph: Graph) -> Arc<Graph> {
        self.0.swap(Arc::new(graph))
    }
}
