//! The end of a node that left the graph.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::PluginName;
use crate::node::Node;

/// How long calls that were cancelled may take to notice.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// How often it is told what a drain waits for.
const PROGRESS: Duration = Duration::from_secs(1);

/// How a node that left the graph came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retired {
    /// The plugin.
    pub plugin: PluginName,
    /// Calls that were under way when it left, and ended by themselves.
    pub drained: usize,
    /// Calls that outlived the drain timeout and were cancelled.
    pub cancelled: usize,
    /// Calls that have not even noticed yet that they were cancelled: their callers hold a future or
    /// a body and do not poll it. What they hold is freed when they let go of it. Calls that were
    /// never polled at all are one here; they end as refused, with the reason `draining`.
    pub remaining: usize,
    /// How long it took.
    pub elapsed: Duration,
}

/// How long a node may take to its end.
pub(crate) struct Patience {
    /// From now on.
    pub(crate) drain: Duration,
    /// For the whole set, which may be set later.
    pub(crate) limit: watch::Receiver<Option<Instant>>,
    /// For this one, with immediate effect.
    pub(crate) hurry: CancellationToken,
}

/// Waits for the last call on `node`, as long as there is patience; then cancels what is left. Until then `tell` is
/// told now and again how many there are.
///
/// The time and the calls count from now on. The wait begins when the caller has let go of the graph, and ends by a
/// notification from the last holder of the node.
pub(crate) fn retire(
    node: Arc<Node>,
    patience: Patience,
    tell: impl Fn(&PluginName, usize),
) -> impl Future<Output = Retired> {
    let start = Instant::now();
    let under_way = node.drain().active();
    async move {
        let plugin = node.spec().name.clone();
        let drain = node.drain().clone();
        let gone = node.gone();
        let ends = node.ends();
        drop(node);
        let deadline = start.checked_add(patience.drain);
        let mut retired = Retired {
            plugin,
            drained: 0,
            cancelled: 0,
            remaining: 0,
            elapsed: Duration::ZERO,
        };
        // Services of this program may hold connections that outlive their calls and the node: the count knows of them.
        let over = || async {
            gone.cancelled().await;
            drain.close();
            drain.drained().await;
        };
        let progress = async {
            let mut ticks = interval(PROGRESS);
            loop {
                ticks.tick().await;
                tell(&retired.plugin, drain.active());
            }
        };
        let drained = tokio::select! {
            biased;
            () = over() => true,
            () = until(deadline) => false,
            () = patience.hurry.cancelled() => false,
            () = set(patience.limit) => false,
            () = progress => false,
        };
        if !drained {
            // A call that was made and not yet polled is not counted, and must not begin either.
            drain.close();
            retired.cancelled = drain.cancel();
            if timeout(CANCEL_GRACE, over()).await.is_err() {
                retired.remaining = drain.active().max(1);
            }
        }
        if gone.is_cancelled() {
            for end in ends {
                end.wait().await;
            }
        }
        retired.drained = under_way.saturating_sub(retired.cancelled);
        retired.elapsed = start.elapsed();
        retired
    }
}

/// A time too far for the clock never comes.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Waits until there is a limit, and then for it.
async fn set(mut limit: watch::Receiver<Option<Instant>>) {
    let time = limit
        .wait_for(Option::is_some)
        .await
        .map_or(None, |time| *time);
    until(time).await;
}
