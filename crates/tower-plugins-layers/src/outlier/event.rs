use std::sync::Arc;
use std::time::Duration;

use crate::Reason;

/// An endpoint was ejected or came back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutlierEvent {
    /// Whose.
    pub endpoint: Arc<str>,
    /// What happened.
    pub change: OutlierChange,
}

/// What happened to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutlierChange {
    /// It gets no more calls.
    Ejected {
        /// Why: [`Reason::ConsecutiveFailures`], [`Reason::SuccessRate`], [`Reason::FailureRate`] or
        /// [`Reason::Forced`].
        reason: Reason,
        /// For how long; `None` until somebody puts it back.
        time: Option<Duration>,
    },
    /// It gets calls again.
    Restored {
        /// Whether it came back before its time: by hand, or because the set has become so small that
        /// fewer may be out.
        early: bool,
    },
}

/// An endpoint as its detector sees it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OutlierStatus {
    /// Whose.
    pub endpoint: Arc<str>,
    /// Why it is out, if it is.
    pub ejected: Option<Reason>,
    /// How long it will be out; `None` if it is in, or out until somebody puts it back.
    pub remaining: Option<Duration>,
    /// The factor of the last ejection's length, less one for each healthy interval since.
    pub times: u32,
    /// Calls that have ended since the last sweep.
    pub calls: u32,
    /// Of these, those that failed.
    pub failures: u32,
    /// Failures since the last success.
    pub consecutive_failures: u32,
}

/// Who is told of changes.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// The name of the set, in metrics and events.
    #[cfg_attr(not(any(feature = "tracing", feature = "metrics")), expect(dead_code))]
    name: Arc<str>,
    sender: tokio::sync::broadcast::Sender<OutlierEvent>,
}

/// Changes that are kept for a reader that is behind.
const KEPT: usize = 64;

impl Report {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            sender: tokio::sync::broadcast::Sender::new(KEPT),
        }
    }

    pub(super) fn subscribe(&self) -> tokio::sync::broadcast::Receiver<OutlierEvent> {
        self.sender.subscribe()
    }

    /// Tells of `events`, after which `out` endpoints are out.
    pub(super) fn tell(&self, events: Vec<OutlierEvent>, out: usize) {
        #[cfg(feature = "metrics")]
        if !events.is_empty() {
            metrics::gauge!("outlier_ejected", "plugin_name" => self.name.to_string())
                .set(out as f64);
        }
        #[cfg(not(feature = "metrics"))]
        let _ = out;
        for event in events {
            self.log(&event);
            // Nobody may be listening.
            let _ = self.sender.send(event);
        }
    }

    #[cfg_attr(
        not(any(feature = "tracing", feature = "metrics")),
        allow(unused_variables, clippy::unused_self)
    )]
    fn log(&self, event: &OutlierEvent) {
        match event.change {
            OutlierChange::Ejected { reason, time } => {
                #[cfg(feature = "metrics")]
                metrics::counter!(
                    "outlier_ejections_total",
                    "plugin_name" => self.name.to_string(),
                    "reason" => reason.as_str()
                )
                .increment(1);
                #[cfg(feature = "tracing")]
                tracing::warn!(
                    plugin.name = &*self.name,
                    server.address = &*event.endpoint,
                    reason = reason.as_str(),
                    seconds = time.map(|time| time.as_secs_f64()),
                    "endpoint ejected"
                );
                let _ = (reason, time);
            }
            OutlierChange::Restored { early } => {
                #[cfg(feature = "tracing")]
                tracing::info!(
                    plugin.name = &*self.name,
                    server.address = &*event.endpoint,
                    early,
                    "endpoint restored"
                );
                let _ = early;
            }
        }
    }
}
