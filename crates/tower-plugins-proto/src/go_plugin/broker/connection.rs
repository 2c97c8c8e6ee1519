//! One connection on a socket that carries many.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

/// One connection on a socket that carries many: [`Multiplexed`](super::Multiplexed).
///
/// It is as a TCP stream: shutting it down ends one direction, and dropping it ends both.
pub struct Connection(Compat<yamux::Stream>);

impl Connection {
    pub(super) fn new(stream: yamux::Stream) -> Self {
        Self(stream.compat())
    }

    /// Tells the other side of the stream, or that it is taken, at once: by a frame without bytes.
    ///
    /// yamux would do so with the first bytes. Go's side closes the socket if a stream is not acknowledged in 75 s; and a stream must be known
    /// before there is another knock.
    pub(super) fn announce(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match Pin::new(&mut self.0).poll_write(context, &[]) {
            Poll::Ready(Err(error)) => Err(error),
            // A new stream has room for a frame.
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }

    /// Whether the other side took the stream.
    pub(super) fn is_acknowledged(&self) -> bool {
        !self.0.get_ref().is_pending_ack()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.0.get_ref().id())
    }
}
