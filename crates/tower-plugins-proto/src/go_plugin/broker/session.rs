//! The streams on one socket.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::Compat;
use yamux::ConnectionError;

use super::connection::Connection;

/// Asks for a stream.
pub(super) type Open = oneshot::Sender<Connection>;

/// Streams that the other side did not take yet; beyond, who asks waits.
const OPENING: usize = 16;

/// The streams on one socket: those that are asked for, and those that come.
pub(super) struct Session<T, R> {
    connection: yamux::Connection<Compat<T>>,
    requests: mpsc::Receiver<Open>,
    /// Asked for, and not there yet.
    wanted: Option<Open>,
    /// There, and not acknowledged yet.
    opening: Vec<(Connection, Open)>,
    /// Takes what comes.
    route: R,
}

impl<T, R> Session<T, R>
where
    T: AsyncRead + AsyncWrite + Unpin,
    R: FnMut(Connection),
{
    pub(super) fn new(
        connection: yamux::Connection<Compat<T>>,
        requests: mpsc::Receiver<Open>,
        route: R,
    ) -> Self {
        Self {
            connection,
            requests,
            wanted: None,
            opening: Vec::new(),
            route,
        }
    }

    /// Carries everything, until there is nobody left who could ask for a stream, or the other side ends it.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.wanted.is_none() && self.opening.len() < OPENING {
                match self.requests.poll_recv(context) {
                    Poll::Ready(Some(open)) => self.wanted = Some(open),
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending => {}
                }
            }
            let opened = self.poll_open(context)?;
            let came = match self.connection.poll_next_inbound(context) {
                Poll::Ready(Some(Ok(stream))) => {
                    let mut stream = Connection::new(stream);
                    stream.announce(context)?;
                    (self.route)(stream);
                    true
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(failed(error))),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => false,
            };
            // Reading, above, is what acknowledges them.
            let handed_over = self.hand_over();
            if !(opened || came || handed_over) {
                return Poll::Pending;
            }
        }
    }

    /// Says that it is over, and waits until that is written.
    pub(super) fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.opening.clear();
        let closed = ready!(self.connection.poll_close(context));
        Poll::Ready(closed.map_err(failed))
    }

    /// Opens the stream that is wanted: whether there was one.
    fn poll_open(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let Some(open) = self.wanted.take() else {
            return Ok(false);
        };
        let Poll::Ready(stream) = self.connection.poll_new_outbound(context) else {
            self.wanted = Some(open);
            return Ok(false);
        };
        let mut stream = Connection::new(stream.map_err(failed)?);
        stream.announce(context)?;
        self.opening.push((stream, open));
        Ok(true)
    }

    /// Hands over the streams that are acknowledged: whether there was one. Only then has the other side matched the stream with
    /// its knock.
    fn hand_over(&mut self) -> bool {
        let before = self.opening.len();
        let acknowledged = self.opening.extract_if(.., |(stream, open)| {
            stream.is_acknowledged() || open.is_closed()
        });
        for (stream, open) in acknowledged {
            // Who gave up gets no stream, which resets it.
            drop(open.send(stream));
        }
        self.opening.len() < before
    }
}

fn failed(error: ConnectionError) -> io::Error {
    match error {
        ConnectionError::Io(error) => error,
        error => io::Error::other(error),
    }
}
