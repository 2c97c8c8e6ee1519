//! Whether a new version of a plugin is worse than the one before it, by what became of their calls.
//!
//! Pure: tallies and times are given to it. Of three rules each is enough:
//!
//! - Calls fail more often: a one-sided test of two proportions, `z = (p1 - p0 - c) / sqrt(p (1 - p) (1/n0 + 1/n1))`, where
//!   `p` is the share of both together and `c`, Yates's correction for continuity, half of `1/n0 + 1/n1`; it has to be above
//!   3.1, and `p1 - p0` above 2 points.
//! - All calls fail, of 20 at least, and those of the version before did not.
//! - Of those that succeed the 99th percentile is more than twice that of before, and by more than a millisecond, in three
//!   windows in a row. A window has at least 200 successes and half a second, and of the version before there must be 1,000.
//!
//! It is asked again and again, and each time it could be wrong. Without the correction, which is what keeps a handful of
//! failures in the first hundred calls from being taken for many, four of a hundred good versions would have been sent
//! back within a minute; with it not two are. `cargo test -p tower-plugins --lib reload::judge -- --nocapture` prints how many.

use std::fmt;
use std::time::Duration;

use crate::node::Tally;

/// How much worse is worse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Margins {
    /// Standard deviations between the shares of failures.
    pub(crate) z: f64,
    /// The same in absolute terms, of 1.
    pub(crate) failures: f64,
    /// So many times as slow.
    pub(crate) latency: f64,
    /// The same in absolute terms: less than this is the machine's doing.
    pub(crate) latency_floor: Duration,
    /// Calls of the new version without which shares say nothing.
    pub(crate) min_calls: u64,
    /// As many failures with nothing else need no comparison.
    pub(crate) min_failed: u64,
    /// Windows in a row that are too slow.
    pub(crate) windows: u32,
    /// The least time and the least successes of a window.
    pub(crate) window: Duration,
    pub(crate) window_calls: u64,
    /// Successes of the version before without which its percentile says nothing.
    pub(crate) before_calls: u64,
}

impl Default for Margins {
    fn default() -> Self {
        Self {
            z: 3.1,
            failures: 0.02,
            latency: 2.0,
            latency_floor: Duration::from_millis(1),
            min_calls: 50,
            min_failed: 20,
            windows: 3,
            window: Duration::from_millis(500),
            window_calls: 200,
            before_calls: 1_000,
        }
    }
}

/// Why a new version is worse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Worse {
    /// The share of calls that fail, and of those before, if there were any.
    Fails {
        share: f64,
        calls: u64,
        before: Option<f64>,
    },
    /// The 99th percentile of the last window, and that of before.
    Slow {
        p99: Duration,
        before: Duration,
        windows: u32,
    },
}

/// What is to be said of a new version that was not found to be worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// It, or the version before, had too few calls.
    Unjudged,
}

/// Watches one new version of a plugin.
#[derive(Debug)]
pub(crate) struct Judge {
    margins: Margins,
    /// Whether there ever was something to compare with.
    compared: bool,
    window: Window,
    /// Windows in a row that were too slow.
    slow: u32,
}

/// When this window began, and what there was then.
#[derive(Debug)]
struct Window {
    at: Duration,
    new: Tally,
}

impl Judge {
    /// Of a version that has had no call yet.
    pub(crate) fn new(margins: Margins) -> Self {
        Self {
            margins,
            compared: false,
            window: Window {
                at: Duration::ZERO,
                new: Tally::new(),
            },
            slow: 0,
        }
    }

    /// Whether `new`, all calls of the new version so far, shows that it is worse than the one before. `old` are that
    /// one's calls: always the same ones, of before the change, or those that it has beside the new version, which
    /// grow. `elapsed` is since the new version's first call could come.
    pub(crate) fn look(&mut self, old: &Tally, new: &Tally, elapsed: Duration) -> Option<Worse> {
        self.compared |= old.calls() > 0;
        self.fails(old, new)
            .or_else(|| self.is_slow(old, new, elapsed))
    }

    /// What to say at the end. `enough` calls are needed, in place of the margins' own minimum.
    pub(crate) fn verdict(&self, new: &Tally, enough: Option<u64>) -> Verdict {
        if self.compared && new.calls() >= enough.unwrap_or(self.margins.min_calls) {
            Verdict::Fine
        } else {
            Verdict::Unjudged
        }
    }

    fn fails(&self, old: &Tally, new: &Tally) -> Option<Worse> {
        let margins = &self.margins;
        let (calls, before) = (new.calls(), share(old));
        let share = share(new)?;
        let exceeds = share - before.unwrap_or(0.0) > margins.failures;
        let all = new.failures() == calls && calls >= margins.min_failed;
        let many = calls >= margins.min_calls && z(old, new) > margins.z;
        (exceeds && (all || many)).then_some(Worse::Fails {
            share,
            calls,
            before,
        })
    }

    fn is_slow(&mut self, old: &Tally, new: &Tally, elapsed: Duration) -> Option<Worse> {
        let margins = &self.margins;
        let calls = new.since(&self.window.new);
        if calls.successes() < margins.window_calls
            || elapsed.saturating_sub(self.window.at) < margins.window
        {
            return None;
        }
        self.window = Window {
            at: elapsed,
            new: new.clone(),
        };
        let before = (old.successes() >= margins.before_calls).then_some(old);
        let slow = before.and_then(|old| Some((old.p99()?, calls.p99()?)));
        let slow = slow.filter(|(before, p99)| {
            p99.as_secs_f64() > before.as_secs_f64() * margins.latency
                && p99.saturating_sub(*before) > margins.latency_floor
        });
        let Some((before, p99)) = slow else {
            self.slow = 0;
            return None;
        };
        self.slow += 1;
        (self.slow >= margins.windows).then_some(Worse::Slow {
            p99,
            before,
            windows: self.slow,
        })
    }
}

/// The part of the calls that failed; `None` if there were none.
fn share(tally: &Tally) -> Option<f64> {
    let calls = tally.calls();
    (calls > 0).then(|| tally.failures() as f64 / calls as f64)
}

/// By how many standard deviations `new` fails more often than `old`. 0 where there is nothing to compare, or no
/// difference: all succeeded, or all failed.
fn z(old: &Tally, new: &Tally) -> f64 {
    let (n0, n1) = (old.calls() as f64, new.calls() as f64);
    let (f0, f1) = (old.failures() as f64, new.failures() as f64);
    if n0 == 0.0 || n1 == 0.0 {
        return 0.0;
    }
    let pooled = (f0 + f1) / (n0 + n1);
    let parts = 1.0 / n0 + 1.0 / n1;
    let deviation = (pooled * (1.0 - pooled) * parts).sqrt();
    if deviation > 0.0 {
        (f1 / n1 - f0 / n0 - parts / 2.0) / deviation
    } else {
        0.0
    }
}

impl fmt::Display for Worse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Fails {
                share,
                calls,
                before,
            } => {
                write!(f, "fails {:.1} % of {calls} calls", share * 100.0)?;
                match before {
                    Some(before) => write!(f, ", {:.1} % before", before * 100.0),
                    None => f.write_str(", with none before to compare"),
                }
            }
            Self::Slow {
                p99,
                before,
                windows,
            } => write!(
                f,
                "p99 {}, {} before, for {windows} windows",
                Short(p99),
                Short(before)
            ),
        }
    }
}

/// A time in the largest unit that leaves it whole digits.
struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        match micros {
            0..1_000 => write!(f, "{micros} us"),
            1_000..10_000_000 => write!(f, "{} ms", micros / 1_000),
            _ => write!(f, "{} s", micros / 1_000_000),
        }
    }
}

#[cfg(test)]
mod tests;
