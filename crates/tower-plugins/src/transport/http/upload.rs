//! A request's body on its way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use ::http::Request;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tower_plugins_layers::BoxError;

use super::cut::Cut;
use crate::Body;

/// Ends a request's body when it is dropped: hyper would go on sending it when the response is
/// over. A body that is all here needs no end.
#[derive(Default)]
pub(super) struct Upload(Option<Arc<State>>);

#[derive(Default)]
struct State {
    over: Cut,
    failure: Mutex<Option<BoxError>>,
}

impl Upload {
    pub(super) fn of(request: &mut Request<Body>) -> Self {
        let body = request.body_mut();
        if body.is_full() || body.is_end_stream() {
            return Self(None);
        }
        let state = Arc::<State>::default();
        *body = Body::new(Uploading {
            body: std::mem::take(body),
            state: Arc::clone(&state),
        });
        Self(Some(state))
    }

    /// The error of the body itself, if it was that which ended the exchange.
    pub(super) fn failure(&self) -> Option<BoxError> {
        let failure = &self.0.as_ref()?.failure;
        failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Leaves the body as it is, for another attempt.
    pub(super) fn release(&mut self) {
        self.0 = None;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(state) = &self.0 {
            state.over.make();
        }
    }
}

struct Uploading {
    body: Body,
    state: Arc<State>,
}

impl http_body::Body for Uploading {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.state.over.is_made(cx) {
            // hyper polls this in a task of the connection, which other calls share: a panic is not to
            // end it. Unwind safe: the body is not polled again.
            let body = Pin::new(&mut self.body);
            let polled = catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx)));
            let panicked = |_| Poll::Ready(Some(Err("the body panicked".into())));
            match ready!(polled.unwrap_or_else(panicked)) {
                Some(Err(error)) => {
                    let mut failure = self
                        .state
                        .failure
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    *failure = Some(error);
                }
                frame => return Poll::Ready(frame),
            }
        }
        // The code that hyper resets an HTTP/2 stream with.
        Poll::Ready(Some(Err(h2::Error::from(h2::Reason::CANCEL).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
