use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Request;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::set::Set;
use super::{Balance, Member};
use crate::{BoxError, CallContext, Reason, Unsent};

/// How a call has its member: borrowed, or as a clone.
pub(super) trait Pool {
    type Member: Member;
    type Held;

    fn set(&self) -> &Set<Self::Member>;
    fn hold(&self, index: usize) -> Self::Held;
}

impl<S: Member + Clone> Pool for Balance<S> {
    type Member = S;
    type Held = S;

    fn set(&self) -> &Set<S> {
        self.set()
    }

    fn hold(&self, index: usize) -> S {
        self.members()[index].clone()
    }
}

impl<'a, S: Member> Pool for &'a Balance<S> {
    type Member = S;
    type Held = &'a S;

    fn set(&self) -> &Set<S> {
        (*self).set()
    }

    fn hold(&self, index: usize) -> &'a S {
        &self.members()[index]
    }
}

pin_project! {
    /// The future of [`Balance`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<P, M, F, B> {
        pool: P,
        index: usize,
        tried: Vec<usize>,
        #[pin]
        stage: Stage<M, F, B>,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<M, F, B> {
        // Boxed: a reference is always ready, and waits only after a lost race.
        Wait { parts: Box<(M, Option<Request<B>>)> },
        Call { #[pin] future: F },
        Refused { error: Option<BoxError> },
    }
}

impl<M, F, B> Stage<M, F, B> {
    fn waiting(member: M, request: Request<B>) -> Self {
        Self::Wait {
            parts: Box::new((member, Some(request))),
        }
    }
}

impl<P, M, F, B> ResponseFuture<P, M, F, B> {
    const fn new(pool: P, index: usize, stage: Stage<M, F, B>) -> Self {
        Self {
            pool,
            index,
            tried: Vec::new(),
            stage,
        }
    }

    pub(super) fn wait(pool: P, index: usize, member: M, request: Request<B>) -> Self {
        Self::new(pool, index, Stage::waiting(member, request))
    }

    pub(super) const fn call(pool: P, index: usize, future: F) -> Self {
        Self::new(pool, index, Stage::Call { future })
    }

    pub(super) const fn refused(pool: P, error: BoxError) -> Self {
        Self::new(pool, 0, Stage::Refused { error: Some(error) })
    }
}

impl<P, M, F, B, T, E> Future for ResponseFuture<P, M, F, B>
where
    P: Pool<Held = M>,
    M: Service<Request<B>, Future = F, Response = T, Error = E>,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
    B: Send + 'static,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.stage.as_mut().project() {
                StageProjection::Wait { parts } => {
                    let (member, request) = &mut **parts;
                    ready!(member.poll_ready(cx)).map_err(Into::into)?;
                    // A future that is polled after its end has nothing to say.
                    let Some(request) = request.take() else {
                        return Poll::Pending;
                    };
                    let future = member.call(request);
                    this.stage.set(Stage::Call { future });
                }
                StageProjection::Refused { error } => {
                    return error
                        .take()
                        .map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
                }
                StageProjection::Call { future } => {
                    let error = match ready!(future.poll(cx)) {
                        Ok(response) => return Poll::Ready(Ok(response)),
                        Err(error) => error.into(),
                    };
                    let (request, cause) = given_back(error)?;
                    this.tried.push(*this.index);
                    let set = this.pool.set();
                    let now = || CallContext::now(request.extensions());
                    let Some(next) = set.pick(now, this.tried) else {
                        return Poll::Ready(Err(set.refusal(Some(cause))));
                    };
                    *this.index = next;
                    let member = this.pool.hold(next);
                    this.stage.set(Stage::waiting(member, request));
                }
            }
        }
    }
}

/// The request that a member's breaker gave back, and why; any other error is the caller's.
fn given_back<B: Send + 'static>(error: BoxError) -> Result<(Request<B>, BoxError), BoxError> {
    if !error.is::<Unsent<B>>() || Reason::of(&*error) != Some(Reason::BreakerOpen) {
        return Err(error);
    }
    let (request, cause) = Unsent::recover(error)?;
    match request {
        Some(request) => Ok((request, cause)),
        None => Err(Unsent::<B>::new(None, cause).into()),
    }
}

impl<P, M, F, B> fmt::Debug for ResponseFuture<P, M, F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("index", &self.index)
            .field("tried", &self.tried)
            .finish_non_exhaustive()
    }
}
