//! A plugin system for Rust: each plugin a `tower::Service`, the whole graph swapped in place.

pub mod call;
pub mod config;
pub mod embed;
pub mod reload;
pub mod transport;

mod body;
mod error;
mod graph;
mod node;
mod plugin;
mod plugins;

pub use body::Body;
pub use error::{Blame, Error};
pub use graph::{Change, Generation, Plan};
pub use plugin::{CallFuture, Plugin};
pub use plugins::{Builder, Plugins};
pub use tower_plugins_layers::Reason;
