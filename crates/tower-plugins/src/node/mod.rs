//! One plugin as it runs: its spec, its stack of layers, and the parts under them.

mod around;
mod authorize;
mod body;
mod endpoint;
mod health;
mod own;
mod parts;
mod rate_limit;
mod registered;
mod stack;
mod stage;

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;

use http::{Request, Response};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower_plugins_layers::DrainHandle;
use tower_plugins_layers::breaker::BreakerHandle;
use tower_service::Service;

pub use self::around::Next;
use self::body::CallBody;
pub(crate) use self::health::HealthHub;
pub use self::health::{EndpointHealth, HealthReport, HealthStatus, PluginHealth};
use self::own::Own;
pub(crate) use self::own::{OwnLayer, Recipe};
use self::parts::Parts;
use self::stack::Stack;
use crate::Body;
use crate::config::{Address, PluginSpec};
use crate::error::{Error, Kind};
use crate::transport::{Factory, InProcess};

/// What the program registered: services and transports by name, and layers of its own.
#[derive(Debug, Default)]
pub(crate) struct Services {
    by_name: HashMap<String, InProcess>,
    layers: Vec<OwnLayer>,
    recipes: HashMap<String, Recipe>,
    transports: HashMap<String, Factory>,
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
    /// Of those endpoints that have one, in their order.
    breakers: Vec<(Address, BreakerHandle)>,
    drain: DrainHandle,
    gone: CancellationToken,
    _gone: DropGuard,
}

/// The future of a call, which owns its node.
pub(crate) type CallFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

impl Node {
    /// The node of `spec`. Parts of `old` whose slice of the spec is equal go on in it.
    pub(crate) fn build(
        spec: PluginSpec,
        old: Option<&Parts>,
        services: &Services,
    ) -> Result<Self, Error> {
        let name: Arc<str> = spec.name.as_str().into();
        let parts = Parts::build(&spec, old, services).map_err(|error| error.of_plugin(&name))?;
        let drain = DrainHandle::new();
        let breakers = stack::breakers(&spec, &parts);
        let handles = parts.addresses().zip(&breakers);
        let handles = handles
            .filter_map(|(address, breaker)| Some((address.clone(), breaker.as_ref()?.handle())));
        let handles = handles.collect();
        let own = Own {
            plugin: &name,
            by_code: &services.layers,
            by_config: &parts.layers,
        };
        let stack = stack::build(&spec, &parts, breakers, &drain, own)
            .map_err(|error| error.of_plugin(&name))?;
        let gone = CancellationToken::new();
        Ok(Self {
            name,
            spec,
            stack,
            parts,
            breakers: handles,
            drain,
            _gone: gone.clone().drop_guard(),
            gone,
        })
    }

    pub(crate) const fn spec(&self) -> &PluginSpec {
        &self.spec
    }

    pub(crate) const fn parts(&self) -> &Parts {
        &self.parts
    }

    pub(crate) fn breakers(&self) -> &[(Address, BreakerHandle)] {
        &self.breakers
    }

    /// Waits until it is ready, if its spec has it wait.
    pub(crate) async fn ready(&self) -> Result<(), Error> {
        let Some(limit) = self.spec.policy.ready_within else {
            return Ok(());
        };
        let ready = health::ready(self.parts.asks(&self.spec)?, limit).await;
        ready.map_err(|message| Error::caused_by(Kind::Config, message).of_plugin(&self.name))
    }

    /// Has the parts that it shares with the node before it do as its spec says: for when it is published. One that is
    /// never published changes nothing.
    pub(crate) fn take_effect(&self) {
        self.parts.take_effect();
    }

    /// Has its endpoints asked how they are, from now on.
    pub(crate) fn begin_checks(&self, hub: &Arc<HealthHub>) {
        for checker in self.parts.checkers() {
            checker.begin(hub);
        }
        if self.parts.checkers().next().is_some() {
            health::gauge(&self.spec.name, self.health().status);
        }
    }

    /// Has its endpoints asked no more, but for those that `next` goes on asking.
    pub(crate) fn end_checks(&self, next: Option<&Self>) {
        for checker in self.parts.checkers() {
            let mut others = next.into_iter().flat_map(|next| next.parts.checkers());
            if !others.any(|other| Arc::ptr_eq(other, checker)) {
                checker.stop();
            }
        }
    }

    pub(crate) fn health(&self) -> PluginHealth {
        PluginHealth::new(self.parts.health().collect())
    }

    pub(crate) const fn drain(&self) -> &DrainHandle {
        &self.drain
    }

    /// Is cancelled when the last holder of this node has let go of it.
    pub(crate) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// One boxed future, which owns the node and borrows the stack.
    pub(crate) fn call(self: Arc<Self>, request: Request<Body>) -> CallFuture {
        let call = async move {
            let result = {
                // Pinned where it is made: `await` would move it once more. What it ends in is large until it is boxed.
                let mut call = std::pin::pin!((&self.stack).call(request));
                poll_fn(|cx| CallBody::of(call.as_mut().poll(cx))).await
            };
            match result {
                Ok(response) => Ok(response.map(|body| CallBody::hold(body, self))),
                Err(error) => Err(Error::from_stack(error).of_plugin(&self.name)),
            }
        };
        // Made in its place: `Box::pin` would move it there.
        let call: Box<_> = Box::write(Box::new_uninit(), call);
        Box::into_pin(call)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}
