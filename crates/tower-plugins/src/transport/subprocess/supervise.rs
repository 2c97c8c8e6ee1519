//! Keeps a process running: started when it is needed, and again when it ends.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use metrics::Counter;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower_plugins_layers::Refused;

use super::dialect::Dialect;
use super::launch::Launch;
use super::live::Ended;
use super::running::{InUse, Running, Why};
use crate::config::{ProcessSpec, Restart};
use crate::transport::FOREVER;
use crate::transport::error::connect_failed;

/// Pauses between two starts.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// One process, in place of which a new one is started when it ends, as its spec says.
///
/// The first is started when one is asked for. Dropping this has it asked to end, and killed when its time is over.
pub(in crate::transport) struct Supervisor<D: Dialect> {
    shared: Arc<Shared<D>>,
    task: Mutex<Option<JoinHandle<()>>>,
    _stop: DropGuard,
}

pub(super) struct Shared<D: Dialect> {
    pub(super) plugin: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) launch: Launch,
    pub(super) spec: ProcessSpec,
    pub(super) dialect: D,
    pub(super) state: watch::Sender<State<D::Session>>,
    /// Somebody needs a process.
    needed: Notify,
    /// Somebody wants no more waiting, and what was counted forgotten.
    revived: Notify,
    pub(super) stop: CancellationToken,
    /// Whether it is looked after.
    is_run: watch::Sender<bool>,
    restarts: Counter,
}

/// Says that a process is not looked after any more.
struct Over<D: Dialect>(Arc<Shared<D>>);

impl<D: Dialect> Drop for Over<D> {
    fn drop(&mut self) {
        self.0.is_run.send_replace(false);
    }
}

pub(super) enum State<S> {
    /// Nobody has asked for a process.
    Idle,
    /// It was stopped, as nobody needed it for `process.idle_timeout`.
    Resting,
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

impl<D: Dialect> Supervisor<D> {
    /// Of what `launch` starts, an endpoint of `plugin` that is called `name`. Nothing is started yet.
    pub(in crate::transport) fn new(
        plugin: &str,
        name: Arc<str>,
        launch: Launch,
        spec: &ProcessSpec,
        dialect: D,
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
            dialect,
            state: watch::Sender::new(State::Idle),
            needed: Notify::new(),
            revived: Notify::new(),
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

    /// The process that runs, for one call: started if need be, and waited for until `deadline`.
    pub(in crate::transport) async fn running(
        &self,
        deadline: Instant,
    ) -> Result<InUse<D::Session>, Refused> {
        self.until(deadline, |running| running.and_then(Running::in_use))
            .await
    }

    /// Whether it runs; it is started and waited for if need be, unless it was stopped as nobody needed it.
    pub(in crate::transport) async fn probe(&self, deadline: Instant) -> Result<(), Refused> {
        self.until(deadline, |_| Some(())).await
    }

    /// What `take` makes of the process that runs, or of none if one was stopped as nobody needed it.
    async fn until<T>(
        &self,
        deadline: Instant,
        take: impl Fn(Option<&Arc<Running<D::Session>>>) -> Option<T>,
    ) -> Result<T, Refused> {
        let shared = &self.shared;
        if let State::Running(running) = &*shared.state.borrow()
            && !running.is_over()
            && let Some(taken) = take(Some(running))
        {
            return Ok(taken);
        }
        let mut states = shared.state.subscribe();
        self.begin();
        let mut last = None;
        loop {
            match &*states.borrow_and_update() {
                State::Running(running) if !running.is_over() => {
                    if let Some(taken) = take(Some(running)) {
                        return Ok(taken);
                    }
                }
                State::Offline { until, why } => {
                    let refused = connect_failed(&shared.name, why.clone());
                    return Err(match until {
                        Some(until) => refused.retry_after(until.duration_since(Instant::now())),
                        None => refused,
                    });
                }
                State::Pausing { until, why } if why.is_lasting || *until > deadline => {
                    let left = until.duration_since(Instant::now());
                    return Err(connect_failed(&shared.name, why.clone()).retry_after(left));
                }
                State::Pausing { why, .. } => last = Some(why.clone()),
                State::Resting => match take(None) {
                    Some(taken) => return Ok(taken),
                    None => shared.needed.notify_one(),
                },
                State::Idle => shared.needed.notify_one(),
                State::Starting | State::Running(_) => {}
            }
            if let Ok(Ok(())) = timeout_at(deadline, states.changed()).await {
                continue;
            }
            let why = last.unwrap_or_else(|| Why {
                what: "the process was not started within the connection_timeout".to_owned(),
                exited: None,
                is_lasting: false,
            });
            return Err(connect_failed(&shared.name, why));
        }
    }

    /// Has one started at once that waits to be, or is offline, and forgets how often it was.
    pub(in crate::transport) fn revive(&self) {
        // A call after this waits for the start, and hears no more of what was before it.
        self.shared.state.send_if_modified(|state| {
            let is_down = matches!(state, State::Pausing { .. } | State::Offline { .. });
            if is_down {
                *state = State::Starting;
            }
            is_down
        });
        self.shared.revived.notify_waiters();
    }

    /// Waits until there is no process any more, after this was dropped.
    pub(in crate::transport) fn end(&self) -> impl Future<Output = ()> + Send + use<D> {
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

impl<D: Dialect> Shared<D> {
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
                let (why, ended_well) = match ended {
                    Ended::Stopped => return,
                    Ended::Unneeded { answered } => {
                        if answered {
                            in_vain = 0;
                        }
                        // Of those who waited for it together.
                        let _ = self.needed.notified().now_or_never();
                        self.state.send_replace(State::Resting);
                        break;
                    }
                    Ended::Exited { how, .. } if how.killed().is_some() => {
                        self.restarts.increment(1);
                        continue;
                    }
                    Ended::Exited { how, answered } => {
                        if answered {
                            in_vain = 0;
                        }
                        let ended_well = how.is_success();
                        (Why::ended(how), ended_well)
                    }
                    Ended::Failed(why) => (why, false),
                };
                tracing::warn!(
                    plugin.name = &*self.plugin,
                    server.address = &*self.name,
                    why = %why.shown(),
                    "a plugin's process ended"
                );
                let next = self.next(why, ended_well, &mut starts, &mut in_vain);
                let until = match &next {
                    State::Pausing { until, .. } => Some(*until),
                    State::Offline { until, .. } => *until,
                    _ => None,
                };
                let is_offline = matches!(next, State::Offline { .. });
                let revived = self.revived.notified();
                self.state.send_replace(next);
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return,
                    () = revived => {
                        (starts, in_vain) = (VecDeque::new(), 0);
                        continue;
                    }
                    () = due(until) => {}
                }
                if is_offline {
                    // Of those who saw that there was none, before the one that ended.
                    let _ = self.needed.notified().now_or_never();
                    self.state.send_replace(State::Idle);
                    break;
                }
                self.restarts.increment(1);
            }
        }
    }

    /// What comes after a process that ended because of `why`.
    fn next(
        &self,
        why: Why,
        ended_well: bool,
        starts: &mut VecDeque<Instant>,
        in_vain: &mut u32,
    ) -> State<D::Session> {
        let (spec, now) = (&self.spec, Instant::now());
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
                why: why.after(what),
            };
        }
        let window = spec.restart_window.min(FOREVER);
        starts.push_back(now);
        while starts.front().is_some_and(|at| *at + window <= now) {
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
                return State::Offline {
                    until: first.map(|first| first + window),
                    why: why.after(what),
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
}

async fn due(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl<D: Dialect> fmt::Debug for Supervisor<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("name", &self.shared.name)
            .finish_non_exhaustive()
    }
}
