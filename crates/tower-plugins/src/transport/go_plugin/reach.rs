//! Opening connections to a plugin.

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::net::{TcpStream, UnixStream};
use tower_plugins_proto::go_plugin::Address;
use tower_plugins_proto::go_plugin::broker::Multiplexed;
use tower_plugins_proto::go_plugin::tls;

use crate::transport::http::open::{Io, Open, Opening};
use crate::transport::http::tls::Tls;

/// How connections to one plugin are opened.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) way: Way,
    pub(super) encryption: Encryption,
}

#[derive(Debug)]
pub(super) enum Way {
    /// Each on a socket of its own.
    Sockets(Address),
    /// All on one.
    Multiplexed(Multiplexed),
}

pub(super) enum Encryption {
    None,
    /// With the certificates of this one run.
    Exact(tls::Tls),
    /// With those of the config.
    Static(Arc<Tls>),
}

impl Reach {
    async fn opened(&self) -> io::Result<Box<dyn Io>> {
        let stream = match &self.way {
            Way::Sockets(address) => connect(address).await?,
            Way::Multiplexed(multiplexed) => {
                let opened = multiplexed.open().await;
                Box::new(opened.map_err(io::Error::other)?)
            }
        };
        Ok(match &self.encryption {
            Encryption::None => stream,
            Encryption::Exact(tls) => Box::new(tls.connect(stream).await?),
            Encryption::Static(tls) => Box::new(tls.over(stream).await?),
        })
    }
}

/// A connection to `address`.
pub(super) async fn connect(address: &Address) -> io::Result<Box<dyn Io>> {
    let at = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
    match address {
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(at)?;
            Ok(Box::new(stream))
        }
        Address::Tcp(socket) => {
            let stream = TcpStream::connect(socket).await.map_err(at)?;
            stream.set_nodelay(true)?;
            let keepalive = socket2::TcpKeepalive::new();
            socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
            Ok(Box::new(stream))
        }
    }
}

impl Open for Reach {
    fn open(&self) -> Opening<'_> {
        Box::pin(self.opened())
    }
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Exact(_) => "Exact",
            Self::Static(_) => "Static",
        })
    }
}
