//! Real ends of HashiCorp's go-plugin, in Go, Python and Rust, at each other.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod events;
mod host;
mod matrix;
mod plugins;
mod sdk;
mod support;
