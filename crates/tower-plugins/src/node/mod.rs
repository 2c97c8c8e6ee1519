//! One plugin as it runs: its spec, its stack of layers, and the parts under them.

mod around;
mod authorize;
mod body;
mod credentials;
mod elsewhere;
mod endpoint;
mod health;
mod label;
mod live;
#[cfg(feature = "oauth2")]
mod oauth2;
mod own;
mod parts;
mod rate_limit;
mod registered;
mod score;
mod stack;
mod stage;

#[cfg(all(feature = "subprocess", unix))]
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::FutureExt;
#[cfg(feature = "http")]
use http::{Extensions, StatusCode};
use http::{HeaderMap, Request, Response};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower_plugins_layers::DrainHandle;
#[cfg(all(feature = "subprocess", unix))]
use tower_plugins_layers::Refused;
use tower_plugins_layers::breaker::BreakerHandle;
#[cfg(feature = "http")]
use tower_plugins_layers::drain::DrainHold;
use tower_service::Service;

pub use self::around::Next;
use self::body::CallBody;
use self::elsewhere::Find;
pub(crate) use self::elsewhere::spread;
pub(crate) use self::health::HealthHub;
pub use self::health::{EndpointHealth, HealthReport, HealthStatus, PluginHealth};
pub(crate) use self::live::Source;
use self::live::{Balanced, Follower, Live};
use self::own::Own;
pub(crate) use self::own::{OwnLayer, Recipe};
pub(crate) use self::parts::Inherit;
use self::parts::Parts;
use self::score::Score;
pub(crate) use self::score::Tally;
use self::stack::Stack;
pub(crate) use self::stack::deadline;
use crate::Body;
use crate::config::{Address, PluginSpec};
use crate::error::{Error, Kind};
#[cfg(all(feature = "subprocess", unix))]
use crate::transport::subprocess::OnTerminal;
#[cfg(all(feature = "subprocess", unix))]
use crate::transport::{Attached, GoPlugin, Pinned, Sink};
use crate::transport::{EndFuture, Factory, InProcess, Transport, panic_text};
#[cfg(feature = "http")]
use crate::upgrade::{OnUpgrade, Owner};

/// What the program registered: services, transports and endpoints by name, and layers of its own.
#[derive(Debug, Default)]
pub(crate) struct Services {
    by_name: HashMap<String, InProcess>,
    layers: Vec<OwnLayer>,
    recipes: HashMap<String, Recipe>,
    transports: HashMap<String, Factory>,
    sources: HashMap<String, Source>,
    #[cfg(all(feature = "subprocess", unix))]
    sinks: HashMap<String, Sink>,
    #[cfg(all(feature = "subprocess", unix))]
    terminals: HashMap<String, OnTerminal>,
    plugins: OnceLock<Plugins>,
}

/// Finds plugins by their names.
struct Plugins(Box<Find>);

impl fmt::Debug for Plugins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plugins")
    }
}

impl Services {
    pub(crate) fn insert(&mut self, service: InProcess) {
        self.by_name.insert(service.name().to_owned(), service);
    }

    pub(crate) fn add_layer(&mut self, layer: OwnLayer) {
        self.layers.push(layer);
    }

    pub(crate) fn add_recipe(&mut self, name: &str, recipe: Recipe) {
        self.recipes.insert(name.to_owned(), recipe);
    }

    pub(crate) fn add_transport(&mut self, name: &str, factory: Factory) {
        self.transports.insert(name.to_owned(), factory);
    }

    #[cfg(all(feature = "subprocess", unix))]
    pub(crate) fn add_sink(&mut self, plugin: &str, sink: Sink) {
        self.sinks.insert(plugin.to_owned(), sink);
    }

    /// What takes what `plugin` prints.
    #[cfg(all(feature = "subprocess", unix))]
    fn sink(&self, plugin: &str) -> Option<Sink> {
        self.sinks.get(plugin).cloned()
    }

    #[cfg(all(feature = "subprocess", unix))]
    pub(crate) fn add_terminal(&mut self, plugin: &str, take: OnTerminal) {
        self.terminals.insert(plugin.to_owned(), take);
    }

    /// What takes the terminals of `plugin`.
    #[cfg(all(feature = "subprocess", unix))]
    fn terminal(&self, plugin: &str) -> Option<OnTerminal> {
        self.terminals.get(plugin).cloned()
    }

    pub(crate) fn add_source(&mut self, name: &str, source: Source) {
        self.sources.insert(name.to_owned(), source);
    }

    /// Begins what runs beside the plugins, which `find` finds by name. Within a runtime.
    pub(crate) fn begin(
        &self,
        find: impl Fn(&str, &HeaderMap) -> Option<Arc<Node>> + Send + Sync + 'static,
    ) {
        let _ = self.plugins.set(Plugins(Box::new(find)));
        for source in self.sources.values() {
            source.begin();
        }
    }

    /// The plugin `name`, in the graph that serves, for a call with these headers.
    fn find(&self, name: &str, headers: &HeaderMap) -> Option<Arc<Node>> {
        let plugins = self.plugins.get();
        plugins.and_then(|plugins| plugins.0(name, headers))
    }

    fn source(&self, name: &str) -> Option<&Source> {
        self.sources.get(name)
    }

    fn get(&self, name: &str) -> Option<&InProcess> {
        self.by_name.get(name)
    }
}

/// A plugin in the graph. Whoever has an `Arc` of it holds it: it is gone, and its retirement over,
/// when the last call has let go.
pub(crate) struct Node {
    name: Arc<str>,
    spec: PluginSpec,
    stack: Stack,
    parts: Parts,
    drain: DrainHandle,
    /// Follows what endpoints there are, where that changes.
    follower: Option<Follower>,
    /// What becomes of its calls, once somebody wants to know.
    score: OnceLock<Box<Score>>,
    gone: CancellationToken,
    gone_guard: Arc<DropGuard>,
}

/// The future of a call, which owns its node.
pub(crate) type CallFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

impl Node {
    /// The node of `spec`. Parts of `old` whose slice of the spec is equal go on in it.
    pub(crate) fn build(
        spec: PluginSpec,
        old: Option<&Self>,
        inherit: Inherit,
        services: &Arc<Services>,
    ) -> Result<Self, Error> {
        let name: Arc<str> = spec.name.as_str().into();
        // Unwind safe: what was begun is dropped, and the old node is only read.
        let made = catch_unwind(AssertUnwindSafe(|| {
            Self::made(spec, old, inherit, services)
        }));
        made.unwrap_or_else(|panic| {
            let why = format!("it panicked when it was made: {}", panic_text(&*panic));
            Err(Error::caused_by(Kind::Config, why).of_plugin(&name))
        })
    }

    fn made(
        spec: PluginSpec,
        old: Option<&Self>,
        inherit: Inherit,
        services: &Arc<Services>,
    ) -> Result<Self, Error> {
        let name: Arc<str> = spec.name.as_str().into();
        let old = old.map(|old| &old.parts);
        let parts =
            Parts::build(&spec, old, inherit, services).map_err(|error| error.of_plugin(&name))?;
        let (balanced, follower) =
            balanced(&spec, &parts, services).map_err(|error| error.of_plugin(&name))?;
        let drain = DrainHandle::new();
        let own = Own {
            plugin: &name,
            by_code: &services.layers,
            by_config: &parts.layers,
        };
        let stack = stack::build(&spec, &parts, balanced, &drain, own, services)
            .map_err(|error| error.of_plugin(&name))?;
        let gone = CancellationToken::new();
        Ok(Self {
            name,
            spec,
            stack,
            parts,
            drain,
            follower,
            score: OnceLock::new(),
            gone_guard: Arc::new(gone.clone().drop_guard()),
            gone,
        })
    }

    pub(crate) const fn spec(&self) -> &PluginSpec {
        &self.spec
    }

    /// Of those endpoints that have one, in their order.
    pub(crate) fn breakers(&self) -> Vec<(Address, BreakerHandle)> {
        let endpoints = self.parts.endpoints.now();
        let breakers = endpoints.iter().filter_map(|parts| {
            let breaker = stack::breaker(&self.spec, parts)?;
            Some((parts.address.clone(), breaker.handle()))
        });
        breakers.collect()
    }

    /// Has what waits at its endpoints to be started again start at once.
    pub(crate) fn revive(&self) {
        for parts in &*self.parts.endpoints.now() {
            parts.transport.revive();
        }
    }

    /// Waits until it is ready, for `limit` at the most; `why` is what has it wait.
    pub(crate) async fn ready(&self, limit: Duration, why: &str) -> Result<(), Error> {
        let mut left = limit;
        if let Some(follower) = &self.follower {
            let begun = Instant::now();
            if timeout(limit, follower.found()).await.is_err() {
                let message = health::not_ready(limit, why) + "; it has no endpoint";
                return Err(Error::caused_by(Kind::Config, message).of_plugin(&self.name));
            }
            left = limit.saturating_sub(begun.elapsed());
        }
        let ready = health::ready(self.parts.asks(&self.spec), left, || {
            health::not_ready(limit, why)
        })
        .await;
        ready.map_err(|message| Error::caused_by(Kind::Config, message).of_plugin(&self.name))
    }

    /// Has the parts that it shares with the node before it do as its spec says: for when it is published. One that is
    /// never published changes nothing.
    pub(crate) fn take_effect(&self) {
        self.parts.take_effect();
    }

    /// Has its endpoints asked how they are, from now on.
    pub(crate) fn begin_checks(&self, hub: &Arc<HealthHub>) {
        self.parts.endpoints.tell(Some(hub));
        let checkers = self.parts.endpoints.checkers();
        for checker in &checkers {
            // One that cannot run twice is there as long as it is asked.
            let is_exclusive = self.spec.policy.exclusive;
            checker.begin(hub, is_exclusive.then(|| Arc::clone(&self.gone_guard)));
        }
        if !checkers.is_empty() {
            health::gauge(&self.spec.name, self.health().status);
        }
    }

    /// Has its endpoints asked no more, but for those that `next` goes on asking.
    pub(crate) fn end_checks(&self, next: Option<&Self>) {
        self.parts.endpoints.tell(None);
        let others = next.map(|next| next.parts.endpoints.checkers());
        let others = others.unwrap_or_default();
        for checker in self.parts.endpoints.checkers() {
            if !others.iter().any(|other| Arc::ptr_eq(other, &checker)) {
                checker.stop();
            }
        }
    }

    pub(crate) fn health(&self) -> PluginHealth {
        PluginHealth::new(self.parts.endpoints.health())
    }

    pub(crate) const fn drain(&self) -> &DrainHandle {
        &self.drain
    }

    /// The end of each of its ways to an endpoint, for when it is gone itself.
    pub(crate) fn ends(&self) -> Vec<WayEnd> {
        let endpoints = self.parts.endpoints.now();
        let ends = endpoints.iter().map(|parts| WayEnd {
            transport: Arc::downgrade(&parts.transport),
            asked: parts.checker.as_ref().and_then(|checker| checker.over()),
            end: parts.transport.end(),
        });
        // Most have begun nothing.
        ends.filter_map(WayEnd::pending).collect()
    }

    /// A process that its calls go to, and the key of its endpoint; of several it is any that runs, or can be started. `None` if its
    /// endpoints are none that can call back.
    #[cfg(all(feature = "subprocess", unix))]
    pub(crate) async fn process(&self) -> Option<Result<(String, Pinned), Refused>> {
        let endpoints = self.parts.endpoints.now();
        let first = fastrand::usize(..endpoints.len().max(1));
        let (before, after) = endpoints.split_at_checked(first)?;
        let mut refused = None;
        for parts in after.iter().chain(before) {
            let transport: &dyn Any = &*parts.transport;
            let pinned = match (
                transport.downcast_ref::<GoPlugin>(),
                transport.downcast_ref::<Attached>(),
            ) {
                (Some(plugin), _) => plugin.pinned().await,
                (None, Some(attached)) => attached.pinned().await,
                (None, None) => continue,
            };
            match pinned {
                Ok(pinned) => return Some(Ok((parts.address.to_string(), pinned))),
                Err(error) => refused = Some(Err(error)),
            }
        }
        refused
    }

    /// Is cancelled when the last holder of this node has let go of it.
    pub(crate) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// One boxed future, which owns the node and borrows the stack.
    pub(crate) fn call(self: Arc<Self>, request: Request<Body>) -> CallFuture {
        let call = async move {
            let begun = self.score.get().map(|score| score.begin(&request));
            let result = {
                // Pinned where it is made: `await` would move it once more. What it ends in is large until it is boxed.
                let mut call = std::pin::pin!((&self.stack).call(request));
                poll_fn(|cx| CallBody::of(call.as_mut().poll(cx))).await
            };
            match result {
                #[cfg_attr(not(feature = "http"), allow(unused_mut))]
                Ok(mut response) => {
                    #[cfg(feature = "http")]
                    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                        self.keep_upgraded(response.extensions_mut());
                    }
                    let begun = begun.and_then(|call| self.score.get()?.head(call, &response));
                    Ok(response.map(|body| CallBody::hold(body, self, begun)))
                }
                Err(error) => {
                    if let (Some(score), Some(call)) = (self.score.get(), begun) {
                        score.failed(call, &*error);
                    }
                    Err(Error::from_stack(error).of_plugin(&self.name))
                }
            }
        };
        // Made in its place: `Box::pin` would move it there.
        let call: Box<_> = Box::write(Box::new_uninit(), call);
        Box::into_pin(call)
    }

    /// Makes the connection that a response with these leaves one of this node.
    #[cfg(feature = "http")]
    fn keep_upgraded(self: &Arc<Self>, extensions: &mut Extensions) {
        if let (Some(upgrade), Some(drain)) = (
            extensions.get::<OnUpgrade>().cloned(),
            extensions.remove::<DrainHold>(),
        ) {
            upgrade.belongs_to(Owner {
                plugin: Arc::clone(&self.name),
                _node: Arc::<Self>::clone(self),
                drain,
                stream_idle: self.spec.policy.stream_idle_timeout,
            });
        }
    }
}

/// The end of a way to an endpoint.
pub(crate) struct WayEnd {
    transport: Weak<dyn Transport>,
    /// Who asks how the endpoint is, if that was told to stop.
    asked: Option<CancellationToken>,
    end: EndFuture,
}

impl WayEnd {
    fn pending(mut self) -> Option<Self> {
        (&mut self.end).now_or_never().is_none().then_some(self)
    }

    /// Waits for it, unless the way goes on in another node.
    pub(crate) async fn wait(self) {
        if let Some(asked) = self.asked {
            asked.cancelled().await;
        }
        if self.transport.strong_count() == 0 {
            self.end.await;
        }
    }
}

/// What picks an endpoint for each attempt, and what keeps the set of them current.
fn balanced(
    spec: &PluginSpec,
    parts: &Parts,
    services: &Arc<Services>,
) -> Result<(Balanced, Option<Follower>), Error> {
    let Some(entries) = parts.entries(spec, services)? else {
        let fixed = stack::fixed(spec, parts);
        return Ok((Balanced::Fixed(fixed), None));
    };
    let live = Arc::new(Live::new(spec, parts, services));
    let follower = live.follow(entries);
    Ok((Balanced::Live(live), Some(follower)))
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}
