//! A response's body, of a process that may end before it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::sleep;
use tower_plugins_layers::BoxError;

use super::session::Session;
use super::{NOTICED_WITHIN, TOLD_WITHIN, why_ended};
use crate::Body;
use crate::transport::error::lost;
use crate::transport::subprocess::{Exited, InUse};

/// Tells how its process ended, if that is why it broke, and breaks if it ended: what that has left behind may hold the connection open.
pub(super) struct OfProcess {
    body: Body,
    name: Arc<str>,
    running: InUse<Session>,
    /// There once it had to be waited for.
    gone: Option<Pending<()>>,
    /// There when it breaks.
    why: Option<Pending<BoxError>>,
}

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send + Sync>>;

impl OfProcess {
    pub(super) fn wrap(body: Body, name: Arc<str>, running: InUse<Session>) -> Body {
        if http_body::Body::is_end_stream(&body) {
            return body;
        }
        Body::new(Self {
            body,
            name,
            running,
            gone: None,
            why: None,
        })
    }

    /// Waits until nothing more can come of the process.
    fn gone(&self) -> Pending<()> {
        let running = self.running.clone();
        Box::pin(async move {
            running.gone().await;
            sleep(NOTICED_WITHIN).await;
        })
    }

    /// The error of a body that broke with `error`, or waits for a process that is gone.
    fn why(&self, error: Option<BoxError>) -> Pending<BoxError> {
        let (name, running) = (Arc::clone(&self.name), self.running.clone());
        Box::pin(async move {
            let exited = match &error {
                Some(error) => why_ended(error, &running).await,
                None => running.exited(TOLD_WITHIN).await,
            };
            match (exited, error) {
                (Some(exited), _) => lost(&name, (*exited).clone()).into(),
                (None, Some(error)) => error,
                (None, None) => lost(&name, Exited::unknown()).into(),
            }
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
            let error = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Err(error))) => Some(error),
                Poll::Ready(other) => return Poll::Ready(other),
                Poll::Pending => {
                    let mut gone = this.gone.take().unwrap_or_else(|| this.gone());
                    if gone.as_mut().poll(cx).is_pending() {
                        this.gone = Some(gone);
                        return Poll::Pending;
                    }
                    None
                }
            };
            this.why = Some(this.why(error));
        }
        let Some(why) = &mut this.why else {
            return Poll::Ready(None);
        };
        let error = ready!(why.as_mut().poll(cx));
        (this.gone, this.why, this.body) = (None, None, Body::empty());
        Poll::Ready(Some(Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.why.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
