//! A plugin system for Rust.

pub mod config;

mod body;

pub use body::Body;
