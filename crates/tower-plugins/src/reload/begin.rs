//! The beginning of a change: what is to be done, and whether it may be.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::overlay::Edit;
use super::report::{self, Verdict};
use super::rollout::Rollout;
use super::task::Task;
use super::{Job, ReloadEvent, ReloadPhase, ReloadStatus};
use crate::config::PluginName;
use crate::error::{Error, Kind};
use crate::graph::{Entry, Plan, check_names};

/// Counts configs that were refused, by why.
const REJECTED: &str = "plugin_reloads_rejected_total";

impl Task {
    /// What `job` is to be, and which plugins begin anew for it though nothing of them differs; tells its caller if it
    /// cannot be made.
    pub(super) fn planned(
        &self,
        job: Job,
        renewed: impl Iterator<Item = PluginName>,
    ) -> Option<Box<Rollout>> {
        let Job {
            edit,
            options,
            is_of_file,
            reply,
            ..
        } = job;
        let mut begun = Instant::now();
        let is_whole = edit.is_whole();
        let (wanted, ended) = match self.wanted.edited(edit) {
            Ok(edited) => edited,
            Err(error) => {
                let _ = reply.send(Err(error));
                return None;
            }
        };
        let config = wanted.config();
        let mut plan = Plan::between(&self.config, &config);
        for name in renewed {
            if let Some(spec) = config.plugins.get(&name) {
                plan.renew(spec);
            }
        }
        let plan = Arc::new(plan);
        let mut rollout = Box::new(Rollout {
            settings: options.over(&config.reload),
            is_whole,
            is_of_file,
            wanted,
            config,
            plan,
            old: self.cell.load(),
            built: BTreeMap::new(),
            steps: VecDeque::new(),
            published: false,
            exclusive: Vec::new(),
            gate: None,
            watched: Vec::new(),
            unjudged: false,
            worse: None,
            last_watch: None,
            ended,
            times: super::ReloadTimes::default(),
            reply,
        });
        rollout.times.planning = super::rollout::lap(&mut begun);
        Some(rollout)
    }

    pub(super) fn dry_run(&self, job: Job) {
        let missing = self.missing(&job.edit);
        let force = job.options.force;
        if let Some(rollout) = self.planned(job, missing.into_iter()) {
            let found = self.check(&rollout, force);
            let answer = found.map(|()| self.report(&rollout, Verdict::Unwatched));
            let _ = rollout.reply.send(answer);
        }
    }

    /// Whether it has nothing to do.
    pub(super) fn is_idle(&self, rollout: &Rollout) -> bool {
        rollout.plan.is_empty() && self.cell.load().generation().get() > 0
    }

    /// What can be found of it before it is built.
    pub(super) fn check(&self, rollout: &Rollout, force: bool) -> Result<(), Error> {
        if self.is_idle(rollout) {
            return Ok(());
        }
        if !force && self.frozen.contains(&rollout.config) {
            return Err(Error::new(Kind::Frozen));
        }
        check_names(&rollout.config, &rollout.plan)
    }

    /// Plugins that are to run and do not, as far as `edit` is of them: those that cannot run twice, and could not be
    /// started again.
    pub(super) fn missing(&self, edit: &Edit) -> Vec<PluginName> {
        let graph = self.cell.load();
        let plugins = &self.config.plugins;
        if graph.entries().len() == plugins.len() {
            return Vec::new();
        }
        let is_missing = |name: &&PluginName| {
            graph.entry(name.as_str()).is_none() && edit.name().is_none_or(|edited| edited == *name)
        };
        plugins.keys().filter(is_missing).cloned().collect()
    }

    pub(super) fn begin(&mut self, job: Job) {
        let force = job.options.force;
        let reopened = match &job.edit {
            Edit::Enable(name) => self.reopen(name),
            _ => None,
        };
        let renewed = self.missing(&job.edit).into_iter().chain(reopened);
        let Some(rollout) = self.planned(job, renewed) else {
            return;
        };
        self.tell(|| ReloadEvent::Planned(Arc::clone(&rollout.plan)));
        if self.is_idle(&rollout) {
            self.wanted = rollout.wanted.clone();
            self.config = Arc::clone(&rollout.config);
            self.status.send_modify(ReloadStatus::unchanged);
            self.show_overlay();
            let report = self.report(&rollout, Verdict::Unwatched);
            return drop(rollout.reply.send(Ok(report)));
        }
        if let Err(error) = self.check(&rollout, force) {
            return self.reject(*rollout, error);
        }
        self.roll_out(rollout);
    }

    /// Lets a plugin that was drained take calls again; says which needs a new node for that.
    pub(super) fn reopen(&self, name: &PluginName) -> Option<PluginName> {
        let graph = self.cell.load();
        let mut nodes = graph
            .entry(name.as_str())
            .into_iter()
            .flat_map(Entry::nodes);
        let is_over = nodes.any(|node| node.drain().is_closed() && !node.drain().reopen());
        is_over.then(|| name.clone())
    }

    /// The end of a change that is refused. What served before it serves.
    pub(super) fn reject(&mut self, rollout: Rollout, error: Error) {
        let error = Arc::new(error);
        let reply = self.go_back(rollout);
        self.rejected(Arc::clone(&error));
        self.show_phase(ReloadPhase::Idle);
        let _ = reply.send(Err(Error::shared(&error)));
    }

    pub(super) fn rejected(&self, error: Arc<Error>) {
        metrics::counter!(REJECTED, "reason" => report::why_rejected(&error)).increment(1);
        tracing::warn!(
            error = %report::with_causes(&error),
            plugins = self.config.plugins.len(),
            "reload rejected; the running config stays",
        );
        self.tell(|| ReloadEvent::Rejected(Arc::clone(&error)));
        self.status.send_modify(|status| status.rejected(error));
    }
}
