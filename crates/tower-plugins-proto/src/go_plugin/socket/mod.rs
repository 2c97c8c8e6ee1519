//! The sockets of go-plugin: a plugin's own, and those of brokered connections, for both sides.
//!
//! Who listens says how ([`Listen`]) and tells the other side the [`Address`] of the [`Listener`], which connects a [`Socket`]
//! to it.
//!
//! ```
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use tower_plugins_proto::go_plugin::socket::{Listen, Socket};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let listener = Listen::default().bind()?;
//! let mut near = Socket::connect(listener.address()).await?;
//! let mut far = listener.accept().await;
//! near.write_all(b"hello").await?;
//! let mut heard = [0; 5];
//! far.read_exact(&mut heard).await?;
//! assert_eq!(&heard, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::Address;

mod listen;
#[cfg(unix)]
mod unix;

pub use listen::{Listen, ListenError, Listener};
#[cfg(unix)]
pub use unix::group_id;

/// One end of a connection on a Unix socket, or on TCP.
///
/// Shutting it down ends one direction, and dropping it ends both.
#[derive(Debug)]
pub struct Socket(Kind);

#[derive(Debug)]
enum Kind {
    #[cfg(unix)]
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    /// Connects to who listens at `address`. Dropping the future gives up.
    ///
    /// # Errors
    ///
    /// The system's, with the address: nothing is there (`NotFound`), nobody listens any more (`ConnectionRefused`), or it is not for
    /// this user (`PermissionDenied`). `Unsupported` for a Unix socket where there are none.
    pub async fn connect(address: &Address) -> io::Result<Self> {
        let connected = match address {
            #[cfg(unix)]
            Address::Unix(path) => UnixStream::connect(path).await.map(Self::from),
            #[cfg(not(unix))]
            Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
            Address::Tcp(address) => TcpStream::connect(address).await.map(Self::from),
        };
        connected.map_err(|error| {
            let said = format!("cannot connect to {} {address}: {error}", address.network());
            io::Error::new(error.kind(), said)
        })
    }
}

#[cfg(unix)]
impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self(Kind::Unix(stream))
    }
}

/// Without Nagle's delay, which small messages would wait for.
impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        // One that does not take it is slower, and no worse.
        drop(stream.set_nodelay(true));
        Self(Kind::Tcp(stream))
    }
}

/// Calls the method of the stream that it is.
macro_rules! each {
    ($this:expr, $method:ident($($argument:expr),*)) => {
        match &mut $this.0 {
            #[cfg(unix)]
            Kind::Unix(stream) => Pin::new(stream).$method($($argument),*),
            Kind::Tcp(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, poll_read(context, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, poll_shutdown(context))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        // Both are.
        true
    }
}
