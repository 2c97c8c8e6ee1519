//! What became of a node's calls, for whoever judges it after a change.
//!
//! Nothing is kept until somebody asks for it: until then a call costs one branch. A call counts once, when it is over:
//!
//! | a call | is |
//! | --- | --- |
//! | whose status, gRPC code or end is a failure by the plugin's own `circuit_breaker`, else as breakers have it by default | a failure |
//! | that had an error for an answer, or a fallback because of one | a failure, but for those below |
//! | refused here because of what the plugin did or lacks: `breaker_open`, `no_endpoint`, `pool_exhausted`, `retry_budget`, `filter_failed`, `credentials_failed` | a failure: a breaker that opens must not hide why |
//! | refused here as it was meant to be: `rate_limited`, `concurrency_limited`, `shed`, `draining`, `drain_cancelled`, `unauthenticated`, `forbidden` | not counted |
//! | that its caller spoilt: `request_broken`, `request_too_large`, `upgrade_unsupported`, gRPC's `CANCELLED`; or whose caller went away, or had set itself less than 100 ms | not counted |
//! | answered otherwise, by 429 too | a success, with the time it took: to the end of the body, and of a stream to its head |

mod call;
mod tally;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tower_plugins_layers::{DeadlineLayer, Outcome};

pub(super) use self::call::Begun;
use self::call::Judged;
pub(crate) use self::tally::Tally;
use self::tally::{BUCKETS, bucket};
use super::{Node, stack};
use crate::config::Policy;

impl Node {
    /// Keeps score of its calls from now on, if it does not yet: of those that begin after this.
    pub(crate) fn keep_score(&self) {
        self.score
            .get_or_init(|| Box::new(Score::of(&self.spec.policy)));
    }

    /// What became of its calls since it [keeps score](Self::keep_score); `None` if it does not.
    pub(crate) fn tally(&self) -> Option<Tally> {
        self.score.get().map(|score| score.tally())
    }

    /// The same of the last one to two minutes, or since it keeps score if that is less. Unlike a tally it does not only
    /// grow.
    pub(crate) fn recent(&self) -> Option<Tally> {
        self.score.get().map(|score| score.recent())
    }
}

/// How long it takes until calls are no longer recent, once or twice over.
const TURN: Duration = Duration::from_secs(60);

/// Cores that count beside each other; 2 KiB each.
const SHARDS: usize = 4;

/// Counts the calls of a node, from when it was made. About 12 KiB.
#[derive(Debug)]
pub(super) struct Score {
    judged: Judged,
    /// Knows how long callers wait.
    deadline: DeadlineLayer,
    shards: [Shard; SHARDS],
    begun: Instant,
    /// The number of the minute in which the last call ended.
    turn: AtomicU64,
    /// What there was when that minute began, and the one before it.
    before: Mutex<[Tally; 2]>,
}

/// Not on one cache line with another.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    failures: AtomicU64,
    took: [AtomicU64; BUCKETS],
}

thread_local! {
    static SHARD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Relaxed) % SHARDS
    };
}

impl Score {
    /// Takes for failures what the breakers of `policy` do.
    fn of(policy: &Policy) -> Self {
        Self {
            judged: Judged(stack::failures(policy)),
            deadline: stack::deadline(policy),
            shards: [const {
                Shard {
                    failures: AtomicU64::new(0),
                    took: [const { AtomicU64::new(0) }; BUCKETS],
                }
            }; SHARDS],
            begun: Instant::now(),
            turn: AtomicU64::new(0),
            before: Mutex::new([Tally::new(), Tally::new()]),
        }
    }

    /// All calls there were.
    pub(super) fn tally(&self) -> Tally {
        let mut tally = Tally::new();
        for shard in &self.shards {
            tally.failures += shard.failures.load(Relaxed);
            for (sum, count) in tally.took.iter_mut().zip(&shard.took) {
                *sum += count.load(Relaxed);
            }
        }
        tally
    }

    /// Those of this minute and of the one before it, which are counted from when the score was made.
    pub(super) fn recent(&self) -> Tally {
        self.turn_at(Instant::now());
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        self.tally().since(&before[1])
    }

    fn record(&self, outcome: Outcome, took: Duration, now: Instant) {
        self.turn_at(now);
        let shard = &self.shards[SHARD.with(|shard| *shard)];
        let count = match outcome {
            Outcome::Ignored => return,
            Outcome::Failure => &shard.failures,
            Outcome::Success | Outcome::Overloaded => &shard.took[bucket(took)],
        };
        count.fetch_add(1, Relaxed);
    }

    /// The first to find a new minute keeps what there was when it began: nothing has been counted since.
    fn turn_at(&self, now: Instant) {
        let turn = now.saturating_duration_since(self.begun).as_secs() / TURN.as_secs();
        let last = self.turn.load(Relaxed);
        if turn <= last
            || self
                .turn
                .compare_exchange(last, turn, Relaxed, Relaxed)
                .is_err()
        {
            return;
        }
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.tally();
        let [this, last_but_one] = &mut *before;
        let then = std::mem::replace(this, now);
        *last_but_one = if turn - last == 1 { then } else { this.clone() };
    }
}
