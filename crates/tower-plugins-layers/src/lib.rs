//! Resilience middleware for tower.

mod reason;
mod unsent;

pub use reason::{Reason, Refused};
pub use unsent::Unsent;

/// The error that layers pass to one another, as everywhere in tower.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
