//! What a reload changes, what it keeps, and how nodes that leave come to their end.

mod atomic;
mod blue_green;
mod canary;
mod changes;
mod drain;
mod exclusive;
pub(crate) mod folder;
#[cfg(unix)]
mod hangup;
mod kept;
mod last_good;
mod model;
mod moments;
mod on_demand;
mod refused;
mod rolling;
mod shutdown;
#[cfg(target_os = "linux")]
mod slow;
pub(crate) mod support;
mod watched;
