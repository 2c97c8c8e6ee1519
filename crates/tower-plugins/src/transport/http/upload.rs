//! A request on its way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use ::http::{Extensions, HeaderMap, Method, Request, Uri};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tower_plugins_layers::BoxError;

use super::cut::Cut;
use crate::Body;

/// How much of a body is kept until the response's head is there, to be sent again.
const KEPT: usize = 64 * 1024;

/// Ends a request's body when it is dropped: hyper would go on sending it when the response is
/// over. A body that is all here needs no end.
///
/// It keeps what the request is made of until the peer answers: one that turns it away, or has closed before anything
/// of it went out, is no reason to lose it.
#[derive(Default)]
pub(super) struct Upload {
    state: Option<Arc<State>>,
    spare: Option<Box<Spare>>,
}

/// A request but for a body that is not all here.
struct Spare {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// Not a copy: no peer gets to see them.
    extensions: Extensions,
    whole: Bytes,
}

struct State {
    over: Cut,
    failure: Mutex<Option<BoxError>>,
    sending: Mutex<Sending>,
}

/// Within a lock, so that the body can be taken back while hyper holds on to it.
struct Sending {
    body: Body,
    /// What was read of it, if that is kept.
    read: Option<Vec<Bytes>>,
    kept: usize,
    /// What comes next, if it was there at once: the end then goes out with what is last.
    next: Option<Next>,
}

type Next = Option<Result<Frame<Bytes>, BoxError>>;

impl Upload {
    /// The way of `request`, which can be had [`again`](Self::again).
    pub(super) fn of(request: &mut Request<Body>) -> Self {
        let mut spare = Box::new(Spare {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            extensions: std::mem::take(request.extensions_mut()),
            whole: Bytes::new(),
        });
        let body = request.body_mut();
        if let Some(bytes) = body.full() {
            spare.whole = bytes.clone();
        }
        if body.full().is_some() || body.is_end_stream() {
            let (state, spare) = (None, Some(spare));
            return Self { state, spare };
        }
        let state = Arc::new(State {
            over: Cut::default(),
            failure: Mutex::default(),
            sending: Mutex::new(Sending {
                body: std::mem::take(body),
                read: Some(Vec::new()),
                kept: 0,
                next: None,
            }),
        });
        *body = Body::new(Uploading(Arc::clone(&state)));
        let (state, spare) = (Some(state), Some(spare));
        Self { state, spare }
    }

    /// The error of the body itself, if it was that which ended the exchange.
    pub(super) fn failure(&self) -> Option<BoxError> {
        let failure = &self.state.as_ref()?.failure;
        failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// The request once more, if all that was read of it is here still.
    pub(super) fn again(&mut self) -> Option<Request<Body>> {
        let spare = *self.spare.take()?;
        let body = match self.state.take() {
            None => Body::from(spare.whole),
            Some(state) => {
                let body = state.take_back();
                state.over.make();
                body?
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = spare.method;
        *request.uri_mut() = spare.uri;
        *request.headers_mut() = spare.headers;
        *request.extensions_mut() = spare.extensions;
        Some(request)
    }

    /// Keeps nothing any more: the peer has taken the request.
    pub(super) fn forget(&mut self) {
        if self.spare.take().is_some()
            && let Some(state) = &self.state
        {
            state.sending().read = None;
        }
    }

    /// Leaves `request`, which came back, as it was for another attempt.
    pub(super) fn release(&mut self, request: &mut Request<Body>) {
        if let Some(spare) = self.spare.take() {
            *request.extensions_mut() = spare.extensions;
        }
        self.state = None;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(state) = &self.state {
            state.over.make();
        }
    }
}

impl State {
    fn sending(&self) -> MutexGuard<'_, Sending> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole body, if what was read of it is here still.
    fn take_back(&self) -> Option<Body> {
        let mut sending = self.sending();
        let mut read = sending.read.take()?;
        let rest = std::mem::take(&mut sending.body);
        if let Some(Some(next)) = sending.next.take() {
            read.push(next.ok()?.into_data().ok()?);
        }
        if read.is_empty() {
            return Some(rest);
        }
        let read = read.into_iter();
        Some(Body::new(Again { read, rest }))
    }
}

impl Sending {
    /// hyper polls this in the task of the connection, which other calls share: a panic is not to end it.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Some(next) = self.next.take() {
            return Poll::Ready(next);
        }
        let body = Pin::new(&mut self.body);
        // Unwind safe: the body is not polled again.
        let polled = catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx)));
        polled.unwrap_or_else(|_| Poll::Ready(Some(Err("the body panicked".into()))))
    }

    /// Sees whether that was the last frame, or another is there.
    fn look_ahead(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(next) = self.poll_next(cx) {
            if next.is_none() {
                self.body = Body::empty();
            }
            self.next = Some(next);
        }
    }

    /// Takes note of a frame that was read.
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(read) = &mut self.read else { return };
        match frame.data_ref() {
            Some(bytes) if self.kept + bytes.len() <= KEPT => {
                self.kept += bytes.len();
                read.push(bytes.clone());
            }
            // Trailers, too: they are rare in requests.
            _ => self.read = None,
        }
    }
}

struct Uploading(Arc<State>);

impl http_body::Body for Uploading {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let state = &self.0;
        if !state.over.is_made(cx) {
            let mut sending = state.sending();
            match ready!(sending.poll_next(cx)) {
                Some(Err(error)) => {
                    let mut failure = state.failure.lock().unwrap_or_else(PoisonError::into_inner);
                    *failure = Some(error);
                }
                frame => {
                    match &frame {
                        Some(Ok(frame)) => {
                            sending.keep(frame);
                            sending.look_ahead(cx);
                        }
                        // It has ended, and is not to be asked again.
                        _ => sending.body = Body::empty(),
                    }
                    return Poll::Ready(frame);
                }
            }
        }
        // The code that hyper resets an HTTP/2 stream with.
        Poll::Ready(Some(Err(h2::Error::from(h2::Reason::CANCEL).into())))
    }

    fn is_end_stream(&self) -> bool {
        let sending = self.0.sending();
        match &sending.next {
            Some(next) => next.is_none(),
            None => sending.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let sending = self.0.sending();
        let next = match &sending.next {
            Some(Some(Ok(frame))) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        more(&sending.body.size_hint(), next)
    }
}

/// What is expected with `bytes` more.
fn more(of: &SizeHint, bytes: usize) -> SizeHint {
    let mut hint = SizeHint::new();
    hint.set_lower(of.lower() + bytes as u64);
    if let Some(upper) = of.upper() {
        hint.set_upper(upper + bytes as u64);
    }
    hint
}

/// A body of which some was read before.
struct Again {
    read: std::vec::IntoIter<Bytes>,
    rest: Body,
}

impl http_body::Body for Again {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.read.next() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.as_slice().is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read: usize = self.read.as_slice().iter().map(Bytes::len).sum();
        more(&self.rest.size_hint(), read)
    }
}
