use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::layer::Circuit;
use crate::classify::{Classify, Cutoff, HttpGrpc, Outcome};
use crate::{BoxError, End, EndOfStream, OnEnd};

/// The body of [`Breaker`](super::Breaker)'s responses: its end is the call's.
pub type ResponseBody<B, C = HttpGrpc> = EndOfStream<B, Option<Outstanding<C>>>;

/// A call that was let in and has not ended. Dropped, it gives its permit back.
pub struct Outstanding<C> {
    /// `None` once the end was told.
    pub(super) circuit: Option<Arc<Circuit>>,
    pub(super) generation: u32,
    pub(super) cutoff: Cutoff,
    pub(super) classify: C,
}

impl<C> Outstanding<C> {
    fn tell(&mut self, outcome: Outcome) {
        let Some(circuit) = self.circuit.take() else {
            return;
        };
        let Circuit { policy, history } = &*circuit;
        match outcome {
            Outcome::Success | Outcome::Overloaded => history.succeeded(policy, self.generation),
            Outcome::Failure => history.failed(policy, self.generation),
            Outcome::Ignored => history.ignored(self.generation),
        }
    }
}

impl<C: Classify> Outstanding<C> {
    /// The response's head has come, or an error in its place.
    fn at_head<RB>(&mut self, result: &Result<Response<RB>, BoxError>) {
        let outcome = match result {
            Ok(response) => {
                self.cutoff.at_head(response);
                self.classify.head(response.status(), response.headers())
            }
            Err(error) => Some(self.classify.error(&**error)),
        };
        if let Some(outcome) = outcome {
            self.tell(outcome);
        }
    }
}

impl<C: Classify> OnEnd for Outstanding<C> {
    fn on_end(mut self, end: End<'_>) {
        let outcome = self.classify.end(&end);
        self.tell(outcome);
    }
}

impl<C> Drop for Outstanding<C> {
    fn drop(&mut self) {
        if self.circuit.is_some() {
            let outcome = self.cutoff.dropped();
            self.tell(outcome);
        }
    }
}

impl<C> fmt::Debug for Outstanding<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outstanding")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`Breaker`](super::Breaker).
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C = HttpGrpc> {
        #[pin]
        state: State<F, C>,
    }
}

pin_project! {
    #[project = StateProjection]
    #[derive(Debug)]
    enum State<F, C> {
        Call { #[pin] inner: F, outstanding: Option<Outstanding<C>> },
        Refused { error: Option<BoxError> },
    }
}

impl<F, C> ResponseFuture<F, C> {
    pub(super) const fn call(inner: F, outstanding: Option<Outstanding<C>>) -> Self {
        Self {
            state: State::Call { inner, outstanding },
        }
    }

    pub(super) const fn refused(error: BoxError) -> Self {
        Self {
            state: State::Refused { error: Some(error) },
        }
    }
}

impl<F, RB, E, C> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<Response<RB>, E>>,
    E: Into<BoxError>,
    RB: Body,
    C: Classify,
{
    type Output = Result<Response<ResponseBody<RB, C>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (inner, held) = match self.project().state.project() {
            StateProjection::Call { inner, outstanding } => (inner, outstanding),
            StateProjection::Refused { error } => {
                // A future that is polled after its end has nothing to say.
                return error
                    .take()
                    .map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
            }
        };
        let result = ready!(inner.poll(cx)).map_err(Into::into);
        let mut held = held.take();
        if let Some(outstanding) = &mut held {
            outstanding.at_head(&result);
        }
        Poll::Ready(result.map(|response| response.map(|body| EndOfStream::new(body, held))))
    }
}
