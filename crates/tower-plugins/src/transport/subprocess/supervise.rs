//! Keeps a process running: started when it is needed, and again when it ends.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::Counter;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower_plugins_layers::Refused;

use super::exited::Exited;
use super::launch::{Launch, Spawned};
use super::log::Logs;
use super::process::{Process, Status};
use super::running::{Running, Why};
use super::stdio::{Tail, drain};
use crate::config::{ProcessSpec, Restart};
use crate::transport::error::connect_failed;
use crate::transport::task::Task;

/// Pauses between two starts.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long what a process said last may take to come, when it has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Makes of a process's streams what calls go through.
type Begin<S> = dyn Fn(&mut Streams) -> S + Send + Sync;

/// The streams that a session is made of. Standard error is read already.
#[derive(Debug)]
pub(in crate::transport) struct Streams {
    pub(in crate::transport) stdin: Option<tokio::net::unix::pipe::Sender>,
    pub(in crate::transport) stdout: Option<tokio::net::unix::pipe::Receiver>,
}

/// One process, in place of which a new one is started when it ends, as its spec says. `S` is what calls go through.
///
/// The first is started when one is asked for. Dropping this has it asked to end, and killed when its time is over.
pub(in crate::transport) struct Supervisor<S> {
    shared: Arc<Shared<S>>,
    task: Mutex<Option<JoinHandle<()>>>,
    _stop: DropGuard,
}

struct Shared<S> {
    plugin: Arc<str>,
    name: Arc<str>,
    launch: Launch,
    spec: ProcessSpec,
    begin: Box<Begin<S>>,
    state: watch::Sender<State<S>>,
    /// Somebody needs a process.
    needed: Notify,
    stop: CancellationToken,
    /// Whether it is looked after.
    is_run: watch::Sender<bool>,
    restarts: Counter,
}

/// Says that a process is not looked after any more.
struct Over<S>(Arc<Shared<S>>);

impl<S> Drop for Over<S> {
    fn drop(&mut self) {
        self.0.is_run.send_replace(false);
    }
}

enum State<S> {
    /// Nobody has asked for a process.
    Idle,
    Starting,
    Running(Arc<Running<S>>),
    /// The next one is started then.
    Pausing {
        until: Instant,
        why: Why,
    },
    /// It is not started again before that, and not without being asked for; without a time never.
    Offline {
        until: Option<Instant>,
        why: Why,
    },
}

impl<S: Send + Sync + 'static> Supervisor<S> {
    /// Of `executable`, an endpoint of `plugin` that is called `name`. Nothing is started yet.
    pub(in crate::transport) fn new(
        plugin: &str,
        name: Arc<str>,
        launch: Launch,
        spec: &ProcessSpec,
        begin: impl Fn(&mut Streams) -> S + Send + Sync + 'static,
    ) -> Self {
        let stop = CancellationToken::new();
        let restarts = metrics::counter!(
            "plugin_process_restarts_total",
            "plugin_name" => plugin.to_owned(),
            "endpoint" => name.to_string()
        );
        let shared = Shared {
            plugin: plugin.into(),
            name,
            launch,
            spec: spec.clone(),
            begin: Box::new(begin),
            state: watch::Sender::new(State::Idle),
            needed: Notify::new(),
            stop: stop.clone(),
            is_run: watch::Sender::new(false),
            restarts,
        };
        Self {
            shared: Arc::new(shared),
            task: Mutex::default(),
            _stop: stop.drop_guard(),
        }
    }

    /// The process that runs, started if need be, and waited for until `deadline`.
    pub(in crate::transport) async fn running(
        &self,
        deadline: Instant,
    ) -> Result<Arc<Running<S>>, Refused> {
        let shared = &self.shared;
        let mut states = shared.state.subscribe();
        self.begin();
        loop {
            let why = match &*states.borrow_and_update() {
                State::Running(running) if !running.is_over() => {
                    return Ok(Arc::clone(running));
                }
                State::Offline { until, why } => {
                    let refused = connect_failed(&shared.name, why.clone());
                    return Err(match until {
                        Some(until) => refused.retry_after(until.duration_since(Instant::now())),
                        None => refused,
                    });
                }
                State::Pausing { until, why } if *until > deadline => {
                    let left = until.duration_since(Instant::now());
                    return Err(connect_failed(&shared.name, why.clone()).retry_after(left));
                }
                State::Pausing { why, .. } => Some(why.clone()),
                State::Idle => {
                    shared.needed.notify_one();
                    None
                }
                State::Starting | State::Running(_) => None,
            };
            if let Ok(Ok(())) = timeout_at(deadline, states.changed()).await {
                continue;
            }
            let why = why.unwrap_or_else(|| Why {
                what: "the process was not started within the connection_timeout".to_owned(),
                exited: None,
            });
            return Err(connect_failed(&shared.name, why));
        }
    }

    /// Waits until there is no process any more, after this was dropped.
    pub(in crate::transport) fn end(&self) -> impl Future<Output = ()> + Send + use<S> {
        let mut is_run = self.shared.is_run.subscribe();
        async move {
            let _ = is_run.wait_for(|is_run| !is_run).await;
        }
    }

    /// Begins to look after it, unless that is done.
    fn begin(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        // It ends before this only with the runtime it runs on.
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            self.shared.state.send_replace(State::Idle);
            self.shared.needed.notify_one();
            self.shared.is_run.send_replace(true);
            let over = Over(Arc::clone(&self.shared));
            *task = Some(tokio::spawn(async move { over.0.run().await }));
        }
    }
}

/// How one process came to its end.
enum Ended {
    /// This is not needed any more.
    Stopped,
    /// It was not started.
    Failed(String),
    Exited {
        how: Arc<Exited>,
        answered: bool,
    },
}

impl<S: Send + Sync + 'static> Shared<S> {
    async fn run(&self) {
        let (mut starts, mut in_vain) = (VecDeque::new(), 0);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.needed.notified() => {}
            }
            loop {
                let ended = self.live().await;
                let why = match ended {
                    Ended::Stopped => return,
                    Ended::Exited { how, .. } if how.killed().is_some() => {
                        self.restarts.increment(1);
                        continue;
                    }
                    Ended::Exited { how, answered } => {
                        if answered {
                            in_vain = 0;
                        }
                        Why {
                            what: "it is not running".to_owned(),
                            exited: Some(how),
                        }
                    }
                    Ended::Failed(what) => Why { what, exited: None },
                };
                tracing::warn!(
                    plugin.name = &*self.plugin,
                    server.address = &*self.name,
                    why = %why.shown(),
                    "a plugin's process ended"
                );
                let next = self.next(why, &mut starts, &mut in_vain);
                let until = match &next {
                    State::Pausing { until, .. } => Some(*until),
                    State::Offline { until, .. } => *until,
                    _ => None,
                };
                let is_offline = matches!(next, State::Offline { .. });
                self.state.send_replace(next);
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return,
                    () = due(until) => {}
                }
                if is_offline {
                    self.state.send_replace(State::Idle);
                    break;
                }
                self.restarts.increment(1);
            }
        }
    }

    /// What comes after a process that ended because of `why`.
    fn next(&self, why: Why, starts: &mut VecDeque<Instant>, in_vain: &mut u32) -> State<S> {
        let (spec, now) = (&self.spec, Instant::now());
        let ended_well = why.exited.as_ref().is_some_and(|how| how.is_success());
        let is_over = match spec.restart {
            Restart::Always => false,
            Restart::OnFailure => ended_well,
            Restart::Never => why.exited.is_some(),
        };
        if is_over {
            let what =
                "it has ended, and `process.restart` says that it is not started again".to_owned();
            return State::Offline {
                until: None,
                why: Why { what, ..why },
            };
        }
        starts.push_back(now);
        while starts
            .front()
            .is_some_and(|at| *at + spec.restart_window <= now)
        {
            starts.pop_front();
        }
        let limit = spec.max_restarts as usize;
        while starts.len() > limit {
            let first = starts.pop_front();
            if starts.len() == limit {
                let what = format!(
                    "it ended more than {limit} times in {:?}, and is not started again before that is over: see what it said on stderr",
                    spec.restart_window
                );
                let what = match &why.exited {
                    None => format!("{what}; the last time: {}", why.what),
                    Some(_) => what,
                };
                return State::Offline {
                    until: first.map(|first| first + spec.restart_window),
                    why: Why { what, ..why },
                };
            }
        }
        let pause = SHORTEST_PAUSE
            .saturating_mul(1 << (*in_vain).min(16))
            .min(LONGEST_PAUSE);
        *in_vain += 1;
        // From half of it on, so that what ended together is not started together.
        let pause = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        State::Pausing {
            until: now + pause,
            why,
        }
    }

    /// From the start of one process to its end.
    async fn live(&self) -> Ended {
        self.state.send_replace(State::Starting);
        let spawned = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ended::Stopped,
            spawned = self.launch.spawn() => spawned,
        };
        let Spawned {
            process,
            stdin,
            stdout,
            stderr,
        } = match spawned {
            Ok(spawned) => spawned,
            Err(error) => return Ended::Failed(error.to_string()),
        };
        let tail = Tail::default();
        let logs = Logs::new(Arc::clone(&self.plugin), Arc::clone(&self.name));
        let stderr = Task::spawn(drain(stderr, tail.clone(), logs));
        let streams = Streams {
            stdin: Some(stdin),
            stdout: Some(stdout),
        };
        let (tell, exited) = watch::channel(None);
        let (status, answered, killed) = self.serve(&process, streams, exited).await;
        let (status, is_stopped) = match status {
            Some(status) => (status, false),
            None => (stopped(&process, self.spec.stop_timeout).await, true),
        };
        // What was in the pipe when it ended is there to be read; what left its group may hold it open.
        let _ = timeout(LAST_WORDS, stderr.ended()).await;
        let how = Arc::new(Exited::new(status, tail.lines(), killed));
        tell.send_replace(Some(Arc::clone(&how)));
        if is_stopped {
            return Ended::Stopped;
        }
        Ended::Exited { how, answered }
    }

    /// Has calls go to `process` until it has ended, or is not needed any more. Gives how it ended, whether it had answered
    /// and why it was killed. With what it made of `streams` goes the writing end of the process's standard input, unless a
    /// call has it.
    async fn serve(
        &self,
        process: &Process,
        mut streams: Streams,
        exited: watch::Receiver<Option<Arc<Exited>>>,
    ) -> (Option<Status>, bool, Option<&'static str>) {
        let session = (self.begin)(&mut streams);
        let running = Arc::new(Running::new(session, process.handle(), exited));
        tracing::debug!(
            plugin.name = &*self.plugin,
            server.address = &*self.name,
            pid = process.id(),
            "a plugin's process runs"
        );
        self.state
            .send_replace(State::Running(Arc::clone(&running)));
        let status = tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            status = process.exited() => Some(status),
        };
        self.state.send_replace(State::Starting);
        (status, running.is_used(), running.killed())
    }
}

async fn stopped(process: &Process, grace: Duration) -> Status {
    process.stop(grace).await.unwrap_or_default()
}

async fn due(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl<S> fmt::Debug for Supervisor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("name", &self.shared.name)
            .finish_non_exhaustive()
    }
}
