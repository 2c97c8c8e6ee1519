//! The drain of one plugin, on demand.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
pub use tower_plugins_layers::drain::{DrainProgress, Remaining};
use tower_plugins_layers::{DrainHandle, Reason};

use crate::error::{Error, Kind};
use crate::graph::Entry;
use crate::node::Node;

/// How long calls that were cancelled may take to notice.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// The drain of one plugin, which begins when this is made: new calls are refused with the reason `draining`, and it is
/// waited for those under way when it is awaited.
///
/// The plugin stays in the graph. It takes calls again once it is [enabled](crate::Plugins::enable), or its config
/// changes.
///
/// # Errors
/// [`Error::drain_timeout`] has what was left when the [timeout](Self::timeout) was over. [`Error::is_not_found`]
/// without such a plugin; refused with the reason `draining` while an `exclusive` one is exchanged, whose old node drains
/// already.
///
/// # Cancellation
/// To drop it ends the waiting; new calls stay refused.
#[derive(Debug)]
#[must_use = "it is waited for when it is awaited"]
pub struct PluginDrain {
    name: Arc<str>,
    nodes: Vec<DrainHandle>,
    /// Whether the plugin is being exchanged, and has nobody who could be drained.
    is_held: bool,
    limit: Duration,
    cancels: bool,
}

/// The drain of a plugin, all of whose calls ended by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Calls that were under way.
    pub calls: usize,
    /// How long it took.
    pub elapsed: Duration,
}

/// Calls were still under way when a drain's time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainTimeout {
    /// Calls still under way, those among them that were cancelled and have not let go.
    pub remaining: usize,
    /// Calls that were cancelled.
    pub cancelled: usize,
    /// How long it took.
    pub elapsed: Duration,
}

impl fmt::Display for DrainTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            remaining,
            cancelled,
            elapsed,
        } = self;
        write!(
            f,
            "after {elapsed:?} {remaining} calls were under way, and {cancelled} had been cancelled"
        )
    }
}

impl std::error::Error for DrainTimeout {}

impl PluginDrain {
    pub(crate) fn begin(name: &str, entry: Option<&Entry>) -> Self {
        let nodes = entry.into_iter().flat_map(Entry::nodes);
        let nodes: Vec<_> = nodes.map(|node: &Arc<Node>| node.drain().clone()).collect();
        for node in &nodes {
            node.close();
        }
        Self {
            name: name.into(),
            nodes,
            is_held: matches!(entry, Some(Entry::Held(_))),
            limit: Duration::from_secs(30),
            cancels: false,
        }
    }

    /// How long it is waited for calls under way: 30 seconds by default.
    pub const fn timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Cancels what is left after the timeout. These calls end with the reason `drain_cancelled`.
    pub const fn cancel_after_timeout(mut self) -> Self {
        self.cancels = true;
        self
    }

    /// Calls under way.
    #[must_use]
    pub fn active(&self) -> usize {
        self.nodes.iter().map(DrainHandle::active).sum()
    }

    /// How it goes on: the count of calls under way at each change. `None` without such a plugin.
    #[must_use]
    pub fn progress(&self) -> Option<DrainProgress> {
        self.nodes.first().map(DrainHandle::progress)
    }

    async fn drain(self) -> Result<Drained, Error> {
        if self.nodes.is_empty() {
            let kind = match self.is_held {
                true => Kind::Refused(Reason::Draining),
                false => Kind::NotFound,
            };
            return Err(Error::new(kind).of_plugin(&self.name));
        }
        let begun = Instant::now();
        let calls = self.active();
        let drained = || async {
            join_all(self.nodes.iter().map(DrainHandle::drained)).await;
        };
        if timeout(self.limit, drained()).await.is_ok() {
            let elapsed = begun.elapsed();
            return Ok(Drained { calls, elapsed });
        }
        let mut cancelled = 0;
        if self.cancels {
            cancelled = self.nodes.iter().map(DrainHandle::cancel).sum();
            let _ = timeout(CANCEL_GRACE, drained()).await;
        }
        let left = DrainTimeout {
            remaining: self.active(),
            cancelled,
            elapsed: begun.elapsed(),
        };
        Err(Error::caused_by(Kind::DrainTimeout, left).of_plugin(&self.name))
    }
}

impl IntoFuture for PluginDrain {
    type Output = Result<Drained, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.drain())
    }
}
