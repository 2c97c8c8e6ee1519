//! Plugins that are processes of this program's: started, watched, and ended with all that they began.
//!
//! [`Exited`] is what a call fails with whose process ended. [`Terminal`] is what a process asks and shows, where it has one.
//!
//! What is spoken with one is a `Dialect`: lines of JSON ([`ExecJson`](super::ExecJson)), or HashiCorp's go-plugin
//! ([`GoPlugin`](super::GoPlugin)).

mod allowance;
mod cgroup;
mod checked;
mod describe;
mod dialect;
mod exited;
mod in_child;
mod launch;
mod live;
mod log;
mod process;
mod pty;
mod rlimits;
mod running;
mod stdio;
mod supervise;
mod terminal;

pub(super) use self::describe::describe;
pub(super) use self::dialect::{Dialect, Start, Stdin, Streams, Unfit};
pub use self::exited::Exited;
pub(super) use self::launch::Launch;
pub(super) use self::log::Logs;
pub(super) use self::running::{InUse, Running};
pub(super) use self::stdio::{Cutter, Tail, drain};
pub(super) use self::supervise::Supervisor;
pub(crate) use self::terminal::OnTerminal;
pub use self::terminal::Terminal;
