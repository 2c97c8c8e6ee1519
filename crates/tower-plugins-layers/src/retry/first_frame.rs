//! The look at a gRPC response's first frame.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http::{HeaderMap, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::RetryPolicy;
use super::budget::Tokens;
use super::on::Codes;
use crate::deadline::is_of_type;
use crate::header::GRPC_STATUS;
use crate::timer::Timer;

/// The body of [`Retry`](crate::Retry)'s responses: the body of the service inside, which may have
/// been looked at as far as its first frame. That frame comes first, as it was.
pub struct ResponseBody<B>
where
    B: Body,
{
    inner: B,
    first: First<B::Data, B::Error>,
    hears: Option<Arc<Hears>>,
}

/// A budget that hears how calls end.
#[derive(Debug)]
pub(super) struct Hears {
    tokens: Tokens,
    /// Which codes are failures.
    codes: Codes,
}

impl Hears {
    /// What hears of `policy`'s calls, if anything does.
    pub(super) fn of(policy: &RetryPolicy) -> Option<Arc<Self>> {
        let tokens = policy.budget.listener()?.clone();
        let codes = policy.on.codes();
        Some(Arc::new(Self { tokens, codes }))
    }

    pub(super) fn succeeded(&self) {
        self.tokens.succeeded();
    }

    /// The end of a response whose head did not say it.
    fn of_end(&self, trailers: &HeaderMap) {
        match trailers.get(&GRPC_STATUS) {
            Some(code) if code == "0" => self.tokens.succeeded(),
            Some(code) if self.codes.has(code.as_bytes()) => self.tokens.failed(),
            _ => {}
        }
    }
}

/// What was seen of a body and not yet handed on.
enum First<D, E> {
    Nothing,
    Data(D),
    // Boxed: large, and rare next to data.
    Other(Box<Result<Frame<D>, E>>),
    /// The end, which is told again whenever it is asked for.
    End,
}

impl<B: Body> ResponseBody<B> {
    pub(crate) const fn new(inner: B) -> Self {
        Self {
            inner,
            first: First::Nothing,
            hears: None,
        }
    }

    pub(super) fn tells(&mut self, hears: Arc<Hears>) {
        self.hears = Some(hears);
    }

    /// Whether the rest of it is not on its way any more, so that it costs nothing to keep it.
    pub(super) fn is_all_here(&self) -> bool {
        match self.first {
            First::Nothing => self.inner.is_end_stream(),
            First::Data(_) => false,
            First::Other(_) | First::End => true,
        }
    }
}

impl<B: Body + Unpin> ResponseBody<B> {
    /// Takes in the first frame, which does not count as read. Whether it is there.
    fn take_in(&mut self, cx: &mut Context<'_>) -> bool {
        if matches!(self.first, First::Nothing) {
            let Poll::Ready(first) = Pin::new(&mut self.inner).poll_frame(cx) else {
                return false;
            };
            self.first = match first {
                None => First::End,
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => First::Data(data),
                    Err(frame) => First::Other(Box::new(Ok(frame))),
                },
                Some(Err(error)) => First::Other(Box::new(Err(error))),
            };
        }
        true
    }

    fn seen(&self) -> Seen<'_> {
        match &self.first {
            First::Other(seen) => match &**seen {
                Ok(frame) => frame.trailers_ref().map_or(Seen::Other, Seen::Trailers),
                Err(_) => Seen::Broken,
            },
            _ => Seen::Other,
        }
    }
}

/// What was seen of a body whose head did not decide.
pub(super) enum Seen<'a> {
    /// Trailers and nothing else.
    Trailers(&'a HeaderMap),
    /// The body broke off.
    Broken,
    /// A message, the end, or nothing in all the time there is.
    Other,
}

/// A response whose first frame is awaited, for as long as its head may be held up.
pub(crate) struct Look<B: Body> {
    response: Response<ResponseBody<B>>,
    wait: Duration,
    /// Made when the frame has to be waited for.
    timer: Option<Timer>,
}

impl<B: Body + Unpin> Look<B> {
    pub(super) const fn new(response: Response<ResponseBody<B>>, wait: Duration) -> Self {
        Self {
            response,
            wait,
            timer: None,
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Seen<'_>> {
        if !self.response.body_mut().take_in(cx) {
            let wait = self.wait;
            let timer = self
                .timer
                .get_or_insert_with(|| Timer::maybe_at(Instant::now().checked_add(wait)));
            if timer.poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(self.response.body().seen())
    }

    pub(super) const fn response_mut(&mut self) -> &mut Response<ResponseBody<B>> {
        &mut self.response
    }

    pub(crate) fn into_response(self) -> Response<ResponseBody<B>> {
        self.response
    }
}

/// Whether a response is gRPC whose status is still to come.
pub(super) fn may_fail_later<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    response.status() == StatusCode::OK
        && !headers.contains_key(&GRPC_STATUS)
        && headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| is_of_type(kind.as_bytes(), b"application/grpc"))
}

// The frame is held by value and never pinned.
impl<B: Body + Unpin> Unpin for ResponseBody<B> {}

impl<B: Body + Unpin> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = match std::mem::replace(&mut self.first, First::Nothing) {
            First::Nothing => ready!(Pin::new(&mut self.inner).poll_frame(cx)),
            First::Data(data) => Some(Ok(Frame::data(data))),
            First::Other(seen) => Some(*seen),
            First::End => {
                self.first = First::End;
                None
            }
        };
        if self.hears.is_some() {
            let over = match &frame {
                Some(Ok(frame)) => frame.trailers_ref().map(Some),
                Some(Err(_)) | None => Some(None),
            };
            if let (Some(end), Some(hears)) = (over, self.hears.as_ref()) {
                match end {
                    Some(trailers) => hears.of_end(trailers),
                    // The service has broken it off.
                    None if frame.is_some() => hears.tokens.failed(),
                    None => {}
                }
                self.hears = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self.first {
            First::Nothing => self.inner.is_end_stream(),
            First::Data(_) | First::Other(_) => false,
            First::End => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        if let First::Data(data) = &self.first {
            let seen = data.remaining() as u64;
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper.saturating_add(seen));
            }
            hint.set_lower(hint.lower().saturating_add(seen));
        }
        hint
    }
}

impl<B: Body + fmt::Debug> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("inner", &self.inner)
            .field("looked_at", &!matches!(self.first, First::Nothing))
            .finish()
    }
}

/// `body` as it is, of which nothing was seen.
impl<B: Body> From<B> for ResponseBody<B> {
    fn from(body: B) -> Self {
        Self::new(body)
    }
}

impl<B: Body + Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::new(B::default())
    }
}
