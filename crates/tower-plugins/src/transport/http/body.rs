//! The body of a response, and what it keeps from being closed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tower_plugins_layers::BoxError;

use super::error::{lost, request_broken, too_large};
use super::gunzip::Gunzip;
use super::pool::Endpoint;
use super::upload::Upload;
use super::{h1, h2};
use crate::Body;

/// What a response holds until its body has ended. Dropped before, it ends the exchange.
pub(super) enum Hold {
    H1(h1::Lease),
    H2(h2::Lease),
}

impl Hold {
    fn endpoint(&self) -> &Endpoint {
        match self {
            Self::H1(lease) => lease.endpoint(),
            Self::H2(lease) => lease.endpoint(),
        }
    }

    /// The response is complete.
    fn complete(self) {
        match self {
            Self::H1(lease) => lease.complete(),
            Self::H2(lease) => drop(lease),
        }
    }
}

/// A response's body that gives its connection back as soon as it has ended: at the trailers, at
/// the last byte where that is known, or at the end.
pub(crate) struct ResponseBody {
    incoming: Option<Incoming>,
    hold: Option<Hold>,
    upload: Upload,
    /// Bytes that may still come.
    allowed: u64,
}

impl ResponseBody {
    /// `body`, holding `hold` until it has ended; an error if it says that it is too large. One that is `gzip`
    /// is decompressed, and limited in what comes of that.
    pub(super) fn wrap(
        endpoint: &Endpoint,
        hold: Hold,
        upload: Upload,
        body: Incoming,
        gzip: bool,
    ) -> Result<Body, BoxError> {
        if body.is_end_stream() {
            hold.complete();
            return Ok(Body::empty());
        }
        let max = endpoint.spec.max_response_body.filter(|_| !gzip);
        let allowed = max.unwrap_or(u64::MAX);
        if body.size_hint().lower() > allowed {
            return Err(body_too_large(&endpoint.name, max));
        }
        let body = Self {
            incoming: Some(body),
            hold: Some(hold),
            upload,
            allowed,
        };
        if gzip {
            return Ok(Body::boxed(Gunzip::new(endpoint, body)));
        }
        Ok(Body::boxed(body))
    }

    /// Ends the exchange, and gives its error.
    fn fail(&mut self, error: impl FnOnce(&Arc<str>, &Endpoint) -> BoxError) -> BoxError {
        self.incoming = None;
        match self.hold.take() {
            Some(hold) => error(&hold.endpoint().name, hold.endpoint()),
            None => "the response's body was read beyond its end".into(),
        }
    }
}

pub(super) fn body_too_large(endpoint: &Arc<str>, max: Option<u64>) -> BoxError {
    let limit = max.unwrap_or(u64::MAX);
    let cause = format!("its body is larger than max_response_body, {limit} bytes");
    too_large(endpoint, cause)
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let frame = match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
            Some(Ok(frame)) => Some(frame),
            Some(Err(error)) => {
                let error = match self.upload.failure() {
                    Some(failure) => self.fail(|name, _| request_broken(name, failure)),
                    None => self.fail(|name, _| lost(name, error).into()),
                };
                return Poll::Ready(Some(Err(error)));
            }
            None => None,
        };
        let data = frame.as_ref().and_then(Frame::data_ref).map(Bytes::len);
        let ended = data.is_none() || incoming.is_end_stream();
        match self.allowed.checked_sub(data.unwrap_or_default() as u64) {
            Some(allowed) => self.allowed = allowed,
            None => {
                let error = self
                    .fail(|name, endpoint| body_too_large(name, endpoint.spec.max_response_body));
                return Poll::Ready(Some(Err(error)));
            }
        }
        if ended && let Some(hold) = self.hold.take() {
            // What is left of the request is not wanted any more.
            drop(std::mem::take(&mut self.upload));
            hold.complete();
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}
