use std::time::Duration;

/// The state of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// Calls are refused.
    Open,
    /// A few calls go through, to see whether the endpoint works again.
    HalfOpen,
}

impl BreakerState {
    /// The word for it, as it stands in metrics and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What is known of a circuit at one moment. Its numbers are read one after the other while calls go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerSnapshot {
    /// Open, closed or half-open.
    pub state: BreakerState,
    /// Whether somebody holds it there by hand.
    pub forced: bool,
    /// For how long it has been so.
    pub lasted: Duration,
    /// How often the state has changed.
    pub changes: u32,
    /// Calls in the window; zero if no rate is armed.
    pub calls: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Those of them that were slow.
    pub slow: u64,
    /// Failures since the last success.
    pub failures_in_a_row: u32,
    /// How often it has opened since it was last closed.
    pub opened_in_a_row: u32,
    /// Probes that are under way.
    pub probes: u16,
    /// How long it is still open, if it is.
    pub retry_after: Option<Duration>,
}
