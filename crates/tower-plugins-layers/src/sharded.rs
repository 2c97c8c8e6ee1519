//! A counter that many cores may change at once.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

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
        self.shards.iter().fold(0, |sum, shard| {
            sum.wrapping_add(shard.load(Ordering::SeqCst))
        })
    }
}
