//! Responses that come compressed because this side asked for it, and go on as they were before.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RANGE};
use ::http::{HeaderMap, HeaderValue, Method, Request};
use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use http_body::{Body, Frame};
use tower_plugins_layers::BoxError;

use super::body::body_too_large;
use super::error::lost;
use super::pool::Endpoint;

/// Asks for a compressed response, if that is this side's to do; whether it is.
///
/// Who asks for an encoding gets what it asked for; a range is one of the compressed bytes; and gRPC compresses
/// messages by itself.
pub(super) fn ask<B>(request: &mut Request<B>) -> bool {
    let is_grpc = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
    let is_head = *request.method() == Method::HEAD;
    let headers = request.headers_mut();
    if is_head
        || headers.contains_key(ACCEPT_ENCODING)
        || headers.contains_key(RANGE)
        || headers.get(CONTENT_TYPE).is_some_and(is_grpc)
    {
        return false;
    }
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    true
}

/// Whether a response with `headers` is compressed, which they say no longer.
pub(super) fn take(headers: &mut HeaderMap) -> bool {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    let is_gzip = encodings
        .next()
        .is_some_and(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"gzip"));
    if !is_gzip || encodings.next().is_some() {
        return false;
    }
    headers.remove(CONTENT_ENCODING);
    headers.remove(CONTENT_LENGTH);
    true
}

/// What a body of gzip (RFC 1952) holds, piece by piece: no more than 64 KiB of it is in memory at a time,
/// however small it was compressed.
pub(super) struct Gunzip<B> {
    /// Until it has ended, or failed.
    inner: Option<B>,
    decoder: MultiGzDecoder<Vec<u8>>,
    has_begun: bool,
    /// What came and was not decoded yet.
    left: Bytes,
    /// Bytes that may still come of it.
    allowed: u64,
    max: Option<u64>,
    endpoint: Arc<str>,
}

impl<B> Gunzip<B> {
    pub(super) fn new(endpoint: &Endpoint, body: B) -> Self {
        let max = endpoint.spec.max_response_body;
        Self {
            inner: Some(body),
            decoder: MultiGzDecoder::new(Vec::new()),
            has_begun: false,
            left: Bytes::new(),
            allowed: max.unwrap_or(u64::MAX),
            max,
            endpoint: Arc::clone(&endpoint.name),
        }
    }

    /// Decodes some of what came, at least a byte of it; gives what comes of that, which may be nothing.
    fn decode(&mut self) -> io::Result<Vec<u8>> {
        let read = self.decoder.write(&self.left)?;
        if read == 0 && self.decoder.get_ref().is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.left.advance(read);
        if self.left.is_empty() {
            // The endpoint may say no more for a while.
            self.decoder.flush()?;
        }
        Ok(std::mem::take(self.decoder.get_mut()))
    }

    /// Whether all that is said to be in it came.
    fn finish(&mut self) -> io::Result<Vec<u8>> {
        if self.has_begun {
            self.decoder.try_finish()?;
        }
        Ok(std::mem::take(self.decoder.get_mut()))
    }

    /// Ends the exchange, and gives its error.
    fn broken(&mut self, error: &io::Error) -> BoxError {
        self.inner = None;
        self.left.clear();
        let what = format!("its body, in gzip, is damaged or cut off: {error}");
        lost(&self.endpoint, what).into()
    }

    fn frame(&mut self, data: Vec<u8>) -> Result<Frame<Bytes>, BoxError> {
        match self.allowed.checked_sub(data.len() as u64) {
            Some(allowed) => {
                self.allowed = allowed;
                Ok(Frame::data(data.into()))
            }
            None => {
                self.inner = None;
                self.left.clear();
                Err(body_too_large(&self.endpoint, self.max))
            }
        }
    }
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Body for Gunzip<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            while !this.left.is_empty() {
                match this.decode() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Poll::Ready(Some(this.frame(data))),
                    Err(error) => return Poll::Ready(Some(Err(this.broken(&error)))),
                }
            }
            let Some(inner) = &mut this.inner else {
                return Poll::Ready(None);
            };
            let frame = match ready!(Pin::new(inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    this.inner = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    this.inner = None;
                    return Poll::Ready(match this.finish() {
                        Ok(data) if data.is_empty() => None,
                        Ok(data) => Some(this.frame(data)),
                        Err(error) => Some(Err(this.broken(&error))),
                    });
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    this.has_begun |= !data.is_empty();
                    this.left = data;
                }
                // Trailers: what is compressed is over.
                Err(frame) => {
                    if let Err(error) = this.finish() {
                        return Poll::Ready(Some(Err(this.broken(&error))));
                    }
                    this.has_begun = false;
                    return Poll::Ready(Some(Ok(frame)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_none() && self.left.is_empty()
    }
}
