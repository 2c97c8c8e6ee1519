//! A call under way, as far as its other attempts are concerned.

use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;

use super::budget::{Deposit, Withdrawal};
use super::first_frame::{Look, ResponseBody, Seen, may_fail_later};
use super::head::{Head, count_attempts};
use super::policy::Repeat;
use super::replay::{Lost, Replay};
use super::verdict::Verdict;
use super::{NotReplayable, ReplayBody, RetryPolicy};
use crate::hedge::HedgePolicy;
use crate::picked::{self, Picked};
use crate::{BoxError, CallContext, Reason, Unsent, Visited};

/// What an attempt ended in.
pub(crate) type Outcome<RB> = Result<Response<ResponseBody<RB>>, BoxError>;

/// A call under way, as far as its other attempts are concerned.
pub(crate) struct Call<S, B, P> {
    pub(crate) service: S,
    pub(super) policy: P,
    pub(super) saved: Saved<B>,
    /// When the first attempt began.
    pub(crate) start: Instant,
    pub(crate) deadline: Option<Instant>,
    own_deadline: Option<Instant>,
    /// Attempts made, or decided upon, beyond the first.
    pub(crate) retries: u32,
    /// The wait before the last of them.
    pub(super) waited: Duration,
    /// Where attempts went, as far as that is known.
    pub(super) picked: Picked,
    /// The endpoints of all attempts, if the caller wants to know them or there is a second.
    visited: Option<Arc<Visited>>,
    _deposit: Deposit,
    /// The retry that is under way.
    pub(super) withdrawal: Option<Withdrawal>,
    /// Why it is made, until it is known that it was.
    pub(super) begins: Option<Option<Reason>>,
}

/// What there is of the request while an attempt has it.
pub(super) enum Saved<B> {
    /// Nothing, and it would do no good.
    Never,
    /// Nothing: the call may not be repeated, unless it was never processed.
    Forbidden,
    /// Nothing, for the body is too large.
    TooLarge,
    Kept(Box<Kept<B>>),
}

/// What another attempt is made of: all in one allocation, unless there are many headers.
pub(super) struct Kept<B> {
    pub(super) head: Head,
    pub(super) body: Replay<B>,
}

/// A request for a hedge.
pub(crate) enum Copied<B> {
    Request(Box<Request<ReplayBody<B>>>),
    /// None yet: the first attempt is not through with the body.
    NotYet,
    Lost(Lost),
}

impl<S, B, P> Call<S, B, P>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    P: Deref<Target = RetryPolicy>,
{
    /// A call with `request`, the request of its first attempt, and whether it is hedged.
    #[inline]
    pub(super) fn new(
        service: S,
        policy: P,
        request: Request<B>,
    ) -> (Self, Request<ReplayBody<B>>, bool) {
        let repeat = policy.repeat(&request);
        let hedge = policy
            .hedge
            .as_ref()
            .filter(|hedge| repeat == Repeat::Yes && hedge.is_for(request.uri().path()));
        let hedged = hedge.is_some();
        let context = CallContext::of(&request);
        let start = CallContext::now(request.extensions());
        let deadline = context.and_then(CallContext::deadline);
        let own_deadline = context.and_then(CallContext::callers_deadline);
        let visited = context.and_then(CallContext::visited).cloned();
        let deposit = policy.budget.deposit(start);
        let (parts, body) = request.into_parts();
        let (body, saved) = match repeat {
            Repeat::Yes => {
                let (first, replay) = Replay::new(body, policy.max_replay);
                let saved = replay.map_or(Saved::TooLarge, |body| {
                    // Made in its place: it is large, and `Box::new` would move it there.
                    let place = Box::new_uninit();
                    let head = Head::of(&parts);
                    Saved::Kept(Box::write(place, Kept { head, body }))
                });
                (first, saved)
            }
            Repeat::Unsent => (ReplayBody::passthrough(body), Saved::Forbidden),
            Repeat::Never => (ReplayBody::passthrough(body), Saved::Never),
        };
        let request = Request::from_parts(parts, body);
        let call = Self {
            service,
            policy,
            saved,
            start,
            deadline,
            own_deadline,
            retries: 0,
            waited: Duration::ZERO,
            picked: Picked::NONE,
            visited,
            _deposit: deposit,
            withdrawal: None,
            begins: None,
        };
        (call, request, hedged)
    }

    /// Calls the service, or polls its future, for an attempt: `f` does. Where that went is
    /// remembered, so that others go elsewhere.
    #[inline]
    pub(crate) fn attempt<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> T {
        let (made, picked) = picked::watched(|| f(self));
        if !picked.is_none() {
            let visited = self.visited.as_deref();
            self.picked.learn(&picked, |id| {
                if let Some(visited) = visited {
                    visited.add(id);
                }
            });
        }
        made
    }

    /// What `outcome` means; the budget hears of it too, or will at the response's end. A request that was never
    /// processed says nothing about the service.
    pub(crate) fn judge<RB: Body>(&self, outcome: &mut Outcome<RB>) -> Verdict {
        let unsent = is_unsent::<B, RB>(outcome);
        let verdict = match outcome {
            Ok(response) => {
                let verdict = self.policy.judge_response(response);
                if verdict == Verdict::Success {
                    self.answered(response);
                    return verdict;
                }
                verdict
            }
            Err(error) => self.policy.judge_error(&**error, unsent),
        };
        self.tell(verdict, unsent)
    }

    /// The service has answered; a response of gRPC may fail still.
    fn answered<RB: Body>(&self, response: &mut Response<ResponseBody<RB>>) {
        let Some(hears) = &self.policy.hears else {
            return;
        };
        if may_fail_later(response) {
            response.body_mut().tells(Arc::clone(hears));
        } else {
            hears.succeeded();
        }
    }

    /// What a response means that is looked at in place of [`judge`](Self::judge), once it is seen.
    pub(crate) fn poll_look<RB: Body + Unpin>(
        &self,
        look: &mut Look<RB>,
        cx: &mut Context<'_>,
    ) -> Poll<Verdict> {
        let verdict = match ready!(look.poll(cx)) {
            Seen::Trailers(trailers) => self.policy.judge_trailers(trailers),
            // The call is committed, and the service has failed it.
            Seen::Broken => Verdict::Stop,
            Seen::Other => {
                self.answered(look.response_mut());
                return Poll::Ready(Verdict::Success);
            }
        };
        Poll::Ready(self.tell(verdict, false))
    }

    fn tell(&self, verdict: Verdict, unsent: bool) -> Verdict {
        match verdict {
            Verdict::Success => self.policy.budget.succeeded(),
            Verdict::Retryable(_) | Verdict::Stop if !unsent => self.policy.budget.failed(),
            _ => {}
        }
        verdict
    }

    /// Whether the first frame of `response` is to be looked at: its head says nothing, there may be
    /// another attempt (`more`), and the request is all sent, so that the other side waits for nothing.
    pub(crate) fn looks_at<RB>(&self, response: &Response<RB>, more: bool) -> bool {
        let Saved::Kept(kept) = &self.saved else {
            return false;
        };
        more && self.policy.looks() && may_fail_later(response) && kept.body.is_whole()
    }

    pub(crate) fn look<RB: Body + Unpin>(&self, response: Response<ResponseBody<RB>>) -> Look<RB> {
        Look::new(response, self.policy.first_frame_wait)
    }

    /// The outcome of a call whose body is no longer there for another attempt.
    pub(crate) fn lost<RB: Body>(&self, outcome: Outcome<RB>, lost: Lost) -> Outcome<RB> {
        match lost {
            Lost::TooLarge => {
                outcome.map_err(|error| NotReplayable::new(self.policy.max_replay, error).into())
            }
            Lost::Failed => outcome,
        }
    }

    /// A request for one more attempt while others are under way, or after they all ended.
    pub(crate) fn copy(&self, others_under_way: bool) -> Copied<B> {
        let Saved::Kept(kept) = &self.saved else {
            return Copied::Lost(Lost::TooLarge);
        };
        let body = if others_under_way {
            kept.body.sibling()
        } else {
            kept.body.again().map(Some)
        };
        match body {
            Ok(Some(body)) => Copied::Request(Box::new(kept.head.request(body))),
            Ok(None) => Copied::NotYet,
            Err(lost) => Copied::Lost(lost),
        }
    }

    /// Makes `request` that of the last attempt that was decided upon.
    pub(crate) fn begin_attempt(&mut self, request: &mut Request<ReplayBody<B>>, now: Instant) {
        let (deadline, own) = (self.deadline, self.own_deadline);
        let picked = self.picked;
        let visited = self.visited.get_or_insert_with(|| {
            let visited = Visited::new();
            picked.ids().for_each(|id| visited.add(id));
            visited.into()
        });
        let context = request.extensions_mut().get_or_insert_with(|| {
            // A request that came back from the wire has lost its own.
            let mut context = CallContext::new();
            if let Some(at) = deadline {
                context.set_deadline(at, own);
            }
            context
        });
        context.begin_attempt(self.retries, now);
        if context.visited().is_none() {
            // A balancer further in keeps the attempts apart.
            context.set_visited(Arc::clone(visited));
        }
        let name = self.policy.attempt_header.as_ref();
        count_attempts(request.headers_mut(), self.retries, name);
    }

    /// How the call is hedged.
    pub(crate) fn hedge(&self) -> Option<&HedgePolicy> {
        self.policy.hedge.as_ref()
    }

    /// Takes a hedge out of the budget.
    pub(crate) fn withdraw(&self, now: Instant) -> Option<Withdrawal> {
        let withdrawal = if self.picked.is_exhausted() {
            None
        } else {
            self.policy.budget.withdraw(now)
        };
        if withdrawal.is_none() {
            self.policy.meter.refused();
        }
        withdrawal
    }

    /// Counts a hedge that is under way because of `reason`.
    pub(crate) fn count_hedge(&self, reason: Option<Reason>) {
        self.policy.meter.made(reason);
    }
}

/// Whether no endpoint takes a retry.
pub(crate) fn is_out_of_budget<RB: Body>(outcome: &Outcome<RB>) -> bool {
    matches!(outcome, Err(error) if Reason::of(&**error) == Some(Reason::RetryBudget))
}

pub(super) fn is_unsent<B: Send + 'static, RB: Body>(outcome: &Outcome<RB>) -> bool {
    matches!(outcome, Err(error) if error.is::<Unsent<ReplayBody<B>>>())
}
