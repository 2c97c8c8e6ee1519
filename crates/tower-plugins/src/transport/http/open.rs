//! Connections that another transport opens.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;

use ::http::HeaderValue;
use ::http::uri::{Authority, Scheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_plugins_layers::Refused;

use super::connect::Target;
use super::head::Origin;
use super::pool::{Endpoint, Pool};
use super::{Connections, Http, h2};
use crate::config::{ConnectionSpec, Protocol};

/// A stream of bytes both ways.
pub(in crate::transport) trait Io:
    AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug
{
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug> Io for T {}

/// The future of [`Open::open`].
pub(in crate::transport) type Opening<'a> =
    Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>>;

/// Opens connections to an endpoint that is on this machine.
pub(in crate::transport) trait Open:
    fmt::Debug + Send + Sync + 'static
{
    /// Opens one more. Who waits for it bounds its time.
    fn open(&self) -> Opening<'_>;
}

impl Http {
    /// HTTP/2 with the endpoint `name`, over what `open` opens.
    pub(in crate::transport) fn through(
        name: &str,
        open: std::sync::Arc<dyn Open>,
        scheme: Scheme,
        connection: ConnectionSpec,
    ) -> Self {
        let origin = Origin {
            scheme,
            authority: Authority::from_static("localhost"),
            host: HeaderValue::from_static("localhost"),
            prefix: String::new(),
            protocol: Protocol::Http2,
            keep_alive: connection.keep_alive,
            gzip: false,
        };
        let endpoint = Endpoint {
            name: name.into(),
            target: Target::Opened(open),
            origin,
            spec: connection,
        };
        Self(Connections::H2(std::sync::Arc::new(h2::Connections::new(
            endpoint,
        ))))
    }

    /// Has a connection, which the next call takes; one is opened if there is none.
    pub(in crate::transport) async fn connected(&self) -> Result<(), Refused> {
        if let Connections::H2(pool) = &self.0 {
            pool.acquire(false).await?;
        }
        Ok(())
    }
}
