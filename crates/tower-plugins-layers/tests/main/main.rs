//! What the layers promise, through their public API.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that fails panics

mod attempt_timeout;
mod authorize;
mod balance;
mod breaker;
mod classify;
mod concurrency;
mod contract;
mod credentials;
mod deadline;
mod drain;
mod end_of_stream;
mod fallback;
mod filter;
mod health;
mod hedge;
mod limits;
mod optional;
mod order;
mod outlier;
mod pairs;
mod picks;
mod policies;
mod rate_limit;
mod respond;
mod retry;
mod sizes;
mod slow_start;
mod support;
mod trace;
