use std::time::Duration;

use super::DrainHandle;

/// How a [shutdown](DrainHandle::shutdown) went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Calls that were under way and ended by themselves.
    pub finished: usize,
    /// Calls that were cancelled.
    pub cancelled: usize,
    /// Of these, those that had not let go at the end: their reader does not read, or their task is stuck.
    pub left: usize,
    /// How long it took.
    pub elapsed: Duration,
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remaining {
    /// Calls under way.
    pub calls: usize,
    /// Time since new calls are refused.
    pub elapsed: Duration,
}

/// The course of a drain.
#[derive(Debug)]
pub struct DrainProgress {
    drain: DrainHandle,
    last: Option<usize>,
}

impl DrainProgress {
    pub(super) const fn new(drain: DrainHandle) -> Self {
        Self { drain, last: None }
    }

    /// The next count that differs from the last, as soon as there is one; the first comes when new calls are refused.
    /// `None` after zero, or when the drain was [reopened](DrainHandle::reopen). Counts that nobody waited for are
    /// passed over, so that a slow reader sees the latest.
    pub async fn next(&mut self) -> Option<Remaining> {
        let last = self.last;
        if last == Some(0) {
            return None;
        }
        let next = self.drain.find(|drain| {
            let Some(since) = drain.closed_at() else {
                return last.map(|_| None);
            };
            let calls = drain.active();
            (Some(calls) != last).then(|| {
                let elapsed = since.elapsed();
                Some(Remaining { calls, elapsed })
            })
        });
        let next = next.await;
        self.last = Some(next.map_or(0, |remaining| remaining.calls));
        next
    }
}
