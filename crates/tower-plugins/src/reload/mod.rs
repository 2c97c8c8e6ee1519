//! One reload at a time: plan, build, wait, publish, watch, retire.
//!
//! One task owns what runs. A change of it is a rollout: nodes that are built, and the steps in which they are published.

mod advance;
mod begin;
mod drain;
mod ends;
mod event;
mod exchange;
#[cfg(feature = "watch")]
mod follow;
mod history;
mod judge;
#[cfg(feature = "watch")]
mod last_good;
mod options;
mod overlay;
mod phase;
mod report;
mod retiring;
mod rollout;
mod task;
#[cfg(feature = "watch")]
mod watch;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch as status_channel};
use tokio::task::AbortHandle;

pub use self::drain::{DrainProgress, DrainTimeout, Drained, PluginDrain, Remaining};
pub use self::event::ReloadEvent;
#[cfg(feature = "watch")]
pub(crate) use self::follow::{Follow, Followed};
use self::history::History;
pub use self::history::HistoryEntry;
pub use self::options::{Reload, ReloadOptions};
pub(crate) use self::overlay::Edit;
pub use self::overlay::OverlayKind;
pub use self::report::{
    ReloadPhase, ReloadReport, ReloadStatus, ReloadTimes, Retirement, ShutdownReport, Verdict,
};
use self::task::Task;
#[cfg(feature = "watch")]
pub use self::watch::{Snapshot, Timing, Watch};
use crate::config::Config;
pub use crate::config::Strategy;
use crate::error::{Error, Kind};
pub use crate::graph::Retired;
use crate::graph::{Found, Generation, GraphCell};
use crate::node::{HealthHub, Services};

/// Changes that may wait their turn.
const QUEUE: usize = 16;

/// Events that somebody who listens may be behind by.
const EVENTS: usize = 1024;

/// The handle to the one task that changes the graph. Dropping it ends the task.
#[derive(Debug)]
pub(crate) struct Reloader {
    commands: mpsc::Sender<Command>,
    /// Apart from the commands, which may have to wait for room.
    ends: mpsc::Sender<End>,
    status: status_channel::Receiver<ReloadStatus>,
    events: broadcast::Sender<ReloadEvent>,
    history: Arc<History>,
    task: AbortHandle,
}

type Reply = oneshot::Sender<Result<ReloadReport, Error>>;

enum Command {
    Edit(Job),
    Reject(Arc<Error>),
}

/// A shutdown.
struct End {
    timeout: Duration,
    reply: oneshot::Sender<ShutdownReport>,
}

/// A change that waits its turn.
struct Job {
    edit: Edit,
    options: ReloadOptions,
    /// Whether it is what a watched file says: nobody would ask for it again.
    is_of_file: bool,
    /// Whether it was begun before, and cut short.
    is_again: bool,
    reply: Reply,
}

impl Reloader {
    /// Starts with an empty graph in `cell`.
    pub(crate) fn start(cell: Arc<GraphCell>, services: Services, health: Arc<HealthHub>) -> Self {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let (ends, end) = mpsc::channel(1);
        let (status, watched) = status_channel::channel(ReloadStatus::default());
        let (events, _) = broadcast::channel(EVENTS);
        let history = Arc::<History>::default();
        let graph = Arc::downgrade(&cell);
        services.begin(
            move |name, headers| match graph.upgrade()?.find(name, headers) {
                Found::Node(node) => Some(node),
                Found::Held(_) | Found::Nothing | Found::Shutdown => None,
            },
        );
        let task = Task::new(
            cell,
            services,
            health,
            status,
            events.clone(),
            Arc::clone(&history),
        );
        let task = tokio::spawn(task.run(inbox, end)).abort_handle();
        Self {
            commands,
            ends,
            status: watched,
            events,
            history,
            task,
        }
    }

    /// Makes `config` what runs.
    pub(crate) async fn reload(&self, config: Config) -> Result<ReloadReport, Error> {
        let edit = Edit::Base(Box::new(config));
        self.edit(edit, ReloadOptions::new()).await
    }

    /// Makes a change. Once it is under way, it goes on even if the caller does not wait.
    pub(crate) async fn edit(
        &self,
        edit: Edit,
        options: ReloadOptions,
    ) -> Result<ReloadReport, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Edit(Job {
            edit,
            options,
            is_of_file: false,
            is_again: false,
            reply,
        }))
        .await?;
        answer.await.map_err(|_| Error::new(Kind::Shutdown))?
    }

    /// Makes `config` what runs, which a watched file says, without waiting for its end.
    #[cfg(feature = "watch")]
    pub(crate) async fn offer(
        &self,
        config: Config,
    ) -> Result<oneshot::Receiver<Result<ReloadReport, Error>>, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Edit(Job {
            edit: Edit::Base(Box::new(config)),
            options: ReloadOptions::new(),
            is_of_file: true,
            is_again: false,
            reply,
        }))
        .await?;
        Ok(answer)
    }

    /// Puts on record that a config could not even be read.
    #[cfg_attr(not(feature = "watch"), expect(dead_code))]
    pub(crate) async fn reject(&self, error: Error) -> Result<(), Error> {
        self.send(Command::Reject(Arc::new(error))).await
    }

    pub(crate) async fn shutdown(&self, timeout: Duration) -> Result<ShutdownReport, Error> {
        let (reply, answer) = oneshot::channel();
        let end = End { timeout, reply };
        let gone = |_| Error::new(Kind::Shutdown);
        self.ends.send(end).await.map_err(gone)?;
        answer.await.map_err(|_| Error::new(Kind::Shutdown))
    }

    pub(crate) const fn status(&self) -> &status_channel::Receiver<ReloadStatus> {
        &self.status
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<ReloadEvent> {
        self.events.subscribe()
    }

    pub(crate) fn history(&self) -> Vec<HistoryEntry> {
        self.history.all()
    }

    /// The change that makes what served as `generation` run again.
    pub(crate) fn restore(&self, generation: Generation) -> Result<Edit, Error> {
        let wanted = self.history.find(generation).ok_or_else(|| {
            let why = format!("generation {generation} is not in the history");
            Error::caused_by(Kind::NotFound, why)
        })?;
        Ok(Edit::Restore(Box::new((*wanted).clone())))
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
