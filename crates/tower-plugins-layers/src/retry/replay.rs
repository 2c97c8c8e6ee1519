use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::BoxError;

/// The body of a request that may be sent again.
///
/// It reads the caller's body when it is read itself, and keeps what it reads, as handles to the
/// same bytes, up to [`RetryPolicy::max_replay`](crate::RetryPolicy::max_replay). The body of the
/// next attempt begins with what was kept and goes on with what is left of the caller's; trailers
/// are kept too. A body that turns out larger is sent whole, but what was kept is let go and the
/// call is not repeated.
///
/// Once the next attempt has begun the body of the one before gives an error, if some transport
/// should read it still: the caller's body is one attempt's at a time.
pub struct ReplayBody<B>(Repr<B>);

enum Repr<B> {
    Passthrough(B),
    /// All of it, in one piece; often nothing.
    Whole(Bytes),
    // Boxed: most bodies are whole, and every layer moves this.
    Reader(Box<Reader<B>>),
}

impl<B> ReplayBody<B> {
    /// A body that keeps nothing.
    pub const fn passthrough(body: B) -> Self {
        Self(Repr::Passthrough(body))
    }

    /// The caller's own body, where nothing is kept of it: of a call that is not to be repeated,
    /// and of a first attempt whose body is empty.
    ///
    /// # Errors
    /// The body itself, if it is kept for another attempt.
    pub fn into_inner(self) -> Result<B, Self> {
        match self.0 {
            Repr::Passthrough(body) => Ok(body),
            repr => Err(Self(repr)),
        }
    }

    /// The body's bytes, where they are all here in one piece.
    ///
    /// # Errors
    /// The body itself, if they are not.
    pub fn into_whole(self) -> Result<Bytes, Self> {
        match self.0 {
            Repr::Whole(bytes) => Ok(bytes),
            repr => Err(Self(repr)),
        }
    }
}

/// What the next attempt's body is made of.
pub(crate) enum Replay<B> {
    Whole(Bytes),
    Kept(Arc<Mutex<Shared<B>>>),
}

/// Why a body cannot be sent again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lost {
    TooLarge,
    /// Reading it failed.
    Failed,
}

impl<B> Replay<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    /// The first attempt's `body`, and the means to repeat it unless it is known to be larger than
    /// `max`.
    pub(crate) fn new(mut body: B, max: usize) -> (ReplayBody<B>, Option<Self>) {
        if body.is_end_stream() {
            return (
                ReplayBody::passthrough(body),
                Some(Self::Whole(Bytes::new())),
            );
        }
        let size = body.size_hint();
        if size.lower() > max as u64 {
            return (ReplayBody::passthrough(body), None);
        }
        let mut first = None;
        if size.exact().is_some() {
            // Looked at without a waker: whoever reads it later leaves its own.
            let mut look = Context::from_waker(Waker::noop());
            if let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(&mut look) {
                let frame = frame.map(|frame| frame.map_err(Into::into));
                match frame.map(|frame| frame.map(Frame::into_data)) {
                    Some(Ok(Ok(bytes))) if body.is_end_stream() => {
                        let whole = ReplayBody(Repr::Whole(bytes.clone()));
                        return (whole, Some(Self::Whole(bytes)));
                    }
                    frame => first = Some(frame),
                }
            }
        }
        let mut shared = Shared {
            rest: Some(body),
            error: None,
            frames: Vec::new(),
            bytes: 0,
            trailers: None,
            max,
            lost: None,
            attempt: 0,
        };
        if let Some(first) = first {
            shared.begin(first);
        }
        let shared = Arc::new(Mutex::new(shared));
        let reader = Reader::new(Arc::clone(&shared), 0);
        (ReplayBody(Repr::Reader(reader)), Some(Self::Kept(shared)))
    }

    /// Whether all of the body has been read, and kept.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Kept(shared) => lock(shared).is_whole(),
        }
    }

    /// A body for an attempt beside the one under way, once that one is through with the caller's.
    pub(super) fn sibling(&self) -> Result<Option<ReplayBody<B>>, Lost> {
        let shared = match self {
            Self::Whole(bytes) => return Ok(Some(ReplayBody(Repr::Whole(bytes.clone())))),
            Self::Kept(shared) => shared,
        };
        let attempt = {
            let state = lock(shared);
            if let Some(lost) = state.lost {
                return Err(lost);
            }
            if !state.is_whole() {
                return Ok(None);
            }
            state.attempt
        };
        let reader = Reader::new(Arc::clone(shared), attempt);
        Ok(Some(ReplayBody(Repr::Reader(reader))))
    }

    /// The next attempt's body. The one before ends here.
    pub(crate) fn again(&self) -> Result<ReplayBody<B>, Lost> {
        let shared = match self {
            Self::Whole(bytes) => return Ok(ReplayBody(Repr::Whole(bytes.clone()))),
            Self::Kept(shared) => shared,
        };
        let attempt = {
            let mut state = lock(shared);
            if let Some(lost) = state.lost {
                return Err(lost);
            }
            state.attempt += 1;
            state.attempt
        };
        Ok(ReplayBody(Repr::Reader(Reader::new(
            Arc::clone(shared),
            attempt,
        ))))
    }
}

/// The caller's body and what was read of it.
///
/// Attempts share it under a lock instead of handing it over when a body is dropped: a transport
/// may hold on to the body of a failed attempt, and the next attempt does not wait for it. The lock
/// is free but for such moments.
pub(crate) struct Shared<B> {
    /// The caller's body, until it has ended.
    rest: Option<B>,
    /// Why it ended, until it is told.
    error: Option<BoxError>,
    frames: Vec<Bytes>,
    /// The sum of `frames`.
    bytes: usize,
    trailers: Option<HeaderMap>,
    max: usize,
    lost: Option<Lost>,
    /// The attempt that may read.
    attempt: u32,
}

fn lock<B>(shared: &Mutex<Shared<B>>) -> MutexGuard<'_, Shared<B>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B> Shared<B> {
    /// Takes in what a first look at the body found.
    fn begin(&mut self, frame: Option<Result<Result<Bytes, Frame<Bytes>>, BoxError>>) {
        match frame {
            Some(Ok(Ok(bytes))) => {
                self.bytes = bytes.len();
                self.frames.push(bytes);
            }
            Some(Ok(Err(frame))) => self.trailers = frame.into_trailers().ok(),
            Some(Err(error)) => {
                self.rest = None;
                self.error = Some(error);
                self.lose(Lost::Failed);
            }
            None => self.rest = None,
        }
    }

    fn lose(&mut self, why: Lost) {
        self.lost = Some(why);
        self.frames = Vec::new();
        self.bytes = 0;
    }
}

impl<B: Body> Shared<B> {
    fn is_whole(&self) -> bool {
        self.lost.is_none() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }
}

/// One attempt's place in the shared body.
struct Reader<B> {
    shared: Arc<Mutex<Shared<B>>>,
    attempt: u32,
    /// The kept frames, and their bytes, that this attempt has had.
    frames: usize,
    bytes: usize,
    /// Whether it has had the trailers.
    trailers: bool,
}

impl<B> Reader<B> {
    fn new(shared: Arc<Mutex<Shared<B>>>, attempt: u32) -> Box<Self> {
        Box::new(Self {
            shared,
            attempt,
            frames: 0,
            bytes: 0,
            trailers: false,
        })
    }
}

impl<B> Reader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // Nobody else is left who could ask for another attempt.
        let last = Arc::strong_count(&self.shared) == 1;
        let mut state = lock(&self.shared);
        if state.attempt != self.attempt {
            return Poll::Ready(Some(Err(Superseded.into())));
        }
        if let Some(error) = state.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(bytes) = state.frames.get(self.frames).cloned() {
            self.frames += 1;
            self.bytes += bytes.len();
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let (Some(trailers), false) = (&state.trailers, self.trailers) {
            self.trailers = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
        }
        let Some(rest) = &mut state.rest else {
            return Poll::Ready(None);
        };
        let frame = match ready!(Pin::new(rest).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                state.rest = None;
                state.lose(Lost::Failed);
                return Poll::Ready(Some(Err(error.into())));
            }
            None => {
                state.rest = None;
                return Poll::Ready(None);
            }
        };
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = true;
            if !last && state.lost.is_none() {
                state.trailers = Some(trailers.clone());
            }
        } else if let Some(bytes) = frame.data_ref() {
            let kept = state.bytes + bytes.len();
            // Frames of nothing, or nearly nothing, are kept up to a bound as well.
            let frames = state.frames.len() > state.max / 16 + 1024;
            if last || kept > state.max || frames {
                state.lose(Lost::TooLarge);
            } else if state.lost.is_none() {
                state.frames.push(bytes.clone());
                state.bytes = kept;
                self.frames += 1;
                self.bytes = kept;
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        let state = lock(&self.shared);
        state.attempt == self.attempt
            && self.frames >= state.frames.len()
            && (self.trailers || state.trailers.is_none())
            && state.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let state = lock(&self.shared);
        let kept = state.bytes.saturating_sub(self.bytes) as u64;
        let mut hint = state
            .rest
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(kept));
        }
        hint.set_lower(hint.lower().saturating_add(kept));
        hint
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Repr::Passthrough(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Repr::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Repr::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Repr::Reader(reader) => reader.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Repr::Passthrough(body) => body.is_end_stream(),
            Repr::Whole(bytes) => bytes.is_empty(),
            Repr::Reader(reader) => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Repr::Passthrough(body) => body.size_hint(),
            Repr::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Repr::Reader(reader) => reader.size_hint(),
        }
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Repr::Passthrough(_) => "ReplayBody(passthrough)",
            Repr::Whole(_) => "ReplayBody(whole)",
            Repr::Reader(_) => "ReplayBody(kept)",
        })
    }
}

/// The error of a body that is read after its attempt was given up.
#[derive(Debug, thiserror::Error)]
#[error("the attempt this body belongs to was given up for another")]
struct Superseded;

/// The error of a call that would have been made again, had its request's body been kept whole. Its
/// source is the error of the last attempt.
#[derive(Debug)]
pub struct NotReplayable {
    max: usize,
    source: BoxError,
}

impl NotReplayable {
    pub(super) const fn new(max: usize, source: BoxError) -> Self {
        Self { max, source }
    }
}

impl fmt::Display for NotReplayable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the call failed and its request's body is too large to replay: more than the {} bytes \
             that are kept",
            self.max
        )
    }
}

impl StdError for NotReplayable {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}
