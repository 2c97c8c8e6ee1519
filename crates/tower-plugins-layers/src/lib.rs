//! Resilience middleware for tower.

pub mod attempt_timeout;
pub mod breaker;
pub mod classify;
mod context;
pub mod deadline;
mod end_of_stream;
mod reason;
mod sharded;
mod timer;
mod unsent;

#[cfg(feature = "test-util")]
pub mod test_util;

pub use attempt_timeout::{AttemptTimeout, AttemptTimeoutLayer};
pub use breaker::{Breaker, BreakerLayer};
pub use classify::{Classify, Outcome};
pub use context::CallContext;
pub use deadline::{Deadline, DeadlineLayer};
pub use end_of_stream::{End, EndOfStream, OnEnd};
pub use reason::{Reason, Refused};
pub use unsent::Unsent;

/// The error that layers pass to one another, as everywhere in tower.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
