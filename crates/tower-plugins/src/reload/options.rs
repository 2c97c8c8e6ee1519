//! How one reload is made.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use super::overlay::Edit;
use super::{ReloadReport, Reloader};
use crate::config::{ReloadSpec, Strategy};
use crate::error::Error;

/// What one reload does otherwise than the config's block `reload` says.
///
/// ```
/// use std::time::Duration;
/// use tower_plugins::reload::{ReloadOptions, Strategy};
///
/// let options = ReloadOptions::new().strategy(Strategy::BlueGreen).observe_for(Duration::from_secs(10));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct ReloadOptions {
    strategy: Option<Strategy>,
    drain_timeout: Option<Duration>,
    graceful_timeout: Option<Duration>,
    health_check_timeout: Option<Duration>,
    observe_for: Option<Duration>,
    max_concurrent_reloads: Option<u32>,
    rollback_on_failure: Option<bool>,
    pub(super) dry_run: bool,
    pub(super) force: bool,
}

impl ReloadOptions {
    /// As the config says.
    pub fn new() -> Self {
        Self::default()
    }

    /// How the new takes the place of the old (`reload.strategy`).
    pub const fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = Some(strategy);
        self
    }

    /// How long calls on nodes that leave may go on, in place of each plugin's `drain_timeout`.
    pub const fn drain_timeout(mut self, time: Duration) -> Self {
        self.drain_timeout = Some(time);
        self
    }

    /// How long all drains of this reload may take, whatever their plugins' own timeouts (`reload.graceful_timeout`).
    pub const fn graceful_timeout(mut self, time: Duration) -> Self {
        self.graceful_timeout = Some(time);
        self
    }

    /// How long a new node may take to be ready, where the strategy asks for it (`reload.health_check_timeout`).
    pub const fn health_check_timeout(mut self, time: Duration) -> Self {
        self.health_check_timeout = Some(time);
        self
    }

    /// How long the new is watched under [`Strategy::BlueGreen`] (`reload.observe_for`).
    pub const fn observe_for(mut self, time: Duration) -> Self {
        self.observe_for = Some(time);
        self
    }

    /// How many plugins are exchanged at a time under [`Strategy::Rolling`] (`reload.max_concurrent_reloads`); 0 is 1.
    pub const fn max_concurrent_reloads(mut self, count: u32) -> Self {
        self.max_concurrent_reloads = Some(count);
        self
    }

    /// Whether what proves worse is taken back (`reload.rollback_on_failure`). It is told in any case.
    pub const fn rollback_on_failure(mut self, yes: bool) -> Self {
        self.rollback_on_failure = Some(yes);
        self
    }

    /// Only plans: the report says what would be done, and nothing is touched.
    pub const fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Takes a config that was rolled back before, as it is. Without this it is refused until it says something else.
    pub const fn force(mut self) -> Self {
        self.force = true;
        self
    }

    /// What holds for a reload to a config that says `spec`.
    pub(super) fn over(&self, spec: &ReloadSpec) -> Settings {
        let mut spec = spec.clone();
        let set = |to: &mut Duration, from: Option<Duration>| *to = from.unwrap_or(*to);
        set(&mut spec.health_check_timeout, self.health_check_timeout);
        set(&mut spec.observe_for, self.observe_for);
        spec.strategy = self.strategy.unwrap_or(spec.strategy);
        spec.graceful_timeout = self.graceful_timeout.or(spec.graceful_timeout);
        let at_once = self.max_concurrent_reloads;
        spec.max_concurrent_reloads = at_once.unwrap_or(spec.max_concurrent_reloads).max(1);
        let rollback = self.rollback_on_failure;
        spec.rollback_on_failure = rollback.unwrap_or(spec.rollback_on_failure);
        Settings {
            spec,
            drain_timeout: self.drain_timeout,
        }
    }
}

/// What holds for one reload.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) spec: ReloadSpec,
    pub(super) drain_timeout: Option<Duration>,
}

impl Settings {
    /// How long a node that leaves may take whose plugin gives it `own`.
    pub(super) fn drain(&self, own: Duration) -> Duration {
        if self.spec.strategy == Strategy::Immediate {
            return Duration::ZERO;
        }
        let own = self.drain_timeout.unwrap_or(own);
        self.spec.graceful_timeout.map_or(own, |all| own.min(all))
    }

    /// Whether the new is watched once it serves.
    pub(super) fn watches(&self) -> bool {
        match self.spec.strategy {
            Strategy::BlueGreen => !self.spec.observe_for.is_zero(),
            Strategy::Canary => true,
            _ => false,
        }
    }
}

/// A change of what runs, which begins when it is awaited.
///
/// It ends with a [`ReloadReport`] when the change is made: under [`Strategy::BlueGreen`] and [`Strategy::Canary`]
/// when the new has been watched for its time as well.
///
/// # Errors
/// When the change is refused, with what runs untouched. [`Error::is_superseded`] when a newer config overtook it,
/// [`Error::is_rolled_back`] when the new served and was worse, and was taken back.
///
/// # Cancellation
/// A change that has begun goes on when this is dropped.
#[derive(Debug)]
#[must_use = "it begins when it is awaited"]
pub struct Reload<'a> {
    reloader: &'a Reloader,
    edit: Result<Edit, Error>,
    options: ReloadOptions,
}

impl<'a> Reload<'a> {
    pub(crate) fn new(reloader: &'a Reloader, edit: Result<Edit, Error>) -> Self {
        Self {
            reloader,
            edit,
            options: ReloadOptions::new(),
        }
    }

    /// Has it made by these options.
    pub fn options(mut self, options: ReloadOptions) -> Self {
        self.options = options;
        self
    }

    /// Has it made by this strategy.
    pub const fn strategy(mut self, strategy: Strategy) -> Self {
        self.options.strategy = Some(strategy);
        self
    }

    /// Only plans.
    pub const fn dry_run(mut self) -> Self {
        self.options.dry_run = true;
        self
    }
}

impl<'a> IntoFuture for Reload<'a> {
    type Output = Result<ReloadReport, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.reloader.edit(self.edit?, self.options).await })
    }
}
