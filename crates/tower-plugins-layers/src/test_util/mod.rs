//! The contract that every layer keeps, and the parts to test layers with.
//!
//! [`contract!`](crate::contract) makes the tests of the contract for one layer. [`Probe`] is the
//! service they run it over: it watches how it is called, and panics where the tower contract is
//! broken.

pub mod contract;
mod probe;

pub use probe::{Answer, Journal, Probe, ScriptedBody, Step};
