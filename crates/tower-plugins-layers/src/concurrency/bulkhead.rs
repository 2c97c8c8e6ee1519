use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::adaptive::{Adaptive, Sample};
use super::permit::Permit;
use super::queue::{Queue, Turn};
use super::{AdaptivePolicy, Priority};
use crate::gate::Admission;
use crate::{Reason, Refused};

/// Places for calls, and a queue in front of them.
///
/// Taking a free place is one compare-and-swap. Only when none is free does the queue come in, under a lock
/// that is held for a few steps: the more important first, and among equals first come, first served.
///
/// Calls of less importance get a [share](Self::share) of the places and of the queue, so that some are left
/// for others. A call that finds the queue full displaces the last of the least important there.
#[derive(Debug)]
pub struct Bulkhead {
    limit: AtomicUsize,
    max_queued: usize,
    max_wait: Duration,
    shares: [f64; Priority::ALL.len()],
    /// Places taken.
    taken: CachePadded<AtomicUsize>,
    /// As many as are in `queue`: written under its lock, and read without.
    queued: AtomicUsize,
    queue: Mutex<Queue>,
    adaptive: Option<Adaptive>,
    pub(super) origin: Instant,
}

impl Bulkhead {
    /// `max_concurrent` places, at least one, and no queue.
    #[must_use]
    pub fn new(max_concurrent: usize) -> Self {
        Self {
            limit: AtomicUsize::new(max_concurrent.max(1)),
            max_queued: 0,
            max_wait: Duration::ZERO,
            shares: Priority::SHARES,
            taken: CachePadded::new(AtomicUsize::new(0)),
            queued: AtomicUsize::new(0),
            queue: Mutex::default(),
            adaptive: None,
            origin: Instant::now(),
        }
    }

    /// As many places as `policy` finds right.
    #[must_use]
    pub fn adaptive(policy: AdaptivePolicy) -> Self {
        let adaptive = Adaptive::new(policy);
        Self {
            adaptive: Some(adaptive),
            ..Self::new(1)
        }
        .begin()
    }

    fn begin(self) -> Self {
        if let Some(adaptive) = &self.adaptive {
            self.limit.store(adaptive.limit(), SeqCst);
        }
        self
    }

    /// Lets up to `max_queued` calls wait for a place, each for at most `max_wait`.
    #[must_use]
    pub const fn queue(mut self, max_queued: usize, max_wait: Duration) -> Self {
        self.max_queued = max_queued;
        self.max_wait = max_wait;
        self
    }

    /// The share, of 1, of the places and of the queue that may be taken when a call of `priority` is let
    /// in; at least one place. One of less importance has no more than one of more.
    ///
    /// The default is 1, 1, 0.8 and 0.5, from [`Priority::Critical`] to [`Priority::Bulk`].
    #[must_use]
    pub fn share(mut self, priority: Priority, share: f64) -> Self {
        if !share.is_nan() {
            self.shares[priority.class()] = share.clamp(0.0, 1.0);
        }
        self
    }

    /// The most calls that may hold a place now.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.load(SeqCst)
    }

    /// Sets the limit, at least one. Calls that hold a place keep it. A limit that adapts goes on from its
    /// own next time.
    pub fn set_limit(&self, limit: usize) {
        let limit = limit.max(1);
        if self.limit.swap(limit, SeqCst) < limit && self.queued.load(SeqCst) > 0 {
            self.serve(&mut self.lock());
        }
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

    pub(super) const fn adapts(&self) -> bool {
        self.adaptive.is_some()
    }

    pub(super) fn timeout(&self) -> Duration {
        self.adaptive
            .as_ref()
            .map_or(Duration::MAX, Adaptive::timeout)
    }

    /// Learns from a call that still holds its place.
    pub(super) fn observe(&self, sample: Sample) {
        if let Some(adaptive) = &self.adaptive {
            self.set_limit(adaptive.observe(sample, self.in_flight()));
        }
    }

    fn share_of(&self, most: usize, priority: Priority) -> usize {
        let shares = &self.shares[..=priority.class()];
        let share = shares
            .iter()
            .fold(1.0, |least: f64, share| least.min(*share));
        if share >= 1.0 {
            return most;
        }
        (most as f64 * share) as usize
    }

    fn take(&self, priority: Priority) -> bool {
        let most = self.share_of(self.limit(), priority).max(1);
        self.taken
            .fetch_update(SeqCst, SeqCst, |taken| (taken < most).then_some(taken + 1))
            .is_ok()
    }

    /// Gives a place back.
    pub(super) fn release(&self) {
        self.taken.fetch_sub(1, SeqCst);
        // Who queues looks for a place after it is counted, and this looks for who is counted after there
        // is a place: one of the two sees the other.
        if self.queued.load(SeqCst) > 0 {
            self.serve(&mut self.lock());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Whole after each change, whatever panicked.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives what places there are to the first in line.
    fn serve(&self, queue: &mut Queue) {
        while let Some(priority) = queue.first()
            && self.take(priority)
        {
            queue.serve(priority);
        }
        self.queued.store(queue.len(), SeqCst);
    }

    pub(super) fn admit(self: &Arc<Self>, priority: Priority) -> Admission<Permit> {
        // A newcomer does not overtake those who wait.
        if self.queued.load(SeqCst) == 0 && self.take(priority) {
            return Admission::Granted(Permit::new(self));
        }
        if self.max_queued == 0 {
            return Admission::Refused(self.refused(priority));
        }
        let mut queue = self.lock();
        // Those of less importance may wait for a place that is not for them.
        if !queue.has(priority) && self.take(priority) {
            return Admission::Granted(Permit::new(self));
        }
        let most = self.share_of(self.max_queued, priority);
        if queue.len() >= most && !queue.displace(priority) {
            return Admission::Refused(self.refused(priority));
        }
        let (number, turn) = queue.push(priority);
        self.queued.store(queue.len(), SeqCst);
        let place = Place {
            bulkhead: Arc::clone(self),
            priority,
            number,
            turn,
        };
        // One who gave a place back before it saw this one counted.
        self.serve(&mut queue);
        drop(queue);
        Admission::Wait(Box::pin(place.wait()))
    }

    fn refused(&self, priority: Priority) -> Refused {
        let all = self.limit();
        let shed = self.share_of(all, priority) < all && self.in_flight() < all;
        Refused::new(if shed {
            Reason::Shed
        } else {
            Reason::ConcurrencyLimited
        })
    }
}

/// A place in the queue, left when dropped.
struct Place {
    bulkhead: Arc<Bulkhead>,
    priority: Priority,
    number: u64,
    turn: oneshot::Receiver<Turn>,
}

impl Place {
    async fn wait(mut self) -> Result<Permit, Refused> {
        match timeout(self.bulkhead.max_wait, &mut self.turn).await {
            Ok(Ok(Turn::Place)) => Ok(Permit::new(&self.bulkhead)),
            Ok(Ok(Turn::Shed)) => Err(Refused::new(Reason::Shed)),
            // The sender is in the queue until it is used.
            Ok(Err(_)) | Err(_) => Err(self.bulkhead.refused(self.priority)),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queue = self.bulkhead.lock();
        let waited = queue.remove(self.priority, self.number);
        self.bulkhead.queued.store(queue.len(), SeqCst);
        drop(queue);
        // A turn that came and was not looked at; one that was is gone from the channel.
        if !waited && self.turn.try_recv() == Ok(Turn::Place) {
            self.bulkhead.release();
        }
    }
}
