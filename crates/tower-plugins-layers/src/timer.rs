//! A timer that costs nothing until somebody has to wait.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// Fires at an instant; the runtime's timer is only set by the first poll that finds it pending.
#[derive(Debug, Default)]
pub(crate) enum Timer {
    #[default]
    Never,
    At(Instant),
    Set(Pin<Box<Sleep>>),
}

impl Timer {
    pub(crate) fn maybe_at(at: Option<Instant>) -> Self {
        at.map_or(Self::Never, Self::At)
    }

    /// When it fires.
    pub(crate) fn fires_at(&self) -> Option<Instant> {
        match self {
            Self::Never => None,
            Self::At(at) => Some(*at),
            Self::Set(sleep) => Some(sleep.deadline()),
        }
    }

    /// Asks the clock, and sets nothing.
    pub(crate) fn has_passed(&self) -> bool {
        self.fires_at().is_some_and(|at| at <= Instant::now())
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let was_set = matches!(self, Self::Set(_));
        if let Self::At(at) = self {
            *self = Self::Set(Box::pin(sleep_until(*at)));
        }
        let Self::Set(sleep) = self else {
            return Poll::Pending;
        };
        // A task that has used up its turn hears nothing from a timer, and one that does so in
        // every turn would never hear from it: whoever asks again asks the clock too.
        if sleep.as_mut().poll(cx).is_ready() || was_set && self.has_passed() {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
