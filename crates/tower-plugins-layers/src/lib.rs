//! Resilience middleware for tower.

pub mod attempt_timeout;
pub mod balance;
pub mod breaker;
pub mod classify;
pub mod concurrency;
mod context;
pub mod credentials;
pub mod deadline;
pub mod drain;
mod end_of_stream;
mod gate;
mod header;
mod hint;
pub mod rate_limit;
mod reason;
pub mod retry;
mod sharded;
mod timer;
pub mod trace;
mod unsent;

#[cfg(feature = "test-util")]
pub mod test_util;

pub use attempt_timeout::{AttemptTimeout, AttemptTimeoutLayer};
pub use balance::{Balance, Load, LoadLayer};
pub use breaker::{Breaker, BreakerLayer};
pub use classify::{Classify, Outcome};
pub use concurrency::{Bulkhead, Concurrency, ConcurrencyLayer};
pub use context::CallContext;
pub use credentials::{Credentials, CredentialsLayer};
pub use deadline::{Deadline, DeadlineLayer};
pub use drain::{Drain, DrainLayer};
pub use end_of_stream::{End, EndOfStream, OnEnd};
pub use rate_limit::{RateLimit, RateLimitLayer, RateLimiter};
pub use reason::{Reason, Refused};
pub use retry::{ReplayBody, Retry, RetryLayer, RetryPolicy};
pub use trace::{Trace, TraceLayer};
pub use unsent::Unsent;

/// The error that layers pass to one another, as everywhere in tower.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
