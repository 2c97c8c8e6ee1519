//! What a reload changes, what it keeps, and how nodes that leave come to their end.

mod atomic;
mod drain;
pub(crate) mod folder;
#[cfg(unix)]
mod hangup;
mod kept;
mod last_good;
mod refused;
mod shutdown;
#[cfg(target_os = "linux")]
mod slow;
mod watched;
