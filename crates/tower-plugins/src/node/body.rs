//! The body of a call's response, which holds the node.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
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

type Polled<B> = Poll<Result<Response<B>, BoxError>>;

impl<B> CallBody<B>
where
    B: Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    /// That of the response that a call has ended in, which holds nothing yet; `None` if it has ended.
    #[inline]
    pub(super) fn of(polled: Polled<B>) -> Polled<Option<Box<Self>>> {
        // Asked before the response is moved: it is large, and moves once.
        let has_ended =
            matches!(&polled, Poll::Ready(Ok(response)) if response.body().is_end_stream());
        match polled {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(response.map(|inner| {
                if has_ended {
                    return None;
                }
                // Made in its place: `Box::new` would move it there.
                Some(Box::write(Box::new_uninit(), Self { inner, node: None }))
            }))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// `body`, which holds `node` from now on.
    pub(super) fn hold(body: Option<Box<Self>>, node: Arc<Node>) -> crate::Body {
        body.map_or_else(crate::Body::empty, |mut body| {
            body.node = Some(node);
            crate::Body::pinned(Box::into_pin(body))
        })
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
