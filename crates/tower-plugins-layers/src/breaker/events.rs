use std::fmt;
use std::sync::OnceLock;

use tokio::sync::broadcast;

use super::BreakerState;
use crate::Reason;

/// A change of a circuit's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The state before.
    pub from: BreakerState,
    /// The state now.
    pub to: BreakerState,
    /// Why; `None` for what only time or good probes bring about.
    pub reason: Option<Reason>,
    /// Its number among the changes of this circuit, as [`changes`](super::BreakerHandle::changes) counts them:
    /// changes that follow one another closely may be told out of turn.
    pub change: u32,
}

/// Changes that a slow listener may be behind.
const BEHIND: usize = 32;

/// Who is told of changes.
#[derive(Default)]
pub(super) struct Events {
    /// Made for the first who listens.
    listeners: OnceLock<broadcast::Sender<Transition>>,
    name: OnceLock<Name>,
}

/// What is protected, in metrics and events.
struct Name {
    #[cfg(feature = "tracing")]
    service: Box<str>,
    #[cfg(feature = "tracing")]
    endpoint: Box<str>,
    #[cfg(feature = "metrics")]
    state: metrics::Gauge,
}

impl Events {
    #[cfg_attr(
        not(all(feature = "metrics", feature = "tracing")),
        allow(unused_variables)
    )]
    pub(super) fn name(&self, service: &str, endpoint: &str, label: &str, now: BreakerState) {
        self.name.get_or_init(|| Name {
            #[cfg(feature = "tracing")]
            service: service.into(),
            #[cfg(feature = "tracing")]
            endpoint: endpoint.into(),
            #[cfg(feature = "metrics")]
            state: {
                let gauge = metrics::gauge!(
                    "plugin_circuit_breaker_state",
                    "plugin_name" => service.to_owned(),
                    "endpoint" => label.to_owned(),
                );
                gauge.set(number(now));
                gauge
            },
        });
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Transition> {
        self.listeners
            .get_or_init(|| broadcast::Sender::new(BEHIND))
            .subscribe()
    }

    pub(super) fn tell(&self, transition: Transition) {
        if let Some(listeners) = self.listeners.get() {
            // Nobody listens any more: that is theirs to say.
            let _ = listeners.send(transition);
        }
        #[cfg(any(feature = "metrics", feature = "tracing"))]
        if let Some(name) = self.name.get() {
            name.tell(transition);
        }
    }
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
impl Name {
    fn tell(&self, transition: Transition) {
        #[cfg(feature = "metrics")]
        self.state.set(number(transition.to));
        #[cfg(feature = "tracing")]
        {
            let reason = transition.reason.map_or("", Reason::as_str);
            let (from, to) = (transition.from.as_str(), transition.to.as_str());
            if transition.to == BreakerState::Open {
                tracing::warn!(plugin.name = %self.service, server.address = %self.endpoint, from, to, reason, "circuit breaker opened");
            } else {
                tracing::info!(plugin.name = %self.service, server.address = %self.endpoint, from, to, reason, "circuit breaker changed");
            }
        }
    }
}

#[cfg(feature = "metrics")]
const fn number(state: BreakerState) -> f64 {
    match state {
        BreakerState::Closed => 0.0,
        BreakerState::Open => 1.0,
        BreakerState::HalfOpen => 2.0,
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("listened_to", &self.listeners.get().is_some())
            .finish_non_exhaustive()
    }
}
