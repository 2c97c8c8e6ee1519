//! One reload at a time: plan, build, publish, retire.

#[cfg(feature = "watch")]
mod follow;
#[cfg(feature = "watch")]
mod last_good;
mod report;
#[cfg(feature = "watch")]
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch as status_channel};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

#[cfg(feature = "watch")]
pub(crate) use self::follow::{Follow, Followed};
pub use self::report::{ReloadReport, ReloadStatus, Retirement, ShutdownReport};
#[cfg(feature = "watch")]
pub use self::watch::{Snapshot, Timing, Watch};
use crate::config::Config;
use crate::error::{Error, Kind};
pub use crate::graph::Retired;
use crate::graph::{Found, Graph, GraphCell, Plan, retire};
use crate::node::{HealthHub, HealthReport, Node, Services};

/// Reloads that may wait their turn.
const QUEUE: usize = 16;

/// Counts configs that were refused, by why.
const REJECTED: &str = "plugin_reloads_rejected_total";

/// The handle to the one task that changes the graph. Dropping it ends the task.
#[derive(Debug)]
pub(crate) struct Reloader {
    commands: mpsc::Sender<Command>,
    status: status_channel::Receiver<ReloadStatus>,
    task: AbortHandle,
}

enum Command {
    Reload {
        config: Box<Config>,
        reply: oneshot::Sender<Result<ReloadReport, Error>>,
    },
    Reject {
        error: Arc<Error>,
    },
    Shutdown {
        timeout: Duration,
        reply: oneshot::Sender<ShutdownReport>,
    },
}

impl Reloader {
    /// Starts with an empty graph in `cell`.
    pub(crate) fn start(cell: Arc<GraphCell>, services: Services, health: Arc<HealthHub>) -> Self {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let (status, watched) = status_channel::channel(ReloadStatus::default());
        let graph = Arc::downgrade(&cell);
        services.begin(move |name| match graph.upgrade()?.find(name) {
            Found::Node(node) => Some(node),
            Found::Nothing | Found::Shutdown => None,
        });
        let task = Task {
            cell,
            services: Arc::new(services),
            health,
            config: Config::default(),
            status,
            retiring: JoinSet::new(),
            limit: status_channel::Sender::new(None),
        };
        let task = tokio::spawn(task.run(inbox)).abort_handle();
        Self {
            commands,
            status: watched,
            task,
        }
    }

    /// Makes `config` what runs. Once it is under way, it goes on even if the caller does not wait.
    pub(crate) async fn reload(&self, config: Config) -> Result<ReloadReport, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Reload {
            config: Box::new(config),
            reply,
        })
        .await?;
        answer.await.map_err(|_| Error::new(Kind::Shutdown))?
    }

    /// Puts on record that a config could not even be read.
    #[cfg_attr(not(feature = "watch"), expect(dead_code))]
    pub(crate) async fn reject(&self, error: Error) -> Result<(), Error> {
        self.send(Command::Reject {
            error: Arc::new(error),
        })
        .await
    }

    pub(crate) async fn shutdown(&self, timeout: Duration) -> Result<ShutdownReport, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Shutdown { timeout, reply }).await?;
        answer.await.map_err(|_| Error::new(Kind::Shutdown))
    }

    pub(crate) const fn status(&self) -> &status_channel::Receiver<ReloadStatus> {
        &self.status
    }

    async fn send(&self, command: Command) -> Result<(), Error> {
        self.commands
            .send(command)
            .await
            .map_err(|_| Error::new(Kind::Shutdown))
    }
}

impl Drop for Reloader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The owner of the config that runs, and of the nodes that are on their way out.
struct Task {
    cell: Arc<GraphCell>,
    services: Arc<Services>,
    health: Arc<HealthHub>,
    config: Config,
    status: status_channel::Sender<ReloadStatus>,
    retiring: JoinSet<Retired>,
    /// When every drain is over, whatever its own timeout: known once the set shuts down.
    limit: status_channel::Sender<Option<Instant>>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    None => return,
                    Some(Command::Reload { config, reply }) => {
                        let result = self.reload(*config).await;
                        // The caller may have gone; the reload stands all the same.
                        let _ = reply.send(result);
                    }
                    Some(Command::Reject { error }) => self.rejected(error),
                    Some(Command::Shutdown { timeout, reply }) => {
                        inbox.close();
                        let _ = reply.send(self.shut_down(timeout).await);
                        // What is still in the queue finds the set shut down.
                        return;
                    }
                },
                Some(retired) = self.retiring.join_next() => self.retired(retired.ok().as_ref()),
            }
        }
    }

    async fn reload(&mut self, config: Config) -> Result<ReloadReport, Error> {
        let begun = Instant::now();
        let plan = Plan::between(&self.config, &config);
        let planned = Instant::now();
        let old = self.cell.load();
        if plan.is_empty() && old.generation().get() > 0 {
            self.status.send_modify(ReloadStatus::unchanged);
            return Ok(ReloadReport::new(
                old.generation(),
                plan,
                [begun, planned, planned, planned],
            ));
        }
        let built = match old.rebuild(&plan, &self.services) {
            Ok(graph) => graph.ready(&plan).await.map(|()| graph),
            Err(error) => Err(error),
        };
        let graph = match built {
            Ok(graph) => graph,
            Err(error) => {
                let error = Arc::new(error);
                self.rejected(Arc::clone(&error));
                return Err(Error::shared(&error));
            }
        };
        let built = Instant::now();
        let generation = graph.generation();
        drop(old);
        for (_, node) in graph.nodes() {
            node.take_effect();
        }
        let old = self.cell.publish(graph);
        let published = Instant::now();
        self.config = config;
        let mut report = ReloadReport::new(generation, plan, [begun, planned, built, published]);
        report.retirement = self.retire(&old);
        self.begin_checks();
        let plugins = self.config.plugins.len();
        self.status
            .send_modify(|status| status.applied(generation, plugins));
        tracing::info!(generation = generation.get(), plugins, "reloaded");
        Ok(report)
    }

    /// Has the endpoints of the graph asked how they are, those that are new from now on.
    fn begin_checks(&self) {
        let graph = self.cell.load();
        for (_, node) in graph.nodes() {
            node.begin_checks(&self.health);
        }
        self.health.publish(|| graph.health());
    }

    fn rejected(&self, error: Arc<Error>) {
        metrics::counter!(REJECTED, "reason" => report::why_rejected(&error)).increment(1);
        tracing::warn!(
            error = %report::with_causes(&error),
            plugins = self.config.plugins.len(),
            "reload rejected; the running config stays",
        );
        self.status.send_modify(|status| status.rejected(error));
    }

    /// Lets every node that is in `old` and no longer in the graph come to its end.
    fn retire(&mut self, old: &Arc<Graph>) -> Retirement {
        let new = self.cell.load();
        let left =
            |name, node: &Arc<Node>| !new.node(name).is_some_and(|new| Arc::ptr_eq(new, node));
        let mut outcomes = Vec::new();
        for (name, node) in old.nodes().filter(|(name, node)| left(name.as_str(), node)) {
            node.end_checks(new.node(name.as_str()).map(|node| &**node));
            let (sender, receiver) = oneshot::channel();
            let retired = retire(Arc::clone(node), self.limit.subscribe());
            self.retiring.spawn(async move {
                let retired = retired.await;
                let _ = sender.send(retired.clone());
                retired
            });
            outcomes.push(receiver);
        }
        self.status
            .send_modify(|status| status.retiring += outcomes.len());
        Retirement::new(outcomes)
    }

    fn retired(&self, retired: Option<&Retired>) {
        if let Some(retired) = retired.filter(|retired| retired.cancelled > 0) {
            tracing::warn!(
                plugin.name = %retired.plugin,
                cancelled = retired.cancelled,
                remaining = retired.remaining,
                "calls outlived the drain timeout",
            );
        }
        self.status.send_modify(|status| {
            status.retiring -= 1;
            status.cancelled += retired.map_or(0, |retired| retired.cancelled as u64);
        });
    }

    async fn shut_down(&mut self, timeout: Duration) -> ShutdownReport {
        let begun = Instant::now();
        self.limit.send_replace(begun.checked_add(timeout));
        let old = self.cell.publish(self.cell.load().shut_down());
        // Their ends come with those of the nodes that left before.
        drop(self.retire(&old));
        self.health.publish(HealthReport::default);
        drop(old);
        self.config = Config::default();
        let mut retired = Vec::with_capacity(self.retiring.len());
        while let Some(ended) = self.retiring.join_next().await {
            let ended = ended.ok();
            self.retired(ended.as_ref());
            retired.extend(ended);
        }
        self.status
            .send_modify(|status| status.shut_down(self.cell.load().generation()));
        ShutdownReport {
            retired,
            elapsed: begun.elapsed(),
        }
    }
}
