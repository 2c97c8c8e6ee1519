//! TLS on a connection, in both roles.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Io;
use crate::go_plugin::tls::{Tls, server_name};

/// How long both sides may take to agree. A machine that is busy takes longer for it than for the rest.
const HANDSHAKE: Duration = Duration::from_secs(10);

impl Tls {
    /// Agrees on TLS with who accepts `carrier`: the client's role. Feature `broker`.
    ///
    /// # Errors
    ///
    /// `TimedOut` after 10 seconds; `InvalidInput` without a client's config; what TLS says, and what `carrier` fails with.
    pub async fn connect<T>(&self, carrier: T) -> io::Result<Io>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let config = self.client.clone().ok_or_else(|| without("client"))?;
        let name = self.name.clone().unwrap_or_else(server_name);
        let connector = TlsConnector::from(config);
        let shaken = timeout(HANDSHAKE, connector.connect(name, carrier));
        Ok(Io::new(shaken.await??))
    }

    /// Agrees on TLS with who connected `carrier`: the server's role. Feature `broker`.
    ///
    /// # Errors
    ///
    /// As of [`connect`](Self::connect).
    pub async fn accept<T>(&self, carrier: T) -> io::Result<Io>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let config = self.server.clone().ok_or_else(|| without("server"))?;
        let acceptor = TlsAcceptor::from(config);
        Ok(Io::new(
            timeout(HANDSHAKE, acceptor.accept(carrier)).await??,
        ))
    }

    /// That it has a server's config.
    pub(super) fn accepts(&self) -> io::Result<()> {
        self.server
            .is_some()
            .then_some(())
            .ok_or_else(|| without("server"))
    }
}

fn without(role: &str) -> io::Error {
    let said = format!("there is no TLS config for the {role}'s role, which this side has here");
    io::Error::new(io::ErrorKind::InvalidInput, said)
}
