use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::OnEnd;
use crate::sharded::{Held, ShardedCount, Shared};

/// The count of calls under way, and the power to end them.
///
/// Clones are handles to the same count.
#[derive(Clone)]
pub struct DrainHandle(Shared<Calls>);

struct Calls {
    count: ShardedCount,
    closed: AtomicBool,
    cancelled: AtomicBool,
    /// Told when the count falls while closed.
    fell: Notify,
    cancel: CancellationToken,
}

impl DrainHandle {
    /// A count of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self(Shared::new(Calls {
            count: ShardedCount::new(),
            closed: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            fell: Notify::new(),
            cancel: CancellationToken::new(),
        }))
    }

    /// Calls under way. While calls come and go it is a value near the truth.
    #[must_use]
    pub fn active(&self) -> usize {
        self.0.count.sum()
    }

    /// Refuses new calls from now on, with [`Reason::Draining`](crate::Reason::Draining).
    pub fn close(&self) {
        self.0.closed.store(true, SeqCst);
        self.0.fell.notify_waiters();
    }

    /// Whether new calls are refused.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(SeqCst)
    }

    /// Ends the calls under way, with
    /// [`Reason::DrainCancelled`](crate::Reason::DrainCancelled), and says how many there were.
    /// Calls that begin later end so too.
    #[allow(clippy::must_use_candidate)] // the count is a by-product
    pub fn cancel(&self) -> usize {
        let active = self.active();
        self.0.cancelled.store(true, SeqCst);
        self.0.cancel.cancel();
        active
    }

    /// Resolves when the count was closed and the last call has ended. May be dropped and asked for
    /// again.
    pub async fn drained(&self) {
        loop {
            let mut fell = std::pin::pin!(self.0.fell.notified());
            // Listening before looking: a call that ends in between is not missed.
            fell.as_mut().enable();
            if self.is_closed() && self.active() == 0 {
                return;
            }
            fell.await;
        }
    }

    pub(super) fn hold(&self) -> Option<Hold> {
        self.0.count.increment();
        let hold = Hold(self.0.hold());
        // Counted first, then looked: whoever closes and then sums sees this call, or is seen here.
        (!self.is_closed()).then_some(hold)
    }
}

impl Default for DrainHandle {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for DrainHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainHandle")
            .field("active", &self.active())
            .field("closed", &self.is_closed())
            .finish()
    }
}

/// One call in the count.
pub struct Hold(Held<Calls>);

impl OnEnd for Hold {}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.count.decrement();
        if self.0.closed.load(SeqCst) {
            self.0.fell.notify_waiters();
        }
    }
}

impl Hold {
    /// Whether calls are to end: looks, and does not listen.
    pub(super) fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(SeqCst)
    }
}

/// Waits to be cancelled; only a call that has to wait for something listens.
#[derive(Debug, Default)]
pub(super) struct Cancelled(Option<Pin<Box<WaitForCancellationFutureOwned>>>);

impl Cancelled {
    pub(super) fn poll(&mut self, hold: &Hold, cx: &mut Context<'_>) -> Poll<()> {
        if hold.is_cancelled() {
            return Poll::Ready(());
        }
        let token = &hold.0.cancel;
        self.0
            .get_or_insert_with(|| Box::pin(token.clone().cancelled_owned()))
            .as_mut()
            .poll(cx)
    }
}
