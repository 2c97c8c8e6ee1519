//! What both ends of a plugin's wire agree on.
//!
//! * [`v1`]: the gRPC service `tower_plugins.v1.Plugin`, its messages, client and server. The code is
//!   generated from `proto/` and checked in, so building this crate needs no `protoc`.
//! * [`envelope`]: the JSON that a plugin behind plain HTTP is sent, and answers with.
//! * [`mod@line`]: the lines of JSON that a plugin behind a Unix socket is sent, and answers with.
//! * [`exec`]: the lines of JSON that a plugin's process is sent, and answers with.
//! * [`duration`]: durations as text, as an envelope writes a timeout.
//! * [`go_plugin`]: the protocol of HashiCorp's go-plugin: variables, handshake line, and by feature its gRPC services
//!   (`go-plugin`), certificates and TLS (`tls`), and sockets and connections that either side offers the other (`broker`).
//! * [`health`]: the two messages of `grpc.health.v1`.
//!
//! A host and a plugin depend on this crate alone to understand each other. It starts nothing, and without the feature `broker` listens nowhere.

#![forbid(unsafe_code)]

pub mod duration;
pub mod envelope;
pub mod exec;
pub mod go_plugin;
pub mod health;
pub mod line;

/// The gRPC service `tower_plugins.v1.Plugin`: named methods with opaque payloads.
///
/// ```
/// use tower_plugins_proto::v1::ExecuteRequest;
///
/// let request = ExecuteRequest {
///     method: "check".into(),
///     payload: r#"{"token":"t"}"#.into(),
///     content_type: "application/json".into(),
///     ..Default::default()
/// };
/// assert_eq!(request.payload.len(), 13);
/// ```
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
pub mod v1 {
    include!("generated/tower_plugins.v1.rs");
}
