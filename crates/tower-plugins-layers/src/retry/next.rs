//! Whether there is another attempt after one that failed, and whether it was made.

use std::ops::Deref;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Body;
use tokio::time::Instant;

use super::budget::{Reserved, Withdrawal};
use super::call::{Call, Outcome, Saved, is_out_of_budget, is_unsent};
use super::replay::Lost;
use super::verdict::{Retryable, Verdict};
use super::{ReplayBody, RetryPolicy};
use crate::{BoxError, Unsent};

/// What comes next after an attempt that failed.
pub(super) struct Next<B, RB: Body> {
    pub(super) request: Request<ReplayBody<B>>,
    pub(super) wait: Duration,
    pub(super) reserved: Reserved,
    /// What the call ends in if the attempt is not made.
    pub(super) last: Option<Outcome<RB>>,
}

/// A request for another attempt, and what the call ends in without it.
type Again<B, RB> = (Request<ReplayBody<B>>, Option<Outcome<RB>>);

impl<S, B, P> Call<S, B, P>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    P: Deref<Target = RetryPolicy>,
{
    /// Whether the policy has another retry.
    pub(super) fn has_more(&self) -> bool {
        self.retries < self.policy.max_retries
    }

    /// The next attempt's request and how long to wait before it, or the outcome as it is if rules,
    /// budgets, deadline or replay size say no.
    #[expect(clippy::result_large_err, reason = "the outcome as it came")]
    pub(super) fn next_attempt<RB: Body>(
        &mut self,
        outcome: Outcome<RB>,
        verdict: Verdict,
    ) -> Result<Next<B, RB>, Outcome<RB>> {
        // The retry that led to this outcome is over.
        self.withdrawal = None;
        let Verdict::Retryable(retryable) = verdict else {
            return Err(outcome);
        };
        let may_repeat = match self.saved {
            Saved::Never => false,
            Saved::Forbidden => is_unsent::<B, RB>(&outcome),
            Saved::TooLarge | Saved::Kept(_) => true,
        };
        if !may_repeat || !self.has_more() {
            return Err(outcome);
        }
        let now = Instant::now();
        let reserved = if self.picked.is_exhausted() {
            None
        } else {
            self.policy.budget.reserve(now)
        };
        let Some(reserved) = reserved else {
            self.policy.meter.refused();
            return Err(outcome);
        };
        let wait = self.wait_before(&retryable);
        let in_time = self
            .deadline
            .is_none_or(|deadline| deadline.saturating_duration_since(now) > wait);
        if !in_time {
            return Err(outcome);
        }
        let (request, last) = self.request_again(outcome)?;
        self.retries += 1;
        self.waited = wait;
        self.begins = Some(retryable.reason);
        Ok(Next {
            request,
            wait,
            reserved,
            last,
        })
    }

    /// The retry that was `reserved` begins.
    pub(super) fn begin_retry(
        &mut self,
        request: &mut Request<ReplayBody<B>>,
        reserved: Option<Reserved>,
    ) {
        self.withdrawal = reserved.and_then(Reserved::take);
        self.begin_attempt(request, Instant::now());
    }

    /// The attempt is under way: a retry has been made.
    #[inline]
    pub(super) fn under_way(&mut self) {
        if let Some(reason) = self.begins.take() {
            self.policy.meter.made(reason);
        }
    }

    /// Whether `outcome` is that of a retry that has just begun and was not made, for no endpoint takes any. It costs
    /// nothing then.
    pub(super) fn was_not_made<RB: Body>(&mut self, outcome: &Outcome<RB>) -> bool {
        let not_made = self.begins.is_some() && is_out_of_budget::<RB>(outcome);
        if not_made {
            self.begins = None;
            let withdrawal = self.withdrawal.take();
            self.not_made(withdrawal);
        }
        not_made
    }

    /// What was withdrawn for an attempt that was not made.
    pub(crate) fn not_made(&self, withdrawal: Option<Withdrawal>) {
        if let Some(withdrawal) = withdrawal {
            self.policy.budget.give_back(withdrawal, Instant::now());
        }
        self.policy.meter.refused();
    }

    fn wait_before(&self, retryable: &Retryable) -> Duration {
        let backoff = &self.policy.backoff;
        retryable
            .after
            .unwrap_or_else(|| backoff.wait_after(self.waited, self.retries + 1))
    }

    /// The request once more, which is the copy or came back unsent, and the outcome of the attempt before. A response
    /// whose body would have to be read is dropped.
    #[expect(clippy::result_large_err, reason = "the outcome as it came")]
    fn request_again<RB: Body>(&self, outcome: Outcome<RB>) -> Result<Again<B, RB>, Outcome<RB>> {
        if let Saved::Kept(kept) = &self.saved {
            return match kept.body.again() {
                Ok(body) => {
                    let last = match outcome {
                        Ok(response) if !response.body().is_all_here() => None,
                        outcome => Some(outcome),
                    };
                    Ok((kept.head.request(body), last))
                }
                Err(lost) => Err(self.lost(outcome, lost)),
            };
        }
        match outcome.map_err(Unsent::<ReplayBody<B>>::recover) {
            Err(Ok((Some(request), cause))) => Ok((request, Some(Err(cause)))),
            Err(Ok((None, cause))) => Err(Err(Unsent::<ReplayBody<B>>::new(None, cause).into())),
            Err(Err(error)) => Err(self.lost(Err(error), Lost::TooLarge)),
            Ok(response) => Err(Ok(response)),
        }
    }
}
