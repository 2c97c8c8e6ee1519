//! `reload`: how a new config takes the place of the one that runs.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderName;

use super::super::fault::Fault;
use super::super::{ConfigError, Number};

/// `reload`: how a new config takes the place of the one that runs.
///
/// Its keys hold for the reload that brings them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReloadSpec {
    /// How nodes take each other's place.
    pub strategy: Strategy,
    /// How long all drains of one reload may take together; `None` leaves it to each plugin's `drain_timeout`.
    pub graceful_timeout: Option<Duration>,
    /// How long a new node may take to be ready, under blue-green, canary and rolling.
    pub health_check_timeout: Duration,
    /// How long reading and checking the files may take.
    pub validation_timeout: Duration,
    /// Plugins at a time, under rolling (at least 1).
    pub max_concurrent_reloads: u32,
    /// Whether what does worse is taken back, or only reported.
    pub rollback_on_failure: bool,
    /// How long new nodes are watched after the swap, under blue-green and canary; zero is not at all.
    pub observe_for: Duration,
    /// The share of calls that the new nodes get step by step, in percent: rising, each 1 to 99.
    pub canary_steps: Vec<u32>,
    /// How long a step lasts at least.
    pub canary_step_time: Duration,
    /// How many calls a new node must have had before a step is judged.
    pub canary_min_calls: u32,
    /// The header whose value keeps a caller on one side; `None` is the trace id of `traceparent`.
    pub stick_to: Option<HeaderName>,
    /// By how much the share of failed calls may rise (0 to 1).
    pub max_failure_increase: Number,
    /// By what factor the 99th percentile of latency may rise (at least 1).
    pub max_latency_factor: Number,
    /// How many calls a new node must have had to be judged.
    pub min_calls: u32,
    /// Generations that are kept to go back to.
    pub history: u32,
    /// Nodes that may be on their way out at once.
    pub max_retiring: u32,
    /// Calls that may be held while an exclusive plugin is exchanged.
    pub max_held: u32,
}

impl Default for ReloadSpec {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            graceful_timeout: None,
            health_check_timeout: Duration::from_secs(10),
            validation_timeout: Duration::from_secs(10),
            max_concurrent_reloads: 3,
            rollback_on_failure: true,
            observe_for: Duration::from_secs(60),
            canary_steps: vec![1, 5, 25],
            canary_step_time: Duration::from_secs(10),
            canary_min_calls: 200,
            stick_to: None,
            max_failure_increase: Number::finite(0.02),
            max_latency_factor: Number::finite(2.0),
            min_calls: 50,
            history: 32,
            max_retiring: 1_024,
            max_held: 1_024,
        }
    }
}

/// `reload.strategy`: how nodes take each other's place.
///
/// ```
/// use tower_plugins::config::Strategy;
///
/// assert_eq!("blue-green".parse::<Strategy>()?, Strategy::BlueGreen);
/// assert_eq!(Strategy::default().to_string(), "graceful");
/// # Ok::<(), tower_plugins::config::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// `graceful`: in one step, and the old ones finish their calls.
    #[default]
    Graceful,
    /// `immediate`: in one step, and the calls on the old ones are cancelled.
    Immediate,
    /// `blue-green`: in one step once every new one is ready; back again if they do worse.
    BlueGreen,
    /// `canary`: by a growing share of the calls, each step judged.
    Canary,
    /// `rolling`: a few plugins after another.
    Rolling,
}

pub(in super::super) const STRATEGIES: [(&str, Strategy); 5] = [
    ("graceful", Strategy::Graceful),
    ("immediate", Strategy::Immediate),
    ("blue-green", Strategy::BlueGreen),
    ("canary", Strategy::Canary),
    ("rolling", Strategy::Rolling),
];

impl Strategy {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Graceful => "graceful",
            Self::Immediate => "immediate",
            Self::BlueGreen => "blue-green",
            Self::Canary => "canary",
            Self::Rolling => "rolling",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Strategy {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let known = STRATEGIES.iter().find(|(word, _)| *word == text);
        known.map(|(_, strategy)| *strategy).ok_or_else(|| {
            let words = STRATEGIES.iter().map(|(word, _)| *word);
            Fault::unknown_word(text, words)
                .into_problem("strategy", text)
                .into()
        })
    }
}
