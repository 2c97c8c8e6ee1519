use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::layer::Seat;
use crate::classify::{Classify, Cutoff, HttpGrpc, Hurry, Outcome};
use crate::sharded::Held;
use crate::{BoxError, End, EndOfStream, OnEnd};

/// The body of [`Outlier`](super::Outlier)'s responses: its end is the call's.
pub type ResponseBody<B, C = HttpGrpc> = EndOfStream<B, Option<Answered<C>>>;

/// A call that has its response's head. Dropped, it counts as nothing, or as a failure if its time was
/// over.
pub struct Answered<C> {
    /// `None` once the end was told.
    seat: Option<Held<Seat>>,
    /// When its time is over.
    cut: Option<Instant>,
    hurry: Hurry,
    classify: C,
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
            let outcome = self.hurry.end(self.classify.end(&end), &end);
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

/// A call until its response's head comes.
#[derive(Debug)]
pub(super) struct Watched<C> {
    call: Answered<C>,
    cutoff: Cutoff,
}

impl<C: Classify> Watched<C> {
    /// `cut` and `cutoff` are what [`Cutoff::of`] says.
    pub(super) fn new(
        seat: Held<Seat>,
        (cut, cutoff): (Option<Instant>, Cutoff),
        hurry: Hurry,
        classify: C,
    ) -> Self {
        Self {
            call: Answered {
                seat: Some(seat),
                cut,
                hurry,
                classify,
            },
            cutoff,
        }
    }

    /// The head has come. `None` if that says it all.
    fn at_head<RB>(self, response: &Response<RB>) -> Option<Answered<C>> {
        let mut call = self.call;
        let head = call.classify.head(response.status(), response.headers());
        if let Some(outcome) = head {
            call.tell(call.hurry.head(outcome, response));
            return None;
        }
        call.cut = self.cutoff.of_body(response);
        Some(call)
    }

    /// An error has come in its place.
    fn failed(mut self, error: &(dyn std::error::Error + 'static)) {
        let outcome = self.call.classify.error(error);
        self.call.tell(outcome);
    }
}

pin_project! {
    /// The future of [`Outlier`](super::Outlier).
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C = HttpGrpc> {
        #[pin]
        inner: F,
        watched: Option<Watched<C>>,
    }
}

impl<F, C> ResponseFuture<F, C> {
    pub(super) const fn new(inner: F, watched: Option<Watched<C>>) -> Self {
        Self { inner, watched }
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
        let result = ready!(this.inner.poll(cx));
        let watched = this.watched.take();
        match result {
            Ok(response) => {
                let held = watched.and_then(|watched| watched.at_head(&response));
                Poll::Ready(Ok(response.map(|body| EndOfStream::new(body, held))))
            }
            Err(error) => {
                let error = error.into();
                if let Some(watched) = watched {
                    watched.failed(&*error);
                }
                Poll::Ready(Err(error))
            }
        }
    }
}
