//! Opening a connection.

use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::uri::Authority;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A task that ends with its owner.
#[derive(Debug)]
pub(super) struct Task(JoinHandle<()>);

impl Task {
    pub(super) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }

    pub(super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a connection is opened to.
#[derive(Debug)]
pub(super) enum Target {
    Tcp {
        host: String,
        port: u16,
    },
    #[cfg(unix)]
    Unix(std::path::PathBuf),
}

impl Target {
    pub(super) fn tcp(authority: &Authority) -> Self {
        let host = authority.host();
        // An IPv6 address stands in brackets in an authority, and nowhere else.
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        Self::Tcp {
            host: bare.unwrap_or(host).to_owned(),
            port: authority.port_u16().unwrap_or(80),
        }
    }

    /// Opens a connection, in at most `limit`.
    pub(super) async fn connect(&self, limit: Duration) -> io::Result<Stream> {
        tokio::time::timeout(limit, self.open())
            .await
            .unwrap_or_else(|_| {
                let message = format!("no connection within the connection_timeout of {limit:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, message))
            })
    }

    async fn open(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Ok(Stream::new(Socket::Tcp(TokioIo::new(stream))))
            }
            #[cfg(unix)]
            Self::Unix(path) => {
                let stream = tokio::net::UnixStream::connect(path).await?;
                Ok(Stream::new(Socket::Unix(TokioIo::new(stream))))
            }
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    /// Set when a request is about to be sent: the next read is to ask the socket itself.
    ///
    /// The runtime learns that a peer has closed only when it next looks at all its sockets. Until
    /// then a request would be written to a closed connection, and nobody could say whether it was
    /// processed. hyper reads before it takes a request, and gives it back at an end.
    pub(super) ask: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TokioIo<TcpStream>),
    #[cfg(unix)]
    Unix(TokioIo<tokio::net::UnixStream>),
}

macro_rules! each {
    ($socket:expr, $io:ident => $do:expr) => {
        match $socket {
            Socket::Tcp($io) => $do,
            #[cfg(unix)]
            Socket::Unix($io) => $do,
        }
    };
}

impl Stream {
    fn new(socket: Socket) -> Self {
        Self {
            socket,
            ask: Arc::default(),
        }
    }

    /// What the socket has, whatever the runtime knows of it.
    fn read_now(&self, buf: &mut ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 64];
        let length = bytes.len().min(buf.remaining());
        let read = each!(&self.socket, io => {
            (&*SockRef::from(io.inner())).read(&mut bytes[..length])
        });
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
            Ok(read) => {
                buf.put_slice(&bytes[..read]);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ask.load(Ordering::Relaxed) && this.ask.swap(false, Ordering::Relaxed) {
            let read = this.read_now(&mut buf);
            if read.is_ready() {
                return read;
            }
        }
        each!(&mut this.socket, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(&mut self.get_mut().socket, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.get_mut().socket, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.get_mut().socket, io => Pin::new(io).poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        each!(&self.socket, io => io.is_write_vectored())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(&mut self.get_mut().socket, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }
}
