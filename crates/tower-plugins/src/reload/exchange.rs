//! Plugins that cannot run twice: their calls are held while one takes the place of another.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::ReloadPhase;
use super::phase::Phase;
use super::rollout::{NOT_READY, Publish, Rollout, Wait, lap, wanted};
use super::task::Task;
use crate::config::{PluginSpec, Strategy};
use crate::error::{Error, Kind};
use crate::graph::{Entry, Gate};
use crate::node::{Inherit, Node};

/// How much longer than their drain may plugins take to be gone that cannot run twice.
const GONE: Duration = Duration::from_secs(2);

impl Task {
    /// Those that cannot run twice, and might: one that runs, or has not yet ended.
    pub(super) fn exclusive(&self, rollout: &Rollout) -> Vec<PluginSpec> {
        let specs = rollout.plan.changed();
        let specs = specs.filter_map(|(_, change)| change.spec());
        let might = |spec: &&PluginSpec| {
            let old = rollout.old.node(spec.name.as_str());
            // Only those that cannot run twice are known to leave.
            let leaving = self.leaving.get(&spec.name);
            let leaves = leaving.is_some_and(|gone| !gone.is_cancelled());
            let old = old.map(|old| old.spec().policy.exclusive || spec.policy.exclusive);
            leaves || old.unwrap_or(false)
        };
        specs.filter(might).cloned().collect()
    }

    /// Holds the calls of those that cannot run twice, and lets what runs of them come to its end.
    pub(super) fn exchange(&mut self, mut rollout: Box<Rollout>) {
        let gate = Arc::new(Gate::new(rollout.settings.spec.max_held as usize));
        let graph = self.cell.load();
        let entries = rollout.held(&graph, &gate);
        drop(graph);
        self.publish(entries, &rollout.plan, 1.0);
        rollout.published = true;
        rollout.gate = Some(gate);
        let (mut leaving, mut nodes) = (JoinSet::new(), Vec::new());
        for spec in &rollout.exclusive {
            let old = Arc::make_mut(&mut rollout.old).entries_mut();
            let old = old.remove(spec.name.as_str());
            nodes.extend(old.into_iter().flat_map(Entry::into_nodes));
            if let Some(before) = self.leaving.get(&spec.name).cloned() {
                let limit = rollout.settings.drain(spec.policy.drain_timeout);
                let limit = limit.saturating_add(GONE);
                leaving.spawn(async move { drop(timeout(limit, before.cancelled()).await) });
            }
        }
        // All at once: none of them is one too many for another.
        let retirement = self.retire(nodes, |own| rollout.settings.drain(own));
        leaving.spawn(async move { drop(retirement.wait().await) });
        self.show_phase(ReloadPhase::Exchanging);
        let phase = Phase::Exchanging {
            leaving,
            begun: Instant::now(),
        };
        self.under_way = Some((rollout, phase));
    }

    /// Starts the new ones in the place of those that are gone.
    pub(super) fn start_again(&mut self, mut rollout: Box<Rollout>) {
        let mut begun = Instant::now();
        let build = |spec: &PluginSpec| {
            let node = Node::build(spec.clone(), None, Inherit::Shared, &self.services)?;
            Ok((spec.name.clone(), Arc::new(node)))
        };
        let made: Result<Vec<_>, Error> = rollout.exclusive.iter().map(build).collect();
        rollout.times.building += lap(&mut begun);
        let made = match made {
            Ok(made) => made,
            Err(error) => return self.refuse(rollout, error),
        };
        let spec = &rollout.settings.spec;
        let watches = matches!(spec.strategy, Strategy::BlueGreen | Strategy::Canary);
        let ready = made.iter().filter_map(|(_, node)| {
            if !watches {
                return wanted(node);
            }
            Some(Wait {
                node: Arc::clone(node),
                limit: spec.health_check_timeout,
                why: NOT_READY,
            })
        });
        let ready: Vec<_> = ready.collect();
        rollout.built.extend(made);
        let watch = rollout.last_watch;
        if ready.is_empty() {
            self.publish_step(rollout, &Publish::All, watch);
        } else {
            self.wait(rollout, ready, Publish::All, watch);
        }
    }

    /// Lets what cannot run twice come to its end that took the place of the old, and is of no use.
    pub(super) fn end_new(&mut self, mut rollout: Box<Rollout>, error: Error) {
        let mut leaving = JoinSet::new();
        for spec in &rollout.exclusive {
            if let Some(new) = rollout.built.remove(&spec.name) {
                let gone = new.gone();
                leaving.spawn(async move { drop(timeout(GONE, gone.cancelled()).await) });
            }
        }
        self.under_way = Some((rollout, Phase::Restoring { leaving, error }));
    }

    /// Starts what cannot run twice as it ran before, since it cannot run as it should now.
    pub(super) fn restore(&mut self, mut rollout: Rollout, error: &Error) {
        let mut notes = String::new();
        for spec in std::mem::take(&mut rollout.exclusive) {
            let Some(old) = self.config.plugins.get(&spec.name) else {
                continue;
            };
            let node = Node::build(old.clone(), None, Inherit::Shared, &self.services);
            match node {
                Ok(node) => {
                    let entry = Entry::Node(Arc::new(node));
                    let old = Arc::make_mut(&mut rollout.old).entries_mut();
                    old.insert(spec.name.clone(), entry);
                    notes = format!("{notes}; {} was started again as it was", spec.name);
                }
                Err(again) => {
                    notes = format!("{notes}; {} did not start again: {again}", spec.name);
                }
            }
        }
        let gate = rollout.gate.take();
        let why = format!("{}{notes}", super::report::with_causes(error));
        let error = Arc::new(Error::caused_by(Kind::Config, why));
        let reply = self.go_back(rollout);
        gate.as_deref().map(Gate::open);
        self.rejected(Arc::clone(&error));
        self.show_phase(ReloadPhase::Idle);
        let _ = reply.send(Err(Error::shared(&error)));
    }
}
