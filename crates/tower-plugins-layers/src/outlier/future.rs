use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::layer::Seat;
use crate::classify::{Classify, Cutoff, HttpGrpc, Outcome, Reading};
use crate::sharded::Held;
use crate::{BoxError, End, EndOfStream, OnEnd};

/// The body of [`Outlier`](super::Outlier)'s responses: its end is the call's.
pub type ResponseBody<B, C = HttpGrpc> = EndOfStream<B, Option<Answered<C>>>;

/// A call that has not ended. Dropped, it counts as nothing, or as a failure if its time was
/// over.
pub struct Answered<C> {
    /// `None` once the end was told.
    pub(super) seat: Option<Held<Seat>>,
    /// When its time is over.
    pub(super) cut: Option<Instant>,
    pub(super) reading: Reading,
    pub(super) classify: C,
}

impl<C> Answered<C> {
    fn tell(&mut self, outcome: Outcome) {
        if let Some(seat) = self.seat.take() {
            seat.tell(outcome);
        }
    }
}

impl<C: Classify> OnEnd for Answered<C> {
    fn on_end(mut self, end: End<'_>) {
        if self.seat.is_some() {
            let outcome = self.reading.end(&self.classify, &end);
            self.tell(outcome);
        }
    }
}

impl<C> Drop for Answered<C> {
    fn drop(&mut self) {
        if self.seat.is_some() {
            let outcome = Cutoff::dropped(self.cut);
            self.tell(outcome);
        }
    }
}

impl<C> fmt::Debug for Answered<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answered")
            .field("told", &self.seat.is_none())
            .finish_non_exhaustive()
    }
}

impl<C: Classify> Answered<C> {
    /// The head has come.
    fn at_head<RB>(&mut self, cutoff: Cutoff, response: &Response<RB>) {
        self.cut = cutoff.of_body(response);
        if let Some(outcome) = self.reading.head(&self.classify, response) {
            self.tell(outcome);
        }
    }

    /// An error has come in its place.
    fn failed(mut self, error: &(dyn std::error::Error + 'static)) {
        let outcome = self.classify.error(error);
        self.tell(outcome);
    }
}

pin_project! {
    /// The future of [`Outlier`](super::Outlier).
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C = HttpGrpc> {
        #[pin]
        pub(super) inner: F,
        pub(super) watched: Option<Answered<C>>,
        pub(super) cutoff: Cutoff,
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
        let this = self.project();
        let cutoff = *this.cutoff;
        EndOfStream::around(
            this.inner.poll(cx),
            this.watched,
            |watched, response| {
                if let Some(watched) = watched {
                    watched.at_head(cutoff, response);
                }
                watched.take()
            },
            |watched, error| {
                if let Some(watched) = watched.take() {
                    watched.failed(&**error);
                }
            },
        )
    }
}
