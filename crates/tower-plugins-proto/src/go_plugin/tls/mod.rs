//! TLS between a host and its plugin, each of which trusts exactly one certificate: the other's.
//!
//! Both make an [`Identity`] when the process starts. The host hands its certificate over in
//! [`env::CLIENT_CERT`](super::env::CLIENT_CERT), the plugin its own in the handshake line. Nobody signs for anybody, and no name counts:
//! whoever shows another certificate than that one, byte by byte, or none, is refused. It is "AutoMTLS" in go-plugin.
//!
//! [`Tls`] is both roles at once. Of a brokered connection the side that accepts is the server, and the certificates are the same two.
//!
//! ```
//! use tower_plugins_proto::go_plugin::{Address, Certificate, HandshakeLine, tls::Identity};
//!
//! // The host, before it starts the plugin:
//! let host = Identity::generate()?;
//! let variable = host.certificate().to_pem();
//!
//! // The plugin:
//! let plugin = Identity::generate()?;
//! let server_config = plugin.server_config(&Certificate::from_pem(&variable)?)?;
//! let line = HandshakeLine::new(1, Address::Unix("/tmp/plugin42".into()))?
//!     .with_certificate(plugin.certificate().clone())
//!     .to_string();
//!
//! // The host again:
//! let line = HandshakeLine::parse(&line)?;
//! let certificate = line.certificate().ok_or("the plugin does not speak TLS, and must")?;
//! let client_config = host.client_config(certificate)?;
//! # assert_eq!(server_config.alpn_protocols, client_config.alpn_protocols);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod identity;
mod verify;

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};

use super::Certificate;
pub use identity::{Identity, TlsError, server_name};
pub use verify::NotTheOne;

/// How TLS is spoken on each connection between a host and its plugin: by whoever connects as the client, by whoever accepts as the
/// server. It is cheap to clone.
///
/// ```
/// use tower_plugins_proto::go_plugin::tls::{Identity, Tls};
///
/// // Certificates of this run:
/// let (host, plugin) = (Identity::generate()?, Identity::generate()?);
/// let tls = Tls::pinned(&host, plugin.certificate())?;
/// // Certificates of one's own, with which this side only connects:
/// let tls = Tls::default().client(host.client_config(plugin.certificate())?);
/// # Ok::<(), tower_plugins_proto::go_plugin::tls::TlsError>(())
/// ```
#[derive(Clone, Default)]
pub struct Tls {
    pub(super) client: Option<Arc<ClientConfig>>,
    pub(super) server: Option<Arc<ServerConfig>>,
    pub(super) name: Option<ServerName<'static>>,
}

impl Tls {
    /// AutoMTLS: this side is `own`, and trusts who has exactly the certificate `other`, in both roles.
    ///
    /// # Errors
    ///
    /// [`TlsError::Peer`] if `other` is no certificate that TLS can use.
    pub fn pinned(own: &Identity, other: &Certificate) -> Result<Self, TlsError> {
        Ok(Self::default()
            .client(own.client_config(other)?)
            .server(own.server_config(other)?))
    }

    /// With `config` this side connects.
    #[must_use]
    pub fn client(mut self, config: Arc<ClientConfig>) -> Self {
        self.client = Some(config);
        self
    }

    /// What this side expects who accepts to be called. Default: [`server_name`].
    #[must_use]
    pub fn name(mut self, name: ServerName<'static>) -> Self {
        self.name = Some(name);
        self
    }

    /// With `config` this side accepts.
    #[must_use]
    pub fn server(mut self, config: Arc<ServerConfig>) -> Self {
        self.server = Some(config);
        self
    }
}

/// Which roles it has; nothing of keys.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("client", &self.client.is_some())
            .field("server", &self.server.is_some())
            .finish()
    }
}
