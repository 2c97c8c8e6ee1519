//! A process that runs, as calls see it, and why there is none.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::exited::Exited;
use super::process::Handle;

/// A process that runs, and what calls go through.
pub(in crate::transport) struct Running<S> {
    pub(in crate::transport) session: S,
    process: Handle,
    killed: OnceLock<&'static str>,
    answered: OnceLock<()>,
    exited: watch::Receiver<Option<Arc<Exited>>>,
}

impl<S> Running<S> {
    pub(super) const fn new(
        session: S,
        process: Handle,
        exited: watch::Receiver<Option<Arc<Exited>>>,
    ) -> Self {
        Self {
            session,
            process,
            killed: OnceLock::new(),
            answered: OnceLock::new(),
            exited,
        }
    }

    pub(super) fn killed(&self) -> Option<&'static str> {
        self.killed.get().copied()
    }

    /// It is of no use any more, because of `why`: it is killed, and a new one is made at once.
    pub(in crate::transport) fn discard(&self, why: &'static str) {
        let _ = self.killed.set(why);
        self.process.kill();
    }

    pub(in crate::transport) fn is_over(&self) -> bool {
        self.killed.get().is_some() || self.process.is_over()
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
        self.process.exited().await;
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

impl Why {
    /// In one line.
    pub(super) fn shown(&self) -> String {
        match &self.exited {
            Some(exited) => format!("{}: {exited}", self.what),
            None => self.what.clone(),
        }
    }
}
