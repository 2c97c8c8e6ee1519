use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use tokio::time::Instant;

use super::policy::BreakerPolicy;
use super::window::Window;

/// The state of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// Calls are refused.
    Open,
    /// A few calls go through, to see whether the endpoint works again.
    HalfOpen,
}

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
    window: CachePadded<Window>,
    epoch: Instant,
    seed: u64,
}

/// What the word holds.
///
/// The generation counts the changes of state, so that what began in another one is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    generation: u32,
    circuit: Circuit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Circuit {
    /// With the failures since the last success.
    Closed { streak: u32 },
    /// For the `trips`-th time in a row.
    Open { trips: u8 },
    /// With permits out and successes seen.
    HalfOpen { trips: u8, out: u16, ok: u16 },
}

const GENERATIONS: u32 = (1 << 24) - 1;
const TRIPS: u8 = 63;

impl Word {
    // state:2 | generation:24 | trips:6 | out:16 | ok:16, with the streak in the place of the last two.
    fn pack(self) -> u64 {
        let (state, trips, low) = match self.circuit {
            Circuit::Closed { streak } => (0, 0, streak),
            Circuit::Open { trips } => (1, trips, 0),
            Circuit::HalfOpen { trips, out, ok } => {
                (2, trips, u32::from(out) << 16 | u32::from(ok))
            }
        };
        let state: u64 = state << 62;
        state | u64::from(self.generation) << 38 | u64::from(trips) << 32 | u64::from(low)
    }

    fn unpack(word: u64) -> Self {
        let low = word as u32;
        let trips = (word >> 32) as u8 & TRIPS;
        Self {
            generation: (word >> 38) as u32 & GENERATIONS,
            circuit: match word >> 62 {
                0 => Circuit::Closed { streak: low },
                1 => Circuit::Open { trips },
                _ => Circuit::HalfOpen {
                    trips,
                    out: (low >> 16) as u16,
                    ok: low as u16,
                },
            },
        }
    }

    const fn then(self, circuit: Circuit) -> Self {
        Self {
            generation: (self.generation + 1) & GENERATIONS,
            circuit,
        }
    }

    const fn with(self, circuit: Circuit) -> Self {
        Self { circuit, ..self }
    }

    fn opened(self, trips: u8) -> Self {
        self.then(Circuit::Open {
            trips: (trips + 1).min(TRIPS),
        })
    }
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
            window: CachePadded::new(Window::new()),
            epoch: Instant::now(),
            seed: fastrand::u64(..),
        }
    }

    /// Another history that begins as this one is. Half-open becomes open, for permits that are out
    /// do not come back to a copy.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut word = self.load();
        if let Circuit::HalfOpen { trips, .. } = word.circuit {
            word.circuit = Circuit::Open { trips };
        }
        Self {
            word: CachePadded::new(word.pack().into()),
            since: self.since.load(Ordering::Relaxed).into(),
            window: CachePadded::new(self.window.copy()),
            epoch: self.epoch,
            seed: self.seed,
        }
    }

    /// The state of the circuit. It is half-open from the first call that is let in after the open
    /// time.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        match self.load().circuit {
            Circuit::Closed { .. } => BreakerState::Closed,
            Circuit::Open { .. } => BreakerState::Open,
            Circuit::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// How often the state has changed. It starts again at zero after 2^24 changes.
    #[must_use]
    pub fn changes(&self) -> u32 {
        self.load().generation
    }

    /// Whether a call would be let in.
    pub(super) fn is_available(&self, policy: &BreakerPolicy, now: Instant) -> bool {
        let word = self.load();
        match word.circuit {
            Circuit::Closed { .. } => true,
            Circuit::HalfOpen { out, ok, .. }
                if out.saturating_add(ok) < policy.success_threshold =>
            {
                true
            }
            Circuit::Open { trips } | Circuit::HalfOpen { trips, .. } => {
                self.wait(policy, word.generation, trips, self.nanos(now)) == 0
            }
        }
    }

    /// How long the circuit is still open.
    pub(super) fn retry_after(&self, policy: &BreakerPolicy, now: Instant) -> Option<Duration> {
        let word = self.load();
        let Circuit::Open { trips } = word.circuit else {
            return None;
        };
        let wait = self.wait(policy, word.generation, trips, self.nanos(now));
        Some(Duration::from_nanos(wait))
    }

    pub(super) fn admit(&self, policy: &BreakerPolicy) -> Admission {
        let word = self.load();
        if let Circuit::Closed { .. } = word.circuit {
            if policy.failure_rate.is_some() {
                self.window.set_length(policy.window);
            }
            return Ok(word.generation);
        }
        // The call's own time stamp is not used here: the call may have waited since.
        self.admit_probe(policy, self.nanos(Instant::now()))
    }

    fn admit_probe(&self, policy: &BreakerPolicy, now: u64) -> Admission {
        let mut refusal = None;
        self.update(|word| {
            let (trips, wait) = match word.circuit {
                Circuit::Closed { .. } => return Some(word),
                Circuit::HalfOpen { trips, out, ok }
                    if out.saturating_add(ok) < policy.success_threshold =>
                {
                    let out = out + 1;
                    return Some(word.with(Circuit::HalfOpen { trips, out, ok }));
                }
                Circuit::Open { trips } | Circuit::HalfOpen { trips, .. } => {
                    (trips, self.wait(policy, word.generation, trips, now))
                }
            };
            let open = matches!(word.circuit, Circuit::Open { .. });
            if wait > 0 {
                refusal = open.then(|| Duration::from_nanos(wait));
                return None;
            }
            self.since.fetch_max(now, Ordering::AcqRel);
            let out = 1;
            Some(match word.circuit {
                // Probes that take longer than the circuit was open no longer hold their permits,
                // or an endpoint that swallows them would hold it half-open. How they end counts.
                Circuit::HalfOpen { ok, .. } => word.with(Circuit::HalfOpen { trips, out, ok }),
                _ => word.then(Circuit::HalfOpen { trips, out, ok: 0 }),
            })
        })
        .map(|word| word.generation)
        .ok_or(refusal)
    }

    /// A call that was let in under `generation` ended well.
    pub(super) fn succeeded(&self, policy: &BreakerPolicy, generation: u32) {
        let word = self.load();
        if word.generation != generation {
            return;
        }
        if let Circuit::Closed { streak } = word.circuit {
            if policy.failure_rate.is_some() {
                self.window.record(self.nanos(Instant::now()), false);
            }
            if streak == 0 {
                return;
            }
        }
        self.update(|word| {
            if word.generation != generation {
                return None;
            }
            match word.circuit {
                Circuit::Closed { streak: 0 } | Circuit::Open { .. } => None,
                Circuit::Closed { .. } => Some(word.with(Circuit::Closed { streak: 0 })),
                Circuit::HalfOpen { ok, .. } if ok + 1 >= policy.success_threshold => {
                    self.window.clear();
                    Some(word.then(Circuit::Closed { streak: 0 }))
                }
                Circuit::HalfOpen { trips, out, ok } => Some(word.with(Circuit::HalfOpen {
                    trips,
                    out: out.saturating_sub(1),
                    ok: ok + 1,
                })),
            }
        });
    }

    /// A call that was let in under `generation` failed.
    pub(super) fn failed(&self, policy: &BreakerPolicy, generation: u32) {
        if self.load().generation != generation {
            return;
        }
        let now = self.nanos(Instant::now());
        let rate_is_high = policy.failure_rate.is_some_and(|rate| {
            self.window.record(now, true);
            let (failed, all) = self.window.sums();
            all >= u64::from(policy.min_requests) && failed as f64 >= rate * all as f64
        });
        self.update(|word| {
            if word.generation != generation {
                return None;
            }
            let trips = match word.circuit {
                Circuit::Open { .. } => return None,
                Circuit::HalfOpen { trips, .. } => trips,
                Circuit::Closed { streak } => {
                    let streak = streak.saturating_add(1);
                    let row_is_long = policy.consecutive_failures.is_some_and(|n| streak >= n);
                    if !row_is_long && !rate_is_high {
                        return Some(word.with(Circuit::Closed { streak }));
                    }
                    0
                }
            };
            self.since.fetch_max(now, Ordering::AcqRel);
            Some(word.opened(trips))
        });
    }

    /// A call that was let in under `generation` said nothing about the endpoint.
    pub(super) fn ignored(&self, generation: u32) {
        self.update(|word| match word.circuit {
            Circuit::HalfOpen { trips, out, ok } if word.generation == generation => {
                let out = out.saturating_sub(1);
                Some(word.with(Circuit::HalfOpen { trips, out, ok }))
            }
            _ => None,
        });
    }

    fn load(&self) -> Word {
        Word::unpack(self.word.load(Ordering::Acquire))
    }

    /// Puts what `next` makes of the word in its place; nothing if that is `None`.
    fn update(&self, mut next: impl FnMut(Word) -> Option<Word>) -> Option<Word> {
        let mut old = self.word.load(Ordering::Acquire);
        loop {
            let new = next(Word::unpack(old))?;
            match self.word.compare_exchange_weak(
                old,
                new.pack(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some(new),
                Err(current) => old = current,
            }
        }
    }

    /// Nanoseconds from `now` to the end of an open time.
    fn wait(&self, policy: &BreakerPolicy, generation: u32, trips: u8, now: u64) -> u64 {
        // The same chance for all who look at one opening.
        let mix = (self.seed ^ u64::from(generation)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let draw = (mix >> 11) as f64 / (1_u64 << 53) as f64;
        let open = nanos(policy.open_time(trips, draw));
        let until = self.since.load(Ordering::Acquire).saturating_add(open);
        until.saturating_sub(now)
    }

    fn nanos(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.epoch))
    }
}

impl Default for BreakerHistory {
    fn default() -> Self {
        Self::new()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_the_same_after_packing() {
        for circuit in [
            Circuit::Closed { streak: u32::MAX },
            Circuit::Open { trips: TRIPS },
            Circuit::HalfOpen {
                trips: 5,
                out: u16::MAX,
                ok: 7,
            },
        ] {
            for generation in [0, 1, GENERATIONS] {
                let word = Word {
                    generation,
                    circuit,
                };
                assert_eq!(Word::unpack(word.pack()), word);
            }
        }
    }
}
