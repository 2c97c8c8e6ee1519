//! A response's body, of a process that may end before it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tower_plugins_layers::BoxError;

use super::session::Session;
use super::why_ended;
use crate::Body;
use crate::transport::error::lost;
use crate::transport::subprocess::InUse;

/// Tells how its process ended, if that is why it broke.
pub(super) struct OfProcess {
    body: Body,
    name: Arc<str>,
    running: InUse<Session>,
    /// There once it broke.
    why: Option<Pin<Box<dyn Future<Output = BoxError> + Send + Sync>>>,
}

impl OfProcess {
    pub(super) fn wrap(body: Body, name: Arc<str>, running: InUse<Session>) -> Body {
        if http_body::Body::is_end_stream(&body) {
            return body;
        }
        Body::new(Self {
            body,
            name,
            running,
            why: None,
        })
    }
}

impl http_body::Body for OfProcess {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.why.is_none() {
            let error = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Err(error)) => error,
                other => return Poll::Ready(other),
            };
            let (name, running) = (Arc::clone(&this.name), this.running.clone());
            this.why = Some(Box::pin(async move {
                match why_ended(&error, &running).await {
                    Some(exited) => lost(&name, (*exited).clone()).into(),
                    None => error,
                }
            }));
        }
        let Some(why) = &mut this.why else {
            return Poll::Ready(None);
        };
        let error = ready!(why.as_mut().poll(cx));
        this.why = Some(Box::pin(std::future::pending()));
        this.body = Body::empty();
        Poll::Ready(Some(Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.why.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
