//! What becomes of a change in the end: it is what runs, or what ran before runs again.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::history::HistoryEntry;
use super::report::Verdict;
use super::retiring::nodes_of;
use super::rollout::Rollout;
use super::task::Task;
use super::{ReloadEvent, ReloadPhase, ReloadReport, ReloadStatus, Reply, Retirement};
use crate::config::PluginName;
use crate::error::{Error, Kind};
use crate::graph::{Entries, Plan};

/// Counts configs that were taken back.
const ROLLED_BACK: &str = "plugin_reloads_rolled_back_total";

/// How many configs that were taken back are remembered.
const FROZEN: usize = 16;

impl Task {
    pub(super) fn report(&self, rollout: &Rollout, verdict: Verdict) -> ReloadReport {
        ReloadReport {
            generation: self.cell.load().generation(),
            plan: Arc::clone(&rollout.plan),
            strategy: rollout.settings.spec.strategy,
            verdict,
            overlay: rollout.wanted.overlay(),
            overlay_ended: rollout.ended.clone(),
            times: rollout.times,
            retirement: Retirement::default(),
        }
    }

    /// Lets the graph of `entries` serve from now on, which differs from the one before in what `plan` changes.
    pub(super) fn publish(&mut self, entries: Entries, plan: &Plan, share: f64) {
        let graph = self.cell.load().next(entries);
        let (generation, plugins) = (graph.generation(), graph.entries().len());
        drop(self.cell.publish(graph));
        self.begin_checks(plan);
        self.status.send_modify(|status| {
            status.generation = generation;
            status.plugins = plugins;
        });
        self.tell(|| ReloadEvent::Published { generation, share });
    }

    /// Has the endpoints of what `plan` changed asked how they are from now on.
    pub(super) fn begin_checks(&self, plan: &Plan) {
        let graph = self.cell.load();
        for node in nodes_of(&graph, plan) {
            node.begin_checks(&self.health);
        }
        let health = |name: &PluginName| Some(graph.node(name.as_str())?.health());
        let changed = plan.changed().map(|(name, _)| (name, health(name)));
        self.health.publish(changed);
    }

    /// What `rollout` wants is what runs.
    pub(super) fn commit(&mut self, rollout: Rollout, verdict: Verdict) {
        // What is worse, and stays, was told of when it was found.
        if !matches!(verdict, Verdict::Unwatched | Verdict::Worse { .. }) {
            self.tell(|| ReloadEvent::Judged(verdict.clone()));
        }
        if !matches!(verdict, Verdict::Worse { .. }) {
            // It was forced: it is no more refused for what it was once.
            self.frozen.retain(|frozen| *frozen != rollout.config);
        }
        let mut report = self.report(&rollout, verdict);
        self.remember(&rollout, None);
        let Rollout {
            settings,
            wanted,
            config,
            old,
            watched,
            reply,
            gate,
            ..
        } = rollout;
        drop(watched);
        if let Some(gate) = gate {
            gate.open();
        }
        (self.wanted, self.config) = (wanted, config);
        if settings.watches() {
            for (_, node) in self.cell.load().nodes() {
                node.keep_score();
            }
        }
        let left = nodes_of(&old, &report.plan);
        drop(old);
        report.retirement = self.retire(left, |own| settings.drain(own));
        self.status.send_modify(ReloadStatus::unchanged);
        self.show_phase(ReloadPhase::Idle);
        self.show_overlay();
        let (generation, plugins) = (report.generation, self.config.plugins.len());
        tracing::info!(generation = generation.get(), plugins, verdict = %report.verdict, "reloaded");
        // The caller may have gone; the reload stands all the same.
        let _ = reply.send(Ok(report));
    }

    pub(super) fn remember(&self, rollout: &Rollout, rolled_back: Option<String>) {
        // What is taken back does not say how much is remembered.
        let says = match rolled_back {
            Some(_) => &self.config,
            None => &rollout.config,
        };
        let max = says.reload.history as usize;
        let entry = HistoryEntry {
            generation: self.cell.load().generation(),
            at: SystemTime::now(),
            plan: Arc::clone(&rollout.plan),
            config: Arc::clone(&rollout.config),
            wanted: Arc::new(rollout.wanted.clone()),
            again: None,
            rolled_back,
        };
        self.history.add(entry, max);
    }

    /// What served before `rollout` serves again. Gives who is to be told, once the status says so too.
    pub(super) fn go_back(&mut self, rollout: Rollout) -> Reply {
        if !rollout.published {
            for node in rollout.built.values() {
                self.leaves(node);
            }
            return rollout.reply;
        }
        let changed = rollout.plan.changed();
        for node in changed.filter_map(|(name, _)| rollout.old.node(name.as_str())) {
            node.take_effect();
        }
        self.publish(rollout.old.entries().clone(), &rollout.plan, 1.0);
        self.history.serves_again(self.cell.load().generation());
        let drain = |own| rollout.settings.drain(own);
        let left: Vec<_> = rollout.built.values().map(Arc::clone).collect();
        drop(self.retire(left, drain));
        rollout.reply
    }

    /// The same because it was worse.
    pub(super) fn roll_back(&mut self, rollout: Rollout, why: String) {
        self.remember(&rollout, Some(why.clone()));
        self.last_rollback = Some(Instant::now());
        self.frozen.push_back(Arc::clone(&rollout.config));
        if self.frozen.len() > FROZEN {
            self.frozen.pop_front();
        }
        metrics::counter!(ROLLED_BACK).increment(1);
        let error = Arc::new(Error::caused_by(Kind::RolledBack, why.clone()));
        let shared = Error::shared(&error);
        let reply = self.go_back(rollout);
        let generation = self.cell.load().generation();
        tracing::error!(generation = generation.get(), why, "reload rolled back");
        self.status.send_modify(|status| {
            status.rolled_back += 1;
            status.last_error = Some(error);
        });
        self.show_phase(ReloadPhase::Idle);
        self.tell(|| ReloadEvent::RolledBack { generation, why });
        let _ = reply.send(Err(shared));
    }
}
