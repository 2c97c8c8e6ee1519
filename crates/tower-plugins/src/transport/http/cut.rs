//! Ending from outside what a task of hyper's is doing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use tower_plugins_layers::BoxError;

use super::connect::Stream;
use crate::Body;

/// A signal to one task, given once.
#[derive(Default)]
pub(super) struct Cut {
    made: AtomicBool,
    waker: AtomicWaker,
}

impl Cut {
    pub(super) fn make(&self) {
        self.made.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether it was made; if not, `cx` is woken when it is.
    fn is_made(&self, cx: &Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.made.load(Ordering::Acquire)
    }
}

/// A request's body that ends, with an error, when it is cut.
pub(super) struct CutBody {
    pub(super) body: Body,
    pub(super) cut: Arc<Cut>,
}

impl http_body::Body for CutBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.cut.is_made(cx) {
            // The code that hyper resets the stream with.
            return Poll::Ready(Some(Err(h2::Error::from(h2::Reason::CANCEL).into())));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that breaks when it is cut.
pub(super) struct CutStream {
    pub(super) stream: Stream,
    pub(super) cut: Arc<Cut>,
}

impl CutStream {
    fn whole(&mut self, cx: &Context<'_>) -> io::Result<Pin<&mut Stream>> {
        if self.cut.is_made(cx) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(Pin::new(&mut self.stream))
    }
}

impl Read for CutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.whole(cx)?.poll_read(cx, buf)
    }
}

impl Write for CutStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.whole(cx)?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.whole(cx)?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.whole(cx)?.poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.whole(cx)?.poll_write_vectored(cx, bufs)
    }
}
