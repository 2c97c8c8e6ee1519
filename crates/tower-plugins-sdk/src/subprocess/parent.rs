//! The process that started this one.

#[cfg(unix)]
use std::time::Duration;

#[cfg(unix)]
use rustix::process::{Pid, getppid};

/// How often it is looked whether it is still the parent, where nothing tells.
#[cfg(unix)]
const LOOK: Duration = Duration::from_millis(250);

/// The process that started this one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parent {
    #[cfg(unix)]
    pid: Option<Pid>,
}

impl Parent {
    /// Who it is now.
    #[cfg(unix)]
    pub(super) fn current() -> Self {
        Self { pid: getppid() }
    }

    #[cfg(not(unix))]
    pub(super) fn current() -> Self {
        Self {}
    }

    /// Waits until it has ended, by which this process gets another parent.
    #[cfg(unix)]
    pub(super) async fn gone(self) {
        let mut look = tokio::time::interval(LOOK);
        while getppid() == self.pid {
            look.tick().await;
        }
    }

    /// Never: there is nothing to look at.
    #[cfg(not(unix))]
    pub(super) async fn gone(self) {
        std::future::pending().await
    }
}
