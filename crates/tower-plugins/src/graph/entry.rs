//! What a name leads to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tower_plugins_layers::DeadlineLayer;

use crate::config::Policy;
use crate::node::{Node, deadline, spread};

/// What serves a plugin.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Node(Arc<Node>),
    /// Two nodes, while a new one is tried.
    Split(Arc<Split>),
    /// Nobody for a moment: a plugin that cannot run twice is exchanged.
    Held(Arc<Held>),
}

impl Entry {
    /// The node that serves, or of two the one that was there before.
    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        match self {
            Self::Node(node) => Some(node),
            Self::Split(split) => Some(&split.old),
            Self::Held(_) => None,
        }
    }

    /// The nodes that calls may go to.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        let new = match self {
            Self::Split(split) => Some(&split.new),
            Self::Node(_) | Self::Held(_) => None,
        };
        self.node().into_iter().chain(new)
    }

    /// The same.
    pub(crate) fn into_nodes(self) -> impl Iterator<Item = Arc<Node>> {
        let nodes: Vec<_> = self.nodes().map(Arc::clone).collect();
        nodes.into_iter()
    }
}

/// Sends a share of the calls to a new node, and the others to the old one.
#[derive(Debug)]
pub(crate) struct Split {
    pub(crate) old: Arc<Node>,
    pub(crate) new: Arc<Node>,
    /// Of the new one, from 0 to 1.
    pub(crate) share: f64,
    /// What keeps a caller on one side, if it is not the trace that its call belongs to.
    pub(crate) stick_to: Option<HeaderName>,
}

impl Split {
    /// The side of a call with these headers. A caller that was on the new side stays there as the share grows.
    pub(crate) fn side(&self, headers: &HeaderMap) -> &Arc<Node> {
        let drawn = self.key(headers).map_or_else(fastrand::f64, spread);
        if drawn < self.share {
            &self.new
        } else {
            &self.old
        }
    }

    fn key<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        let header = self.stick_to.as_ref();
        let value = header.and_then(|name| headers.get(name));
        value
            .map(HeaderValue::as_bytes)
            .or_else(|| trace_id(headers))
    }
}

/// That of W3C Trace Context: `00-TRACE-SPAN-FLAGS`.
fn trace_id(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get("traceparent")?.as_bytes().split(|b| *b == b'-');
    fields.nth(1).filter(|id| id.len() == 32)
}

/// A plugin whose calls wait at a gate.
#[derive(Debug)]
pub(crate) struct Held {
    gate: Arc<Gate>,
    /// Knows how long callers wait.
    deadline: DeadlineLayer,
    /// How long the plugin has them wait at the most.
    patience: Option<Duration>,
}

impl Held {
    pub(crate) fn new(gate: &Arc<Gate>, policy: &Policy) -> Self {
        Self {
            gate: Arc::clone(gate),
            deadline: deadline(policy),
            patience: policy.deadline,
        }
    }

    pub(crate) const fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// When a call with these headers has to be over that begins now, if its caller has set it no other `limit`.
    pub(crate) fn limit(&self, headers: &HeaderMap, limit: Option<Instant>) -> Option<Instant> {
        let mut request = Request::new(());
        request.headers_mut().clone_from(headers);
        let said = self.deadline.caller_waits(&request);
        let times = said.into_iter().chain(self.patience);
        let now = Instant::now();
        let times = times.filter_map(|time| now.checked_add(time));
        times.chain(limit).min()
    }
}

/// Holds calls until plugins are there again.
#[derive(Debug)]
pub(crate) struct Gate {
    open: CancellationToken,
    held: AtomicUsize,
    max: usize,
}

impl Gate {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            open: CancellationToken::new(),
            held: AtomicUsize::new(0),
            max,
        }
    }

    /// Lets everybody go.
    pub(crate) fn open(&self) {
        self.open.cancel();
    }

    /// A place to wait in, if there is one left.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Waiting> {
        let waiting = Waiting(Arc::clone(self));
        // Given back by its drop, also when it was one too many.
        (self.held.fetch_add(1, SeqCst) < self.max).then_some(waiting)
    }
}

/// A call that is held.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<Gate>);

impl Waiting {
    /// Resolves when the gate is open, or fails when the time is over.
    pub(crate) async fn opened(&self, deadline: Option<Instant>) -> Result<(), Elapsed> {
        match deadline {
            Some(at) => timeout_at(at, self.0.open.cancelled()).await,
            None => {
                self.0.open.cancelled().await;
                Ok(())
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_has_as_many_places_as_it_has() {
        let gate = Arc::new(Gate::new(2));
        let (one, two) = (gate.enter(), gate.enter());
        assert!(one.is_some() && two.is_some());
        assert!(gate.enter().is_none());
        drop(one);
        assert!(gate.enter().is_some());
    }

    #[test]
    fn a_trace_is_known_by_its_id() {
        let mut headers = HeaderMap::new();
        assert_eq!(trace_id(&headers), None);
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let value = HeaderValue::from_str(&format!("00-{id}-00f067aa0ba902b7-01"));
        headers.insert("traceparent", value.unwrap());
        assert_eq!(trace_id(&headers), Some(id.as_bytes()));
        headers.insert("traceparent", HeaderValue::from_static("00-1-2-3"));
        assert_eq!(trace_id(&headers), None);
    }
}
