//! What the layers promise, through their public API.

mod breaker;
mod contract;
mod retry;
