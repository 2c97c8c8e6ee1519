use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::hold::{Counted, DrainHold, Hold};
use super::{DrainProgress, DrainReport};
use crate::sharded::{ShardedCount, Shared};

/// How long a shutdown waits for calls that were cancelled to let go.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The count of calls under way, and the power to end them.
///
/// Clones are handles to the same count.
#[derive(Clone)]
pub struct DrainHandle(Shared<Calls>);

pub(super) struct Calls {
    pub(super) count: ShardedCount,
    closed: AtomicBool,
    /// Since when.
    closed_at: Mutex<Option<Instant>>,
    cancelled: AtomicBool,
    /// Told when it is closed or opened, and when the count falls while closed.
    changed: Notify,
    cancel: CancellationToken,
}

impl Calls {
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(SeqCst)
    }

    pub(super) const fn token(&self) -> &CancellationToken {
        &self.cancel
    }

    /// A call has ended, and is no longer counted.
    pub(super) fn fell(&self) {
        if self.is_closed() {
            self.changed.notify_waiters();
        }
    }
}

impl DrainHandle {
    /// A count of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self(Shared::new(Calls {
            count: ShardedCount::new(),
            closed: AtomicBool::new(false),
            closed_at: Mutex::new(None),
            cancelled: AtomicBool::new(false),
            changed: Notify::new(),
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
        {
            let mut closed_at = self.lock();
            closed_at.get_or_insert_with(Instant::now);
            self.0.closed.store(true, SeqCst);
        }
        self.0.changed.notify_waiters();
    }

    /// Takes new calls again; says whether it does. After [`cancel`](Self::cancel) it does not.
    #[allow(clippy::must_use_candidate)] // who has not cancelled knows
    pub fn reopen(&self) -> bool {
        if self.0.is_cancelled() {
            return false;
        }
        {
            let mut closed_at = self.lock();
            *closed_at = None;
            self.0.closed.store(false, SeqCst);
        }
        self.0.changed.notify_waiters();
        true
    }

    /// Whether new calls are refused.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
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

    /// Resolves when new calls are refused: what `with_graceful_shutdown` of axum and `serve_with_shutdown` of tonic
    /// wait for.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let drain = self.clone();
        async move { drain.until(Self::is_closed).await }
    }

    /// Resolves when the count was closed and the last call has ended. May be dropped and asked for
    /// again.
    pub async fn drained(&self) {
        self.until(|drain| drain.is_closed() && drain.active() == 0)
            .await;
    }

    /// How the drain goes on, from now.
    #[must_use]
    pub fn progress(&self) -> DrainProgress {
        DrainProgress::new(self.clone())
    }

    /// Refuses new calls, waits for those under way, cancels what is left after `time`, and waits for these to let go,
    /// a second at the most. It always ends.
    ///
    /// To drop its future stops the waiting; new calls stay refused.
    pub async fn shutdown(&self, time: Duration) -> DrainReport {
        let start = Instant::now();
        let before = self.active();
        self.close();
        // Some may have begun, and some ended, in between.
        let begun = self.active().max(before);
        let mut cancelled = 0;
        if timeout(time, self.drained()).await.is_err() {
            cancelled = self.cancel();
            // One whose reader has stopped reading cannot be woken: what is left is said.
            let _ = timeout(LAST_WAIT, self.drained()).await;
        }
        DrainReport {
            finished: begun.saturating_sub(cancelled),
            cancelled,
            left: self.active(),
            elapsed: start.elapsed(),
        }
    }

    /// Counts something that is no call through a [`Drain`](super::Drain); `None` if it is closed.
    #[must_use]
    pub fn hold(&self) -> Option<DrainHold> {
        self.count().map(DrainHold::new)
    }

    pub(super) fn enter(&self, is_shared: bool) -> Option<Hold> {
        let counted = self.count()?;
        Some(if is_shared {
            Hold::Shared(DrainHold::new(counted))
        } else {
            Hold::Own(counted)
        })
    }

    fn count(&self) -> Option<Counted> {
        self.0.count.increment();
        let counted = Counted(self.0.hold());
        // Counted first, then looked: whoever closes and then sums sees this call, or is seen here.
        (!self.is_closed()).then_some(counted)
    }

    /// Since when it is closed.
    pub(super) fn closed_at(&self) -> Option<Instant> {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        let closed_at = self.0.closed_at.lock();
        closed_at.unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `found` finds something.
    pub(super) async fn find<T>(&self, mut found: impl FnMut(&Self) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            // Listening before looking: a call that ends in between is not missed.
            changed.as_mut().enable();
            if let Some(found) = found(self) {
                return found;
            }
            changed.await;
        }
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        self.find(|drain| is_so(drain).then_some(())).await;
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

/// Waits to be cancelled; only a call that has to wait for something listens.
#[derive(Debug, Default)]
pub(super) struct Cancelled(Option<Pin<Box<WaitForCancellationFutureOwned>>>);

impl Cancelled {
    pub(super) fn poll(&mut self, hold: &Hold, cx: &mut Context<'_>) -> Poll<()> {
        if hold.is_cancelled() {
            return Poll::Ready(());
        }
        let token = hold.calls().token();
        self.0
            .get_or_insert_with(|| Box::pin(token.clone().cancelled_owned()))
            .as_mut()
            .poll(cx)
    }
}
