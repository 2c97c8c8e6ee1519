//! Rate limits by key, by cost and for a fleet; limits that adapt; priorities.

mod adaptive;
mod allocations;
mod headers;
mod keyed;
mod outage;
mod policy;
mod priority;
mod rates;
mod redis;
