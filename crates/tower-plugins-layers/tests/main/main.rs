//! What the layers promise, through their public API.

mod contract;
mod retry;
