//! A process that is watched from its start to its end.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid,
};
use tokio::sync::watch;
use tokio::time::timeout;

use super::cgroup::Cgroup;

/// How long the kernel may take to end what it was told to kill.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// How a process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// Whether it was killed because it needed more memory than its cgroup has.
    pub(crate) is_out_of_memory: bool,
}

/// A process, the first of its group. Dropping it kills the group.
///
/// A thread waits for its end, so that it is noticed at once and nothing is left of it, whatever becomes of the runtime.
#[derive(Debug)]
pub(crate) struct Process(Handle);

/// The same process for those who do not own it.
#[derive(Clone, Debug)]
pub(crate) struct Handle(Arc<Watched>);

struct Watched {
    pid: Pid,
    /// Whether it is there: as long as it is, its id is nobody else's.
    is_there: Mutex<bool>,
    /// What it is in, until its end.
    cgroup: Mutex<Option<Arc<Cgroup>>>,
    status: watch::Sender<Option<Status>>,
}

impl Process {
    /// The child `pid` of this process, which leads a group of its own, and is in `cgroup`.
    pub(super) fn watch(pid: u32, cgroup: Option<Cgroup>) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a process has no id"))?;
        let watched = Arc::new(Watched {
            pid,
            is_there: Mutex::new(true),
            cgroup: Mutex::new(cgroup.map(Arc::new)),
            status: watch::Sender::new(None),
        });
        let process = Self(Handle(Arc::clone(&watched)));
        let wait = {
            let watched = Arc::clone(&watched);
            move || watched.wait()
        };
        let thread = std::thread::Builder::new()
            .name(format!("plugin-{}", pid.as_raw_nonzero()))
            .stack_size(128 << 10);
        if let Err(error) = thread.spawn(wait) {
            process.kill();
            watched.wait();
            return Err(error);
        }
        Ok(process)
    }

    pub(crate) fn handle(&self) -> Handle {
        self.0.clone()
    }

    /// Asks the group to end, and kills it after `grace`.
    pub(crate) async fn stop(&self, grace: Duration) -> Option<Status> {
        self.0.signal(Signal::TERM);
        if let Ok(status) = timeout(grace, self.0.exited()).await {
            return Some(status);
        }
        self.killed().await
    }

    /// Kills the group, and waits for its end.
    pub(crate) async fn killed(&self) -> Option<Status> {
        self.kill();
        timeout(KILLED_WITHIN, self.0.exited()).await.ok()
    }
}

impl std::ops::Deref for Process {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Handle {
    pub(crate) fn id(&self) -> i32 {
        self.0.pid.as_raw_nonzero().get()
    }

    /// Kills the whole group, and all that is in its cgroup.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
        if let Some(cgroup) = self.0.cgroup() {
            cgroup.kill();
        }
    }

    /// Whether it has ended, and nothing is left of its group.
    pub(crate) fn is_over(&self) -> bool {
        self.0.status.borrow().is_some()
    }

    /// Waits for its end, when nothing is left of its group.
    pub(crate) async fn exited(&self) -> Status {
        let mut status = self.0.status.subscribe();
        let ended = status.wait_for(Option::is_some).await;
        ended.ok().and_then(|status| *status).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        let is_there = self.0.is_there();
        if *is_there {
            // It may be over and not yet known.
            let _ = kill_process_group(self.0.pid, signal);
        }
    }
}

impl Watched {
    fn is_there(&self) -> std::sync::MutexGuard<'_, bool> {
        self.is_there.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cgroup(&self) -> Option<Arc<Cgroup>> {
        let cgroup = self.cgroup.lock().unwrap_or_else(PoisonError::into_inner);
        cgroup.clone()
    }

    /// Waits for its end, ends what it left behind, and tells.
    fn wait(&self) {
        // Not taken away yet: until then the group is nobody else's.
        let mut status = self.waited(WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        {
            let mut is_there = self.is_there();
            let _ = kill_process_group(self.pid, Signal::KILL);
            self.waited(WaitIdOptions::EXITED);
            *is_there = false;
        }
        if let Some(cgroup) = self.cgroup() {
            let was_killed = status.signal == Some(Signal::KILL.as_raw());
            status.is_out_of_memory = was_killed && cgroup.ran_out_of_memory();
            cgroup.remove();
            *self.cgroup.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.status.send_replace(Some(status));
    }

    fn waited(&self, options: WaitIdOptions) -> Status {
        loop {
            match waitid(WaitId::Pid(self.pid), options) {
                Ok(Some(status)) => return Status::of(status),
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                // A program that ignores SIGCHLD has nothing left to be waited for.
                Err(_) => return Status::default(),
            }
        }
    }
}

impl Status {
    fn of(status: WaitIdStatus) -> Self {
        Self {
            code: status.exit_status(),
            signal: status.terminating_signal(),
            is_out_of_memory: false,
        }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}
