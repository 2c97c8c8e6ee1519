//! A plan made real: only what is new is built.

use std::sync::Arc;

use super::{Change, Graph, Plan};
use crate::error::Error;
use crate::node::{Node, Services};

impl Graph {
    /// The graph that `plan` makes of this one. Nodes that stay are the same objects, and new nodes
    /// take over the parts of the ones they replace.
    ///
    /// An error leaves everything as it was: what was built is dropped.
    pub(crate) fn rebuild(&self, plan: &Plan, services: &Services) -> Result<Self, Error> {
        let mut nodes = self.nodes.clone();
        for (name, change) in plan.changes() {
            match change {
                Change::Keep => {}
                Change::Remove => {
                    nodes.remove(name);
                }
                Change::Restack { spec, .. }
                | Change::Replace { spec, .. }
                | Change::Add { spec } => {
                    let old = self.nodes.get(name).map(|node| node.parts());
                    let node = Node::build((**spec).clone(), old, services)?;
                    nodes.insert(name.clone(), Arc::new(node));
                }
            }
        }
        Ok(Self {
            generation: self.generation.next(),
            nodes,
            shutdown: false,
        })
    }
}
