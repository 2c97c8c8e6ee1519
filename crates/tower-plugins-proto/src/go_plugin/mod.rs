//! HashiCorp's go-plugin: what a host and a plugin of it must agree on.
//!
//! A host starts the plugin as a process, with the variables in [`env`](mod@env) and the cookie of a [`Handshake`]. The plugin listens on
//! a socket, and writes a [`HandshakeLine`] to its stdout. Then it is a gRPC server; beside the program's own services it has
//! those in `grpc` (feature `go-plugin`).
//!
//! | feature | adds |
//! | --- | --- |
//! | `go-plugin` | `grpc`: the messages, clients and servers of the plugin's own services |
//! | `tls` | `tls`: certificates that are made for one run, and TLS that trusts exactly one |
//! | `broker` | `broker`: connections beside the first, offered by either side, on sockets of their own or all on one; `socket`: those sockets, and the plugin's own |
//!
//! ```
//! use tower_plugins_proto::go_plugin::{self, Address, HandshakeLine, env};
//!
//! // The host's side, before the plugin is started:
//! let variables = [(env::PROTOCOL_VERSIONS, go_plugin::offer_versions([5, 6]))];
//! // The plugin's side:
//! let version = go_plugin::choose_version([4, 5], Some(&variables[0].1)).unwrap();
//! let line = HandshakeLine::new(version, Address::Tcp(([127, 0, 0, 1], 10_000).into()))?;
//! let written = format!("{line}\n");
//! // The host's side again:
//! let line = HandshakeLine::parse(&written)?;
//! assert_eq!(line.version(), 5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
#[cfg(feature = "broker")]
pub mod broker;
mod certificate;
pub mod env;
mod handshake;
mod line;
mod shown;
#[cfg(feature = "broker")]
pub mod socket;
#[cfg(feature = "tls")]
pub mod tls;
mod versions;

pub use address::{Address, AddressError};
pub use certificate::{Certificate, CertificateError};
pub use handshake::{CookieError, Handshake};
pub use line::{CORE_PROTOCOL, HandshakeError, HandshakeLine, MAX_LINE};
pub use versions::{choose_version, offer_versions};

/// The messages, clients and servers of the services that a plugin has beside the program's own.
///
/// They are `GRPCController`, `GRPCStdio` and `GRPCBroker`, in the package `plugin`. [`DESCRIPTOR_SET`](self::grpc::DESCRIPTOR_SET) describes
/// them, for reflection.
///
/// ```
/// use tower_plugins_proto::go_plugin::grpc::{StdioData, stdio_data::Channel};
///
/// let data = StdioData { channel: Channel::Stdout.into(), data: "hello\n".into() };
/// assert_eq!(data.channel(), Channel::Stdout);
/// ```
#[cfg(feature = "go-plugin")]
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::restriction,
    reason = "generated code answers to its generator"
)]
pub mod grpc {
    include!("generated/plugin.rs");

    /// What describes the services, for reflection: an encoded `google.protobuf.FileDescriptorSet`.
    pub const DESCRIPTOR_SET: &[u8] = include_bytes!("generated/plugin.binpb");
}
