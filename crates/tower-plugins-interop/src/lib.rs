//! HashiCorp's go-plugin as others wrote it, to hold `tower-plugins` and its SDK against: programs in Go, with four versions of
//! go-plugin, and in Python.
//!
//! - [`peer`] is the service that every plugin of the tests has: `proto/peer.proto` says what it does.
//! - [`go`] builds `peers/go-plugin`, a plugin and a host. [`GoHost`] runs the host and reads what it saw.
//! - [`plugin`] is one that is written with the SDK.
//! - [`python`] finds a Python for `peers/plugin.py`.

use std::path::{Path, PathBuf};

mod build;
mod host;
pub mod plugin;

pub use build::{Version, go, python};
pub use host::{GoHost, Seen};

/// The generated code of `proto/peer.proto`.
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
pub mod peer {
    include!("generated/peer.v1.rs");

    /// What describes the services: an encoded `google.protobuf.FileDescriptorSet`.
    pub const DESCRIPTOR_SET: &[u8] = include_bytes!("generated/peer.binpb");
}

/// The sources of the peers.
fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// The first `length` bytes of the pattern: lines of 64 bytes, each a letter but the last.
///
/// ```
/// assert!(tower_plugins_interop::pattern(70).ends_with(b"ijk\nhijklm"));
/// ```
#[must_use]
pub fn pattern(length: usize) -> Vec<u8> {
    let byte = |at: usize| match at % 64 {
        63 => b'\n',
        column => b'a' + ((at / 64 * 7 + column) % 26) as u8,
    };
    (0..length).map(byte).collect()
}
