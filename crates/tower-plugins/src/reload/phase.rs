//! What a change on its way waits for.

use std::future::pending;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::rollout::{Publish, Wait, Watch};
use crate::error::Error;

/// How often the new is looked at while it is watched.
const LOOK: Duration = Duration::from_millis(100);

pub(super) enum Phase {
    /// For nodes to be ready, before the next step is published.
    Waiting {
        asking: JoinSet<Result<(), Error>>,
        publish: Publish,
        watch: Option<Watch>,
        begun: Instant,
    },
    /// For plugins that cannot run twice to be gone.
    Exchanging {
        leaving: JoinSet<()>,
        begun: Instant,
    },
    /// For those to be gone that took their place and are of no use.
    Restoring { leaving: JoinSet<()>, error: Error },
    /// For what is known of the nodes that were published.
    Watching {
        ticks: Interval,
        watch: Watch,
        begun: Instant,
        is_last: bool,
    },
    /// To know whether what served before could serve again.
    Asking {
        asking: JoinSet<Result<(), Error>>,
        why: String,
    },
}

/// What a phase came to.
pub(super) enum Progress {
    /// All are ready.
    Ready,
    /// One is not.
    NotReady(Error),
    /// They are gone.
    Gone,
    /// It is time to look.
    Look,
}

impl Phase {
    pub(super) fn wait(waits: Vec<Wait>, publish: Publish, watch: Option<Watch>) -> Self {
        Self::Waiting {
            asking: asking(waits),
            publish,
            watch,
            begun: Instant::now(),
        }
    }

    pub(super) fn watch(watch: Watch, is_last: bool) -> Self {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self::Watching {
            ticks,
            watch,
            begun: Instant::now(),
            is_last,
        }
    }

    pub(super) fn ask(waits: Vec<Wait>, why: String) -> Self {
        Self::Asking {
            asking: asking(waits),
            why,
        }
    }

    /// Whether what is wanted serves already, in part at least, and nothing is known against it.
    pub(super) const fn is_watch(&self) -> bool {
        matches!(self, Self::Watching { .. })
    }

    /// Whether what is wanted serves whole.
    pub(super) const fn is_last_watch(&self) -> bool {
        matches!(self, Self::Watching { is_last: true, .. })
    }

    pub(super) const fn is_wait(&self) -> bool {
        matches!(self, Self::Waiting { .. })
    }

    /// Waits for what `phase` waits for, and for ever without one. May be dropped and called again.
    pub(super) async fn progress(phase: Option<&mut Self>) -> Progress {
        match phase {
            None => pending().await,
            Some(Self::Waiting { asking, .. } | Self::Asking { asking, .. }) => {
                while let Some(ready) = asking.join_next().await {
                    // A panic, which none of it does, would be of no use to anybody.
                    if let Err(error) = ready.unwrap_or(Ok(())) {
                        return Progress::NotReady(error);
                    }
                }
                Progress::Ready
            }
            Some(Self::Exchanging { leaving, .. } | Self::Restoring { leaving, .. }) => {
                while leaving.join_next().await.is_some() {}
                Progress::Gone
            }
            Some(Self::Watching { ticks, .. }) => {
                ticks.tick().await;
                Progress::Look
            }
        }
    }
}

fn asking(waits: Vec<Wait>) -> JoinSet<Result<(), Error>> {
    let mut asking = JoinSet::new();
    for Wait { node, limit, why } in waits {
        asking.spawn(async move { node.ready(limit, why).await });
    }
    asking
}
