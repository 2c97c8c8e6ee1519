//! What many cores may hold and count at once.

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_utils::CachePadded;

const SHARDS: usize = 16;

/// A count spread over cache lines by thread: changing it is cheap on any number of cores, and
/// reading it is a sum. What is added on one thread may be taken away on another, so that a single
/// shard can wrap below zero; the wrapping sum is right all the same.
#[derive(Debug)]
pub(crate) struct ShardedCount {
    shards: [CachePadded<AtomicUsize>; SHARDS],
}

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        shard.get()
    })
}

/// One shard for each core is enough. Asked once: the answer is read from files.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| {
        let cores = std::thread::available_parallelism();
        cores.map_or(SHARDS, usize::from).clamp(1, SHARDS)
    })
}

/// A shared value that each call holds: an `Arc` whose count is kept by thread, so that calls on
/// several cores do not write to the same place for each to hold it and let go of it.
pub(crate) struct Shared<T>(Arc<[Held<T>]>);

/// Holds a [`Shared`] value.
pub(crate) type Held<T> = Arc<CachePadded<Arc<T>>>;

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        let value = Arc::new(value);
        let shards = 0..cores();
        Self(
            shards
                .map(|_| Arc::new(CachePadded::new(Arc::clone(&value))))
                .collect(),
        )
    }

    pub(crate) fn hold(&self) -> Held<T> {
        Arc::clone(&self.0[shard() % self.0.len()])
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0[0]
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl ShardedCount {
    pub(crate) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| CachePadded::new(AtomicUsize::new(0))),
        }
    }

    pub(crate) fn increment(&self) {
        self.shards[shard()].fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn decrement(&self) {
        self.shards[shard()].fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn add(&self, n: usize) {
        self.shards[shard()].fetch_add(n, Ordering::Relaxed);
    }

    /// The sum. While others change the count it is a value near the truth, no more.
    pub(crate) fn sum(&self) -> usize {
        let sum = self.shards.iter().fold(0_usize, |sum, shard| {
            sum.wrapping_add(shard.load(Ordering::SeqCst))
        });
        // What ended on a shard after it began on one that was read before makes less than nothing.
        if sum > usize::MAX / 2 { 0 } else { sum }
    }
}
