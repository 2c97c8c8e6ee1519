//! How much of a request's body the filter sees.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use crate::{BoxError, Reason, Refused};

/// What the filter is sent of a body: [`Head`] for nothing, [`WithBody`] for its beginning.
pub trait Take<B>: Clone {
    /// Takes the beginning of `body`; gives it, whether it is all, and the body as it goes on.
    ///
    /// # Errors
    /// When the body fails, or is larger than it may be.
    fn take(&self, body: B) -> impl Future<Output = Result<(Bytes, bool, B), BoxError>> + Send;
}

/// The filter sees no body.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head;

impl<B: Send> Take<B> for Head {
    async fn take(&self, body: B) -> Result<(Bytes, bool, B), BoxError> {
        Ok((Bytes::new(), true, body))
    }
}

/// What is done with a body of which the filter may not see all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Larger {
    /// The call is refused.
    #[default]
    Refuse,
    /// The filter sees its beginning, with the header `x-partial-body: true`.
    Partial,
}

/// The filter sees the beginning of a body.
#[derive(Clone, Copy, Debug)]
pub struct WithBody<R> {
    pub(super) max: usize,
    pub(super) larger: Larger,
    pub(super) wrap: R,
}

impl<B, R> Take<B> for WithBody<R>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin,
    R: Fn(Buffered<B>) -> B + Clone + Send + Sync,
{
    async fn take(&self, mut body: B) -> Result<(Bytes, bool, B), BoxError> {
        let mut frames = VecDeque::new();
        let mut seen = BytesMut::new();
        let mut whole = true;
        if self.larger == Larger::Refuse && body.size_hint().lower() > self.max as u64 {
            return Err(self.too_large());
        }
        while !body.is_end_stream() {
            let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await else {
                break;
            };
            let frame =
                frame.map_err(|error| Refused::new(Reason::RequestBroken).caused_by(error))?;
            if let Some(data) = frame.data_ref() {
                let room = self.max - seen.len();
                whole = data.len() <= room;
                seen.extend_from_slice(&data[..data.len().min(room)]);
            }
            frames.push_back(frame);
            if !whole {
                break;
            }
        }
        if !whole && self.larger == Larger::Refuse {
            return Err(self.too_large());
        }
        let buffered = Buffered { frames, rest: body };
        Ok((seen.freeze(), whole, (self.wrap)(buffered)))
    }
}

impl<R> WithBody<R> {
    fn too_large(&self) -> BoxError {
        Refused::new(Reason::FilterFailed)
            .caused_by(TooLarge(self.max))
            .into()
    }
}

/// The error of a body that is larger than the filter may see.
#[derive(Debug, thiserror::Error)]
#[error("the request's body is larger than the {0} bytes that the filter may see")]
struct TooLarge(usize);

/// A body whose beginning was read already.
pub struct Buffered<B> {
    frames: VecDeque<Frame<Bytes>>,
    rest: B,
}

impl<B> Body for Buffered<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read = self
            .frames
            .iter()
            .filter_map(Frame::data_ref)
            .map(Bytes::len);
        let read = read.sum::<usize>() as u64;
        let mut hint = self.rest.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint.set_lower(hint.lower().saturating_add(read));
        hint
    }
}

impl<B> fmt::Debug for Buffered<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffered")
            .field("frames", &self.frames.len())
            .finish_non_exhaustive()
    }
}
