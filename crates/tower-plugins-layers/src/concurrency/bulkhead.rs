use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst, fence};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::gate::Admission;
use crate::{OnEnd, Reason, Refused};

/// Places for calls, and a queue in front of them.
///
/// Taking a free place is one compare-and-swap. Only when all are taken does the queue come in: it
/// is a semaphore whose permits are places that were handed over, which makes it first come, first
/// served.
#[derive(Debug)]
pub struct Bulkhead {
    max_concurrent: usize,
    max_queued: usize,
    max_wait: Duration,
    /// Places taken, those handed over to the queue included.
    taken: CachePadded<AtomicUsize>,
    queued: AtomicUsize,
    handed_over: Semaphore,
}

impl Bulkhead {
    /// `max_concurrent` places, at least one, and no queue.
    #[must_use]
    pub fn new(max_concurrent: usize) -> Self {
        Self {
            max_concurrent: max_concurrent.max(1),
            max_queued: 0,
            max_wait: Duration::ZERO,
            taken: CachePadded::new(AtomicUsize::new(0)),
            queued: AtomicUsize::new(0),
            handed_over: Semaphore::new(0),
        }
    }

    /// Lets up to `max_queued` calls wait for a place, each for at most `max_wait`.
    #[must_use]
    pub const fn queue(mut self, max_queued: usize, max_wait: Duration) -> Self {
        self.max_queued = max_queued;
        self.max_wait = max_wait;
        self
    }

    /// Calls that hold a place.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.taken.load(SeqCst)
    }

    /// Calls that wait for one.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued.load(SeqCst)
    }

    fn take(&self) -> bool {
        self.taken
            .fetch_update(SeqCst, SeqCst, |taken| {
                (taken < self.max_concurrent).then_some(taken + 1)
            })
            .is_ok()
    }

    fn release(&self) {
        if self.queued.load(SeqCst) > 0 {
            return self.hand_over();
        }
        self.taken.fetch_sub(1, SeqCst);
        // Somebody may have queued after the look above and found no place before the line above.
        if self.queued.load(SeqCst) > 0 && self.take() {
            self.hand_over();
        }
    }

    fn hand_over(&self) {
        self.handed_over.add_permits(1);
        self.reclaim();
    }

    /// Takes back what was handed over to a queue that was left meanwhile.
    ///
    /// Called after each change that may leave a place with nobody to take it, by him who hands over
    /// and by him who leaves: with the fence the later of the two sees what the other did.
    fn reclaim(&self) {
        fence(SeqCst);
        while self.queued.load(SeqCst) == 0
            && let Ok(place) = self.handed_over.try_acquire()
        {
            place.forget();
            self.taken.fetch_sub(1, SeqCst);
            if self.queued.load(SeqCst) > 0 && self.take() {
                self.handed_over.add_permits(1);
                fence(SeqCst);
            }
        }
    }

    pub(super) fn admit(self: &Arc<Self>) -> Admission<Permit> {
        // A newcomer does not overtake those who wait.
        if self.queued.load(SeqCst) == 0 && self.take() {
            return Admission::Granted(Permit(Arc::clone(self)));
        }
        let queued = self.queued.fetch_update(SeqCst, SeqCst, |queued| {
            (queued < self.max_queued).then_some(queued + 1)
        });
        if queued.is_err() {
            return Admission::Refused(Refused::new(Reason::ConcurrencyLimited));
        }
        let turn = Turn(Some(Arc::clone(self)));
        if self.take() {
            return Admission::Granted(turn.done());
        }
        Admission::Wait(Box::pin(turn.wait()))
    }
}

/// A place in a [`Bulkhead`], given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<Bulkhead>);

impl OnEnd for Permit {}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// A place in the queue.
struct Turn(Option<Arc<Bulkhead>>);

impl Turn {
    fn done(mut self) -> Permit {
        #[expect(clippy::expect_used, reason = "taken here or in drop, never in both")]
        let bulkhead = self.0.take().expect("a turn that was not taken");
        bulkhead.queued.fetch_sub(1, SeqCst);
        bulkhead.reclaim();
        Permit(bulkhead)
    }

    async fn wait(self) -> Result<Permit, Refused> {
        let limited = || Refused::new(Reason::ConcurrencyLimited);
        let bulkhead = self.0.clone().ok_or_else(limited)?;
        let place = timeout(bulkhead.max_wait, bulkhead.handed_over.acquire()).await;
        let Ok(Ok(place)) = place else {
            return Err(limited());
        };
        place.forget();
        Ok(self.done())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(bulkhead) = self.0.take() {
            bulkhead.queued.fetch_sub(1, SeqCst);
            bulkhead.reclaim();
        }
    }
}
