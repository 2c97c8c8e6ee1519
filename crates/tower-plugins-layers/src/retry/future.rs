use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version,
    request,
};
use http_body::Body;
use pin_project_lite::pin_project;
use smallvec::SmallVec;
use tokio::time::Instant;
use tower_service::Service;

use super::replay::{Lost, Replay};
use super::verdict::{Retryable, judge_error};
use super::{NotReplayable, ReplayBody, RetryPolicy};
use crate::timer::Timer;
use crate::{BoxError, CallContext, Unsent};

pin_project! {
    /// The future of [`Retry`](super::Retry).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, P>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        #[pin]
        state: State<S::Future, B>,
        // None: there is no other attempt.
        call: Option<Call<S, B, P>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B> {
        Attempt {
            #[pin]
            future: F,
        },
        Backoff {
            timer: Option<Timer>,
            request: Option<Box<Request<ReplayBody<B>>>>,
        },
    }
}

impl<S, B, P> ResponseFuture<S, B, P>
where
    S: Service<Request<ReplayBody<B>>>,
{
    /// One attempt and no other.
    pub(super) const fn once(attempt: S::Future) -> Self {
        Self {
            state: State::Attempt { future: attempt },
            call: None,
        }
    }

    /// Makes the first attempt of `call`, whose service must be ready.
    pub(super) fn new(mut call: Call<S, B, P>, request: Request<ReplayBody<B>>) -> Self {
        Self {
            state: State::Attempt {
                future: call.service.call(request),
            },
            call: Some(call),
        }
    }
}

impl<S, B, P, RB> Future for ResponseFuture<S, B, P>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    P: Deref<Target = RetryPolicy>,
{
    type Output = Result<Response<RB>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Attempt { future } => {
                    let outcome = match ready!(future.poll(cx)) {
                        Ok(response) => Ok(response),
                        Err(error) => Err(error.into()),
                    };
                    let Some(call) = this.call.as_mut() else {
                        return Poll::Ready(outcome);
                    };
                    let Some(retryable) = call.judge(&outcome) else {
                        *this.call = None;
                        return Poll::Ready(outcome);
                    };
                    match call.next_attempt(outcome, &retryable) {
                        Ok((request, wait)) => {
                            let at = Instant::now().checked_add(wait);
                            this.state.set(State::Backoff {
                                timer: (!wait.is_zero()).then(|| Timer::maybe_at(at)),
                                request: Some(Box::new(request)),
                            });
                        }
                        Err(outcome) => {
                            *this.call = None;
                            return Poll::Ready(outcome);
                        }
                    }
                }
                StateProj::Backoff { timer, request } => {
                    if let Some(waiting) = timer {
                        ready!(waiting.poll(cx));
                        *timer = None;
                    }
                    #[expect(clippy::expect_used, reason = "a future is not polled after its end")]
                    let call = this.call.as_mut().expect("polled after its end");
                    if let Err(error) = ready!(call.service.poll_ready(cx)) {
                        *this.call = None;
                        return Poll::Ready(Err(error.into()));
                    }
                    #[expect(clippy::expect_used, reason = "taken when this state is left")]
                    let mut request = request.take().expect("a request to send");
                    let (deadline, own) = (call.deadline, call.own_deadline);
                    let context = request.extensions_mut().get_or_insert_with(|| {
                        // A request that came back from the wire has lost its own.
                        let mut context = CallContext::new();
                        if let Some(at) = deadline {
                            context.set_deadline(at, own);
                        }
                        context
                    });
                    context.begin_attempt(call.retries, Instant::now());
                    let future = call.service.call(*request);
                    this.state.set(State::Attempt { future });
                }
            }
        }
    }
}

impl<S, B, P> fmt::Debug for ResponseFuture<S, B, P>
where
    S: Service<Request<ReplayBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("retries", &self.call.as_ref().map(|call| call.retries))
            .finish_non_exhaustive()
    }
}

/// A call under way, as far as its next attempt is concerned.
pub(super) struct Call<S, B, P> {
    service: S,
    policy: P,
    saved: Saved<B>,
    deadline: Option<Instant>,
    own_deadline: Option<Instant>,
    retries: u32,
}

/// What there is of the request while an attempt has it.
enum Saved<B> {
    /// Nothing: the call may not be repeated, unless it was never processed.
    Forbidden,
    /// Nothing, for the body is too large.
    TooLarge,
    Kept(Box<Kept<B>>),
}

/// What another attempt is made of: all in one allocation, unless there are many headers.
struct Kept<B> {
    head: Head,
    body: Replay<B>,
}

impl<S, B, P> Call<S, B, P>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    P: Deref<Target = RetryPolicy>,
{
    /// A call with `request`, and the request of its first attempt.
    pub(super) fn new(
        service: S,
        policy: P,
        request: Request<B>,
    ) -> (Self, Request<ReplayBody<B>>) {
        let context = CallContext::of(&request);
        let start = context.map_or_else(Instant::now, CallContext::start);
        let deadline = context.and_then(CallContext::deadline);
        let own_deadline = context.and_then(CallContext::callers_deadline);
        policy.budget.deposit(start);
        let may_repeat = policy.may_repeat(&request);
        let (parts, body) = request.into_parts();
        let (body, saved) = if may_repeat {
            let (first, replay) = Replay::new(body, policy.max_replay);
            let saved = replay.map_or(Saved::TooLarge, |body| {
                // Made in its place: it is large, and `Box::new` would move it there.
                let place = Box::new_uninit();
                let head = Head::of(&parts);
                Saved::Kept(Box::write(place, Kept { head, body }))
            });
            (first, saved)
        } else {
            (ReplayBody::passthrough(body), Saved::Forbidden)
        };
        let request = Request::from_parts(parts, body);
        let call = Self {
            service,
            policy,
            saved,
            deadline,
            own_deadline,
            retries: 0,
        };
        (call, request)
    }

    /// Whether the rules allow another attempt after `outcome`.
    fn judge<RB>(&self, outcome: &Outcome<RB>) -> Option<Retryable> {
        if self.retries >= self.policy.max_retries {
            return None;
        }
        let (retryable, unsent) = match outcome {
            Ok(response) => (self.policy.judge_response(response), false),
            Err(error) => (judge_error(&**error), error.is::<Unsent<ReplayBody<B>>>()),
        };
        retryable.filter(|_| unsent || !matches!(self.saved, Saved::Forbidden))
    }

    /// The next attempt's request and how long to wait before it, or the outcome as it is if budget,
    /// deadline or replay size say no.
    fn next_attempt<RB>(
        &mut self,
        outcome: Outcome<RB>,
        retryable: &Retryable,
    ) -> Result<(Request<ReplayBody<B>>, Duration), Outcome<RB>> {
        let now = Instant::now();
        if !self.policy.budget.withdraw(now) {
            return Err(outcome);
        }
        let wait = retryable
            .after
            .unwrap_or_else(|| self.policy.backoff.wait(self.retries + 1));
        let in_time = self
            .deadline
            .is_none_or(|deadline| deadline.saturating_duration_since(now) > wait);
        let request = if in_time {
            self.request_again(outcome)
        } else {
            Err(outcome)
        };
        match request {
            Ok(request) => {
                self.retries += 1;
                Ok((request, wait))
            }
            Err(outcome) => {
                self.policy.budget.give_back(now);
                Err(outcome)
            }
        }
    }

    /// The request once more: the copy, or the request that came back unsent. The outcome of the
    /// attempt before is dropped.
    fn request_again<RB>(
        &self,
        outcome: Outcome<RB>,
    ) -> Result<Request<ReplayBody<B>>, Outcome<RB>> {
        let too_large = |outcome: Outcome<RB>| {
            outcome.map_err(|error| NotReplayable::new(self.policy.max_replay, error).into())
        };
        if let Saved::Kept(kept) = &self.saved {
            return match kept.body.again() {
                Ok(body) => Ok(kept.head.request(body)),
                Err(Lost::TooLarge) => Err(too_large(outcome)),
                Err(Lost::Failed) => Err(outcome),
            };
        }
        match outcome.map_err(Unsent::<ReplayBody<B>>::recover) {
            Err(Ok((Some(request), _))) => Ok(request),
            Err(Ok((None, cause))) => Err(Err(Unsent::<ReplayBody<B>>::new(None, cause).into())),
            Err(Err(error)) => Err(too_large(Err(error))),
            Ok(response) => Err(Ok(response)),
        }
    }
}

type Outcome<RB> = Result<Response<RB>, BoxError>;

/// A copy of a request's head that allocates for headers only if there are many, where a `HeaderMap`
/// allocates twice, and for extensions only if there are any but the call's context.
struct Head {
    method: Method,
    uri: Uri,
    version: Version,
    headers: SmallVec<[(HeaderName, HeaderValue); INLINE_HEADERS]>,
    context: Option<CallContext>,
    extensions: Extensions,
}

/// Headers that are kept without an allocation of their own.
const INLINE_HEADERS: usize = 4;

impl Head {
    #[inline]
    fn of(parts: &request::Parts) -> Self {
        let context = parts.extensions.get::<CallContext>();
        let alone = parts.extensions.len() == usize::from(context.is_some());
        let headers = parts.headers.iter();
        Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            headers: headers
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            context: context.cloned(),
            extensions: if alone {
                Extensions::new()
            } else {
                parts.extensions.clone()
            },
        }
    }

    fn request<B>(&self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        *request.headers_mut() = headers;
        *request.extensions_mut() = self.extensions.clone();
        if let Some(context) = &self.context {
            request.extensions_mut().insert(context.clone());
        }
        request
    }
}
