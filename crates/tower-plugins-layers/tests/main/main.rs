//! What the layers promise, through their public API.

mod balance;
mod breaker;
mod contract;
mod retry;
