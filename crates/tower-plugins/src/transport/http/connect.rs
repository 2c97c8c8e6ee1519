//! Opening a connection.

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::uri::Authority;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::dial::dial;
use super::proxy::Proxy;
pub(super) use crate::transport::task::Task;

/// What a connection is opened to.
#[derive(Debug)]
pub(super) enum Target {
    Tcp {
        host: String,
        port: u16,
        proxy: Option<Proxy>,
        #[cfg(feature = "tls")]
        tls: Option<Box<super::tls::Tls>>,
    },
    #[cfg(unix)]
    Unix(std::path::PathBuf),
    /// Where another transport says.
    #[cfg(all(feature = "subprocess", unix))]
    Opened(Arc<dyn super::open::Open>),
}

impl Target {
    pub(super) fn tcp(authority: &Authority, proxy: Option<Proxy>) -> Self {
        Self::Tcp {
            proxy,
            // A zone is encoded in a URL (RFC 6874), and not for the system.
            host: bare_host(authority).replacen("%25", "%", 1),
            port: authority.port_u16().unwrap_or(80),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    #[cfg(feature = "tls")]
    pub(super) fn tls(authority: &Authority, proxy: Option<Proxy>, tls: super::tls::Tls) -> Self {
        Self::Tcp {
            proxy,
            host: bare_host(authority).replacen("%25", "%", 1),
            port: authority.port_u16().unwrap_or(443),
            tls: Some(Box::new(tls)),
        }
    }

    /// Whether it is on this machine, whatever its address.
    pub(super) const fn is_local(&self) -> bool {
        match self {
            Self::Tcp { .. } => false,
            #[cfg(unix)]
            Self::Unix(_) => true,
            #[cfg(all(feature = "subprocess", unix))]
            Self::Opened(_) => true,
        }
    }

    /// The same, at one of its addresses: no name is looked up.
    pub(super) fn at(mut self, at: SocketAddr) -> Self {
        if let Self::Tcp { host, port, .. } = &mut self {
            *host = at.ip().to_string();
            *port = at.port();
        }
        self
    }

    /// Opens a connection, in at most `limit`.
    pub(super) async fn connect(&self, limit: Duration) -> io::Result<Stream> {
        tokio::time::timeout(limit, self.open())
            .await
            .unwrap_or_else(|_| Err(too_late(limit)))
    }

    async fn open(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp {
                host,
                port,
                proxy,
                #[cfg(feature = "tls")]
                tls,
            } => {
                let stream = match proxy {
                    Some(proxy) => proxy.tunnel(host, *port).await?,
                    None => dial(host, *port).await?,
                };
                #[cfg(feature = "tls")]
                if let Some(tls) = tls {
                    let notes = Arc::<Notes>::default();
                    let secured = Box::new(tls.handshake(stream, &notes).await?);
                    return Ok(Stream {
                        socket: Socket::Tls(secured),
                        notes,
                    });
                }
                Ok(Stream::new(Socket::Tcp(TokioIo::new(stream))))
            }
            #[cfg(unix)]
            Self::Unix(path) => {
                let stream = tokio::net::UnixStream::connect(path).await?;
                Ok(Stream::new(Socket::Unix(TokioIo::new(stream))))
            }
            #[cfg(all(feature = "subprocess", unix))]
            Self::Opened(open) => {
                let stream = open.open().await?;
                Ok(Stream::new(Socket::Opened(TokioIo::new(stream))))
            }
        }
    }
}

/// The error of a connection that was not open in `limit`.
pub(super) fn too_late(limit: Duration) -> io::Error {
    let message = format!("no connection within the connection_timeout of {limit:?}");
    io::Error::new(io::ErrorKind::TimedOut, message)
}

/// The host in `authority`: an IPv6 address stands in brackets there, and nowhere else.
pub(super) fn bare_host(authority: &Authority) -> &str {
    let host = authority.host();
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host)
}

/// What a connection and its users tell each other, past hyper.
#[derive(Debug, Default)]
pub(super) struct Notes {
    ask: AtomicBool,
    wrote: AtomicBool,
    turned_away: OnceLock<String>,
    hint: OnceLock<String>,
}

impl Notes {
    /// A request is about to be sent: nothing of it has gone out. If the connection is a `used` one, the next read
    /// is to ask the socket itself.
    ///
    /// The runtime learns that a peer has closed only when it next looks at all its sockets. Until
    /// then a request would be written to a closed connection, and nobody could say whether it was
    /// processed. hyper reads before it takes a request, and gives it back at an end.
    pub(super) fn begin(&self, used: bool) {
        self.wrote.store(false, Ordering::Relaxed);
        self.ask.store(used, Ordering::Relaxed);
    }

    /// Whether the peer can have read something of the request.
    ///
    /// A peer may close after the socket was asked and before the write, which then fails: hyper does not give the
    /// request back.
    pub(super) fn wrote(&self) -> bool {
        self.wrote.load(Ordering::Relaxed)
    }

    pub(super) fn is_to_ask(&self) -> bool {
        self.ask.load(Ordering::Relaxed) && self.ask.swap(false, Ordering::Relaxed)
    }

    /// The peer has refused this side, before it read anything that was sent: `why`.
    #[cfg(feature = "tls")]
    pub(super) fn turned_away(&self, why: String) {
        // The first word is the one that counts.
        let _ = self.turned_away.set(why);
    }

    /// The peer has closed before it said anything, and this may be why: `hint`.
    #[cfg(feature = "tls")]
    pub(super) fn closed_unheard(&self, hint: &str) {
        self.hint.get_or_init(|| hint.to_owned());
    }

    /// Why the peer may have closed, if there is more to say than that it has.
    pub(super) fn hint(&self) -> Option<&str> {
        self.hint.get().map(String::as_str)
    }

    /// Why the peer has refused this side, if it has.
    pub(super) fn refusal(&self) -> Option<&str> {
        self.turned_away.get().map(String::as_str)
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    pub(super) notes: Arc<Notes>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TokioIo<TcpStream>),
    /// It asks its socket by itself.
    #[cfg(feature = "tls")]
    Tls(Box<super::tls::Secured>),
    #[cfg(unix)]
    Unix(TokioIo<tokio::net::UnixStream>),
    #[cfg(all(feature = "subprocess", unix))]
    Opened(TokioIo<Box<dyn super::open::Io>>),
}

macro_rules! each {
    ($socket:expr, $io:ident => $do:expr) => {
        match $socket {
            Socket::Tcp($io) => $do,
            #[cfg(feature = "tls")]
            Socket::Tls($io) => $do,
            #[cfg(unix)]
            Socket::Unix($io) => $do,
            #[cfg(all(feature = "subprocess", unix))]
            Socket::Opened($io) => $do,
        }
    };
}

impl Socket {
    /// Whether some of `length` bytes can have gone out although the write failed.
    #[cfg_attr(not(feature = "tls"), allow(unused_variables))]
    const fn may_write_part(&self, length: usize) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls(_) => length > super::tls::RECORD,
            _ => false,
        }
    }
}

impl Stream {
    fn new(socket: Socket) -> Self {
        Self {
            socket,
            notes: Arc::default(),
        }
    }

    /// Takes note of what came of writing `length` bytes.
    fn written(&self, length: usize, written: &Poll<io::Result<usize>>) {
        let wrote = match written {
            Poll::Ready(Ok(written)) => *written > 0,
            Poll::Ready(Err(_)) => self.socket.may_write_part(length),
            Poll::Pending => false,
        };
        if wrote {
            self.notes.wrote.store(true, Ordering::Relaxed);
        }
    }

    /// If it is to be asked: what the socket has, whatever the runtime knows of it.
    fn read_now(&self, buf: &mut ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let socket = match &self.socket {
            Socket::Tcp(io) => SockRef::from(io.inner()),
            #[cfg(unix)]
            Socket::Unix(io) => SockRef::from(io.inner()),
            #[cfg(feature = "tls")]
            Socket::Tls(_) => return Poll::Pending,
            // It is HTTP/2, which is asked about no single request.
            #[cfg(all(feature = "subprocess", unix))]
            Socket::Opened(_) => return Poll::Pending,
        };
        if !self.notes.is_to_ask() {
            return Poll::Pending;
        }
        let mut bytes = [0; 64];
        let length = bytes.len().min(buf.remaining());
        let read = (&*socket).read(&mut bytes[..length]);
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
        let read = this.read_now(&mut buf);
        if read.is_ready() {
            return read;
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
        let this = self.get_mut();
        let written = each!(&mut this.socket, io => Pin::new(io).poll_write(cx, buf));
        this.written(buf.len(), &written);
        written
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
        let this = self.get_mut();
        let written = each!(&mut this.socket, io => Pin::new(io).poll_write_vectored(cx, bufs));
        this.written(bufs.iter().map(|buf| buf.len()).sum(), &written);
        written
    }
}
