//! A plugin system for Rust.

pub mod config;
pub mod transport;

mod body;

pub use body::Body;
