use std::sync::Arc;
use std::time::Duration;

use http::Request;
use tower_layer::Layer;

use super::count::CountWindow;
use super::future::Outstanding;
use super::{Breaker, BreakerHandle, BreakerHistory, BreakerPolicy};
use crate::classify::{Classify, Cutoff, HttpGrpc, Reading};
use crate::sharded::Shared;
use crate::{BoxError, CallContext, Reason, Refused, Unsent};

/// Makes [`Breaker`] services, which share one circuit.
#[derive(Clone, Debug)]
pub struct BreakerLayer<C = HttpGrpc> {
    guarded: Option<Shared<Guarded<C>>>,
    handle: BreakerHandle,
    give_back: bool,
}

/// What a call holds: its circuit, and who judges its end, which no call keeps a copy of.
#[derive(Debug)]
pub(super) struct Guarded<C> {
    pub(super) circuit: Circuit,
    pub(super) classify: C,
}

/// A policy over a history.
#[derive(Clone, Debug)]
pub(super) struct Circuit {
    pub(super) policy: BreakerPolicy,
    pub(super) history: Arc<BreakerHistory>,
    /// Of a policy that judges the last calls.
    pub(super) count: Option<Arc<CountWindow>>,
}

impl BreakerLayer {
    /// A closed circuit with `policy`.
    #[must_use]
    pub fn new(policy: BreakerPolicy) -> Self {
        Self::with_history(policy, Arc::new(BreakerHistory::new()))
    }

    /// A circuit with `policy`, in the state and with the memory of `history`, which others may use
    /// at the same time. Another window than before begins empty.
    #[must_use]
    pub fn with_history(policy: BreakerPolicy, history: Arc<BreakerHistory>) -> Self {
        let calls = policy.window_calls.filter(|_| policy.judges_rates());
        let count = calls.map(|calls| history.count_of(calls));
        let circuit = Circuit {
            policy,
            history,
            count,
        };
        Self {
            handle: BreakerHandle {
                circuit: Some(Arc::new(circuit.clone())),
            },
            guarded: Some(Shared::new(Guarded {
                circuit,
                classify: HttpGrpc,
            })),
            give_back: false,
        }
    }

    /// No circuit: every call goes through and nothing is counted.
    #[must_use]
    pub const fn off() -> Self {
        Self {
            guarded: None,
            handle: BreakerHandle { circuit: None },
            give_back: false,
        }
    }
}

impl<C> BreakerLayer<C> {
    /// Sets what a failure is; [`HttpGrpc`] by default.
    #[must_use]
    pub fn classify<D: Classify>(self, classify: D) -> BreakerLayer<D> {
        let guarded = self.guarded.map(|guarded| {
            Shared::new(Guarded {
                circuit: guarded.circuit.clone(),
                classify,
            })
        });
        BreakerLayer {
            guarded,
            handle: self.handle,
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

    /// Names what is protected, in the gauge `plugin_circuit_breaker_state` (feature `metrics`) and in the events of
    /// changes (feature `tracing`): the service, and which of its endpoints. The first name that a history gets
    /// stays.
    #[must_use]
    pub fn name(self, service: &str, endpoint: &str) -> Self {
        self.labelled(service, endpoint, endpoint)
    }

    /// [`name`](Self::name), with another `label` of the endpoint in the gauge: for endpoints that come and go, whose
    /// names are without end, as a recorder keeps each series for ever.
    #[must_use]
    pub fn labelled(self, service: &str, endpoint: &str, label: &str) -> Self {
        if let Some(circuit) = &self.handle.circuit {
            let history = &circuit.history;
            let state = history.state();
            history.events().name(service, endpoint, label, state);
        }
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
    /// What must be told of the end of a call with `request`, if it may go through; else the time after which
    /// another may.
    pub(super) fn admit<B>(
        &self,
        request: &Request<B>,
    ) -> Result<(Option<Outstanding<C>>, Cutoff), Option<Duration>> {
        let Some(guarded) = &self.guarded else {
            return Ok((None, Cutoff::default()));
        };
        let circuit = &guarded.circuit;
        let generation = circuit.history.admit(&circuit.policy)?;
        let (cut, cutoff) = Cutoff::of(request);
        let slow_call = circuit.policy.slow_call;
        let outstanding = Outstanding {
            guarded: Some(guarded.hold()),
            generation,
            cut,
            slow_from: slow_call
                .and_then(|time| CallContext::now(request.extensions()).checked_add(time)),
            slow: false,
            reading: Reading::of(request),
        };
        Ok((Some(outstanding), cutoff))
    }

    /// The error of a call that may not for `wait`, with its request if that is wished.
    pub(super) fn refuse<B: Send + 'static>(
        &self,
        request: Request<B>,
        wait: Option<Duration>,
    ) -> BoxError {
        let mut refused = Refused::new(Reason::BreakerOpen);
        if let Some(wait) = wait {
            refused = refused.retry_after(wait);
        }
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
