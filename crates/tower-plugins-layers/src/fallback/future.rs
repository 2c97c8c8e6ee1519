use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::Either;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::keep::sealed::Again;
use super::layer::{Head, Plan};
use super::{FallbackBody, FallbackUsed};
use crate::oneshot::{Other, oneshot};
use crate::{BoxError, Reason};

/// What is kept of a request while it is under way.
pub(super) struct Kept<K> {
    pub(super) head: Head,
    pub(super) body: K,
}

/// What there was before the fallback.
type Before<RB> = Result<Response<RB>, BoxError>;

/// A fallback that is under way.
struct Falling<RB, FB> {
    other: Other<FB>,
    /// What the call ends in if the fallback fails.
    before: Option<Before<RB>>,
    reason: Reason,
    header: Option<HeaderName>,
}

pin_project! {
    /// The future of [`Fallback`](super::Fallback).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<Fut, P, K, RB, FB> {
        #[pin]
        state: State<Fut, P, K, RB, FB>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<Fut, P, K, RB, FB> {
        Calling { #[pin] inner: Fut, plan: Option<P>, kept: Option<Box<Kept<K>>> },
        // Boxed: most calls have none.
        Falling { falling: Box<Falling<RB, FB>> },
    }
}

impl<Fut, P, K, RB, FB> ResponseFuture<Fut, P, K, RB, FB> {
    pub(super) const fn new(inner: Fut, plan: Option<P>, kept: Option<Box<Kept<K>>>) -> Self {
        Self {
            state: State::Calling { inner, plan, kept },
        }
    }
}

/// Begins the fallback that `before` calls for; else gives it back.
fn fall<F, K, RB, FB>(
    plan: &Plan<F>,
    kept: Option<Box<Kept<K>>>,
    before: Before<RB>,
) -> Result<Box<Falling<RB, FB>>, Before<RB>>
where
    F: Service<Request<FallbackBody>, Response = Response<FB>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
    K: Again,
    FB: 'static,
{
    let reason = match &before {
        Ok(response) => plan.policy.judge_status(response.status()),
        Err(error) => plan.policy.judge_error(&**error),
    };
    let Some(reason) = reason else {
        return Err(before);
    };
    let request = match kept {
        // The service looks at no request: it was not asked to be kept.
        None => Request::new(FallbackBody::default()),
        Some(kept) => match kept.body.again() {
            Some(body) => kept.head.request(body),
            None => return Err(before),
        },
    };
    let other = oneshot(plan.service.clone(), request, Some(plan.policy.timeout));
    Ok(Box::new(Falling {
        other: Box::pin(other),
        before: Some(before),
        reason,
        header: plan.policy.header.clone(),
    }))
}

impl<Fut, P, F, K, RB, FB, E> Future for ResponseFuture<Fut, P, K, RB, FB>
where
    Fut: Future<Output = Result<Response<RB>, E>>,
    E: Into<BoxError>,
    P: Deref<Target = Plan<F>>,
    F: Service<Request<FallbackBody>, Response = Response<FB>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
    K: Again,
    FB: 'static,
{
    type Output = Result<Response<Either<RB, FB>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                Projected::Calling { inner, plan, kept } => {
                    let before = ready!(inner.poll(cx)).map_err(Into::into);
                    let begun = match plan.take() {
                        Some(plan) => fall(&plan, kept.take(), before),
                        None => Err(before),
                    };
                    match begun {
                        // What failed inside is dropped here, before the other service is asked.
                        Ok(falling) => State::Falling { falling },
                        Err(before) => {
                            return Poll::Ready(before.map(|response| response.map(Either::Left)));
                        }
                    }
                }
                Projected::Falling { falling } => {
                    let answer = ready!(falling.other.as_mut().poll(cx));
                    return Poll::Ready(falling.end(answer));
                }
            };
            state.set(next);
        }
    }
}

impl<RB, FB> Falling<RB, FB> {
    fn end(
        &mut self,
        answer: Result<Response<FB>, BoxError>,
    ) -> Result<Response<Either<RB, FB>>, BoxError> {
        let mut response = match answer {
            Ok(response) => response,
            Err(failed) => {
                #[expect(clippy::expect_used, reason = "a future is not polled after its end")]
                let before = self.before.take().expect("polled after its end");
                drop(failed);
                return before.map(|response| response.map(Either::Left));
            }
        };
        if let Some(name) = self.header.take() {
            let reason = HeaderValue::from_static(self.reason.as_str());
            response.headers_mut().insert(name, reason);
        }
        response.extensions_mut().insert(FallbackUsed(self.reason));
        Ok(response.map(Either::Right))
    }
}

impl<Fut, P, K, RB, FB> fmt::Debug for ResponseFuture<Fut, P, K, RB, FB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Calling { .. } => "Calling",
            State::Falling { .. } => "Falling",
        })
    }
}
