use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use super::budget::Reserved;
use super::call::{Call, Outcome};
use super::first_frame::{Look, ResponseBody};
use super::next::Next;
use super::verdict::Verdict;
use super::{ReplayBody, RetryPolicy};
use crate::BoxError;
use crate::hedge::Race;
use crate::timer::Timer;

pin_project! {
    /// The future of [`Retry`](super::Retry).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, P, RB>
    where
        S: Service<Request<ReplayBody<B>>>,
        RB: Body,
    {
        #[pin]
        state: State<S, B, RB>,
        // None: there is no other attempt.
        call: Option<Call<S, B, P>>,
        // What it ends in if no endpoint takes the retry that begins.
        last: Option<Box<Outcome<RB>>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, RB>
    where
        S: Service<Request<ReplayBody<B>>>,
        RB: Body,
    {
        Attempt {
            #[pin]
            future: S::Future,
        },
        // A response whose first frame is awaited.
        Look {
            look: Option<Look<RB>>,
        },
        Backoff {
            timer: Option<Timer>,
            request: Option<Box<Request<ReplayBody<B>>>>,
            reserved: Option<Reserved>,
        },
        Hedged {
            #[pin]
            first: Option<S::Future>,
            race: Race<S, B, RB>,
        },
    }
}

impl<S, B, P, RB> ResponseFuture<S, B, P, RB>
where
    S: Service<Request<ReplayBody<B>>>,
    RB: Body,
{
    /// One attempt and no other.
    pub(super) const fn once(attempt: S::Future) -> Self {
        Self {
            state: State::Attempt { future: attempt },
            call: None,
            last: None,
        }
    }
}

impl<S, B, P, RB> ResponseFuture<S, B, P, RB>
where
    S: Service<Request<ReplayBody<B>>>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    P: Deref<Target = RetryPolicy>,
    RB: Body + Unpin,
{
    /// Makes the first attempt of a call through `service`, which must be ready.
    #[inline]
    pub(super) fn new(service: S, policy: P, request: Request<B>) -> Self {
        let (mut call, request, hedged) = Call::new(service, policy, request);
        let future = call.attempt(|call| call.service.call(request));
        let state = if hedged {
            State::Hedged {
                first: Some(future),
                race: Race::new(&call),
            }
        } else {
            State::Attempt { future }
        };
        Self {
            state,
            call: Some(call),
            last: None,
        }
    }
}

impl<S, B, P, RB> Future for ResponseFuture<S, B, P, RB>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    P: Deref<Target = RetryPolicy>,
    RB: Body + Unpin,
{
    type Output = Result<Response<ResponseBody<RB>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let (outcome, verdict) = match this.state.as_mut().project() {
                StateProj::Attempt { future } => {
                    let polled = match this.call.as_mut() {
                        Some(call) => call.attempt(|_| future.poll(cx)),
                        None => future.poll(cx),
                    };
                    let outcome = match polled {
                        Poll::Ready(Ok(response)) => Ok(response.map(ResponseBody::new)),
                        Poll::Ready(Err(error)) => Err(error.into()),
                        Poll::Pending => {
                            if let Some(call) = this.call.as_mut() {
                                call.under_way();
                                *this.last = None;
                            }
                            return Poll::Pending;
                        }
                    };
                    let Some(call) = this.call.as_mut() else {
                        return Poll::Ready(outcome);
                    };
                    if call.was_not_made(&outcome) {
                        *this.call = None;
                        return Poll::Ready(this.last.take().map_or(outcome, |last| *last));
                    }
                    call.under_way();
                    match outcome {
                        Ok(response) if call.looks_at(&response, call.has_more()) => {
                            let look = Some(call.look(response));
                            this.state.set(State::Look { look });
                            continue;
                        }
                        mut outcome => {
                            let verdict = call.judge(&mut outcome);
                            // The usual end, which moves the response no more than it must.
                            if !matches!(verdict, Verdict::Retryable(_)) {
                                *this.call = None;
                                return Poll::Ready(outcome);
                            }
                            (outcome, verdict)
                        }
                    }
                }
                StateProj::Look { look } => {
                    let (Some(call), Some(seen)) = (this.call.as_ref(), look.as_mut()) else {
                        return Poll::Pending;
                    };
                    let verdict = ready!(call.poll_look(seen, cx));
                    let Some(look) = look.take() else {
                        return Poll::Pending;
                    };
                    (Ok(look.into_response()), verdict)
                }
                StateProj::Backoff {
                    timer,
                    request,
                    reserved,
                } => {
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
                    call.begin_retry(&mut request, reserved.take());
                    let future = call.attempt(|call| call.service.call(*request));
                    this.state.set(State::Attempt { future });
                    continue;
                }
                StateProj::Hedged { first, race } => {
                    #[expect(clippy::expect_used, reason = "a future is not polled after its end")]
                    let call = this.call.as_mut().expect("polled after its end");
                    let outcome = ready!(race.poll(first, call, cx));
                    *this.call = None;
                    return Poll::Ready(outcome);
                }
            };
            #[expect(clippy::expect_used, reason = "an outcome that was judged is a call's")]
            let call = this.call.as_mut().expect("a call");
            match call.next_attempt(outcome, verdict) {
                Ok(next) => {
                    let Next {
                        request,
                        wait,
                        reserved,
                        last,
                    } = next;
                    *this.last = last.map(Box::new);
                    let at = Instant::now().checked_add(wait);
                    this.state.set(State::Backoff {
                        timer: (!wait.is_zero()).then(|| Timer::maybe_at(at)),
                        request: Some(Box::new(request)),
                        reserved: Some(reserved),
                    });
                }
                Err(outcome) => {
                    *this.call = None;
                    return Poll::Ready(outcome);
                }
            }
        }
    }
}

impl<S, B, P, RB> fmt::Debug for ResponseFuture<S, B, P, RB>
where
    S: Service<Request<ReplayBody<B>>>,
    RB: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("retries", &self.call.as_ref().map(|call| call.retries))
            .finish_non_exhaustive()
    }
}
