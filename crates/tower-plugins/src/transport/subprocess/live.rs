//! One process, from its start to its end.

use std::error::Error as StdError;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tower_plugins_layers::BoxError;

use super::dialect::{Dialect, Streams, Unfit};
use super::exited::Exited;
use super::launch::Spawned;
use super::log::Logs;
use super::process::{Process, Status};
use super::running::{Running, Why};
use super::stdio::{Tail, drain};
use super::supervise::{Shared, State};
use crate::transport::task::Task;

/// How long what a process said last may take to come, when it has ended; and its end, when it has said what is no beginning.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why a process was killed that did not begin as it should.
const NOT_BEGUN: &str = "it did not begin as it should";

/// How one process came to its end.
pub(super) enum Ended {
    /// This is not needed any more.
    Stopped,
    /// It had no call for `process.idle_timeout`.
    Unneeded {
        answered: bool,
    },
    /// It was not started, or did not begin as it should.
    Failed(Why),
    Exited {
        how: Arc<Exited>,
        answered: bool,
    },
}

/// Why a process serves no more.
enum Served {
    /// It is not needed any more, and has this long to end.
    Stopped(Duration),
    /// It has had no call for `process.idle_timeout`, and has this long to end.
    Unneeded {
        grace: Duration,
        answered: bool,
    },
    NotBegun(BoxError),
    /// Nothing can be said to it any more.
    Broken(&'static str),
    Over {
        status: Status,
        answered: bool,
        killed: Option<&'static str>,
    },
}

impl<D: Dialect> Shared<D> {
    /// From the start of one process to its end.
    pub(super) async fn live(&self) -> Ended {
        self.state.send_replace(State::Starting);
        let failed = |error: &(dyn StdError + 'static), is_lasting| {
            Ended::Failed(Why {
                what: in_one_line(error),
                exited: None,
                is_lasting,
            })
        };
        let (mut start, prepared) = match self.dialect.prepare() {
            Ok(prepared) => prepared,
            Err(error) => return failed(&*error, false),
        };
        let _keep = start.keep.take();
        let spawned = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ended::Stopped,
            spawned = self.launch.spawn(&start) => spawned,
        };
        let Spawned {
            process,
            stdin,
            stdout,
            stderr,
            mut terminal,
        } = match spawned {
            Ok(spawned) => spawned,
            Err(error) => return failed(&error, error.is_lasting()),
        };
        let tail = Tail::default();
        let logs = Logs::new(Arc::clone(&self.plugin), Arc::clone(&self.name));
        let stderr = Task::spawn(drain(stderr, tail.clone(), logs));
        if let Some(terminal) = &mut terminal {
            let take = self.launch.on_terminal.as_ref();
            terminal.begin(take, &self.plugin, &self.name);
        }
        let streams = Streams { stdin, stdout };
        let (tell, exited) = watch::channel(None);
        let served = self.serve(&process, prepared, streams, exited).await;
        let (status, killed) = match &served {
            Served::Over { status, killed, .. } => (*status, *killed),
            Served::Stopped(grace) | Served::Unneeded { grace, .. } => {
                (process.stop(*grace).await.unwrap_or_default(), None)
            }
            Served::NotBegun(_) => given_up(&process).await,
            Served::Broken(why) => {
                let status = process.killed().await.unwrap_or_default();
                (status, Some(*why))
            }
        };
        // What was in the pipe when it ended is there to be read; what left its group may hold it open.
        let _ = timeout(LAST_WORDS, stderr.ended()).await;
        if let Some(terminal) = terminal {
            let _ = timeout(LAST_WORDS, terminal.ended()).await;
        }
        let how = Arc::new(Exited::new(status, tail.lines(), killed));
        tell.send_replace(Some(Arc::clone(&how)));
        match served {
            Served::Stopped(_) => Ended::Stopped,
            Served::Unneeded { answered, .. } => Ended::Unneeded { answered },
            Served::NotBegun(error) => Ended::Failed(Why {
                what: in_one_line(&*error),
                exited: Some(how),
                is_lasting: error.is::<Unfit>(),
            }),
            Served::Broken(why) => Ended::Failed(Why {
                what: why.to_owned(),
                exited: Some(how),
                is_lasting: false,
            }),
            Served::Over { answered, .. } => Ended::Exited { how, answered },
        }
    }

    /// Has calls go to `process` until it has ended, or is not needed any more.
    async fn serve(
        &self,
        process: &Process,
        prepared: D::Prepared,
        streams: Streams,
        exited: watch::Receiver<Option<Arc<Exited>>>,
    ) -> Served {
        let begun = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Served::Stopped(self.spec.stop_timeout),
            begun = self.begin(process, prepared, streams) => begun,
        };
        let session = match begun {
            Ok(session) => session,
            Err(error) => return Served::NotBegun(error),
        };
        let running = Arc::new(Running::new(session, process.handle(), exited));
        tracing::debug!(
            plugin.name = &*self.plugin,
            server.address = &*self.name,
            pid = process.id(),
            "a plugin's process runs"
        );
        self.state
            .send_replace(State::Running(Arc::clone(&running)));
        let is_unneeded = tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            over = self.over(process, &running) => {
                self.state.send_replace(State::Starting);
                return over;
            }
            () = running.idle(self.spec.idle_timeout) => true,
        };
        self.state.send_replace(State::Starting);
        // With the session goes the writing end of its standard input, unless a call has it.
        let grace = self.ask_to_end(process, &running.session).await;
        match is_unneeded {
            true => Served::Unneeded {
                grace,
                answered: running.is_used(),
            },
            false => Served::Stopped(grace),
        }
    }

    /// Waits for the end of what `running` is, by itself.
    async fn over(&self, process: &Process, running: &Running<D::Session>) -> Served {
        let over = |status| Served::Over {
            status,
            answered: running.is_used(),
            killed: running.killed(),
        };
        let why = tokio::select! {
            biased;
            status = process.exited() => return over(status),
            why = self.dialect.broken(&running.session) => why,
        };
        // As a rule it comes of its end.
        match timeout(LAST_WORDS, process.exited()).await {
            Ok(status) => over(status),
            Err(_) => Served::Broken(why),
        }
    }

    async fn begin(
        &self,
        process: &Process,
        prepared: D::Prepared,
        streams: Streams,
    ) -> Result<D::Session, BoxError> {
        let limit = self.spec.start_timeout;
        let mut begin = pin!(timeout(limit, self.dialect.begin(prepared, streams)));
        let begun = tokio::select! {
            biased;
            begun = &mut begin => begun,
            // What it wrote before its end is in the pipe.
            _ = process.exited() => match timeout(LAST_WORDS, begin).await {
                Ok(begun) => begun,
                Err(_) => return Err("it ended before it had begun".into()),
            },
        };
        begun.unwrap_or_else(|_| {
            let message = format!(
                "it had not begun within process.start_timeout, {limit:?}: see what it said on stderr, or give it longer"
            );
            Err(message.into())
        })
    }

    /// Has the process asked to end, and waits for that: how much of its time is left.
    async fn ask_to_end(&self, process: &Process, session: &D::Session) -> Duration {
        let (limit, begun) = (self.spec.stop_timeout, Instant::now());
        let asked = async {
            if self.dialect.end(session).await {
                process.exited().await;
            }
        };
        let _ = timeout(limit / 2, asked).await;
        limit.saturating_sub(begun.elapsed())
    }
}

/// The end of a process that did not begin as it should: its own if it is about to, and else it is killed.
async fn given_up(process: &Process) -> (Status, Option<&'static str>) {
    if let Ok(status) = timeout(LAST_WORDS, process.exited()).await {
        return (status, None);
    }
    let status = process.killed().await.unwrap_or_default();
    (status, Some(NOT_BEGUN))
}

/// `error` with its causes.
fn in_one_line(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
