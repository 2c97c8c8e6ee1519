//! The body of a call's response, which holds the node.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_plugins_layers::{BoxError, End};

use super::Node;
use super::score::Begun;
use crate::error::Error;

pin_project! {
    /// Holds the node until the body ends, and names the plugin in the body's error.
    pub(super) struct CallBody<B> {
        #[pin]
        inner: B,
        held: Option<Held>,
    }
}

/// The node, and its call that is to be counted, if it is.
struct Held {
    node: Arc<Node>,
    begun: Option<Begun>,
}

impl Held {
    fn end(self, end: &End<'_>) -> Arc<Node> {
        if let (Some(score), Some(call)) = (self.node.score.get(), self.begun) {
            score.end(call, end);
        }
        self.node
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
                Some(Box::write(Box::new_uninit(), Self { inner, held: None }))
            }))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// `body`, which holds `node` from now on, and has `begun` counted at its end.
    pub(super) fn hold(
        body: Option<Box<Self>>,
        node: Arc<Node>,
        begun: Option<Begun>,
    ) -> crate::Body {
        body.map_or_else(crate::Body::empty, |mut body| {
            body.held = Some(Held { node, begun });
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
        if this.held.is_none() {
            return Poll::Ready(None);
        }
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        let end = match &frame {
            Some(Ok(frame)) => End::Complete(frame.trailers_ref()),
            Some(Err(error)) => End::Error(&**error),
            None => End::Complete(None),
        };
        let goes_on = matches!(&frame, Some(Ok(frame)) if !frame.is_trailers());
        if goes_on && !this.inner.is_end_stream() {
            return Poll::Ready(frame);
        }
        let node = this.held.take().map(|held| held.end(&end));
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|error| {
                let error = Error::from_body(error);
                match node {
                    Some(node) => error.of_plugin(&node.name).into(),
                    None => error.into(),
                }
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
