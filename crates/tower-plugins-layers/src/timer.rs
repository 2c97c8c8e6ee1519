//! A timer that costs nothing until somebody has to wait.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// Fires at an instant; the runtime's timer is only set by the first poll that finds it pending.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    pub(crate) const fn at(at: Instant) -> Self {
        Self {
            at: Some(at),
            sleep: None,
        }
    }

    pub(crate) const fn maybe_at(at: Option<Instant>) -> Self {
        Self { at, sleep: None }
    }

    /// A timer that never fires.
    pub(crate) const fn never() -> Self {
        Self {
            at: None,
            sleep: None,
        }
    }

    /// Whether it can fire at all.
    pub(crate) const fn is_set(&self) -> bool {
        self.at.is_some()
    }

    /// When it fires.
    pub(crate) const fn fires_at(&self) -> Option<Instant> {
        self.at
    }

    /// Asks the clock, and sets nothing.
    pub(crate) fn has_passed(&self) -> bool {
        self.at.is_some_and(|at| at <= Instant::now())
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let was_set = self.sleep.is_some();
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        // A task that has used up its turn hears nothing from a timer, and one that does so in
        // every turn would never hear from it: whoever asks again asks the clock too.
        if sleep.as_mut().poll(cx).is_ready() || was_set && self.has_passed() {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
