//! What one call says about the node.

use std::error::Error as StdError;
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use tokio::time::Instant;
use tower_plugins_layers::classify::{ClassifyPolicy, Reading};
use tower_plugins_layers::deadline::is_stream;
use tower_plugins_layers::{CallContext, Classify, End, FallbackUsed, Outcome, Reason, Refused};

use super::Score;

/// A call that is to be counted when it is over. Dropped, it is not: its caller has gone away.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Begun {
    at: Instant,
    reading: Reading,
    /// Of a stream, how long its head took.
    head: Option<Duration>,
}

// Out of line: a call that nobody keeps score of is to be as small as without it, or the layers around it are not inlined.
impl Score {
    #[inline(never)]
    pub(in super::super) fn begin<B>(&self, request: &Request<B>) -> Begun {
        Begun {
            at: CallContext::now(request.extensions()),
            reading: Reading::of_caller(self.deadline.caller_waits(request)),
            head: None,
        }
    }

    /// Its response is here; a body of `None` has ended. Gives the call back unless it is over, or what follows of its
    /// body says nothing more.
    #[inline(never)]
    pub(in super::super) fn head<B>(
        &self,
        mut call: Begun,
        response: &Response<Option<B>>,
    ) -> Option<Begun> {
        let outcome = match response.extensions().get() {
            Some(FallbackUsed(reason)) => {
                Some(call.reading.error(&self.judged, &Refused::new(*reason)))
            }
            None => call.reading.head(&self.judged, response),
        };
        if let Some(outcome) = outcome {
            self.over(call, outcome);
            return None;
        }
        if response.body().is_none() {
            self.end(call, &End::Complete(None));
            return None;
        }
        if is_stream(response) {
            call.head = Some(call.at.elapsed());
        }
        Some(call)
    }

    /// Its body has ended.
    #[inline(never)]
    pub(in super::super) fn end(&self, call: Begun, end: &End<'_>) {
        self.over(call, call.reading.end(&self.judged, end));
    }

    /// An error came in place of its response.
    #[inline(never)]
    pub(in super::super) fn failed(&self, call: Begun, error: &(dyn StdError + 'static)) {
        self.over(call, call.reading.error(&self.judged, error));
    }

    fn over(&self, call: Begun, outcome: Outcome) {
        let now = Instant::now();
        let took = now.saturating_duration_since(call.at);
        self.record(outcome, call.head.unwrap_or(took), now);
    }
}

/// As a breaker judges an endpoint, but for refusals: what is refused because of the plugin is its failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged(pub(super) ClassifyPolicy);

impl Classify for Judged {
    fn head(&self, status: StatusCode, headers: &HeaderMap) -> Option<Outcome> {
        self.0.head(status, headers)
    }

    fn end(&self, end: &End<'_>) -> Outcome {
        match end {
            End::Error(error) => self.error(*error),
            end => self.0.end(end),
        }
    }

    fn error(&self, error: &(dyn StdError + 'static)) -> Outcome {
        match Reason::of(error) {
            Some(
                Reason::RateLimited
                | Reason::ConcurrencyLimited
                | Reason::Shed
                | Reason::Draining
                | Reason::DrainCancelled
                | Reason::Unauthenticated
                | Reason::Forbidden
                | Reason::RequestBroken
                | Reason::RequestTooLarge
                | Reason::UpgradeUnsupported,
            ) => Outcome::Ignored,
            _ => Outcome::Failure,
        }
    }
}
