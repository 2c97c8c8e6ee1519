use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use tokio::sync::broadcast::Receiver;
use tokio::time::Instant;

use super::event::Report;
use super::history::{History, Tally};
use super::judge::outliers;
use super::{OutlierChange, OutlierEvent, OutlierLayer, OutlierPolicy, OutlierStatus};
use crate::Reason;

/// Endpoints that have left the set and are remembered all the same.
const MAX_GONE: usize = 1024;

/// One set of endpoints, compared with one another. Clones are handles to the same set.
///
/// It has no task: rates are judged by the first call after an interval's end.
#[derive(Clone)]
pub struct OutlierDetector {
    pub(super) core: Arc<Core>,
}

pub(super) struct Core {
    pub(super) policy: OutlierPolicy,
    epoch: Instant,
    /// When there is something to do next, in nanoseconds since the epoch.
    due: CachePadded<AtomicU64>,
    /// Taken before the state. Detectors that know the same endpoints have it in common, so that only
    /// one at a time takes any out.
    turn: Arc<Mutex<()>>,
    state: Mutex<State>,
    report: Report,
}

struct State {
    endpoints: Vec<Known>,
    /// When rates were last judged.
    swept: Instant,
}

#[derive(Clone)]
struct Known {
    name: Arc<str>,
    history: Arc<History>,
    /// Alive as long as the endpoint is in the set.
    present: Weak<Present>,
}

impl Known {
    fn is_present(&self) -> bool {
        self.present.strong_count() > 0
    }
}

/// Held by what makes an endpoint part of the set.
pub(super) struct Present(Weak<Core>);

impl Drop for Present {
    fn drop(&mut self) {
        // Fewer may be out now.
        if let Some(core) = self.0.upgrade() {
            core.due.store(0, Relaxed);
        }
    }
}

impl OutlierDetector {
    /// A set without endpoints.
    #[must_use]
    pub fn new(policy: OutlierPolicy) -> Self {
        Self::named("", policy)
    }

    /// A set without endpoints, with a name in metrics and events.
    #[must_use]
    pub fn named(name: &str, policy: OutlierPolicy) -> Self {
        let state = State {
            endpoints: Vec::new(),
            swept: Instant::now(),
        };
        Self::of(policy, Report::new(name), Arc::default(), state)
    }

    /// A set without endpoints, with a policy of its own, that knows the past of this one's: an endpoint
    /// that is added under the same name goes on where it is, ejected or not. Who watches this one
    /// watches that one too.
    #[must_use]
    pub fn renewed(&self, policy: OutlierPolicy) -> Self {
        let (_turn, state) = self.core.lock();
        let known = state.endpoints.iter().map(|known| Known {
            present: Weak::new(),
            ..known.clone()
        });
        let known = State {
            endpoints: known.collect(),
            swept: state.swept,
        };
        let turn = Arc::clone(&self.core.turn);
        Self::of(policy, self.core.report.clone(), turn, known)
    }

    fn of(policy: OutlierPolicy, report: Report, turn: Arc<Mutex<()>>, state: State) -> Self {
        let core = Core {
            policy,
            epoch: Instant::now(),
            due: CachePadded::new(AtomicU64::new(0)),
            turn,
            state: Mutex::new(state),
            report,
        };
        Self {
            core: Arc::new(core),
        }
    }

    /// The layer of the endpoint `name`, which is part of the set as long as the layer, or a service that
    /// it made, is alive. The same name is the same endpoint.
    #[must_use]
    pub fn endpoint(&self, name: &str) -> OutlierLayer {
        let (_turn, mut state) = self.core.lock();
        let known = state
            .endpoints
            .iter_mut()
            .find(|known| *known.name == *name);
        let fresh = || Arc::new(Present(Arc::downgrade(&self.core)));
        let (history, present) = match known {
            Some(known) => {
                let present = known.present.upgrade().unwrap_or_else(fresh);
                known.present = Arc::downgrade(&present);
                (Arc::clone(&known.history), present)
            }
            None => {
                if state.endpoints.len() >= 2 * MAX_GONE {
                    state.forget();
                }
                let (history, present) = (Arc::new(History::new()), fresh());
                state.endpoints.push(Known {
                    name: name.into(),
                    history: Arc::clone(&history),
                    present: Arc::downgrade(&present),
                });
                (history, present)
            }
        };
        // One that comes back ejected may be one too many.
        self.core.due.store(0, Relaxed);
        OutlierLayer::of(Arc::clone(&self.core), history, present)
    }

    /// Takes the endpoint `name` out until it is [restored](Self::restore), whatever the policy's limit;
    /// says whether there is one.
    #[must_use]
    pub fn eject(&self, name: &str) -> bool {
        self.core.steer(name, |known, events| {
            if !known.history.is_forced() {
                known.history.eject(None, Reason::Forced);
                events.push(known.ejected(Reason::Forced, None));
            }
        })
    }

    /// Puts the endpoint `name` back now; says whether it was out.
    #[must_use]
    pub fn restore(&self, name: &str) -> bool {
        let mut was_out = false;
        self.core.steer(name, |known, events| {
            was_out = known.history.restore(Instant::now(), true);
            if was_out {
                events.push(known.restored(true));
            }
        });
        was_out
    }

    /// The endpoints of the set, as they are now.
    #[must_use]
    pub fn status(&self) -> Vec<OutlierStatus> {
        let now = Instant::now();
        self.core.tick(now);
        let (_turn, state) = self.core.lock();
        // Whoever had the lock before may have put one out after another's time was over.
        let now = Instant::now();
        let present = state.endpoints.iter().filter(|known| known.is_present());
        present.map(|known| known.status(now)).collect()
    }

    /// How many endpoints of the set are out.
    #[must_use]
    pub fn ejected(&self) -> usize {
        let status = self.status();
        status.iter().filter(|one| one.ejected.is_some()).count()
    }

    /// All changes from now on. A reader that is more than 64 behind misses the oldest.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<OutlierEvent> {
        self.core.report.subscribe()
    }
}

impl fmt::Debug for OutlierDetector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutlierDetector")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Present {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Present")
    }
}

impl Known {
    fn ejected(&self, reason: Reason, time: Option<Duration>) -> OutlierEvent {
        OutlierEvent {
            endpoint: Arc::clone(&self.name),
            change: OutlierChange::Ejected { reason, time },
        }
    }

    fn restored(&self, early: bool) -> OutlierEvent {
        OutlierEvent {
            endpoint: Arc::clone(&self.name),
            change: OutlierChange::Restored { early },
        }
    }

    fn status(&self, now: Instant) -> OutlierStatus {
        let Tally { calls, failures } = self.history.tally();
        let is_out = self.history.is_ejected(now);
        let until = self.history.until().filter(|_| is_out);
        OutlierStatus {
            endpoint: Arc::clone(&self.name),
            ejected: is_out.then(|| self.history.reason()),
            remaining: until.map(|until| until.saturating_duration_since(now)),
            times: self.history.times(),
            calls,
            failures,
            consecutive_failures: self.history.in_a_row(),
        }
    }
}

impl Core {
    fn lock(&self) -> (MutexGuard<'_, ()>, MutexGuard<'_, State>) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (turn, state)
    }

    /// Asked by each call: whether there is something to do, which one of them does.
    pub(super) fn tick(&self, now: Instant) {
        if self.nanos(now) >= self.due.load(Relaxed) {
            self.settle(now);
        }
    }

    #[cold]
    fn settle(&self, now: Instant) {
        let mut events = Vec::new();
        let out = {
            let _turn = match self.turn.try_lock() {
                Ok(turn) => turn,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                // Somebody else is at it.
                Err(TryLockError::WouldBlock) => return,
            };
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.restore(now, &mut events);
            if now >= state.swept + self.policy.interval {
                state.sweep(&self.policy, now, &mut events);
            }
            state.make_room(&self.policy, now, &mut events);
            state.forget();
            self.due
                .store(self.nanos(state.next(&self.policy)), Relaxed);
            state.out()
        };
        self.report.tell(events, out);
    }

    /// An endpoint has failed as often in a row as makes it an outlier.
    #[cold]
    pub(super) fn failed_in_a_row(&self, history: &Arc<History>, limit: u32) {
        let now = Instant::now();
        let mut events = Vec::new();
        let out = {
            let (_turn, state) = self.lock();
            // Others may have come first, or a success since.
            if history.in_a_row() < limit {
                return;
            }
            // Whatever comes of it, the next look is after as many failures more.
            history.forget_row();
            state.restore(now, &mut events);
            let of = |known: &&Known| Arc::ptr_eq(&known.history, history);
            if let Some(known) = state.endpoints.iter().find(of).cloned() {
                state.eject(
                    &self.policy,
                    &known,
                    Reason::ConsecutiveFailures,
                    now,
                    &mut events,
                );
            }
            self.due
                .store(self.nanos(state.next(&self.policy)), Relaxed);
            state.out()
        };
        self.report.tell(events, out);
    }

    /// Does something to the endpoint `name`; says whether there is one.
    fn steer(&self, name: &str, act: impl FnOnce(&Known, &mut Vec<OutlierEvent>)) -> bool {
        let mut events = Vec::new();
        let out = {
            let (_turn, state) = self.lock();
            let mut present = state.endpoints.iter().filter(|known| known.is_present());
            let Some(known) = present.find(|known| *known.name == *name) else {
                return false;
            };
            act(known, &mut events);
            state.out()
        };
        self.report.tell(events, out);
        true
    }

    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

impl State {
    fn present(&self) -> impl Iterator<Item = &Known> {
        self.endpoints.iter().filter(|known| known.is_present())
    }

    /// How many are out.
    fn out(&self) -> usize {
        self.present().filter(|k| k.history.is_marked()).count()
    }

    /// Puts back whose time is over.
    fn restore(&self, now: Instant, events: &mut Vec<OutlierEvent>) {
        for known in &self.endpoints {
            if known.history.restore(now, false) && known.is_present() {
                events.push(known.restored(false));
            }
        }
    }

    /// Judges the rates of the time since the last sweep.
    fn sweep(&mut self, policy: &OutlierPolicy, now: Instant, events: &mut Vec<OutlierEvent>) {
        let before = std::mem::replace(&mut self.swept, now);
        let healthy = self.present().filter(|known| !known.history.is_marked());
        let healthy: Vec<_> = healthy.cloned().collect();
        let tallies: Vec<_> = healthy.iter().map(|k| k.history.take_tally()).collect();
        for (i, reason) in outliers(policy, &tallies) {
            self.eject(policy, &healthy[i], reason, now, events);
        }
        for known in &self.endpoints {
            if !known.history.is_marked() {
                known.history.healthy(before, now, policy.interval);
            }
        }
    }

    /// Takes an endpoint out if it is in the set and no more than may be are out afterwards.
    fn eject(
        &self,
        policy: &OutlierPolicy,
        known: &Known,
        reason: Reason,
        now: Instant,
        events: &mut Vec<OutlierEvent>,
    ) {
        let most = policy.most_ejected(self.present().count());
        if known.history.is_marked() || !known.is_present() || self.out() >= most {
            return;
        }
        let times = known.history.times().saturating_add(1);
        let time = policy.ejection(times, fastrand::f64());
        known.history.eject(now.checked_add(time), reason);
        events.push(known.ejected(reason, Some(time)));
    }

    /// Puts back those who have been out longest, if the set has become so small that too many are.
    fn make_room(&self, policy: &OutlierPolicy, now: Instant, events: &mut Vec<OutlierEvent>) {
        let most = policy.most_ejected(self.present().count());
        let out = self.present().filter(|known| known.history.is_marked());
        let mut out: Vec<_> = out.filter(|known| !known.history.is_forced()).collect();
        out.sort_by_key(|known| known.history.until());
        let too_many = out.len().saturating_sub(most);
        for known in out.into_iter().take(too_many) {
            if known.history.restore(now, true) {
                events.push(known.restored(true));
            }
        }
    }

    /// Forgets who has left and has nothing to be remembered for.
    fn forget(&mut self) {
        let mut gone = 0;
        self.endpoints.retain(|known| {
            if known.is_present() {
                return true;
            }
            gone += 1;
            let history = &known.history;
            gone <= MAX_GONE && (history.is_marked() || history.times() > 0)
        });
    }

    /// When there is something to do next.
    fn next(&self, policy: &OutlierPolicy) -> Instant {
        let ends = self.present().filter_map(|known| known.history.until());
        ends.fold(self.swept + policy.interval, Instant::min)
    }
}
