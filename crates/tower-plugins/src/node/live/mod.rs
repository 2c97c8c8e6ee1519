//! Endpoints that come and go while their node runs.
//!
//! ```text
//!  the program's stream ──► Source ─┐
//!  the name servers ──────► Name ───┼─► Entries ─► follow ─► Live ─► EndpointSet, which calls pick from
//!  the config ──────────────────────┘   a list     a task of the node
//! ```
//!
//! What an endpoint has, its connections, breaker, estimates and ejections, are its parts, which are kept by its
//! address: in the set while it stays, and from node to node.

#[cfg(feature = "dns")]
mod dns;
mod entries;
mod source;

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::Request;
use metrics::Gauge;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tower_plugins_layers::balance::{EndpointSet, LiveBalance};
use tower_plugins_layers::{Balance, BoxError, OutlierDetector, Reason, Refused, ReplayBody};
use tower_service::Service;

#[cfg(feature = "dns")]
pub(super) use self::dns::Name;
pub(super) use self::entries::Entries;
use self::entries::Found;
pub(crate) use self::source::Source;
use super::Services;
use super::credentials::Credentials;
use super::endpoint::EndpointStack;
use super::health::{EndpointHealth, with_causes};
use super::label::{Label, Labels};
use super::parts::{EndpointParts, Endpoints, Parts};
use super::stack;
use super::stage::members;
use crate::Body;
use crate::config::{Address, PluginSpec};
use crate::error::Error;

type Attempt = Request<ReplayBody<Body>>;
type Answer = <&'static EndpointStack as Service<Attempt>>::Response;
type CallFuture<'a> = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send + 'a>>;

/// Picks an endpoint for each attempt.
#[derive(Debug)]
pub(super) enum Balanced {
    /// Of those of the config, which are always the same.
    Fixed(Balance<EndpointStack>),
    Live(Arc<Live>),
}

impl<'a> Service<Attempt> for &'a Balanced {
    type Response = Answer;
    type Error = BoxError;
    type Future = Either<<&'a Balance<EndpointStack> as Service<Attempt>>::Future, CallFuture<'a>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Attempt) -> Self::Future {
        match self {
            Balanced::Fixed(balance) => Either::Left({ balance }.call(request)),
            Balanced::Live(live) => Either::Right(Box::pin(async move {
                live.known().await;
                let called = (&mut &live.balance).call(request).await;
                called.map_err(|error| live.explained(error))
            })),
        }
    }
}

/// The set of a node, and what its endpoints are made of.
pub(super) struct Live {
    spec: PluginSpec,
    services: Arc<Services>,
    credentials: Credentials,
    outliers: Option<OutlierDetector>,
    parts: Endpoints,
    labels: Labels,
    balance: LiveBalance<Shared>,
    endpoints: Gauge,
    /// Whether anything has been said of what endpoints there are.
    is_known: watch::Sender<bool>,
}

impl Live {
    pub(super) fn new(spec: &PluginSpec, parts: &Parts, services: &Arc<Services>) -> Self {
        let plugin = spec.name.as_str().to_owned();
        Self {
            spec: spec.clone(),
            services: Arc::clone(services),
            credentials: parts.credentials.clone(),
            outliers: parts.outliers.clone(),
            parts: parts.endpoints.clone(),
            labels: parts.labels.clone(),
            balance: EndpointSet::new(stack::balance(&spec.policy.balance)).balance(),
            endpoints: metrics::gauge!("plugin_endpoints", "plugin_name" => plugin),
            is_known: watch::Sender::new(false),
        }
    }

    /// Makes the set what `entries` say, now and from now on, for as long as the follower is there.
    pub(super) fn follow(self: &Arc<Self>, mut entries: Entries) -> Follower {
        self.take(&mut entries);
        let live = Arc::clone(self);
        let task = tokio::spawn(async move {
            loop {
                entries.changed().await;
                live.take(&mut entries);
            }
        });
        Follower {
            live: Arc::clone(self),
            task: task.abort_handle(),
        }
    }

    /// Waits until something is known, as a call does for a name to be resolved.
    async fn known(&self) {
        if !*self.is_known.borrow() {
            // It does not fail: the sender is here.
            let _ = self.is_known.subscribe().wait_for(|known| *known).await;
        }
    }

    fn take(&self, entries: &mut Entries) {
        let Some(list) = entries.now() else {
            return;
        };
        let old = self.parts.now();
        let mut new = HashMap::with_capacity(list.len());
        let mut parts = Vec::with_capacity(list.len());
        let mut placed = Vec::with_capacity(list.len());
        let mut left_out = Vec::new();
        for Found { spec: endpoint, by } in &list {
            let (key, meta) = stack::placed(endpoint);
            if new.contains_key(&key) {
                continue;
            }
            let address = &endpoint.address;
            let label = || match by {
                Some(by) => self.labels.found(by),
                None => Label::fixed(&address.shown()),
            };
            let (spec, shown) = (&self.spec, &self.credentials);
            match EndpointParts::build(address, label, spec, shown, &old, &self.services) {
                Ok(part) => {
                    parts.push(part.clone());
                    new.insert(key.clone(), part);
                    placed.push((key, meta));
                }
                Err(error) => left_out.push(left_out_for(address, &error)),
            }
        }
        self.leave_out(left_out);
        self.endpoints.set(parts.len() as f64);
        self.parts.set(parts);
        self.balance.set().replace(placed, |key, _| {
            let outliers = self.outliers.as_ref();
            let stack = stack::endpoint(&self.spec, &new[key], outliers);
            Shared(Arc::new(stack))
        });
        self.parts.check(&self.spec.name);
        self.is_known.send_replace(true);
    }

    fn leave_out(&self, endpoints: Vec<EndpointHealth>) {
        for endpoint in self.parts.leave_out(endpoints) {
            tracing::warn!(
                plugin.name = %self.spec.name,
                server.address = endpoint.address.shown(),
                error = endpoint.message.unwrap_or_default(),
                "an endpoint cannot be made, and is left out",
            );
        }
    }

    /// The error of a call that no endpoint took, which says why none is there that could have.
    fn explained(&self, error: BoxError) -> BoxError {
        let is_empty = self.balance.set().is_empty();
        if !is_empty || Reason::of(&*error) != Some(Reason::NoEndpoint) {
            return error;
        }
        match self.parts.why_left_out() {
            Some(why) => Refused::new(Reason::NoEndpoint).caused_by(why).into(),
            None => error,
        }
    }
}

fn left_out_for(address: &Address, error: &Error) -> EndpointHealth {
    let refused = error.config().map(ToString::to_string);
    let why = refused.unwrap_or_else(|| with_causes(error));
    EndpointHealth::left_out(address.clone(), why)
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Live").field(self.balance.set()).finish()
    }
}

/// The task of a node that follows what endpoints there are. It ends with this.
#[derive(Debug)]
pub(super) struct Follower {
    live: Arc<Live>,
    task: AbortHandle,
}

impl Follower {
    /// Waits until there is an endpoint.
    pub(super) async fn found(&self) {
        let mut told = self.live.is_known.subscribe();
        let is_there = |known: &bool| *known && !self.live.parts.now().is_empty();
        // It does not fail: the sender is here.
        let _ = told.wait_for(is_there).await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An endpoint, which a call holds when it has left the set.
#[derive(Clone)]
struct Shared(Arc<EndpointStack>);

members!(Shared);

impl Service<Attempt> for Shared {
    type Response = Answer;
    type Error = BoxError;
    type Future = CallFuture<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Attempt) -> Self::Future {
        let endpoint = Arc::clone(&self.0);
        Box::pin(async move { Service::call(&mut &*endpoint, request).await })
    }
}
