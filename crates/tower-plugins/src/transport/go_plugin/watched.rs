//! The end of a process that is no child of this one.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;

use rustix::process::{Pid, Signal};
use tokio_util::sync::CancellationToken;

use crate::transport::task::Task;

/// A process that somebody else started. It is watched until this is dropped.
pub(super) struct Watched {
    #[cfg(target_os = "linux")]
    process: OwnedFd,
    #[cfg(not(target_os = "linux"))]
    process: Pid,
    gone: CancellationToken,
    _watch: Task,
}

impl Watched {
    /// The process `pid`, which must be there.
    #[cfg(target_os = "linux")]
    pub(super) fn new(pid: Pid) -> io::Result<Self> {
        use rustix::process::{PidfdFlags, pidfd_open};
        use tokio::io::Interest;
        use tokio::io::unix::AsyncFd;

        // It stands for this process, whoever has its number later.
        let process = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        #[allow(
            deprecated,
            reason = "the newer form is unsafe, and asks for no more than an `OwnedFd` promises"
        )]
        let ends = AsyncFd::with_interest(process.try_clone()?, Interest::READABLE)?;
        let gone = CancellationToken::new();
        let is_gone = gone.clone();
        let watch = Task::spawn(async move {
            drop(ends.readable().await);
            is_gone.cancel();
        });
        Ok(Self {
            process,
            gone,
            _watch: watch,
        })
    }

    /// The process `pid`, which must be there. It is looked at every second.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn new(pid: Pid) -> io::Result<Self> {
        use rustix::process::test_kill_process;

        test_kill_process(pid)?;
        let gone = CancellationToken::new();
        let is_gone = gone.clone();
        let watch = Task::spawn(async move {
            while test_kill_process(pid).is_ok() {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
            is_gone.cancel();
        });
        Ok(Self {
            process: pid,
            gone,
            _watch: watch,
        })
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Waits for its end.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    pub(super) fn signal(&self, signal: Signal) {
        if self.is_gone() {
            return;
        }
        // It may be over, and not yet known.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::pidfd_send_signal(&self.process, signal);
        #[cfg(not(target_os = "linux"))]
        let _ = rustix::process::kill_process(self.process, signal);
    }
}
