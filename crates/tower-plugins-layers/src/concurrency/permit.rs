use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tokio::time::Instant;

use super::Bulkhead;
use super::adaptive::Sample;
use crate::classify::{HttpGrpc, Outcome, Reading};
use crate::{CallContext, End, OnEnd};

/// A place in a [`Bulkhead`], given back when dropped.
#[derive(Debug)]
pub struct Permit {
    bulkhead: Arc<Bulkhead>,
    call: Call,
    /// When the call is cut by its deadline, in nanoseconds since the bulkhead's origin.
    cut: u64,
}

/// How far a call is that a limit learns from; times in nanoseconds.
#[derive(Debug)]
enum Call {
    /// The limit does not learn, or has.
    Over,
    /// Since then no head.
    Begun(u64, Reading),
    /// The head came after so long, and did not decide.
    Head(u64, Reading),
}

impl Permit {
    pub(super) fn new(bulkhead: &Arc<Bulkhead>) -> Self {
        Self {
            bulkhead: Arc::clone(bulkhead),
            call: Call::Over,
            cut: u64::MAX,
        }
    }

    /// The call begins, for a limit that learns from it.
    pub(super) fn begin(&mut self, (deadline, reading): (Option<Instant>, Reading)) {
        if self.bulkhead.adapts() {
            self.call = Call::Begun(self.since(Instant::now()), reading);
            self.cut = deadline.map_or(u64::MAX, |at| self.since(at));
        }
    }

    /// When the call with `request` is cut, and whether that says anything.
    pub(super) fn deadline<B>(request: &Request<B>) -> (Option<Instant>, Reading) {
        let context = CallContext::of(request);
        let deadline = context.and_then(|context| context.judged().0);
        (deadline, Reading::of(request))
    }

    fn since(&self, at: Instant) -> u64 {
        let time = at.saturating_duration_since(self.bulkhead.origin);
        u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn head<B>(&mut self, response: &Response<B>) {
        let Call::Begun(since, mut reading) = self.call else {
            return;
        };
        let outcome = reading.head(&HttpGrpc, response);
        self.call = Call::Head(self.since(Instant::now()).saturating_sub(since), reading);
        if let Some(outcome) = outcome {
            self.learn(outcome);
        }
    }

    fn learn(&mut self, outcome: Outcome) {
        let call = std::mem::replace(&mut self.call, Call::Over);
        let sample = match (outcome, call) {
            (_, Call::Over) | (Outcome::Ignored, _) => return,
            (Outcome::Success, Call::Head(latency, _)) => {
                Sample::Success(Duration::from_nanos(latency))
            }
            // Without a head there is nothing but an error.
            (Outcome::Success, Call::Begun(..)) => return,
            (Outcome::Failure | Outcome::Overloaded, _) => Sample::Drop,
        };
        self.bulkhead.observe(sample);
    }
}

impl OnEnd for Permit {
    fn on_end(mut self, end: End<'_>) {
        if let Call::Begun(_, reading) | Call::Head(_, reading) = self.call {
            self.learn(reading.end(&HttpGrpc, &end));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        match self.call {
            // Given up: by its deadline, or after it had time enough.
            Call::Begun(since, _) => {
                let now = self.since(Instant::now());
                let timeout = self.bulkhead.timeout();
                if now >= self.cut || Duration::from_nanos(now - since.min(now)) > timeout {
                    self.learn(Outcome::Failure);
                }
            }
            Call::Head(..) | Call::Over => {}
        }
        self.bulkhead.release();
    }
}
