//! That the generated code is current, and that two ends understand each other: both ours, or one of them Go's.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod broker;
mod generated;
mod go_plugin;
mod handshake;
#[cfg(unix)]
mod interop;
#[cfg(unix)]
mod link;
mod multiplexed;
mod service;
#[cfg(unix)]
mod socket;
mod tls;
