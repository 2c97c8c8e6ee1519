//! The body of a call's response, which holds the node.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_plugins_layers::BoxError;

use super::Node;
use crate::error::Error;

pin_project! {
    /// Holds the node until the body ends, and names the plugin in the body's error.
    pub(super) struct CallBody<B> {
        #[pin]
        inner: B,
        node: Option<Arc<Node>>,
    }
}

impl<B: Body> CallBody<B> {
    pub(super) fn new(inner: B, node: Arc<Node>) -> Self {
        Self {
            inner,
            node: Some(node),
        }
    }
}

impl<B> Body for CallBody<B>
where
    B: Body<Data = Bytes, Error = BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        if this.node.is_none() {
            return Poll::Ready(None);
        }
        match ready!(this.inner.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => {
                if frame.is_trailers() || this.inner.is_end_stream() {
                    *this.node = None;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let error = Error::from_body(error);
                Poll::Ready(Some(Err(match this.node.take() {
                    Some(node) => error.of_plugin(&node.name).into(),
                    None => error.into(),
                })))
            }
            None => {
                *this.node = None;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
