//! One call, counted until its last byte.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;

use super::Ending;

/// What the plugin waits for when it ends, or ends.
pub(super) enum Guard {
    /// A call of the plugin's own: it waits for that.
    Own { _counted: TaskTrackerToken },
    /// A call about the plugin that has no end of itself: it ends that.
    Endless(Pin<Box<WaitForCancellationFutureOwned>>),
    /// A call that ends otherwise.
    Other,
}

/// The body of an answer.
pub(super) struct CallBody {
    body: Body,
    guard: Guard,
    ended: bool,
}

impl CallBody {
    /// The guard of a call of `path`.
    pub(super) fn guard(path: &str, ending: &Ending) -> Guard {
        if path.starts_with("/plugin.GRPC") {
            // The streams of the broker and of what is printed end with those.
            Guard::Other
        } else if path.starts_with("/grpc.health.v1.") || path.starts_with("/grpc.reflection.v1") {
            Guard::Endless(Box::pin(ending.calls_over.clone().cancelled_owned()))
        } else {
            Guard::Own {
                _counted: ending.calls.token(),
            }
        }
    }
}

impl Guard {
    pub(super) fn around(self, body: Body) -> CallBody {
        CallBody {
            body,
            guard: self,
            ended: false,
        }
    }
}

impl http_body::Body for CallBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_pending()
            && let Guard::Endless(over) = &mut self.guard
            && over.as_mut().poll(context).is_ready()
        {
            self.ended = true;
            let mut trailers = HeaderMap::new();
            let status = Status::unavailable("the plugin is ending");
            return Poll::Ready(
                status
                    .add_header(&mut trailers)
                    .is_ok()
                    .then(|| Ok(Frame::trailers(trailers))),
            );
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
