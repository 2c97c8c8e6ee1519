use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Request;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::pick::Nobody;
use super::snapshot::Snapshot;
use super::{Balance, LiveBalance, Member};
use crate::{BoxError, Reason, Unsent, picked};

/// How a call has its member: borrowed, or as a clone.
pub(super) trait Pool {
    type Held;

    /// A member for a call that has been offered to those `tried`, and its id.
    fn pick<B>(&self, request: &Request<B>, tried: &[u64]) -> Result<(u64, Self::Held), Nobody>;

    fn refusal(&self, nobody: Nobody, cause: Option<BoxError>) -> BoxError;

    /// `request` came back from the member `id` without having been sent.
    fn came_back<B>(&self, id: u64, request: &Request<B>);

    /// Whether nobody would take a retry.
    fn is_exhausted(&self) -> bool;

    /// What tells it from other pools while it has calls.
    fn place(&self) -> usize;
}

impl<S: Member + Clone> Pool for Balance<S> {
    type Held = S;

    fn pick<B>(&self, request: &Request<B>, tried: &[u64]) -> Result<(u64, S), Nobody> {
        let core = self.set().pick(request, tried)?;
        Ok((core.id, core.member.clone()))
    }

    fn refusal(&self, nobody: Nobody, cause: Option<BoxError>) -> BoxError {
        self.set().refusal(nobody, cause)
    }

    fn came_back<B>(&self, id: u64, request: &Request<B>) {
        self.set().came_back(id, request);
    }

    fn is_exhausted(&self) -> bool {
        self.set().is_exhausted()
    }

    fn place(&self) -> usize {
        std::ptr::from_ref(self.set()).addr()
    }
}

impl<'a, S: Member> Pool for &'a Balance<S> {
    type Held = &'a S;

    fn pick<B>(&self, request: &Request<B>, tried: &[u64]) -> Result<(u64, &'a S), Nobody> {
        let core = (*self).set().pick(request, tried)?;
        Ok((core.id, &core.member))
    }

    fn refusal(&self, nobody: Nobody, cause: Option<BoxError>) -> BoxError {
        self.set().refusal(nobody, cause)
    }

    fn came_back<B>(&self, id: u64, request: &Request<B>) {
        self.set().came_back(id, request);
    }

    fn is_exhausted(&self) -> bool {
        self.set().is_exhausted()
    }

    fn place(&self) -> usize {
        std::ptr::from_ref(self.set()).addr()
    }
}

impl<S: Member + Clone> Pool for LiveBalance<S> {
    type Held = S;

    fn pick<B>(&self, request: &Request<B>, tried: &[u64]) -> Result<(u64, S), Nobody> {
        self.set().with(|set| {
            let core = set.pick(request, tried)?;
            Ok((core.id, core.member.clone()))
        })
    }

    fn refusal(&self, nobody: Nobody, cause: Option<BoxError>) -> BoxError {
        self.set().with(|set| set.refusal(nobody, cause))
    }

    fn came_back<B>(&self, id: u64, request: &Request<B>) {
        self.set().with(|set| set.came_back(id, request));
    }

    fn is_exhausted(&self) -> bool {
        self.set().with(Snapshot::is_exhausted)
    }

    fn place(&self) -> usize {
        self.set().place()
    }
}

pin_project! {
    /// The future of [`Balance`] and [`LiveBalance`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<P, M, F, B> {
        pool: P,
        id: u64,
        tried: Vec<u64>,
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
    const fn new(pool: P, id: u64, stage: Stage<M, F, B>) -> Self {
        Self {
            pool,
            id,
            tried: Vec::new(),
            stage,
        }
    }

    /// Picks a member for `request`, which is called when it is ready.
    pub(super) fn begin(pool: P, request: Request<B>) -> Self
    where
        P: Pool<Held = M>,
    {
        match pool.pick(&request, &[]) {
            Ok((id, member)) => {
                picked::tell(pool.place(), id);
                Self::new(pool, id, Stage::waiting(member, request))
            }
            Err(nobody) => {
                let error = pool.refusal(nobody, None);
                Self::refused(pool, error)
            }
        }
    }

    /// A call of the member `id`, which was made.
    pub(super) fn call(pool: P, id: u64, future: F) -> Self
    where
        P: Pool,
    {
        picked::tell(pool.place(), id);
        Self::new(pool, id, Stage::Call { future })
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

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = advance(self.as_mut(), cx);
        if self.id != 0 {
            picked::tell(self.pool.place(), self.id);
        }
        if polled.is_ready() && picked::take_asked() && self.pool.is_exhausted() {
            picked::exhausted();
        }
        polled
    }
}

fn advance<P, M, F, B, T, E>(
    future: Pin<&mut ResponseFuture<P, M, F, B>>,
    cx: &mut Context<'_>,
) -> Poll<Result<T, BoxError>>
where
    P: Pool<Held = M>,
    M: Service<Request<B>, Future = F, Response = T, Error = E>,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
    B: Send + 'static,
{
    let mut this = future.project();
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
                this.pool.came_back(*this.id, &request);
                this.tried.push(*this.id);
                let (id, member) = match this.pool.pick(&request, this.tried) {
                    Ok(picked) => picked,
                    Err(nobody) => {
                        let error = this.pool.refusal(nobody, Some(cause));
                        return Poll::Ready(Err(error));
                    }
                };
                *this.id = id;
                this.stage.set(Stage::waiting(member, request));
            }
        }
    }
}

/// The request that a member's breaker or budget gave back, and why; any other error is the caller's.
fn given_back<B: Send + 'static>(error: BoxError) -> Result<(Request<B>, BoxError), BoxError> {
    let elsewhere = |reason| matches!(reason, Reason::BreakerOpen | Reason::RetryBudget);
    if !error.is::<Unsent<B>>() || !Reason::of(&*error).is_some_and(elsewhere) {
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
            .field("id", &self.id)
            .field("tried", &self.tried)
            .finish_non_exhaustive()
    }
}
