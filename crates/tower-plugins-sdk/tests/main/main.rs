//! Plugins that no host started.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod direct;
#[cfg(feature = "tls")]
mod secured;
