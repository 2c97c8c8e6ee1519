use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use tokio::time::Instant;

use super::count::CountWindow;
use super::events::{Events, Transition};
use super::layer::Circuit;
use super::policy::{BreakerPolicy, nanos};
use super::window::{Sums, Window};
use super::word::{State, Word};
use super::{BreakerSnapshot, BreakerState};
use crate::Reason;

/// What a circuit remembers: its state, and the failures that led to it. Thresholds are the
/// [`BreakerPolicy`]'s, so that a new policy may judge by an old history.
#[derive(Debug)]
pub struct BreakerHistory {
    /// All that admission and judgement decide by, packed so that each decision is one exchange. Away
    /// from the window, which every call may write.
    word: CachePadded<AtomicU64>,
    /// When the circuit opened or half-opened. Written before the word, and only forwards: who finds
    /// a stamp that is too new for its word waits a moment too long, or loses its exchange.
    since: AtomicU64,
    /// Until when the endpoint asks to be left alone.
    asked: AtomicU64,
    window: CachePadded<Window>,
    /// The window of calls that was in use last.
    count: Mutex<Option<Arc<CountWindow>>>,
    events: Events,
    epoch: Instant,
    seed: u64,
}

/// How a call ended that says something about the endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ended {
    pub(super) failed: bool,
    pub(super) slow: bool,
    /// How long the endpoint asks to be left alone.
    pub(super) asked: Option<Duration>,
}

/// Whether a call may go through: with the generation its outcome counts in, or else with the time
/// after which another may.
pub(super) type Admission = Result<u32, Option<Duration>>;

impl BreakerHistory {
    /// The history of an endpoint that was never called: closed.
    #[must_use]
    pub fn new() -> Self {
        Self {
            word: CachePadded::new(AtomicU64::new(0)),
            since: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            window: CachePadded::new(Window::new()),
            count: Mutex::default(),
            events: Events::default(),
            epoch: Instant::now(),
            seed: fastrand::u64(..),
        }
    }

    /// Another history that begins as this one is. Half-open becomes open, for permits that are out
    /// do not come back to a copy.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut word = self.load();
        if let State::HalfOpen { trips, .. } = word.state {
            word.state = State::Open { trips };
        }
        let count = self
            .count_window()
            .as_ref()
            .map(|count| Arc::new(count.copy()));
        Self {
            word: CachePadded::new(word.pack().into()),
            since: self.since.load(Ordering::Relaxed).into(),
            asked: self.asked.load(Ordering::Relaxed).into(),
            window: CachePadded::new(self.window.copy()),
            count: Mutex::new(count),
            events: Events::default(),
            epoch: self.epoch,
            seed: self.seed,
        }
    }

    /// The state of the circuit, forced or not. It is half-open from the first call that is let in after the open
    /// time.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.load().state.seen()
    }

    /// How often the state has changed. It starts again at zero after 2^24 changes.
    #[must_use]
    pub fn changes(&self) -> u32 {
        self.load().generation
    }

    /// Whether a call would be let in.
    pub(super) fn is_available(&self, policy: &BreakerPolicy, now: Instant) -> bool {
        let word = self.load();
        match word.state {
            State::Closed { .. } => true,
            State::Forced { open } => !open,
            State::HalfOpen { out, ok, .. } if has_permit(policy, out, ok) => true,
            State::Open { .. } | State::HalfOpen { .. } => {
                self.wait(policy, word, self.nanos(now)) == 0
            }
        }
    }

    /// How long the circuit is still open.
    pub(super) fn retry_after(&self, policy: &BreakerPolicy, now: Instant) -> Option<Duration> {
        let word = self.load();
        matches!(word.state, State::Open { .. })
            .then(|| Duration::from_nanos(self.wait(policy, word, self.nanos(now))))
    }

    pub(super) fn admit(&self, policy: &BreakerPolicy) -> Admission {
        let word = self.load();
        if let State::Closed { .. } = word.state {
            if policy.judges_time() {
                self.window.set_length(policy.window);
            }
            return Ok(word.generation);
        }
        // The call's own time stamp is not used here: the call may have waited since.
        let now = self.nanos(Instant::now());
        if let State::Open { .. } = word.state {
            let wait = self.wait(policy, word, now);
            if wait > 0 {
                return Err(Some(Duration::from_nanos(wait)));
            }
        }
        self.admit_probe(policy, now)
    }

    #[cold]
    fn admit_probe(&self, policy: &BreakerPolicy, now: u64) -> Admission {
        let mut refusal = None;
        let (_, word) = self
            .update(None, |word| {
                let (trips, ok) = match word.state {
                    State::Closed { .. } | State::Forced { open: false } => return Some(word),
                    State::Forced { open: true } => return None,
                    State::HalfOpen { trips, out, ok } if has_permit(policy, out, ok) => {
                        let out = out + 1;
                        return Some(word.with(State::HalfOpen { trips, out, ok }));
                    }
                    State::Open { trips } => (trips, 0),
                    State::HalfOpen { trips, ok, .. } => (trips, ok),
                };
                let open = matches!(word.state, State::Open { .. });
                let wait = self.wait(policy, word, now);
                if wait > 0 {
                    refusal = open.then(|| Duration::from_nanos(wait));
                    return None;
                }
                self.since.fetch_max(now, Ordering::AcqRel);
                let probing = State::HalfOpen { trips, out: 1, ok };
                // Probes that take longer than the circuit was open no longer hold their permits,
                // or an endpoint that swallows them would hold it half-open. How they end counts.
                Some(if open {
                    word.then(probing)
                } else {
                    word.with(probing)
                })
            })
            .ok_or(refusal)?;
        Ok(word.generation)
    }

    /// A call that was let in under `generation` ended.
    pub(super) fn ended(&self, circuit: &Circuit, generation: u32, end: Ended) {
        let word = self.load();
        if word.generation != generation {
            return;
        }
        let Circuit { policy, count, .. } = circuit;
        if let State::Closed { streak } = word.state {
            if policy.judges_rates() {
                match count {
                    Some(count) => count.record(end.failed, end.slow),
                    None => {
                        let now = self.nanos(Instant::now());
                        self.window.record(now, end.failed, end.slow);
                    }
                }
            }
            if streak == 0 && !end.failed && !end.slow {
                return;
            }
        }
        self.judge(circuit, word, end);
    }

    /// What was counted may change the state, which was `word`.
    fn judge(&self, circuit: &Circuit, word: Word, end: Ended) {
        let policy = &circuit.policy;
        let now = || self.nanos(Instant::now());
        let is_closed = matches!(word.state, State::Closed { .. });
        let rate = if is_closed && (end.failed || end.slow) {
            policy.rate_too_high(self.sums(circuit), end.failed, end.slow)
        } else {
            None
        };
        if let (true, Some(asked)) = (end.failed, end.asked) {
            let until = now().saturating_add(nanos(asked));
            self.asked.fetch_max(until, Ordering::AcqRel);
        }
        let generation = word.generation;
        let mut reason = None;
        self.update_for(&mut reason, |word, reason| {
            if word.generation != generation {
                return None;
            }
            let next = judge(policy, word, end, rate)?;
            *reason = next.reason;
            if next.word.generation != word.generation {
                self.since.fetch_max(now(), Ordering::AcqRel);
                if let State::Closed { .. } = next.word.state {
                    self.forget(circuit);
                }
            }
            Some(next.word)
        });
    }

    fn sums(&self, circuit: &Circuit) -> Sums {
        match &circuit.count {
            Some(count) => count.sums(),
            None => self.window.sums(),
        }
    }

    fn forget(&self, circuit: &Circuit) {
        self.window.clear();
        if let Some(count) = &circuit.count {
            count.clear();
        }
    }

    /// A call that was let in under `generation` said nothing about the endpoint.
    pub(super) fn ignored(&self, generation: u32) {
        self.update(None, |word| match word.state {
            State::HalfOpen { trips, out, ok } if word.generation == generation => {
                let out = out.saturating_sub(1);
                Some(word.with(State::HalfOpen { trips, out, ok }))
            }
            _ => None,
        });
    }

    fn load(&self) -> Word {
        Word::unpack(self.word.load(Ordering::Acquire))
    }

    /// Puts what `next` makes of the word in its place; nothing if that is `None`. A change of state has
    /// `reason`.
    fn update(
        &self,
        mut reason: Option<Reason>,
        mut next: impl FnMut(Word) -> Option<Word>,
    ) -> Option<(Word, Word)> {
        self.update_for(&mut reason, |word, _| next(word))
    }

    fn update_for(
        &self,
        reason: &mut Option<Reason>,
        mut next: impl FnMut(Word, &mut Option<Reason>) -> Option<Word>,
    ) -> Option<(Word, Word)> {
        let mut old = self.word.load(Ordering::Acquire);
        loop {
            let word = Word::unpack(old);
            let new = next(word, reason)?;
            match self.word.compare_exchange_weak(
                old,
                new.pack(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    if word.generation != new.generation {
                        self.events.tell(Transition {
                            from: word.state.seen(),
                            to: new.state.seen(),
                            reason: *reason,
                            change: new.generation,
                        });
                    }
                    return Some((word, new));
                }
                Err(current) => old = current,
            }
        }
    }

    /// Nanoseconds from `now` to the end of an open time.
    fn wait(&self, policy: &BreakerPolicy, word: Word, now: u64) -> u64 {
        let (trips, asked) = match word.state {
            State::Open { trips } => (trips, self.asked.load(Ordering::Acquire)),
            State::HalfOpen { trips, .. } => (trips, 0),
            State::Closed { .. } | State::Forced { .. } => return 0,
        };
        // The same chance for all who look at one opening.
        let mix = (self.seed ^ u64::from(word.generation)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let draw = (mix >> 11) as f64 / (1_u64 << 53) as f64;
        let open = policy.open_nanos(trips, draw);
        let until = self.since.load(Ordering::Acquire).saturating_add(open);
        until.max(asked).saturating_sub(now)
    }

    /// The window of the last `calls` calls: the one in use, if it is as long, or a new one.
    pub(super) fn count_of(&self, calls: u32) -> Arc<CountWindow> {
        let mut count = self.count_window();
        match &*count {
            Some(count) if count.len() == calls as usize => Arc::clone(count),
            _ => Arc::clone(count.insert(Arc::new(CountWindow::new(calls)))),
        }
    }

    fn count_window(&self) -> std::sync::MutexGuard<'_, Option<Arc<CountWindow>>> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) const fn events(&self) -> &Events {
        &self.events
    }

    /// Keeps the circuit open or closed, whatever the calls, until it is reset.
    pub(super) fn force(&self, open: bool) {
        let now = self.nanos(Instant::now());
        self.since.fetch_max(now, Ordering::AcqRel);
        self.update(Some(Reason::Forced), |word| {
            (word.state != State::Forced { open }).then(|| word.then(State::Forced { open }))
        });
    }

    /// Closes the circuit and forgets all that was counted.
    pub(super) fn reset(&self, circuit: &Circuit) {
        let now = self.nanos(Instant::now());
        self.since.fetch_max(now, Ordering::AcqRel);
        self.forget(circuit);
        self.asked.store(0, Ordering::Release);
        self.update(Some(Reason::Forced), |word| {
            let closed = State::Closed { streak: 0 };
            (word.state != closed).then(|| word.then(closed))
        });
    }

    pub(super) fn snapshot(&self, circuit: &Circuit, now: Instant) -> BreakerSnapshot {
        let word = self.load();
        let sums = self.sums(circuit);
        let since = self.since.load(Ordering::Acquire);
        let (streak, trips, probes) = match word.state {
            State::Closed { streak } => (streak, 0, 0),
            State::Open { trips } => (0, trips, 0),
            State::HalfOpen { trips, out, .. } => (0, trips, out),
            State::Forced { .. } => (0, 0, 0),
        };
        BreakerSnapshot {
            state: word.state.seen(),
            forced: matches!(word.state, State::Forced { .. }),
            lasted: Duration::from_nanos(self.nanos(now).saturating_sub(since)),
            changes: word.generation,
            calls: sums.calls,
            failures: sums.failed,
            slow: sums.slow,
            failures_in_a_row: streak,
            opened_in_a_row: trips.into(),
            probes,
            retry_after: self.retry_after(&circuit.policy, now),
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.epoch))
    }
}

const fn has_permit(policy: &BreakerPolicy, out: u16, ok: u16) -> bool {
    out.saturating_add(ok) < policy.success_threshold
}

/// What a call's end makes of the word.
struct Next {
    word: Word,
    reason: Option<Reason>,
}

/// `rate` is the reason, if a share in the window has become too large.
fn judge(policy: &BreakerPolicy, word: Word, end: Ended, rate: Option<Reason>) -> Option<Next> {
    let stays = |state| {
        Some(Next {
            word: word.with(state),
            reason: None,
        })
    };
    let opens = |trips, reason| {
        Some(Next {
            word: word.opened(trips),
            reason: Some(reason),
        })
    };
    match word.state {
        State::Open { .. } | State::Forced { .. } => None,
        State::Closed { streak } => {
            let streak = if end.failed {
                streak.saturating_add(1)
            } else {
                0
            };
            if policy.consecutive_failures.is_some_and(|n| streak >= n) {
                return opens(0, Reason::ConsecutiveFailures);
            }
            match rate {
                Some(reason) => opens(0, reason),
                None if word.state == (State::Closed { streak }) => None,
                None => stays(State::Closed { streak }),
            }
        }
        State::HalfOpen { trips, .. } if end.failed || end.slow => {
            opens(trips, Reason::ProbeFailed)
        }
        State::HalfOpen { ok, .. } if ok + 1 >= policy.success_threshold => Some(Next {
            word: word.then(State::Closed { streak: 0 }),
            reason: None,
        }),
        State::HalfOpen { trips, out, ok } => stays(State::HalfOpen {
            trips,
            out: out.saturating_sub(1),
            ok: ok + 1,
        }),
    }
}

impl Default for BreakerHistory {
    fn default() -> Self {
        Self::new()
    }
}
