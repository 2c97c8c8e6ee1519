//! Resilience middleware for tower.

mod reason;

pub use reason::{Reason, Refused};

/// The error that layers pass to one another, as everywhere in tower.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
