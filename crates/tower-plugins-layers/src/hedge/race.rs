//! The attempts of one hedged call.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use crate::classify::{Classify, HttpGrpc, Outcome as Judged};
use crate::retry::{
    Call, Copied, Look, Outcome, ReplayBody, ResponseBody, RetryPolicy, Verdict, Withdrawal,
    is_out_of_budget,
};
use crate::timer::Timer;
use crate::{BoxError, Reason};

/// The attempts of one hedged call beyond the first, and when the next begins.
pub(crate) struct Race<S, B, RB>
where
    S: Service<Request<ReplayBody<B>>>,
    RB: Body,
{
    delay: Option<Duration>,
    /// When the next attempt begins; never, if there is to be none.
    next: Timer,
    /// Why it does.
    because: Option<Reason>,
    others: Vec<Pin<Box<Other<S, B>>>>,
    /// Responses whose first frame is awaited, and how long the first attempt's head took.
    looks: Vec<(Look<RB>, Option<Duration>)>,
    /// What the call ends in if no other attempt does better.
    last: Option<Box<Outcome<RB>>>,
    /// Whether that is a refusal on this side of an attempt beyond the first.
    last_is_refusal: bool,
}

/// An attempt that is over.
struct Ended<RB: Body> {
    outcome: Outcome<RB>,
    verdict: Verdict,
    /// How long it took to its head, if it is the first.
    first_took: Option<Duration>,
}

pin_project! {
    struct Other<S, B>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        #[pin]
        stage: Stage<S, B>,
        withdrawal: Option<Withdrawal>,
        // Why it is made, until it is known that it was.
        begins: Option<Option<Reason>>,
    }
}

pin_project! {
    #[project = StageProj]
    enum Stage<S, B>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        Waiting { service: S, request: Option<Box<Request<ReplayBody<B>>>> },
        Calling { #[pin] future: S::Future },
    }
}

impl<S, B> Future for Other<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut stage = self.project().stage;
        loop {
            match stage.as_mut().project() {
                StageProj::Calling { future } => return future.poll(cx),
                StageProj::Waiting { service, request } => {
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        return Poll::Ready(Err(error));
                    }
                    // A future that is polled after its end has nothing to say.
                    let Some(request) = request.take() else {
                        return Poll::Pending;
                    };
                    let future = service.call(*request);
                    stage.set(Stage::Calling { future });
                }
            }
        }
    }
}

impl<S, B, RB> Race<S, B, RB>
where
    S: Service<Request<ReplayBody<B>>>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    RB: Body + Unpin,
{
    /// The race of `call`, whose first attempt begins now.
    pub(crate) fn new<P: Deref<Target = RetryPolicy>>(call: &Call<S, B, P>) -> Self {
        let mut race = Self {
            delay: call.hedge().and_then(|hedge| hedge.delay_at(call.start)),
            next: Timer::Never,
            because: None,
            others: Vec::new(),
            looks: Vec::new(),
            last: None,
            last_is_refusal: false,
        };
        race.next_after_delay(call, call.start);
        race
    }

    /// Drives the attempts until the call is over. Then the others have been dropped.
    pub(crate) fn poll<P>(
        &mut self,
        mut first: Pin<&mut Option<S::Future>>,
        call: &mut Call<S, B, P>,
        cx: &mut Context<'_>,
    ) -> Poll<Outcome<RB>>
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<RB>, Error: Into<BoxError>> + Clone,
        P: Deref<Target = RetryPolicy>,
    {
        loop {
            while let Some(ended) = self.poll_attempts(first.as_mut(), call, cx) {
                let Ended {
                    outcome,
                    verdict,
                    first_took,
                } = ended;
                let is_first = first_took.is_some();
                if verdict == Verdict::Success {
                    record(call, first_took);
                }
                if let Some(outcome) = self.settle(outcome, verdict, is_first, call) {
                    if !is_first {
                        // The first took so long at least. Without it the slow would be missing from
                        // what is measured, and the delay would become shorter and shorter.
                        let seen = self.looks.iter().find_map(|(_, first_took)| *first_took);
                        record(call, seen.or_else(|| first.is_some().then(|| since(call))));
                    }
                    first.set(None);
                    self.others.clear();
                    self.looks.clear();
                    return Poll::Ready(outcome);
                }
            }
            let under_way = self.is_under_way(first.is_some());
            if self.next.poll(cx).is_ready() {
                self.begin(under_way, call);
                continue;
            }
            if !under_way
                && matches!(self.next, Timer::Never)
                && let Some(last) = self.last.take()
            {
                return Poll::Ready(*last);
            }
            return Poll::Pending;
        }
    }

    fn is_under_way(&self, first: bool) -> bool {
        first || !self.others.is_empty() || !self.looks.is_empty()
    }

    /// Drives the attempts until one of them is over.
    fn poll_attempts<P>(
        &mut self,
        mut first: Pin<&mut Option<S::Future>>,
        call: &mut Call<S, B, P>,
        cx: &mut Context<'_>,
    ) -> Option<Ended<RB>>
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<RB>, Error: Into<BoxError>>,
        P: Deref<Target = RetryPolicy>,
    {
        if let Some(attempt) = first.as_mut().as_pin_mut()
            && let Poll::Ready(outcome) = call.attempt(|_| attempt.poll(cx))
        {
            first.set(None);
            let took = Some(since(call));
            if let Some(ended) = self.ended(outcome_of(outcome), took, false, call) {
                return Some(ended);
            }
        }
        let mut i = 0;
        while let Some(other) = self.others.get_mut(i) {
            let polled = other.as_mut().poll(cx).map(outcome_of);
            let parts = other.as_mut().project();
            let begins = parts.begins.take();
            let Poll::Ready(outcome) = polled else {
                if let Some(reason) = begins {
                    call.count_hedge(reason);
                }
                i += 1;
                continue;
            };
            if begins.is_some() && is_out_of_budget(&outcome) {
                call.not_made(parts.withdrawal.take());
                self.others.swap_remove(i);
                self.next = Timer::Never;
                // If no other is under way, what they came to is there already.
                continue;
            }
            if let Some(reason) = begins {
                call.count_hedge(reason);
            }
            self.others.swap_remove(i);
            if let Some(ended) = self.ended(outcome, None, first.is_some(), call) {
                return Some(ended);
            }
        }
        for i in 0..self.looks.len() {
            if let Poll::Ready(verdict) = call.poll_look(&mut self.looks[i].0, cx) {
                let (look, first_took) = self.looks.swap_remove(i);
                return Some(Ended {
                    outcome: Ok(look.into_response()),
                    verdict,
                    first_took,
                });
            }
        }
        None
    }

    /// What it means that an attempt gave `outcome`; nothing yet, if its first frame is to be looked at.
    fn ended<P: Deref<Target = RetryPolicy>>(
        &mut self,
        outcome: Outcome<RB>,
        first_took: Option<Duration>,
        first_under_way: bool,
        call: &Call<S, B, P>,
    ) -> Option<Ended<RB>> {
        let more = !matches!(self.next, Timer::Never) || self.is_under_way(first_under_way);
        match outcome {
            Ok(response) if call.looks_at(&response, more) => {
                self.looks.push((call.look(response), first_took));
                None
            }
            mut outcome => Some(Ended {
                verdict: call.judge(&mut outcome),
                outcome,
                first_took,
            }),
        }
    }

    /// Takes in what an attempt ended in; gives it back if that is the end of the call.
    ///
    /// An answer that would only come again ends the call. An error on this side does not as long as
    /// another attempt is under way: a hedge must not fail a call, nor hide what it failed with.
    fn settle<P: Deref<Target = RetryPolicy>>(
        &mut self,
        outcome: Outcome<RB>,
        verdict: Verdict,
        is_first: bool,
        call: &Call<S, B, P>,
    ) -> Option<Outcome<RB>> {
        let refused = matches!(&outcome, Err(error) if HttpGrpc.error(&**error) == Judged::Ignored);
        match verdict {
            Verdict::Success => return Some(outcome),
            Verdict::Fatal if outcome.is_ok() => return Some(outcome),
            Verdict::Fatal => {
                self.next = Timer::Never;
                if self.last.is_none() || is_first && self.last_is_refusal {
                    self.last = Some(Box::new(outcome));
                    self.last_is_refusal = refused && !is_first;
                }
                return None;
            }
            Verdict::Stop => self.next = Timer::Never,
            Verdict::Retryable(retryable) => {
                let now = Instant::now();
                self.because = retryable.reason;
                let at = now.checked_add(retryable.after.unwrap_or_default());
                self.next = self.allowed_at(call, at);
            }
        }
        self.last = Some(Box::new(outcome));
        self.last_is_refusal = refused && !is_first;
        None
    }

    /// Begins one more attempt, if it may.
    fn begin<P: Deref<Target = RetryPolicy>>(
        &mut self,
        others_under_way: bool,
        call: &mut Call<S, B, P>,
    ) where
        S: Clone,
    {
        let now = Instant::now();
        self.next = Timer::Never;
        let mut request = match call.copy(others_under_way) {
            Copied::Request(request) => request,
            Copied::NotYet => return self.next_after_delay(call, now),
            Copied::Lost(lost) => {
                self.last = self
                    .last
                    .take()
                    .map(|last| Box::new(call.lost(*last, lost)));
                return;
            }
        };
        let Some(withdrawal) = call.withdraw(now) else {
            return;
        };
        call.retries += 1;
        call.begin_attempt(&mut request, now);
        let stage = Stage::Waiting {
            service: call.service.clone(),
            request: Some(request),
        };
        self.others.push(Box::pin(Other {
            stage,
            withdrawal: Some(withdrawal),
            begins: Some(self.because),
        }));
        self.next_after_delay(call, now);
    }

    fn next_after_delay<P: Deref<Target = RetryPolicy>>(
        &mut self,
        call: &Call<S, B, P>,
        now: Instant,
    ) {
        self.because = Some(Reason::Hedged);
        let at = self.delay.and_then(|delay| now.checked_add(delay));
        self.next = self.allowed_at(call, at);
    }

    /// A timer for `at`, if another attempt may be made then.
    fn allowed_at<P: Deref<Target = RetryPolicy>>(
        &self,
        call: &Call<S, B, P>,
        at: Option<Instant>,
    ) -> Timer {
        let more = call
            .hedge()
            .is_some_and(|hedge| call.retries < hedge.most());
        let in_time = |at: &Instant| more && call.deadline.is_none_or(|deadline| *at < deadline);
        Timer::maybe_at(at.filter(in_time))
    }
}

fn outcome_of<RB: Body, E: Into<BoxError>>(outcome: Result<Response<RB>, E>) -> Outcome<RB> {
    match outcome {
        Ok(response) => Ok(response.map(ResponseBody::new)),
        Err(error) => Err(error.into()),
    }
}

/// How long the first attempt has taken.
fn since<S, B, P>(call: &Call<S, B, P>) -> Duration {
    Instant::now().saturating_duration_since(call.start)
}

/// How long the first attempt took, or has taken at least.
fn record<S, B, P>(call: &Call<S, B, P>, first_took: Option<Duration>)
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    P: Deref<Target = RetryPolicy>,
{
    if let (Some(hedge), Some(took)) = (call.hedge(), first_took) {
        hedge.record(took, Instant::now());
    }
}
