//! Endpoints are asked how they are, beside the calls.
//!
//! Each endpoint of a plugin with `health_check` has a [`Checker`], a part that goes on from node to node while what it
//! asks is equal. Its task begins when its node is published, asks one check after the other, and ends when no node
//! of the graph has the checker. What is known of the endpoint goes over to the next one as a copy, when it is asked
//! otherwise, such as more often or with other credentials.

mod ask;
mod grpc;
mod hub;
mod ready;
mod report;
mod state;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, histogram};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower_plugins_layers::balance::HealthHandle;

pub(super) use self::ask::Ask;
pub(super) use self::ask::with_causes;
pub(crate) use self::hub::HealthHub;
pub(super) use self::hub::gauge;
pub(super) use self::ready::{not_ready, ready};
pub use self::report::{EndpointHealth, HealthReport, HealthStatus, PluginHealth};
use self::state::{Changed, State, Verdict};
use super::endpoint::Shown;
use super::label::Label;
use crate::config::{Address, CredentialsSpec, HealthKind, HealthSpec, PluginName};
use crate::transport::Transport;

/// The shortest wait between two checks.
const SHORTEST: Duration = Duration::from_millis(1);

/// Asks one endpoint, again and again.
#[derive(Debug)]
pub(crate) struct Checker {
    key: Key,
    ask: Arc<Ask>,
    state: Arc<State>,
    task: Mutex<Asking>,
}

/// The task that asks.
#[derive(Debug, Default)]
struct Asking {
    /// Once it has begun.
    task: Option<AbortHandle>,
    is_stopped: bool,
    /// Cancelled when it has let go of everything.
    over: CancellationToken,
}

/// What a checker is made of: with an equal one it goes on.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) plugin: PluginName,
    /// Of the endpoint, which keeps it.
    pub(super) label: Arc<Label>,
    pub(super) spec: HealthSpec,
    pub(super) credentials: CredentialsSpec,
    pub(super) transport: Arc<dyn Transport>,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.transport, &other.transport)
            && (&self.plugin, &self.spec, &self.credentials)
                == (&other.plugin, &other.spec, &other.credentials)
    }
}

impl Checker {
    /// Of the endpoint at `address`, which is asked through `endpoint`.
    pub(super) fn build(
        key: Key,
        address: &Address,
        endpoint: Shown,
        old: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        if let Some(old) = old.filter(|old| old.key == key) {
            return Arc::clone(old);
        }
        // What another question was answered with says nothing of this one.
        let same = old.filter(|old| old.key.spec.kind == key.spec.kind);
        let state = match same {
            // Its own from now on: while both ask, nothing is counted twice.
            Some(old) => Arc::new(old.state.copy()),
            None => Arc::new(State::new(address.clone())),
        };
        let ask = Ask::new(&key.spec, endpoint, Arc::clone(&key.transport)).of(address);
        Arc::new(Self {
            key,
            ask: Arc::new(ask),
            state,
            task: Mutex::default(),
        })
    }

    pub(super) fn ask(&self) -> Arc<Ask> {
        Arc::clone(&self.ask)
    }

    pub(super) fn handle(&self) -> HealthHandle {
        self.state.handle()
    }

    pub(super) fn snapshot(&self) -> EndpointHealth {
        self.state.snapshot()
    }

    /// Begins to ask, unless it has. The task holds `node` until it has ended.
    pub(super) fn begin(&self, hub: &Arc<HealthHub>, node: Option<Arc<DropGuard>>) {
        let mut asking = self.asking();
        if asking.task.is_none() {
            let run = Run {
                plugin: self.key.plugin.clone(),
                spec: self.key.spec.clone(),
                ask: Arc::clone(&self.ask),
                state: Arc::clone(&self.state),
                hub: Arc::clone(hub),
                seen: Seen::new(&self.key.plugin, &self.key.label),
                _node: node,
                _over: asking.over.clone().drop_guard(),
            };
            asking.task = Some(tokio::spawn(run.run()).abort_handle());
        }
    }

    /// Asks no more.
    pub(super) fn stop(&self) {
        let mut asking = self.asking();
        asking.is_stopped = true;
        if let Some(task) = &asking.task {
            task.abort();
        }
    }

    /// Is cancelled when it asks no more, if it was told to stop.
    pub(super) fn over(&self) -> Option<CancellationToken> {
        let asking = self.asking();
        let is_ending = asking.is_stopped && asking.task.is_some();
        is_ending.then(|| asking.over.clone())
    }

    fn asking(&self) -> std::sync::MutexGuard<'_, Asking> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("plugin", &self.plugin)
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

/// The task of a checker.
struct Run {
    plugin: PluginName,
    spec: HealthSpec,
    ask: Arc<Ask>,
    state: Arc<State>,
    hub: Arc<HealthHub>,
    seen: Seen,
    _node: Option<Arc<DropGuard>>,
    // The last to go.
    _over: DropGuard,
}

impl Run {
    async fn run(self) {
        let (since, failed) = self.state.last();
        let wait = match failed {
            Some(failed) => self.pause(failed),
            None => times(self.spec.interval, self.jitter()),
        };
        sleep(wait.saturating_sub(since.elapsed())).await;
        loop {
            let begun = Instant::now();
            self.state.begin();
            self.ask
                .run(&|verdict, took| self.take(verdict, took))
                .await;
            let failed = self.state.last().1.unwrap_or(false);
            // A stream that has lasted, and ended, begins anew at once.
            let is_stream = matches!(self.spec.kind, HealthKind::GrpcWatch { .. });
            if failed || !is_stream || begun.elapsed() < self.spec.interval {
                sleep(self.pause(failed)).await;
            }
        }
    }

    fn jitter(&self) -> f64 {
        fastrand::f64() * self.spec.jitter.get()
    }

    /// How long to wait after a check.
    fn pause(&self, failed: bool) -> Duration {
        let shorter = self.spec.unhealthy_interval.filter(|_| failed);
        let interval = shorter.unwrap_or(self.spec.interval);
        // One that is made in code may be zero.
        times(interval.max(SHORTEST), 1.0 + self.jitter())
    }

    fn take(&self, verdict: &Verdict, took: Duration) {
        let (status, changed) = self.state.take(verdict, took, &self.spec);
        self.seen.checked(&self.plugin, verdict, status, took);
        if let Some(changed) = changed {
            self.tell(&changed);
            self.hub.changed(&self.plugin, &self.state);
        }
    }

    fn tell(&self, changed: &Changed) {
        let (from, to) = (changed.from.as_str(), changed.to.as_str());
        let address = self.state.address().shown();
        let message = self.state.snapshot().message.unwrap_or_default();
        macro_rules! event {
            ($level:ident, $text:literal) => {
                tracing::$level!(
                    plugin.name = %self.plugin, server.address = %address, from, to, message, $text
                )
            };
        }
        if changed.to.is_out() {
            event!(warn, "endpoint unhealthy");
        } else {
            event!(info, "endpoint health changed");
        }
    }
}

/// As long as there is time, if it is more.
fn times(time: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

/// The metrics of one endpoint.
struct Seen {
    status: Gauge,
    duration: Histogram,
}

impl Seen {
    fn new(plugin: &PluginName, label: &Label) -> Self {
        let plugin = plugin.as_str().to_owned();
        Self {
            status: metrics::gauge!(
                "plugin_endpoint_health_status",
                "plugin_name" => plugin.clone(), "endpoint" => label.as_str().to_owned()
            ),
            duration: histogram!("plugin_health_check_duration_seconds", "plugin_name" => plugin),
        }
    }

    fn checked(
        &self,
        plugin: &PluginName,
        verdict: &Verdict,
        status: HealthStatus,
        took: Duration,
    ) {
        let failure = match verdict {
            Verdict::Nothing => return,
            Verdict::Pass | Verdict::Says(Ok(())) => None,
            Verdict::Fail(failure) | Verdict::Says(Err(failure)) => Some(failure),
        };
        self.status.set(status.gauge());
        self.duration.record(took);
        count(
            "plugin_health_checks_total",
            plugin,
            "status",
            status.as_str(),
        )
        .increment(1);
        if let Some(failure) = failure {
            let reason = failure
                .reason
                .map_or("error", tower_plugins_layers::Reason::as_str);
            count(
                "plugin_health_check_failures_total",
                plugin,
                "reason",
                reason,
            )
            .increment(1);
        }
    }
}

fn count(
    name: &'static str,
    plugin: &PluginName,
    label: &'static str,
    word: &'static str,
) -> Counter {
    counter!(name, "plugin_name" => plugin.as_str().to_owned(), label => word)
}
