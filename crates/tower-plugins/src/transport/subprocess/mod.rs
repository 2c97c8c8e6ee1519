//! Plugins that are processes of this program's: started, watched, and ended with all that they began.
//!
//! [`Exited`] is what a call fails with whose process ended.

mod checked;
mod dialect;
mod exited;
mod in_child;
mod launch;
mod live;
mod log;
mod process;
mod running;
mod stdio;
mod supervise;

pub(super) use self::dialect::{Dialect, Start, Stdin, Streams};
pub use self::exited::Exited;
pub(super) use self::launch::Launch;
pub(super) use self::running::Running;
pub(super) use self::supervise::Supervisor;
