//! The one body type.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tower_plugins_layers::BoxError;

/// The body of every request and response that goes through a plugin.
///
/// It is made from any [`http_body::Body`] of [`Bytes`] with [`Body::new`], or from text and bytes
/// with `From`. Dropping it ends the call it belongs to.
///
/// ```
/// use tower_plugins::Body;
///
/// let body = Body::from("hello");
/// assert_eq!(http_body::Body::size_hint(&body).exact(), Some(5));
/// ```
#[must_use = "a body does nothing unless it is read"]
pub struct Body(Repr);

enum Repr {
    /// All of it; often nothing.
    Full(Bytes),
    Boxed(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>),
}

impl Body {
    /// A body without a byte.
    pub const fn empty() -> Self {
        Self(Repr::Full(Bytes::new()))
    }

    /// The body `body`. A `Body` is taken as it is, a body that has ended is dropped at once, any
    /// other is boxed.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut body = Some(body);
        let any = &mut body as &mut dyn Any;
        if let Some(body) = any.downcast_mut::<Option<Self>>().and_then(Option::take) {
            return body;
        }
        match body {
            Some(body) if !body.is_end_stream() => {
                use http_body_util::BodyExt;
                Self(Repr::Boxed(Box::pin(body.map_err(Into::into))))
            }
            _ => Self::empty(),
        }
    }

    /// Whether all its bytes are here.
    pub(crate) const fn is_full(&self) -> bool {
        self.full().is_some()
    }

    /// Its bytes, if all are here.
    pub(crate) const fn full(&self) -> Option<&Bytes> {
        match &self.0 {
            Repr::Full(bytes) => Some(bytes),
            Repr::Boxed(_) => None,
        }
    }

    /// The body `body`, which has not ended.
    pub(crate) fn pinned(
        body: Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>,
    ) -> Self {
        Self(Repr::Boxed(body))
    }

    /// The body `body`, boxed unless it has ended.
    pub(crate) fn boxed<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        // Made in its place: `Box::pin` would move it there.
        let body: Box<B> = Box::write(Box::new_uninit(), body);
        Self(Repr::Boxed(Box::into_pin(body)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Repr::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Repr::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Repr::Boxed(body) => {
                let frame = ready!(body.as_mut().poll_frame(cx));
                if matches!(frame, Some(Err(_))) {
                    // Whoever keeps a body that failed keeps nothing of its call.
                    self.0 = Repr::Full(Bytes::new());
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Repr::Full(bytes) => bytes.is_empty(),
            Repr::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Repr::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Repr::Boxed(body) => body.size_hint(),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Repr::Full(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Body")
            .field(&http_body::Body::size_hint(self))
            .finish()
    }
}
