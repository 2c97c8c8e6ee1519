//! How large gRPC messages may be, by the length that stands before each.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use tower_plugins_layers::{BoxError, Reason, Refused};

use crate::Body;
use crate::config::GrpcSpec;

/// The limits of one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct MessageLimits {
    request: Arc<Limit>,
    response: Arc<Limit>,
}

/// Of a message: a flag for compression, and its length.
const PREFIX: usize = 5;

/// What may stand there of flags: that it is compressed, and in gRPC-Web that it is trailers.
const FLAGS: u8 = 0x81;

impl MessageLimits {
    pub(crate) fn new(spec: &GrpcSpec, endpoint: &str) -> Self {
        let endpoint: Arc<str> = endpoint.into();
        let request = Limit {
            what: Arc::clone(&endpoint),
            bytes: spec.max_request_message,
            key: "grpc.max_request_message",
            reason: Reason::RequestTooLarge,
        };
        let response = Limit {
            what: endpoint,
            bytes: spec.max_response_message,
            key: "grpc.max_response_message",
            reason: Reason::ResponseTooLarge,
        };
        Self {
            request: Arc::new(request),
            response: Arc::new(response),
        }
    }

    /// `request`, which ends at a message that is too large. One that is all here is looked at now.
    pub(crate) fn of_request(&self, request: Request<Body>) -> Result<Request<Body>, BoxError> {
        if !is_grpc(request.headers()) {
            return Ok(request);
        }
        let limit = &self.request;
        let Some(bytes) = request.body().full() else {
            return Ok(request.map(|body| limit.applied(body)));
        };
        match Lengths::default().read(bytes, limit.bytes) {
            Ok(()) => Ok(request),
            Err(long) => Err(limit.exceeded(long.length)),
        }
    }

    /// `response`, which ends at a message that is too large. To a call that `is_grpc` it is read as messages whatever it
    /// calls itself.
    pub(crate) fn of_response(&self, response: Response<Body>, is_grpc: bool) -> Response<Body> {
        let is_read = is_grpc && response.status() == StatusCode::OK;
        if !is_read && !self::is_grpc(response.headers()) {
            return response;
        }
        response.map(|body| self.response.applied(body))
    }
}

/// Whether the content is messages, those of gRPC-Web among them, unless they are in base64.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let begins = |text: &[u8], with: &[u8]| {
        let start = text.get(..with.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(with))
    };
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        begins(kind, b"application/grpc") && !begins(kind, b"application/grpc-web-text")
    })
}

/// How large the messages of a body may be.
#[derive(Debug)]
pub(crate) struct Limit {
    /// Whose messages they are, for errors.
    pub(crate) what: Arc<str>,
    pub(crate) bytes: u32,
    /// What sets it.
    pub(crate) key: &'static str,
    pub(crate) reason: Reason,
}

impl Limit {
    /// `body`, which fails at a message that is too large.
    pub(crate) fn applied(self: &Arc<Self>, body: Body) -> Body {
        Body::boxed(Messages {
            inner: Some(body),
            lengths: Lengths::default(),
            limit: Arc::clone(self),
            failure: None,
        })
    }

    fn exceeded(&self, length: u32) -> BoxError {
        let Self {
            what, bytes, key, ..
        } = self;
        let cause =
            format!("{what}: a message of {length} bytes is larger than {key}, {bytes} bytes");
        Refused::new(self.reason).caused_by(cause).into()
    }
}

/// Where in a run of messages a body is.
#[derive(Default)]
struct Lengths {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that have come.
    begun: usize,
    /// Bytes of the message that have not come.
    left: u64,
}

/// A message that is too large.
struct TooLong {
    length: u32,
    /// Bytes that came before it at once.
    before: usize,
}

impl Lengths {
    fn read(&mut self, data: &[u8], limit: u32) -> Result<(), TooLong> {
        let mut at = 0;
        while at < data.len() {
            let here = data.len() - at;
            if self.left > 0 {
                let skipped = here.min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= skipped as u64;
                at += skipped;
                continue;
            }
            let before = at;
            let taken = here.min(PREFIX - self.begun);
            self.prefix[self.begun..self.begun + taken].copy_from_slice(&data[at..at + taken]);
            self.begun += taken;
            at += taken;
            if self.begun < PREFIX {
                break;
            }
            self.begun = 0;
            let [flags, length @ ..] = self.prefix;
            // Neither gRPC nor gRPC-Web: no client reads it as a message.
            if flags & !FLAGS != 0 {
                self.left = u64::MAX;
                continue;
            }
            let length = u32::from_be_bytes(length);
            if length > limit {
                return Err(TooLong { length, before });
            }
            self.left = length.into();
        }
        Ok(())
    }
}

/// A body of gRPC messages that fails at one that is too large. What comes before it goes through as it is.
struct Messages {
    inner: Option<Body>,
    lengths: Lengths,
    limit: Arc<Limit>,
    /// What is left to say after the bytes before it.
    failure: Option<BoxError>,
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(this.failure.take().map(Err));
        };
        let frame = ready!(Pin::new(inner).poll_frame(cx));
        let Some(Ok(frame)) = frame else {
            return Poll::Ready(frame);
        };
        let Some(data) = frame.data_ref() else {
            return Poll::Ready(Some(Ok(frame)));
        };
        let Err(long) = this.lengths.read(data, this.limit.bytes) else {
            return Poll::Ready(Some(Ok(frame)));
        };
        let error = this.limit.exceeded(long.length);
        let before = data.slice(..long.before);
        // The other side is to stop sending it.
        this.inner = None;
        if before.is_empty() {
            return Poll::Ready(Some(Err(error)));
        }
        this.failure = Some(error);
        Poll::Ready(Some(Ok(Frame::data(before))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Some(inner) => inner.is_end_stream(),
            None => self.failure.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    /// A body that comes in pieces.
    struct Pieces(std::vec::IntoIter<Bytes>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
        }
    }

    fn message(length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 0, length];
        bytes.resize(PREFIX + usize::from(length), length);
        bytes
    }

    async fn read(bytes: &[u8], piece: usize) -> (Vec<u8>, Option<Reason>) {
        let pieces: Vec<_> = bytes.chunks(piece).map(Bytes::copy_from_slice).collect();
        let limit = Arc::new(Limit {
            what: "e".into(),
            bytes: 9,
            key: "k",
            reason: Reason::ResponseTooLarge,
        });
        let mut body = limit.applied(Body::new(Pieces(pieces.into_iter())));
        let mut come = Vec::new();
        loop {
            match body.frame().await {
                None => return (come, None),
                Some(Ok(frame)) => come.extend_from_slice(frame.data_ref().unwrap()),
                Some(Err(error)) => {
                    assert!(body.frame().await.is_none(), "an error is the end");
                    return (come, Reason::of(&*error));
                }
            }
        }
    }

    #[tokio::test]
    async fn lengths_are_read_wherever_the_bytes_are_cut() {
        let good = [message(0), message(9), message(1), message(0), message(8)].concat();
        let bad = [good.clone(), message(10), message(1)].concat();
        for piece in 1..=bad.len() {
            assert_eq!(read(&good, piece).await, (good.clone(), None));
            let (come, reason) = read(&bad, piece).await;
            assert_eq!(
                reason,
                Some(Reason::ResponseTooLarge),
                "in pieces of {piece}"
            );
            assert!(come.starts_with(&good), "in pieces of {piece}");
            assert!(come.len() < good.len() + PREFIX, "nothing of it goes on");
        }
    }
}
