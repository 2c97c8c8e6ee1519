use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::history::Ended;
use super::layer::Guarded;
use crate::classify::{Classify, Cutoff, HttpGrpc, Outcome, Reading};
use crate::deadline::is_stream;
use crate::sharded::Held;
use crate::{BoxError, End, EndOfStream, OnEnd, hint};

/// The body of [`Breaker`](super::Breaker)'s responses: its end is the call's.
pub type ResponseBody<B, C = HttpGrpc> = EndOfStream<B, Option<Outstanding<C>>>;

/// A call that was let in and has not ended. Dropped, it gives its permit back.
pub struct Outstanding<C> {
    /// `None` once the end was told.
    pub(super) guarded: Option<Held<Guarded<C>>>,
    pub(super) generation: u32,
    /// When its time is over.
    pub(super) cut: Option<Instant>,
    /// From when on it is slow, if it may be.
    pub(super) slow_from: Option<Instant>,
    /// Whether it was slow already at its head.
    pub(super) slow: bool,
    pub(super) reading: Reading,
}

impl<C> Outstanding<C> {
    /// `asked` is how long the endpoint asks to be left alone.
    fn tell(&mut self, outcome: Outcome, asked: Option<Duration>) {
        let Some(guarded) = self.guarded.take() else {
            return;
        };
        let circuit = &guarded.circuit;
        let history = &circuit.history;
        let failed = match outcome {
            Outcome::Success | Outcome::Overloaded => false,
            Outcome::Failure => true,
            Outcome::Ignored => return history.ignored(self.generation),
        };
        let slow = self.slow || self.is_slow();
        history.ended(
            circuit,
            self.generation,
            Ended {
                failed,
                slow,
                asked,
            },
        );
    }

    fn is_slow(&self) -> bool {
        self.slow_from.is_some_and(|from| Instant::now() > from)
    }
}

impl<C: Classify> OnEnd for Outstanding<C> {
    fn on_end(mut self, end: End<'_>) {
        if let Some(guarded) = &self.guarded {
            let outcome = self.reading.end(&guarded.classify, &end);
            let asked = match end {
                End::Complete(Some(trailers)) => hint::asked(trailers),
                _ => None,
            };
            self.tell(outcome, asked);
        }
    }
}

impl<C> Drop for Outstanding<C> {
    fn drop(&mut self) {
        if self.guarded.is_some() {
            let outcome = Cutoff::dropped(self.cut);
            self.tell(outcome, None);
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

impl<C: Classify> Outstanding<C> {
    /// The head has come.
    fn at_head<RB>(&mut self, cutoff: Cutoff, response: &Response<RB>) {
        self.cut = cutoff.of_body(response);
        let headers = response.headers();
        let guarded = self.guarded.as_ref();
        let reading = &mut self.reading;
        match guarded.and_then(|guarded| reading.head(&guarded.classify, response)) {
            Some(outcome) => {
                let asked = if outcome == Outcome::Failure {
                    hint::asked(headers)
                } else {
                    None
                };
                self.tell(outcome, asked);
            }
            // How long a stream goes on is not the endpoint's doing.
            None if self.slow_from.is_some() && is_stream(response) => {
                (self.slow, self.slow_from) = (self.is_slow(), None);
            }
            None => {}
        }
    }

    /// An error has come in its place.
    fn failed(mut self, error: &(dyn std::error::Error + 'static)) {
        if let Some(guarded) = &self.guarded {
            let outcome = guarded.classify.error(error);
            self.tell(outcome, None);
        }
    }
}

pin_project! {
    /// The future of [`Breaker`](super::Breaker).
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C = HttpGrpc> {
        #[pin]
        pub(super) state: State<F, C>,
    }
}

pin_project! {
    #[project = StateProjection]
    #[derive(Debug)]
    pub(super) enum State<F, C> {
        Call { #[pin] inner: F, outstanding: Option<Outstanding<C>>, cutoff: Cutoff },
        Refused { error: Option<BoxError> },
    }
}

impl<F, C> ResponseFuture<F, C> {
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
        let (inner, outstanding, cutoff) = match self.project().state.project() {
            StateProjection::Call {
                inner,
                outstanding,
                cutoff,
            } => (inner, outstanding, *cutoff),
            StateProjection::Refused { error } => {
                // A future that is polled after its end has nothing to say.
                return error
                    .take()
                    .map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
            }
        };
        EndOfStream::around(
            inner.poll(cx),
            outstanding,
            |outstanding, response| {
                if let Some(outstanding) = outstanding {
                    outstanding.at_head(cutoff, response);
                }
                outstanding.take()
            },
            |outstanding, error| {
                if let Some(outstanding) = outstanding.take() {
                    outstanding.failed(&**error);
                }
            },
        )
    }
}
