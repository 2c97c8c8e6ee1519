//! The running set of plugins.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;
use tower_plugins_layers::breaker::BreakerHandle;

use crate::config::{Address, Config, PluginName, PluginSpec};
use crate::error::{Error, Kind};
use crate::graph::{Entry, Generation, GraphCell};
use crate::node::{HealthHub, HealthReport};
use crate::reload::{
    Edit, HistoryEntry, PluginDrain, Reload, ReloadEvent, ReloadStatus, Reloader, ShutdownReport,
};
use crate::{Builder, Plugin};

/// The running set of plugins: made from a [`Config`], changed by [`reload`](Self::reload) or by its
/// file, asked for a [`Plugin`] by name.
///
/// It is a handle: clones are the same set. When the last clone is dropped, the config is no longer
/// watched; [`Plugin`]s taken before go on working on the graph as it is.
///
/// ```
/// use http::{Request, Response};
/// use tower::{Service, ServiceExt, service_fn};
/// use tower_plugins::{Body, Plugins, config::{Config, PluginSpec}};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let config = Config::default().with(PluginSpec::in_process("greeter", "hello")?);
/// let plugins = Plugins::builder()
///     .service("hello", service_fn(|_: Request<Body>| async {
///         Ok::<_, std::convert::Infallible>(Response::new(Body::from("hello")))
///     }))
///     .start(config)
///     .await?;
/// let response = plugins.plugin("greeter").oneshot(Request::new(Body::empty())).await?;
/// assert_eq!(response.status(), 200);
/// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Plugins {
    cell: Arc<GraphCell>,
    health: Arc<HealthHub>,
    owner: Arc<Owner>,
}

/// The tasks, which end with the last handle.
#[derive(Debug)]
struct Owner {
    reloader: Arc<Reloader>,
    /// Of the config's file, if that is watched.
    watcher: Option<AbortHandle>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
    }
}

impl Plugins {
    pub(crate) fn new(
        cell: Arc<GraphCell>,
        health: Arc<HealthHub>,
        reloader: Arc<Reloader>,
        watcher: Option<AbortHandle>,
    ) -> Self {
        Self {
            cell,
            health,
            owner: Arc::new(Owner { reloader, watcher }),
        }
    }

    /// Starts to describe a set.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The plugin `name`. Any name will do: whether there is such a plugin is found by each call, so
    /// that a handle may be taken before its plugin is configured and outlives its reloads.
    #[must_use]
    pub fn plugin(&self, name: &str) -> Plugin {
        Plugin::new(name.into(), Arc::clone(&self.cell))
    }

    /// The names of the plugins in the graph that serves, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let graph = self.cell.load();
        let mut names: Vec<_> = graph.names().map(ToString::to_string).collect();
        names.sort_unstable();
        names
    }

    /// Calls under way on what serves `name` now; zero when there is none.
    #[must_use]
    pub fn active_requests(&self, name: &str) -> usize {
        let graph = self.cell.load();
        let nodes = graph.entry(name).into_iter().flat_map(Entry::nodes);
        nodes.map(|node| node.drain().active()).sum()
    }

    /// The circuit breakers of the plugin `name` as it is now: each endpoint's address, and the handle to watch it
    /// and to steer it by. Without such a plugin, or with `circuit_breaker: off`, there are none.
    ///
    /// What a breaker remembers belongs to the address: a handle works on through reloads, and one that is forced open
    /// stays so, as long as the plugin has the address. Of an address that comes back later the breaker is a new one.
    ///
    /// ```
    /// use tokio::time::Instant;
    /// use tower_plugins::{Plugins, config::{Config, PluginSpec}};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let config = Config::new().with(PluginSpec::http("search", "http://10.0.0.1:8080")?);
    /// let plugins = Plugins::builder().start(config).await?;
    /// for (address, breaker) in plugins.breakers("search") {
    ///     // No call goes there until `reset`.
    ///     breaker.force_open();
    ///     println!("{address}: {:?}", breaker.snapshot(Instant::now()));
    /// }
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn breakers(&self, name: &str) -> Vec<(Address, BreakerHandle)> {
        let graph = self.cell.load();
        let node = graph.node(name);
        node.map_or_else(Vec::new, |node| node.breakers())
    }

    /// How the plugins are, as far as their `health_check` has them asked; without one they are
    /// [`Unknown`](crate::HealthStatus::Unknown).
    ///
    /// ```
    /// use tower_plugins::{HealthStatus, Plugins, config::{Config, Format}};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let config = Config::parse("
    ///     plugins:
    ///       search:
    ///         transport: http
    ///         endpoint: http://127.0.0.1:8080
    ///         health_check: { endpoint: /healthz, interval: 10s }
    ///     ", Format::Yaml)?;
    /// let plugins = Plugins::builder().start(config).await?;
    /// let health = plugins.health();
    /// // Nobody has asked it yet.
    /// assert_eq!(health.plugin("search").unwrap().status, HealthStatus::Unknown);
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn health(&self) -> HealthReport {
        self.cell.load().health()
    }

    /// Follows how the plugins are: the channel has a new report whenever an endpoint is not what it was, or there are
    /// other endpoints. Its times are those of that moment; [`health`](Self::health) has the latest.
    #[must_use]
    pub fn subscribe_health(&self) -> watch::Receiver<HealthReport> {
        self.health.subscribe()
    }

    /// Makes `config` what runs, in one step: every call that begins later sees all of it. What the program has
    /// changed of single plugins stays, but for those of which `config` says something else than the one before.
    ///
    /// What is equal is kept as it is, with its connections and histories; nodes that leave finish
    /// their calls within their drain timeout. [`Reload::options`] and the config's block `reload` have other ways.
    pub fn reload(&self, config: Config) -> Reload<'_> {
        self.change(Ok(Edit::Base(Box::new(config))))
    }

    /// Has the plugin that `spec` names be as it says, whether it is there or not. This stands over what the file says
    /// of it, until the file says something else of it, or [`clear_overlay`](Self::clear_overlay).
    ///
    /// ```
    /// use tower_plugins::{Plugins, config::{Config, PluginSpec}};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let plugins = Plugins::builder().start(Config::new()).await?;
    /// plugins.update(PluginSpec::http("search", "http://10.0.0.1:8080")?).await?;
    /// assert_eq!(plugins.names(), ["search"]);
    /// let report = plugins.remove("search").await?;
    /// assert_eq!(report.to_string(), "generation 3: remove search");
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn update(&self, spec: PluginSpec) -> Reload<'_> {
        self.change(Ok(Edit::Update(Box::new(spec))))
    }

    /// Takes the plugin `name` out, whatever the file says of it. Without such a plugin it fails with
    /// [`Error::is_not_found`].
    pub fn remove(&self, name: &str) -> Reload<'_> {
        self.change_one(name, Edit::Remove)
    }

    /// Brings the plugin `name` back that was [disabled](Self::disable), or that the file has with `enabled: false`; and
    /// lets one take calls again that was [drained](Self::drain).
    pub fn enable(&self, name: &str) -> Reload<'_> {
        self.change_one(name, Edit::Enable)
    }

    /// Takes the plugin `name` out until it is [enabled](Self::enable).
    pub fn disable(&self, name: &str) -> Reload<'_> {
        self.change_one(name, Edit::Disable)
    }

    /// Has the plugin `name` be as the file says again.
    pub fn clear_overlay(&self, name: &str) -> Reload<'_> {
        self.change_one(name, Edit::Clear)
    }

    /// Has run again what served as `generation`, what the program had changed then included. The
    /// [history](Self::history) has the generations; one that it has no more is an error.
    pub fn rollback(&self, generation: Generation) -> Reload<'_> {
        self.change(self.owner.reloader.restore(generation))
    }

    fn change(&self, edit: Result<Edit, Error>) -> Reload<'_> {
        Reload::new(&self.owner.reloader, edit)
    }

    fn change_one(&self, name: &str, edit: impl FnOnce(PluginName) -> Edit) -> Reload<'_> {
        let none = || Error::new(Kind::NotFound).of_plugin(&name.into());
        self.change(PluginName::new(name).map(edit).ok_or_else(none))
    }

    /// Refuses new calls to the plugin `name` from now on, and waits for those under way once it is awaited.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_plugins::{Plugins, config::{Config, PluginSpec}};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let config = Config::new().with(PluginSpec::http("search", "http://10.0.0.1:8080")?);
    /// let plugins = Plugins::builder().start(config).await?;
    /// let drained = plugins.drain("search").timeout(Duration::from_secs(5)).await?;
    /// assert_eq!(drained.calls, 0);
    /// // Serves again.
    /// plugins.enable("search").await?;
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn drain(&self, name: &str) -> PluginDrain {
        PluginDrain::begin(name, self.cell.load().entry(name))
    }

    /// Has the processes of the plugin `name` started at once that wait to be, because they ended too often, and forgets how often that
    /// was: for one whose cause is mended. Those that run are left as they are, and so are breakers. A
    /// [transport of the program's own](crate::transport::Transport::revive) may know what to do, too. Without such a plugin it does nothing.
    ///
    /// ```
    /// use tower_plugins::{Plugins, config::Config};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let plugins = Plugins::builder().start(Config::new()).await?;
    /// plugins.revive("greeter");
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn revive(&self, name: &str) {
        let graph = self.cell.load();
        let nodes = graph.entry(name).into_iter().flat_map(Entry::nodes);
        nodes.for_each(|node| node.revive());
    }

    /// What happens to reloads from now on, as it happens. Who is more than 1024 events behind loses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<ReloadEvent> {
        self.owner.reloader.events()
    }

    /// The last generations, the newest last: as many as `reload.history` says.
    #[must_use]
    pub fn history(&self) -> Vec<HistoryEntry> {
        self.owner.reloader.history()
    }

    /// How reloading stands.
    #[must_use]
    pub fn status(&self) -> ReloadStatus {
        self.owner.reloader.status().borrow().clone()
    }

    /// How reloading stands, now and at every change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<ReloadStatus> {
        self.owner.reloader.status().clone()
    }

    /// Refuses new calls, lets those under way finish within `timeout` and their plugins' drain
    /// timeouts, and cancels the rest. So ends what earlier reloads took out of the graph.
    ///
    /// # Errors
    /// When the set is shut down already.
    pub async fn shutdown(&self, timeout: Duration) -> Result<ShutdownReport, Error> {
        if let Some(watcher) = &self.owner.watcher {
            watcher.abort();
        }
        self.owner.reloader.shutdown(timeout).await
    }
}
