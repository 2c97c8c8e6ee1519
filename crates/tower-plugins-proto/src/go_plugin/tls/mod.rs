//! TLS between a host and its plugin, each of which trusts exactly one certificate: the other's.
//!
//! Both make an [`Identity`] when the process starts. The host hands its certificate over in
//! [`env::CLIENT_CERT`](super::env::CLIENT_CERT), the plugin its own in the handshake line. Nobody signs for anybody, and no name counts:
//! whoever shows another certificate than that one, byte by byte, or none, is refused. It is "AutoMTLS" in go-plugin.
//!
//! Of a brokered connection the side that accepts is the server, and the certificates are the same two.
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

pub use identity::{Identity, TlsError, server_name};
pub use verify::NotTheOne;
