use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::{ConfigError, Problem, ProblemKind};
use crate::error::Error;
use crate::graph::{Generation, Plan, Retired};

/// What a reload did.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReloadReport {
    /// The generation that serves now.
    pub generation: Generation,
    /// What became of each plugin.
    pub plan: Plan,
    /// The time it took to compare the configs.
    pub planning: Duration,
    /// The time it took to build what is new.
    pub building: Duration,
    /// The time it took to swap the graph.
    pub publishing: Duration,
    /// The end of the nodes that left.
    pub retirement: Retirement,
}

impl ReloadReport {
    pub(super) fn new(
        generation: Generation,
        plan: Plan,
        [begun, planned, built, published]: [Instant; 4],
    ) -> Self {
        Self {
            generation,
            plan,
            planning: planned - begun,
            building: built - planned,
            publishing: published - built,
            retirement: Retirement::default(),
        }
    }
}

impl fmt::Display for ReloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}: {}", self.generation, self.plan)
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
    pub(super) const fn new(outcomes: Vec<oneshot::Receiver<Retired>>) -> Self {
        Self { outcomes }
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
    /// Configs that were taken, those that changed nothing included.
    pub accepted: u64,
    /// Configs that were refused.
    pub rejected: u64,
    /// Why the newest config was refused; `None` when it runs.
    pub last_error: Option<Arc<Error>>,
    /// Nodes that left and have not ended yet.
    pub retiring: usize,
    /// Calls that outlived a drain and were cancelled, since the start.
    pub cancelled: u64,
}

impl ReloadStatus {
    pub(super) fn applied(&mut self, generation: Generation, plugins: usize) {
        self.generation = generation;
        self.plugins = plugins;
        self.unchanged();
    }

    pub(super) fn unchanged(&mut self) {
        self.accepted += 1;
        self.last_error = None;
    }

    pub(super) fn rejected(&mut self, error: Arc<Error>) {
        self.rejected += 1;
        self.last_error = Some(error);
    }

    pub(super) const fn shut_down(&mut self, generation: Generation) {
        self.generation = generation;
        self.plugins = 0;
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

/// Why a config was refused: `parse`, `config`, or `build` if a plugin could not be made of it.
pub(super) fn why_rejected(error: &Error) -> &'static str {
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
