//! Ending from outside what a task of hyper's is doing.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use hyper::rt::{Read, ReadBufCursor, Write};

use super::connect::Stream;

/// A signal to the task of one connection, given once; and what that task has heard.
#[derive(Default)]
pub(super) struct Cut {
    made: AtomicBool,
    waker: AtomicWaker,
    /// How often the peer was heard.
    heard: AtomicUsize,
    greeted: AtomicBool,
    greeting: AtomicWaker,
}

impl Cut {
    pub(super) fn make(&self) {
        self.made.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// A number that changes whenever anything has come from the peer.
    pub(super) fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }

    /// Returns when what the peer said first has been taken in.
    pub(super) async fn greeted(&self) {
        poll_fn(|cx| {
            self.greeting.register(cx.waker());
            if self.greeted.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }

    /// There is to be more: what was heard before, if anything was, has been taken in.
    fn wants_more(&self) {
        if self.heard() > 0 && !self.greeted.load(Ordering::Relaxed) {
            self.greeted.store(true, Ordering::Release);
            self.greeting.wake();
        }
    }

    /// Whether it was made; if not, `cx` is woken when it is.
    pub(super) fn is_made(&self, cx: &Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.made.load(Ordering::Acquire)
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
        self.cut.wants_more();
        ready!(self.whole(cx)?.poll_read(cx, buf))?;
        self.cut.heard.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(()))
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
