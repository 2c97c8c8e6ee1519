use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::Instant;

use super::layer::Circuit;
use super::{BreakerHistory, BreakerSnapshot, BreakerState, Transition};
use crate::sharded::Shared;

/// The view of a circuit from outside: to watch it and to steer it.
///
/// ```
/// use tokio::time::Instant;
/// use tower_plugins_layers::{BreakerLayer, Reason};
/// use tower_plugins_layers::breaker::{BreakerPolicy, BreakerState};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let layer = BreakerLayer::new(BreakerPolicy::new());
/// let breaker = layer.handle();
/// let mut changes = breaker.subscribe().unwrap();
/// breaker.force_open();
/// let change = changes.recv().await.unwrap();
/// assert_eq!((change.to, change.reason), (BreakerState::Open, Some(Reason::Forced)));
/// assert!(breaker.snapshot(Instant::now()).unwrap().forced);
/// breaker.reset();
/// assert_eq!(breaker.state(), BreakerState::Closed);
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct BreakerHandle {
    pub(super) circuit: Option<Shared<Circuit>>,
}

impl BreakerHandle {
    /// The state of the circuit: one that is off is closed, and one whose open time is over is open
    /// until a call comes.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.circuit
            .as_ref()
            .map_or(BreakerState::Closed, |circuit| circuit.history.state())
    }

    /// How often the state has changed so far.
    #[must_use]
    pub fn changes(&self) -> u32 {
        self.circuit
            .as_ref()
            .map_or(0, |circuit| circuit.history.changes())
    }

    /// Whether a call would be let in at `now`.
    #[must_use]
    pub fn is_available(&self, now: Instant) -> bool {
        self.circuit
            .as_ref()
            .is_none_or(|circuit| circuit.history.is_available(&circuit.policy, now))
    }

    /// How long after `now` an open circuit will let a call in; `None` if it is not open.
    #[must_use]
    pub fn retry_after(&self, now: Instant) -> Option<Duration> {
        let circuit = self.circuit.as_ref()?;
        circuit.history.retry_after(&circuit.policy, now)
    }

    /// What the circuit remembers, for a layer with another policy; `None` if it is off.
    #[must_use]
    pub fn history(&self) -> Option<Arc<BreakerHistory>> {
        Some(Arc::clone(&self.circuit.as_ref()?.history))
    }

    /// Refuses every call from now on, until [`reset`](Self::reset).
    pub fn force_open(&self) {
        if let Some(circuit) = &self.circuit {
            circuit.history.force(true);
        }
    }

    /// Lets every call through from now on and counts nothing, until [`reset`](Self::reset).
    pub fn force_closed(&self) {
        if let Some(circuit) = &self.circuit {
            circuit.history.force(false);
        }
    }

    /// Closes the circuit, forced or not, and forgets all failures.
    pub fn reset(&self) {
        if let Some(circuit) = &self.circuit {
            circuit.history.reset(circuit);
        }
    }

    /// All that is known at `now`; `None` if the circuit is off.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> Option<BreakerSnapshot> {
        let circuit = self.circuit.as_ref()?;
        Some(circuit.history.snapshot(circuit, now))
    }

    /// The changes of state from now on; `None` if the circuit is off.
    ///
    /// Whoever is more than 32 changes behind loses the oldest, and is told so.
    #[must_use]
    pub fn subscribe(&self) -> Option<broadcast::Receiver<Transition>> {
        Some(self.circuit.as_ref()?.history.events().subscribe())
    }
}
