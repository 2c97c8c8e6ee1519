//! From one step of a change to the next.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::phase::{Phase, Progress};
use super::report::Verdict;
use super::rollout::{Publish, Rollout, Step, Wait, Watch, lap, steps};
use super::task::Task;
use super::{ReloadEvent, ReloadPhase};
use crate::config::Strategy;
use crate::error::{Error, Kind};
use crate::node::Inherit;

/// How long what served before may take to show that it could serve again.
const ASK: Duration = Duration::from_millis(500);

/// How long after a config was taken back the next one is not: a fault that is not the config's would have the two
/// take each other's place for ever.
const FLAP: Duration = Duration::from_secs(600);

impl Task {
    /// Builds what `rollout` needs, and begins with its first step.
    pub(super) fn roll_out(&mut self, mut rollout: Box<Rollout>) {
        let mut begun = Instant::now();
        self.tell(|| ReloadEvent::Building);
        rollout.exclusive = self.exclusive(&rollout);
        let settings = &rollout.settings;
        let inherit = match settings.spec.strategy {
            Strategy::BlueGreen | Strategy::Canary => Inherit::Copied,
            _ => Inherit::Shared,
        };
        let graph = self.cell.load();
        let is_now = |name: &_| !rollout.exclusive.iter().any(|spec| spec.name == *name);
        match graph.build(&rollout.plan, is_now, inherit, &self.services) {
            Ok(built) => rollout.built = built,
            Err(error) => return self.reject(*rollout, error),
        }
        if settings.watches() {
            for node in rollout.built.values() {
                node.keep_score();
                if let Some(old) = graph.node(node.spec().name.as_str()) {
                    old.keep_score();
                }
            }
        }
        rollout.steps = steps(settings, &rollout.plan, &rollout.old, &rollout.built);
        rollout.last_watch = rollout.steps.back().and_then(|step| step.watch);
        rollout.times.building = lap(&mut begun);
        self.step(rollout);
    }

    /// Begins with the next step, or ends without one.
    fn step(&mut self, mut rollout: Box<Rollout>) {
        let Some(step) = rollout.steps.pop_front() else {
            let verdict = rollout.verdict();
            return self.commit(*rollout, verdict);
        };
        let Step {
            ready,
            publish,
            watch,
        } = step;
        if ready.is_empty() {
            return self.publish_step(rollout, &publish, watch);
        }
        self.wait(rollout, ready, publish, watch);
    }

    pub(super) fn wait(
        &mut self,
        rollout: Box<Rollout>,
        ready: Vec<Wait>,
        publish: Publish,
        watch: Option<Watch>,
    ) {
        let names = || ready.iter().map(|wait| wait.node.spec().name.clone());
        self.tell(|| ReloadEvent::Waiting(names().collect()));
        self.show_phase(ReloadPhase::Waiting);
        let phase = Phase::wait(ready, publish, watch);
        self.under_way = Some((rollout, phase));
    }

    pub(super) fn publish_step(
        &mut self,
        mut rollout: Box<Rollout>,
        publish: &Publish,
        watch: Option<Watch>,
    ) {
        let is_last = matches!(publish, Publish::All);
        if is_last && !rollout.exclusive.is_empty() && rollout.gate.is_none() {
            return self.exchange(rollout);
        }
        let mut begun = Instant::now();
        let share = match publish {
            Publish::Share(share) => *share,
            Publish::Plugins(_) | Publish::All => 1.0,
        };
        let entries = rollout.entries(publish);
        rollout.times.building += lap(&mut begun);
        rollout.take_effect(publish);
        if watch.is_some() {
            rollout.watch();
        }
        self.publish(entries, &rollout.plan, share);
        rollout.published = true;
        rollout.times.publishing += lap(&mut begun);
        if let (true, Some(gate)) = (is_last, &rollout.gate) {
            gate.open();
        }
        match watch.filter(|_| !rollout.watched.is_empty()) {
            None => self.step(rollout),
            Some(watch) => {
                let generation = self.cell.load().generation();
                self.tell(|| ReloadEvent::Watching(generation));
                self.show_phase(ReloadPhase::Watching { share });
                self.under_way = Some((rollout, Phase::watch(watch, is_last)));
            }
        }
    }

    /// What came of the phase that a change is in.
    pub(super) fn proceed(&mut self, progress: Progress) {
        let Some((mut rollout, phase)) = self.under_way.take() else {
            return;
        };
        match (phase, progress) {
            (
                Phase::Waiting {
                    publish,
                    watch,
                    mut begun,
                    ..
                },
                progress,
            ) => {
                rollout.times.waiting += lap(&mut begun);
                match progress {
                    Progress::NotReady(error) => self.refuse(rollout, error),
                    _ => self.publish_step(rollout, &publish, watch),
                }
            }
            (Phase::Exchanging { mut begun, .. }, _) => {
                rollout.times.exchanging += lap(&mut begun);
                self.start_again(rollout);
            }
            (Phase::Restoring { error, .. }, _) => self.restore(*rollout, &error),
            (
                Phase::Watching {
                    ticks,
                    watch,
                    begun,
                    is_last,
                },
                _,
            ) => match self.look(&mut rollout, watch, begun) {
                Some(Looked::Worse(why)) => self.judge(rollout, why, is_last),
                Some(Looked::Over) => {
                    rollout.times.watching += begun.elapsed();
                    self.step(rollout);
                }
                None => {
                    let phase = Phase::Watching {
                        ticks,
                        watch,
                        begun,
                        is_last,
                    };
                    self.under_way = Some((rollout, phase));
                }
            },
            (Phase::Asking { why, .. }, Progress::NotReady(_)) => {
                self.keep(rollout, why, "what served before is not there any more");
            }
            (Phase::Asking { why, .. }, _) => self.roll_back(*rollout, why),
        }
    }

    /// A change that cannot be made. What it has changed so far is undone.
    pub(super) fn refuse(&mut self, rollout: Box<Rollout>, error: Error) {
        if rollout.gate.is_some() {
            return self.end_new(rollout, error);
        }
        self.reject(*rollout, error);
    }

    /// Ends what is under way for something newer, which is a whole config or not: what serves whole stays, what does
    /// not goes. What a watched file says goes for a newer config alone, and otherwise begins anew behind.
    pub(super) fn cut_short(&mut self, by_whole: bool) {
        let Some((rollout, phase)) = self.under_way.take() else {
            return;
        };
        if phase.is_last_watch() {
            return self.commit(*rollout, Verdict::Overtaken);
        }
        let is_again = rollout.is_of_file && !by_whole;
        let again = is_again.then(|| rollout.wanted.again(&self.wanted));
        let reply = self.go_back(*rollout);
        self.show_phase(ReloadPhase::Idle);
        if let Some(edit) = again {
            return self.again(edit, reply);
        }
        let _ = reply.send(Err(Error::new(Kind::Superseded)));
    }

    /// What there is to say of what is watched.
    fn look(&mut self, rollout: &mut Rollout, watch: Watch, begun: Instant) -> Option<Looked> {
        let now = Instant::now();
        let watched = &mut rollout.watched;
        if let Some(why) = watched.iter_mut().find_map(|watched| watched.look(now)) {
            return Some(Looked::Worse(why));
        }
        let is_judged = watched.iter().all(|one| one.is_judged(watch.min_calls));
        let time = now - begun;
        if time < watch.at_least || (!is_judged && time < watch.at_most) {
            return None;
        }
        let out = || watched.iter().find_map(|watched| watched.is_out());
        if let (false, Some(why)) = (is_judged, out()) {
            return Some(Looked::Worse(why));
        }
        // Of all calls so far: what is said last counts.
        rollout.unjudged = !is_judged;
        Some(Looked::Over)
    }

    /// What is worse goes back, if that can be.
    fn judge(&mut self, rollout: Box<Rollout>, why: String, is_last: bool) {
        let flaps = || {
            let last = self.last_rollback;
            last.is_some_and(|last| last.elapsed() < FLAP)
        };
        let kept = if !rollout.settings.spec.rollback_on_failure {
            Some("reload.rollback_on_failure is off")
        } else if !is_last {
            // Most calls go to the old one still.
            return self.roll_back(*rollout, why);
        } else if rollout.gate.is_some() {
            Some("a plugin that cannot run twice was exchanged with it")
        } else if flaps() {
            Some("another one was taken back less than 10 minutes ago")
        } else {
            None
        };
        if let Some(kept) = kept {
            return self.keep(rollout, why, kept);
        }
        let ask = |watched: &super::watching::Watched| Wait {
            node: Arc::clone(&watched.old),
            limit: ASK,
            why: "when asked again",
        };
        let asks = rollout.watched.iter().map(ask).collect();
        self.under_way = Some((rollout, Phase::ask(asks, why)));
    }

    /// What is worse serves all the same.
    fn keep(&mut self, mut rollout: Box<Rollout>, why: String, kept: &'static str) {
        tracing::error!(why, kept, "what was reloaded is worse, and is kept");
        let verdict = Verdict::Worse { why, kept };
        self.tell(|| ReloadEvent::Judged(verdict.clone()));
        rollout.worse = Some(verdict);
        self.step(rollout);
    }
}

/// What a look found.
enum Looked {
    Worse(String),
    /// It was watched long enough.
    Over,
}
