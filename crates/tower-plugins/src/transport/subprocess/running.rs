//! A process that runs, as calls see it, and why there is none.

use std::error::Error as StdError;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::exited::Exited;
use super::process::Handle;
use crate::transport::FOREVER;

/// A process that runs, and what calls go through.
pub(in crate::transport) struct Running<S> {
    pub(in crate::transport) session: S,
    /// Not there if somebody else started it.
    process: Option<Handle>,
    killed: OnceLock<&'static str>,
    answered: OnceLock<()>,
    exited: watch::Receiver<Option<Arc<Exited>>>,
    uses: Mutex<Uses>,
    /// The last use has ended.
    unused: Notify,
}

/// Calls that are under way.
struct Uses {
    count: usize,
    /// When the last one ended.
    ended: Instant,
    /// Whether there may be no more.
    is_closed: bool,
}

/// A process that a call has: as long as this is there, it is not stopped as nobody needed it.
pub(in crate::transport) struct InUse<S>(Arc<Running<S>>);

impl<S> InUse<S> {
    /// The first use of `running`.
    pub(in crate::transport) fn of(running: Running<S>) -> Self {
        running.uses().count += 1;
        Self(Arc::new(running))
    }

    /// The process, for who does not keep it.
    pub(in crate::transport) fn downgrade(&self) -> Weak<Running<S>> {
        Arc::downgrade(&self.0)
    }
}

impl<S> Deref for InUse<S> {
    type Target = Running<S>;

    fn deref(&self) -> &Running<S> {
        &self.0
    }
}

impl<S> Clone for InUse<S> {
    fn clone(&self) -> Self {
        self.0.uses().count += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<S> Drop for InUse<S> {
    fn drop(&mut self) {
        let mut uses = self.0.uses();
        uses.count -= 1;
        if uses.count == 0 {
            uses.ended = Instant::now();
            self.0.unused.notify_one();
        }
    }
}

impl<S> Running<S> {
    pub(super) fn new(
        session: S,
        process: Handle,
        exited: watch::Receiver<Option<Arc<Exited>>>,
    ) -> Self {
        Self {
            process: Some(process),
            ..Self::elsewhere(session, exited)
        }
    }

    /// One that somebody else started; it is over when `exited` says how it ended.
    pub(in crate::transport) fn elsewhere(
        session: S,
        exited: watch::Receiver<Option<Arc<Exited>>>,
    ) -> Self {
        Self {
            session,
            process: None,
            killed: OnceLock::new(),
            answered: OnceLock::new(),
            exited,
            uses: Mutex::new(Uses {
                count: 0,
                ended: Instant::now(),
                is_closed: false,
            }),
            unused: Notify::new(),
        }
    }

    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process for one call, unless it is being stopped.
    pub(in crate::transport) fn in_use(self: &Arc<Self>) -> Option<InUse<S>> {
        let mut uses = self.uses();
        (!uses.is_closed).then(|| {
            uses.count += 1;
            InUse(Arc::clone(self))
        })
    }

    /// Waits until it has had no call for `limit`; then it gets no more. Without one for ever.
    pub(super) async fn idle(&self, limit: Option<Duration>) {
        let Some(limit) = limit else {
            return std::future::pending().await;
        };
        let limit = limit.min(FOREVER);
        loop {
            let due = {
                let mut uses = self.uses();
                let due = (uses.count == 0).then(|| uses.ended + limit);
                uses.is_closed = due.is_some_and(|due| due <= Instant::now());
                if uses.is_closed {
                    return;
                }
                due
            };
            match due {
                Some(due) => sleep_until(due).await,
                None => self.unused.notified().await,
            }
        }
    }

    pub(super) fn killed(&self) -> Option<&'static str> {
        self.killed.get().copied()
    }

    /// It is of no use any more, because of `why`: it is killed, and a new one is made at once.
    pub(in crate::transport) fn discard(&self, why: &'static str) {
        let _ = self.killed.set(why);
        if let Some(process) = &self.process {
            process.kill();
        }
    }

    pub(in crate::transport) fn is_over(&self) -> bool {
        let is_over = match &self.process {
            Some(process) => process.is_over(),
            None => self.exited.borrow().is_some(),
        };
        is_over || self.killed.get().is_some()
    }

    /// Whether it has answered a call.
    pub(in crate::transport) fn is_used(&self) -> bool {
        self.answered.get().is_some()
    }

    /// It has answered a call: if it ends, it is worth another start without delay.
    pub(in crate::transport) fn has_answered(&self) {
        let _ = self.answered.set(());
    }

    /// Waits until it has ended, and is gone.
    pub(in crate::transport) async fn gone(&self) {
        match &self.process {
            Some(process) => drop(process.exited().await),
            None => drop(self.exited.clone().wait_for(Option::is_some).await),
        }
    }

    /// Where it will be said how it ended; it is not there before that is known, and closed without it if nobody will.
    pub(in crate::transport) fn exit(&self) -> watch::Receiver<Option<Arc<Exited>>> {
        self.exited.clone()
    }

    /// How it ended, if it does within `limit`.
    pub(in crate::transport) async fn exited(&self, limit: Duration) -> Option<Arc<Exited>> {
        let mut exited = self.exited.clone();
        let exited = timeout(limit, exited.wait_for(Option::is_some)).await;
        exited.ok()?.ok()?.clone()
    }
}

/// Why there is no process.
#[derive(Clone, Debug)]
pub(super) struct Why {
    pub(super) what: String,
    pub(super) exited: Option<Arc<Exited>>,
    /// Whether another start would end in the same way: nobody waits for it.
    pub(super) is_lasting: bool,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for Why {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.exited.as_deref().map(|exited| exited as _)
    }
}

/// Of a process that ran.
const NOT_RUNNING: &str = "it is not running";

impl Why {
    /// It ran, and ended so.
    pub(super) fn ended(how: Arc<Exited>) -> Self {
        Self {
            what: NOT_RUNNING.to_owned(),
            exited: Some(how),
            is_lasting: false,
        }
    }

    /// `what`, which came of it.
    pub(super) fn after(self, what: String) -> Self {
        let what = match &*self.what {
            NOT_RUNNING => what,
            last => format!("{what}; the last time: {last}"),
        };
        Self { what, ..self }
    }

    /// In one line.
    pub(super) fn shown(&self) -> String {
        match &self.exited {
            Some(exited) => format!("{}: {exited}", self.what),
            None => self.what.clone(),
        }
    }
}
