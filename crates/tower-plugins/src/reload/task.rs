//! The owner of what runs: what waits its turn, what is under way, and what is on its way out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, watch as status_channel};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::history::History;
use super::overlay::{Edit, Wanted};
use super::phase::Phase;
use super::rollout::Rollout;
use super::{Command, End, Job, ReloadEvent, ReloadOptions, ReloadPhase, ReloadStatus, Reply};
use crate::config::{Config, PluginName};
use crate::error::{Error, Kind};
use crate::graph::{GraphCell, Retired};
use crate::node::{HealthHub, Services};

/// What runs, and what is being done with it.
pub(super) struct Task {
    pub(super) cell: Arc<GraphCell>,
    pub(super) services: Arc<Services>,
    pub(super) health: Arc<HealthHub>,
    /// What runs, as it is wanted and as it came of that.
    pub(super) wanted: Wanted,
    pub(super) config: Arc<Config>,
    pub(super) pending: VecDeque<Job>,
    pub(super) under_way: Option<(Box<Rollout>, Phase)>,
    pub(super) retiring: JoinSet<(u64, Retired)>,
    /// By which those are hurried that retire, the oldest first.
    pub(super) hurry: BTreeMap<u64, CancellationToken>,
    /// Of plugins that cannot run twice, what is still there of them.
    pub(super) leaving: HashMap<PluginName, CancellationToken>,
    /// When every drain is over, whatever its own timeout: known once the set shuts down.
    pub(super) limit: status_channel::Sender<Option<Instant>>,
    pub(super) frozen: VecDeque<Arc<Config>>,
    pub(super) last_rollback: Option<Instant>,
    pub(super) status: status_channel::Sender<ReloadStatus>,
    pub(super) events: broadcast::Sender<ReloadEvent>,
    pub(super) history: Arc<History>,
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
            None => return self.pop(),
            // One that was cut short itself ends nothing.
            Some(_) if self.pending.iter().all(|job| job.is_again) => return None,
            Some(under_way) => under_way,
        };
        // A watch is cut short for whatever comes, and a wait for a config by a newer one; but those whose calls are held
        // are not made to wait longer.
        let may_end = phase.is_wait() && rollout.is_whole && rollout.gate.is_none();
        if phase.is_watch() || (may_end && by_whole) {
            self.cut_short(by_whole);
            return self.pop();
        }
        None
    }

    /// The first that waits; what was cut short before comes last.
    fn pop(&mut self) -> Option<Job> {
        self.pending.remove(self.next().unwrap_or(0))
    }

    fn next(&self) -> Option<usize> {
        self.pending.iter().position(|job| !job.is_again)
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

    /// Has `edit`, which was cut short, made after what it was cut short for.
    pub(super) fn again(&mut self, edit: Edit, reply: Reply) {
        self.pending.push_back(Job {
            edit,
            options: ReloadOptions::new(),
            is_of_file: true,
            is_again: true,
            reply,
        });
    }

    /// What cannot be made in any case ends no watch.
    fn drop_impossible(&mut self) {
        while let (Some((rollout, phase)), Some(next)) = (&self.under_way, self.next()) {
            let job = &self.pending[next];
            let error = |wanted: &Wanted| wanted.edited(job.edit.clone()).err();
            if !phase.is_watch() || job.edit.is_whole() {
                return;
            }
            let Some(error) = error(&rollout.wanted) else {
                return;
            };
            // What serves whole stays: what served before is of no more use.
            if !phase.is_last_watch() && self.wanted.edited(job.edit.clone()).is_ok() {
                return;
            }
            if let Some(job) = self.pending.remove(next) {
                let _ = job.reply.send(Err(error));
            }
        }
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

    pub(super) fn show_overlay(&self) {
        let overlay = self.wanted.overlay();
        self.status.send_if_modified(|status| {
            let differs = status.overlay != overlay;
            status.overlay = overlay;
            differs
        });
    }
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
