//! What a plugin that is written with this crate does, seen from outside.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed test may panic"
)]

mod direct;
mod router;
#[cfg(feature = "tls")]
mod secured;
