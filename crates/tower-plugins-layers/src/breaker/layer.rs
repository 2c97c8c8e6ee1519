use std::sync::Arc;
use std::time::Duration;

use http::Request;
use tokio::time::Instant;
use tower_layer::Layer;

use super::future::{Admitted, Outstanding};
use super::{Breaker, BreakerHistory, BreakerPolicy, BreakerState};
use crate::classify::{Classify, Cutoff, HttpGrpc};
use crate::sharded::Shared;
use crate::{BoxError, Reason, Refused, Unsent};

/// Makes [`Breaker`] services, which share one circuit.
#[derive(Clone, Debug)]
pub struct BreakerLayer<C = HttpGrpc> {
    handle: BreakerHandle,
    classify: C,
    give_back: bool,
}

/// A policy over a history. Padded where it is shared: each call changes the count of its owners.
#[derive(Debug)]
pub(super) struct Circuit {
    pub(super) policy: BreakerPolicy,
    pub(super) history: Arc<BreakerHistory>,
}

impl BreakerLayer {
    /// A closed circuit with `policy`.
    #[must_use]
    pub fn new(policy: BreakerPolicy) -> Self {
        Self::with_history(policy, Arc::new(BreakerHistory::new()))
    }

    /// A circuit with `policy`, in the state and with the memory of `history`, which others may use
    /// at the same time. The first call under another window length than before forgets the window.
    #[must_use]
    pub fn with_history(policy: BreakerPolicy, history: Arc<BreakerHistory>) -> Self {
        Self::of(Some(Shared::new(Circuit { policy, history })))
    }

    /// No circuit: every call goes through and nothing is counted.
    #[must_use]
    pub const fn off() -> Self {
        Self::of(None)
    }

    const fn of(circuit: Option<Shared<Circuit>>) -> Self {
        Self {
            handle: BreakerHandle { circuit },
            classify: HttpGrpc,
            give_back: false,
        }
    }
}

impl<C> BreakerLayer<C> {
    /// Sets what a failure is; [`HttpGrpc`] by default.
    #[must_use]
    pub fn classify<D: Classify>(self, classify: D) -> BreakerLayer<D> {
        BreakerLayer {
            handle: self.handle,
            classify,
            give_back: self.give_back,
        }
    }

    /// Gives the request back with a refusal, as an [`Unsent`] error, so that
    /// [`Balance`](crate::Balance) can offer it to another endpoint.
    #[must_use]
    pub fn give_back(mut self) -> Self {
        self.give_back = true;
        self
    }

    /// The view of the circuit from outside.
    #[must_use]
    pub fn handle(&self) -> BreakerHandle {
        self.handle.clone()
    }

    pub(super) const fn handle_ref(&self) -> &BreakerHandle {
        &self.handle
    }
}

impl<C: Classify> BreakerLayer<C> {
    /// What must be told of the end of a call with `request`, if it may go through.
    pub(super) fn admit<B>(&self, request: &Request<B>) -> Result<Option<Admitted<C>>, Refused> {
        let Some(circuit) = &self.handle.circuit else {
            return Ok(None);
        };
        match circuit.history.admit(&circuit.policy) {
            Ok(generation) => {
                let cutoff = Cutoff::of(request);
                let outstanding = Outstanding {
                    circuit: Some(circuit.hold()),
                    generation,
                    cut: cutoff.of_head(),
                    classify: self.classify.clone(),
                };
                Ok(Some(Admitted {
                    outstanding,
                    cutoff,
                }))
            }
            Err(wait) => {
                let refused = Refused::new(Reason::BreakerOpen);
                Err(match wait {
                    Some(wait) => refused.retry_after(wait),
                    None => refused,
                })
            }
        }
    }

    /// The error of a call that may not, with its request if that is wished.
    pub(super) fn refuse<B: Send + 'static>(
        &self,
        request: Request<B>,
        refused: Refused,
    ) -> BoxError {
        if self.give_back {
            Unsent::new(Some(request), refused).into()
        } else {
            refused.into()
        }
    }
}

impl<S, C: Clone> Layer<S> for BreakerLayer<C> {
    type Service = Breaker<S, C>;

    fn layer(&self, inner: S) -> Breaker<S, C> {
        Breaker {
            inner,
            layer: self.clone(),
        }
    }
}

/// The view of a circuit from outside.
#[derive(Clone, Debug)]
pub struct BreakerHandle {
    circuit: Option<Shared<Circuit>>,
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
}
