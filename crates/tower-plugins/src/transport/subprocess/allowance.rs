//! How much of a plugin's log is passed on.

use std::time::Duration;

use tokio::time::Instant;

/// The time that counts.
const WINDOW: Duration = Duration::from_secs(1);

/// The most lines in it.
const LINES: u32 = 10_000;

/// The most bytes in it.
const BYTES: usize = 8 << 20;

/// Counts what is passed on of one log, and what is not.
#[derive(Debug)]
pub(super) struct Allowance {
    since: Instant,
    lines: u32,
    bytes: usize,
    left_out: u64,
}

impl Allowance {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            lines: 0,
            bytes: 0,
            left_out: 0,
        }
    }

    /// Whether a line of `bytes` is passed on; and how many were not, if a new window begins with it.
    pub(super) fn take(&mut self, bytes: usize) -> (bool, u64) {
        let now = Instant::now();
        let mut left_out = 0;
        if now.duration_since(self.since) >= WINDOW {
            left_out = self.left_out();
            (self.since, self.lines, self.bytes) = (now, 0, 0);
        }
        let is_within = self.lines < LINES && self.bytes < BYTES;
        if is_within {
            self.lines += 1;
            self.bytes += bytes;
        } else {
            self.left_out += 1;
        }
        (is_within, left_out)
    }

    /// How many were not passed on, and are not told yet.
    pub(super) const fn left_out(&mut self) -> u64 {
        std::mem::replace(&mut self.left_out, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_beyond_is_counted_and_told_once_when_the_second_is_over() {
        let mut allowance = Allowance::new();
        let taken = (0..12_000).filter(|_| allowance.take(10).0).count();
        assert_eq!(taken, 10_000);
        tokio::time::advance(WINDOW).await;
        assert_eq!(allowance.take(10), (true, 2_000));
        tokio::time::advance(WINDOW).await;
        assert_eq!(allowance.take(BYTES), (true, 0));
        assert_eq!(allowance.take(1), (false, 0));
        assert_eq!(allowance.left_out(), 1);
        assert_eq!(allowance.left_out(), 0);
    }
}
