//! The end of a call is the end of its response's body.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::BoxError;

/// How a body ended, when it was not dropped before its end.
#[derive(Debug)]
#[non_exhaustive]
pub enum End<'a> {
    /// All frames were read; here are the trailers, if there were any.
    Complete(Option<&'a HeaderMap>),
    /// Reading failed.
    Error(&'a (dyn StdError + 'static)),
}

/// Something held until a response's body ends.
///
/// [`on_end`](Self::on_end) is called at most once: at the trailers, at the end or at an error. A
/// body dropped earlier drops what it holds, so that `Drop` is where a cancelled call is noticed.
pub trait OnEnd: Sized {
    /// The body has ended.
    fn on_end(self, _end: End<'_>) {}
}

impl OnEnd for () {}

impl<T: OnEnd> OnEnd for Option<T> {
    fn on_end(self, end: End<'_>) {
        if let Some(held) = self {
            held.on_end(end);
        }
    }
}

pin_project! {
    /// A body that holds `G` until it ends, and lets go of it exactly once: when it is made of a
    /// body that has ended, at the trailers, at the frame after which the body says that it has
    /// ended (hyper reads no further), at the end, at an error, or when it is dropped.
    ///
    /// ```
    /// use http_body_util::{BodyExt, Full};
    /// use tower_plugins_layers::{EndOfStream, End, OnEnd};
    /// # use std::sync::{Arc, atomic::{AtomicBool, Ordering}};
    ///
    /// struct Notice(Arc<AtomicBool>);
    /// impl OnEnd for Notice {
    ///     fn on_end(self, end: End<'_>) {
    ///         self.0.store(matches!(end, End::Complete(None)), Ordering::Relaxed);
    ///     }
    /// }
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let ended = Arc::new(AtomicBool::new(false));
    /// let body = EndOfStream::new(Full::new(bytes::Bytes::from("all")), Notice(ended.clone()));
    /// assert!(!ended.load(Ordering::Relaxed));
    /// body.collect().await.unwrap();
    /// assert!(ended.load(Ordering::Relaxed));
    /// # });
    /// ```
    #[must_use = "a body does nothing unless it is read"]
    pub struct EndOfStream<B, G> {
        #[pin]
        body: B,
        held: Held<G>,
    }
}

/// What waits for a body's end.
#[derive(Debug)]
pub(crate) enum Held<G> {
    /// Nobody waits for the end.
    Nobody,
    Until(G),
    /// The end was told.
    Over,
}

impl<G: OnEnd> Held<G> {
    /// `held` until `body` ends, unless it has.
    #[inline]
    pub(crate) fn by<B: Body>(body: &B, held: G) -> Self {
        if body.is_end_stream() {
            held.on_end(End::Complete(None));
            return Self::Over;
        }
        Self::Until(held)
    }

    fn end(&mut self, end: End<'_>) {
        if let Self::Until(held) = std::mem::replace(self, Self::Over) {
            held.on_end(end);
        }
    }
}

impl<B: Body, G: OnEnd> EndOfStream<B, G> {
    /// `body`, holding `held` until it ends.
    pub fn new(body: B, held: G) -> Self {
        let held = Held::by(&body, held);
        Self { body, held }
    }

    /// Hands on what has come of a call: a response, whose body holds what `at_head` gives until it ends, or an error,
    /// of which `failed` hears. Both are given `call`.
    ///
    /// A response is large: it is looked at where it is, and moves once.
    #[inline]
    pub(crate) fn around<E: Into<BoxError>, C>(
        polled: Poll<Result<Response<B>, E>>,
        mut call: C,
        at_head: impl FnOnce(&mut C, &Response<B>) -> G,
        failed: impl FnOnce(C, &BoxError),
    ) -> Poll<Result<Response<Self>, BoxError>> {
        let held = match &polled {
            Poll::Ready(Ok(response)) => Held::by(response.body(), at_head(&mut call, response)),
            _ => Held::Nobody,
        };
        match polled {
            Poll::Ready(Ok(response)) => {
                Poll::Ready(Ok(response.map(|body| Self::with(body, held))))
            }
            Poll::Ready(Err(error)) => {
                let error = error.into();
                failed(call, &error);
                Poll::Ready(Err(error))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<B, G> EndOfStream<B, G> {
    /// `body` with what [`Held::by`] says of it.
    pub(crate) const fn with(body: B, held: Held<G>) -> Self {
        Self { body, held }
    }
}

impl<B, G> EndOfStream<B, G> {
    /// What is held, while the end is still to come.
    pub(crate) const fn held(&self) -> Option<&G> {
        match &self.held {
            Held::Until(held) => Some(held),
            Held::Nobody | Held::Over => None,
        }
    }
}

/// `body` as it is, with nothing held.
impl<B, G> From<B> for EndOfStream<B, G> {
    fn from(body: B) -> Self {
        Self {
            body,
            held: Held::Nobody,
        }
    }
}

impl<B, G> Body for EndOfStream<B, G>
where
    B: Body,
    B::Error: Into<BoxError>,
    G: OnEnd,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        if matches!(this.held, Held::Nobody) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.held.end(End::Complete(Some(trailers)));
                } else if this.body.is_end_stream() {
                    this.held.end(End::Complete(None));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let error = error.into();
                this.held.end(End::Error(&*error));
                Poll::Ready(Some(Err(error)))
            }
            None => {
                this.held.end(End::Complete(None));
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // What was let go of has ended: asking further in would cost a call for each layer.
        matches!(self.held, Held::Over) || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: fmt::Debug, G> fmt::Debug for EndOfStream<B, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndOfStream")
            .field("body", &self.body)
            .field("held", &self.held().is_some())
            .finish()
    }
}
