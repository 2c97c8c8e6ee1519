//! The generated code: that it is current, and that its two ends understand each other.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod broker;
mod generated;
mod go_plugin;
mod handshake;
#[cfg(unix)]
mod interop;
mod multiplexed;
mod service;
mod tls;
