//! The owner of what runs, and of the nodes that are on their way out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{broadcast, mpsc, oneshot, watch as status_channel};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::history::{History, HistoryEntry};
use super::overlay::{Edit, Wanted};
use super::phase::Phase;
use super::report::{self, Verdict};
use super::rollout::Rollout;
use super::{
    Command, End, Job, ReloadEvent, ReloadPhase, ReloadReport, ReloadStatus, Reply, Retirement,
    ShutdownReport,
};
use crate::config::{Config, PluginName};
use crate::error::{Error, Kind};
use crate::graph::{Entries, Entry, Gate, Graph, GraphCell, Patience, Plan, Retired, retire};
use crate::node::{HealthHub, Node, Services};

/// Counts configs that were refused, by why.
const REJECTED: &str = "plugin_reloads_rejected_total";

/// Counts configs that were taken back.
const ROLLED_BACK: &str = "plugin_reloads_rolled_back_total";

/// How many configs that were taken back are remembered.
const FROZEN: usize = 16;

/// What runs, and what is being done with it.
pub(super) struct Task {
    pub(super) cell: Arc<GraphCell>,
    pub(super) services: Arc<Services>,
    health: Arc<HealthHub>,
    /// What runs, as it is wanted and as it came of that.
    pub(super) wanted: Wanted,
    pub(super) config: Arc<Config>,
    pending: VecDeque<Job>,
    pub(super) under_way: Option<(Box<Rollout>, Phase)>,
    retiring: JoinSet<(u64, Retired)>,
    /// By which those are hurried that retire, the oldest first.
    hurry: BTreeMap<u64, CancellationToken>,
    /// Of plugins that cannot run twice, what is still there of them.
    pub(super) leaving: HashMap<PluginName, CancellationToken>,
    /// When every drain is over, whatever its own timeout: known once the set shuts down.
    limit: status_channel::Sender<Option<Instant>>,
    pub(super) frozen: VecDeque<Arc<Config>>,
    pub(super) last_rollback: Option<Instant>,
    status: status_channel::Sender<ReloadStatus>,
    events: broadcast::Sender<ReloadEvent>,
    history: Arc<History>,
}

impl Task {
    pub(super) fn new(
        cell: Arc<GraphCell>,
        services: Services,
        health: Arc<HealthHub>,
        status: status_channel::Sender<ReloadStatus>,
        events: broadcast::Sender<ReloadEvent>,
        history: Arc<History>,
    ) -> Self {
        Self {
            cell,
            services: Arc::new(services),
            health,
            wanted: Wanted::default(),
            config: Arc::default(),
            pending: VecDeque::new(),
            under_way: None,
            retiring: JoinSet::new(),
            hurry: BTreeMap::new(),
            leaving: HashMap::new(),
            limit: status_channel::Sender::new(None),
            frozen: VecDeque::new(),
            last_rollback: None,
            status,
            events,
            history,
        }
    }

    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        mut ends: mpsc::Receiver<End>,
    ) {
        loop {
            if let Ok(end) = ends.try_recv() {
                return self.end(end, inbox).await;
            }
            // All that waits is looked at together: what is overtaken is not begun.
            while let Some(command) = self.room().then(|| inbox.try_recv().ok()).flatten() {
                self.take(command);
            }
            while let Some(job) = self.next_job() {
                self.begin(job);
            }
            let room = self.room();
            let phase = self.under_way.as_mut().map(|(_, phase)| phase);
            tokio::select! {
                Some(end) = ends.recv() => return self.end(end, inbox).await,
                command = inbox.recv(), if room => match command {
                    Some(command) => self.take(command),
                    None => return,
                },
                Some(retired) = self.retiring.join_next() => self.retired(retired.ok()),
                progress = Phase::progress(phase) => self.proceed(progress),
            }
        }
    }

    fn room(&self) -> bool {
        self.pending.len() < super::QUEUE
    }

    fn take(&mut self, command: Command) {
        match command {
            // It is in nobody's way.
            Command::Edit(job) if job.options.dry_run => self.dry_run(job),
            Command::Edit(job) => self.pending.push_back(job),
            Command::Reject(error) => self.rejected(error),
        }
    }

    /// Shuts down. What is still in the queue finds it so.
    async fn end(&mut self, end: End, mut inbox: mpsc::Receiver<Command>) {
        inbox.close();
        while inbox.try_recv().is_ok() {}
        let _ = end.reply.send(self.shut_down(end.timeout).await);
    }

    /// The next change whose turn it is, if nothing is in its way.
    fn next_job(&mut self) -> Option<Job> {
        self.drop_overtaken();
        self.drop_impossible();
        let is_whole = |job: &Job| job.edit.is_whole();
        let by_whole = self.pending.iter().any(is_whole);
        let (rollout, phase) = match &self.under_way {
            None => return self.pending.pop_front(),
            Some(_) if self.pending.is_empty() => return None,
            Some(under_way) => under_way,
        };
        // A watch is cut short for whatever comes, and a wait for a config by a newer one; but those whose calls are held
        // are not made to wait longer.
        let may_end = phase.is_wait() && rollout.is_whole && rollout.gate.is_none();
        if phase.is_watch() || (may_end && by_whole) {
            self.cut_short();
            return self.pending.pop_front();
        }
        None
    }

    /// A config that a newer one overtook before it was begun is not built.
    fn drop_overtaken(&mut self) {
        let whole = self.pending.iter().filter(|job| job.edit.is_whole());
        let mut over = whole.count().saturating_sub(1);
        if over == 0 {
            return;
        }
        let mut kept = VecDeque::with_capacity(self.pending.len());
        for job in self.pending.drain(..) {
            if over > 0 && job.edit.is_whole() {
                over -= 1;
                let _ = job.reply.send(Err(Error::new(Kind::Superseded)));
            } else {
                kept.push_back(job);
            }
        }
        self.pending = kept;
    }

    /// What cannot be made in any case ends no watch.
    fn drop_impossible(&mut self) {
        while let (Some((rollout, phase)), Some(job)) = (&self.under_way, self.pending.front()) {
            let error = |wanted: &Wanted| wanted.edited(job.edit.clone()).err();
            if !phase.is_watch() || job.edit.is_whole() || error(&rollout.wanted).is_none() {
                return;
            }
            let Some(error) = error(&self.wanted) else {
                return;
            };
            if let Some(job) = self.pending.pop_front() {
                let _ = job.reply.send(Err(error));
            }
        }
    }

    /// What `job` is to be, and which plugins begin anew for it though nothing of them differs; tells its caller if it
    /// cannot be made.
    fn planned(&self, job: Job, renewed: impl Iterator<Item = PluginName>) -> Option<Box<Rollout>> {
        let Job {
            edit,
            options,
            reply,
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

    fn dry_run(&self, job: Job) {
        let missing = self.missing(&job.edit);
        if let Some(rollout) = self.planned(job, missing.into_iter()) {
            let report = self.report(&rollout, Verdict::Unwatched);
            let _ = rollout.reply.send(Ok(report));
        }
    }

    /// Plugins that are to run and do not, as far as `edit` is of them: those that cannot run twice, and could not be
    /// started again.
    fn missing(&self, edit: &Edit) -> Vec<PluginName> {
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

    fn begin(&mut self, job: Job) {
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
        if rollout.plan.is_empty() && self.cell.load().generation().get() > 0 {
            self.wanted = rollout.wanted.clone();
            self.config = Arc::clone(&rollout.config);
            self.status.send_modify(ReloadStatus::unchanged);
            self.show_overlay();
            let report = self.report(&rollout, Verdict::Unwatched);
            return drop(rollout.reply.send(Ok(report)));
        }
        if !force && self.frozen.contains(&rollout.config) {
            return self.reject(*rollout, Error::new(Kind::Frozen));
        }
        self.roll_out(rollout);
    }

    /// Lets a plugin that was drained take calls again; says which needs a new node for that.
    fn reopen(&self, name: &PluginName) -> Option<PluginName> {
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

    pub(super) fn tell(&self, event: impl FnOnce() -> ReloadEvent) {
        if self.events.receiver_count() > 0 {
            let _ = self.events.send(event());
        }
    }

    pub(super) fn show_phase(&self, phase: ReloadPhase) {
        self.status.send_if_modified(|status| {
            let differs = status.phase != phase;
            status.phase = phase;
            differs
        });
    }

    fn show_overlay(&self) {
        let overlay = self.wanted.overlay();
        self.status.send_if_modified(|status| {
            let differs = status.overlay != overlay;
            status.overlay = overlay;
            differs
        });
    }

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
    fn begin_checks(&self, plan: &Plan) {
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

    fn remember(&self, rollout: &Rollout, rolled_back: Option<String>) {
        let entry = HistoryEntry {
            generation: self.cell.load().generation(),
            at: SystemTime::now(),
            plan: Arc::clone(&rollout.plan),
            config: Arc::clone(&rollout.config),
            wanted: Arc::new(rollout.wanted.clone()),
            rolled_back,
        };
        self.history
            .add(entry, rollout.settings.spec.history as usize);
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

    fn retire_one(
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
    fn leaves(&mut self, node: &Node) {
        let spec = node.spec();
        if spec.policy.exclusive {
            self.leaving.retain(|_, gone| !gone.is_cancelled());
            self.leaving.insert(spec.name.clone(), node.gone());
        }
    }

    fn retired(&mut self, ended: Option<(u64, Retired)>) {
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

    async fn shut_down(&mut self, timeout: Duration) -> ShutdownReport {
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
fn nodes_of(graph: &Graph, plan: &Plan) -> Vec<Arc<Node>> {
    let entries = plan
        .changed()
        .filter_map(|(name, _)| graph.entry(name.as_str()));
    entries.flat_map(Entry::nodes).map(Arc::clone).collect()
}

impl Drop for Task {
    /// Calls that are held would be held for ever.
    fn drop(&mut self) {
        let under_way = self.under_way.as_ref();
        if let Some(gate) = under_way.and_then(|(rollout, _)| rollout.gate.as_deref()) {
            gate.open();
        }
    }
}
