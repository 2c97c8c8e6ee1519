//! Nodes on their way out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::rollout::Rollout;
use super::task::Task;
use super::{ReloadEvent, Retirement, ShutdownReport};
use crate::config::PluginName;
use crate::graph::{Entry, Gate, Graph, Patience, Plan, Retired, retire};
use crate::node::Node;

impl Task {
    /// Lets each of `nodes` that is no longer in the graph come to its end, within what `drain` makes of its own
    /// drain timeout.
    pub(super) fn retire(
        &mut self,
        nodes: impl IntoIterator<Item = Arc<Node>>,
        drain: impl Fn(Duration) -> Duration,
    ) -> Retirement {
        let graph = self.cell.load();
        let before = self.retiring.len();
        let mut retirement = Retirement::default();
        for node in nodes {
            let entry = graph.entry(node.spec().name.as_str());
            let mut now = entry.into_iter().flat_map(Entry::nodes);
            if now.any(|now| Arc::ptr_eq(now, &node)) {
                continue;
            }
            retirement.add(self.retire_one(node, &graph, &drain));
        }
        let retiring = self.retiring.len();
        let over = retiring.saturating_sub(self.config.reload.max_retiring as usize);
        // Those of this change have their time in any case, and at a shutdown all have.
        let most = self.limit.borrow().map_or(before, |_| 0);
        for hurry in self.hurry.values().take(over.min(most)) {
            hurry.cancel();
        }
        self.status.send_modify(|status| status.retiring = retiring);
        retirement
    }

    pub(super) fn retire_one(
        &mut self,
        node: Arc<Node>,
        graph: &Graph,
        drain: &impl Fn(Duration) -> Duration,
    ) -> oneshot::Receiver<Retired> {
        let spec = node.spec();
        node.end_checks(graph.node(spec.name.as_str()).map(|node| &**node));
        self.leaves(&node);
        let (sender, receiver) = oneshot::channel();
        let id = self.hurry.last_key_value().map_or(0, |(id, _)| id + 1);
        let patience = Patience {
            drain: drain(spec.policy.drain_timeout),
            limit: self.limit.subscribe(),
            hurry: self.hurry.entry(id).or_default().clone(),
        };
        let events = self.events.clone();
        let tell = move |plugin: &PluginName, active| {
            if events.receiver_count() > 0 {
                let plugin = plugin.clone();
                let _ = events.send(ReloadEvent::Draining { plugin, active });
            }
        };
        let retired = retire(node, patience, tell);
        self.retiring.spawn(async move {
            let retired = retired.await;
            let _ = sender.send(retired.clone());
            (id, retired)
        });
        receiver
    }

    /// Whoever comes after `node` has to wait until it is gone, if it cannot run twice.
    pub(super) fn leaves(&mut self, node: &Node) {
        let spec = node.spec();
        if spec.policy.exclusive {
            self.leaving.retain(|_, gone| !gone.is_cancelled());
            self.leaving.insert(spec.name.clone(), node.gone());
        }
    }

    pub(super) fn retired(&mut self, ended: Option<(u64, Retired)>) {
        let retiring = self.retiring.len();
        let Some((id, retired)) = ended else {
            self.status.send_modify(|status| status.retiring = retiring);
            return;
        };
        self.hurry.remove(&id);
        if retired.cancelled > 0 {
            tracing::warn!(
                plugin.name = %retired.plugin,
                cancelled = retired.cancelled,
                remaining = retired.remaining,
                "calls outlived the drain timeout",
            );
        }
        self.status.send_modify(|status| {
            status.retiring = retiring;
            status.cancelled += retired.cancelled as u64;
        });
        self.tell(|| ReloadEvent::Retired(retired));
    }

    pub(super) async fn shut_down(&mut self, timeout: Duration) -> ShutdownReport {
        let begun = Instant::now();
        self.limit.send_replace(begun.checked_add(timeout));
        self.pending.clear();
        let old = self.cell.publish(self.cell.load().shut_down());
        let mut left: Vec<_> = old.nodes().map(|(_, node)| Arc::clone(node)).collect();
        drop(old);
        if let Some((rollout, phase)) = self.under_way.take() {
            drop(phase);
            let Rollout {
                old, built, gate, ..
            } = *rollout;
            let old = old.nodes().map(|(_, node)| Arc::clone(node));
            let others = old.chain(built.into_values());
            for node in others {
                if !left.iter().any(|other| Arc::ptr_eq(other, &node)) {
                    left.push(node);
                }
            }
            gate.as_deref().map(Gate::open);
        }
        // Their ends come with those of the nodes that left before.
        drop(self.retire(left, |own| own));
        self.health.clear();
        self.config = Arc::default();
        let mut retired = Vec::with_capacity(self.retiring.len());
        while let Some(ended) = self.retiring.join_next().await {
            let ended = ended.ok();
            self.retired(ended.clone());
            retired.extend(ended.map(|(_, retired)| retired));
        }
        self.status
            .send_modify(|status| status.shut_down(self.cell.load().generation()));
        ShutdownReport {
            retired,
            elapsed: begun.elapsed(),
        }
    }
}

/// The nodes in `graph` of what `plan` changes.
pub(super) fn nodes_of(graph: &Graph, plan: &Plan) -> Vec<Arc<Node>> {
    let entries = plan
        .changed()
        .filter_map(|(name, _)| graph.entry(name.as_str()));
    entries.flat_map(Entry::nodes).map(Arc::clone).collect()
}
