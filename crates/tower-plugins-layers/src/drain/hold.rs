use std::fmt;
use std::future::Future;
use std::sync::Arc;

use super::handle::Calls;
use crate::OnEnd;
use crate::sharded::Held;

/// One in the count.
pub(super) struct Counted(pub(super) Held<Calls>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.decrement();
        self.0.fell();
    }
}

/// What a call holds until it ends.
pub(super) enum Hold {
    Own(Counted),
    /// Its connection may live on without it.
    Shared(DrainHold),
}

impl Hold {
    pub(super) fn calls(&self) -> &Calls {
        match self {
            Self::Own(counted) => &counted.0,
            Self::Shared(hold) => &hold.0.0,
        }
    }

    /// Whether calls are to end: looks, and does not listen.
    pub(super) fn is_cancelled(&self) -> bool {
        self.calls().is_cancelled()
    }
}

impl OnEnd for Hold {}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}

/// A place in the count of a [`DrainHandle`](super::DrainHandle): what has it is counted, once for all clones, until the
/// last is dropped.
///
/// A request that asks for an upgrade (an `Upgrade` header, or `CONNECT`) has one in its extensions, and so has the
/// response that grants it (101, or 2xx to `CONNECT`). The response's body ends at once, but its connection lives on:
/// whoever takes the connection over takes the hold along.
#[derive(Clone)]
pub struct DrainHold(Arc<Counted>);

impl DrainHold {
    pub(super) fn new(counted: Counted) -> Self {
        Self(Arc::new(counted))
    }

    /// Does `future` while this is held, until its end or until the drain is
    /// [cancelled](super::DrainHandle::cancel): then it is dropped, and this is `None`.
    pub async fn keep<F: Future>(self, future: F) -> Option<F::Output> {
        self.0.0.token().run_until_cancelled(future).await
    }

    /// Resolves when what is counted is to end.
    pub async fn cancelled(&self) {
        self.0.0.token().cancelled().await;
    }

    /// Whether what is counted is to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.0.is_cancelled()
    }

    /// Whether new calls are refused: the time to come to an end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.0.is_closed()
    }
}

impl fmt::Debug for DrainHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DrainHold")
    }
}
