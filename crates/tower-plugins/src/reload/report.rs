use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::OverlayKind;
use crate::config::{ConfigError, PluginName, Problem, ProblemKind, Strategy};
use crate::error::Error;
use crate::graph::{Generation, Plan, Retired};

/// What a reload did.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReloadReport {
    /// The generation that serves now.
    pub generation: Generation,
    /// What became of each plugin, or under [`ReloadOptions::dry_run`](super::ReloadOptions::dry_run) would.
    pub plan: Arc<Plan>,
    /// How the new took the place of the old.
    pub strategy: Strategy,
    /// What was found of the new once it served.
    pub verdict: Verdict,
    /// The plugins that the program has changed, which the file does not decide about.
    pub overlay: BTreeMap<PluginName, OverlayKind>,
    /// Those that this reload took out of it.
    pub overlay_ended: Vec<PluginName>,
    /// The time each step took.
    pub times: ReloadTimes,
    /// The end of the nodes that left.
    pub retirement: Retirement,
}

/// The time each step of a reload took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReloadTimes {
    /// To compare the configs.
    pub planning: Duration,
    /// To build what is new, and the graphs that have it.
    pub building: Duration,
    /// To wait until it was ready.
    pub waiting: Duration,
    /// To swap the graph, all swaps together.
    pub publishing: Duration,
    /// To drain plugins that cannot run twice.
    pub exchanging: Duration,
    /// To watch what was published.
    pub watching: Duration,
}

/// What was found of the new once it served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Nobody watched.
    #[default]
    Unwatched,
    /// It was no worse than the old.
    Fine,
    /// There were too few calls to tell; its health is not bad.
    Unjudged,
    /// A newer change came before it was known.
    Overtaken,
    /// It was worse, and serves all the same, for the second reason.
    Worse {
        /// In what.
        why: String,
        /// Why it was not taken back.
        kept: &'static str,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwatched => f.write_str("unwatched"),
            Self::Fine => f.write_str("fine"),
            Self::Unjudged => f.write_str("unjudged"),
            Self::Overtaken => f.write_str("overtaken"),
            Self::Worse { why, kept } => write!(f, "worse ({why}), and kept: {kept}"),
        }
    }
}

impl fmt::Display for ReloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}: {}", self.generation, self.plan)?;
        if self.verdict != Verdict::Unwatched {
            write!(f, "; {}", self.verdict)?;
        }
        if !self.overlay.is_empty() {
            f.write_str("; changed by the program:")?;
            for (n, (name, kind)) in self.overlay.iter().enumerate() {
                let comma = if n == 0 { "" } else { "," };
                write!(f, "{comma} {name} ({kind})")?;
            }
        }
        Ok(())
    }
}

/// The end of the nodes that a reload took out of the graph. It comes whether it is waited for or
/// not.
#[derive(Debug, Default)]
#[must_use = "nodes retire by themselves; wait to learn how they did"]
pub struct Retirement {
    outcomes: Vec<oneshot::Receiver<Retired>>,
}

impl Retirement {
    pub(super) fn add(&mut self, outcome: oneshot::Receiver<Retired>) {
        self.outcomes.push(outcome);
    }

    /// How many nodes left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.outcomes.len()
    }

    /// Whether no node left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// Waits until each has drained or been cancelled. It takes as long as the longest drain timeout
    /// at the most; dropping it changes nothing for the nodes.
    pub async fn wait(self) -> Vec<Retired> {
        let mut retired = Vec::with_capacity(self.outcomes.len());
        for outcome in self.outcomes {
            retired.extend(outcome.await);
        }
        retired
    }
}

/// What a shutdown did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// How each node ended, those that were on their way out already among them.
    pub retired: Vec<Retired>,
    /// How long it took.
    pub elapsed: Duration,
}

/// How reloading stands.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ReloadStatus {
    /// The generation that serves.
    pub generation: Generation,
    /// Plugins in it.
    pub plugins: usize,
    /// What is being done.
    pub phase: ReloadPhase,
    /// Configs that were taken, those that changed nothing included.
    pub accepted: u64,
    /// Configs that were refused.
    pub rejected: u64,
    /// Configs that were taken back because they did worse.
    pub rolled_back: u64,
    /// Why the newest config was refused or taken back; `None` when it runs.
    pub last_error: Option<Arc<Error>>,
    /// The plugins that the program has changed, which the file does not decide about.
    pub overlay: BTreeMap<PluginName, OverlayKind>,
    /// Nodes that left and have not ended yet.
    pub retiring: usize,
    /// Calls that outlived a drain and were cancelled, since the start.
    pub cancelled: u64,
}

/// What a reload is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum ReloadPhase {
    /// There is none.
    #[default]
    Idle,
    /// It waits until what is new is ready.
    Waiting,
    /// Plugins that cannot run twice end, and begin again.
    Exchanging,
    /// It watches how the new does that gets this share of the calls, from 0 to 1.
    Watching {
        /// Less than 1 under canary alone.
        share: f64,
    },
}

impl ReloadStatus {
    pub(super) fn unchanged(&mut self) {
        self.accepted += 1;
        self.last_error = None;
    }

    pub(super) fn rejected(&mut self, error: Arc<Error>) {
        self.rejected += 1;
        self.last_error = Some(error);
    }

    pub(super) fn shut_down(&mut self, generation: Generation) {
        self.generation = generation;
        self.plugins = 0;
        self.phase = ReloadPhase::Idle;
    }
}

/// An error with all its causes, in one line.
pub(super) fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        if !is_status(cause) {
            text = format!("{text}: {cause}");
        }
        source = cause.source();
    }
    text
}

/// Why a config was refused: `parse`, `config`, `frozen` if it was rolled back before, or `build` if a plugin could not
/// be made of it.
pub(super) fn why_rejected(error: &Error) -> &'static str {
    if error.is_frozen() {
        return "frozen";
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(config) = cause.downcast_ref::<ConfigError>() {
            let parses = |problem: &Problem| {
                !matches!(problem.kind, ProblemKind::Syntax | ProblemKind::Unreadable)
            };
            return if config.problems().iter().all(parses) {
                "config"
            } else {
                "parse"
            };
        }
        source = cause.source();
    }
    "build"
}

/// Whether `cause` stands in the chain for gRPC clients only, and says what its neighbours say.
fn is_status(cause: &(dyn StdError + 'static)) -> bool {
    #[cfg(feature = "grpc")]
    return cause.is::<tonic::Status>();
    #[cfg(not(feature = "grpc"))]
    return {
        let _ = cause;
        false
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn what_is_logged_says_each_thing_once() {
        let error = Error::caused_by(Kind::Config, "no service `s`").of_plugin(&"p".into());
        assert_eq!(
            with_causes(&error),
            "plugin `p`: the config was refused: no service `s`"
        );
    }
}
