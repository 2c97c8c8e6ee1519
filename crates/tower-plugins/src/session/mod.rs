//! Calls both ways between this program and one running process of a plugin.
//!
//! A plugin that is a process of go-plugin's may call back: this program offers it a service under a number, tells it the number in a call,
//! and the plugin connects to that. The other way round the plugin may offer services beside its first. Such a number means something
//! to one process alone, so that all of it belongs to a [`Session`] with that.
//!
//! ```text
//!   this program                                      the plugin's process
//!   session.serve(callbacks) ─► Offer { id: 7 }
//!   session.call("count, and add by 7")  ───────────►  the call
//!        callbacks  ◄───────────────────────────────── calls what is offered as 7
//!                   ◄─────────────────────────────────  the answer: "I offer 3"
//!   session.connect(3) ─► Channel ──────────────────►  calls what is offered as 3
//! ```
//!
//! ```no_run
//! use http::{Request, Response};
//! use tower_plugins::session::SessionError;
//! use tower_plugins::{Body, Plugins};
//!
//! # async fn example(plugins: Plugins) -> Result<(), SessionError> {
//! let mut session = plugins.plugin("counter").session().await?;
//! // Any service that `Builder::service` takes: one of tonic's, or a `Router` of axum's.
//! let offer = session.serve(tower::service_fn(|_: Request<Body>| async {
//!     Ok::<_, std::io::Error>(Response::new(Body::from("called back")))
//! })).await?;
//! let count = Request::post("/count").body(Body::from(offer.id().to_string()));
//! # let count = count.unwrap();
//! let _response = tower::Service::call(&mut session, count).await?;
//! # Ok(()) }
//! ```
//!
//! Closures are services too: [`Callbacks`] makes one of them, for methods of gRPC.

mod callbacks;
mod channel;
mod offer;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tower_plugins_layers::{BoxError, CallContext};
use tower_plugins_proto::go_plugin::broker::LinkError;
use tower_service::Service;

pub use self::callbacks::Callbacks;
pub use self::channel::{Channel, ChannelFuture};
pub use self::offer::Offer;
use crate::plugin::CallFuture;
use crate::transport::subprocess::Exited;
use crate::transport::{InProcess, Pinned};
use crate::{Body, Error, Plugin};

/// This program's end of one running process of a plugin: for calls of it, and for services that either side offers the other. It is
/// cheap to clone.
///
/// It is a [`Service`] as its [`Plugin`] is, and a call goes through the same layers, but to this process alone: neither to
/// another of its [`instances`](crate::config::ProcessSpec), nor to one that is started in its place. When the process has
/// ended, calls fail with its [`Exited`] in the chain of their errors, and what it was offered is offered no more: it is a new session
/// that reaches the next process. It does not keep the process: a plugin that leaves the config, or is stopped, ends. Its calls and
/// its offers keep one from being idle ([`ProcessSpec::idle_timeout`](crate::config::ProcessSpec)); a session alone, and a [`Channel`] without calls, do not.
///
/// A call is not [split](crate::config) off to another plugin, nor copied to one.
#[derive(Clone)]
pub struct Session {
    plugin: Plugin,
    /// The key by which a balancer knows the process's endpoint.
    endpoint: Arc<str>,
    pinned: Pinned,
}

/// Why there is no session, or nothing offered in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The plugin is not there, or its process is not.
    #[error(transparent)]
    Plugin(#[from] Error),
    /// The plugin has no process that could be called back from.
    #[error(
        "the plugin {0} is no process that speaks go-plugin, and cannot call back: sessions take `transport: subprocess`"
    )]
    NoProcess(String),
    /// No connection, or nobody to accept one.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The process has ended.
    #[error(
        "the process of this session has ended, and a session goes to no other: begin a new one"
    )]
    Ended(#[source] Exited),
}

impl Plugin {
    /// Begins a session with one process of this plugin, which is started if it does not run. Of several that run it is any.
    ///
    /// It waits as a call does: for at most `connection.connection_timeout`, and while the plugin is exchanged.
    ///
    /// # Errors
    /// [`SessionError::Plugin`] as of a call to a plugin that is not in the graph, or whose process is not there;
    /// [`SessionError::NoProcess`] if its transport is another.
    pub async fn session(&self) -> Result<Session, SessionError> {
        let node = self.find(&HeaderMap::new(), None).await?;
        let Some(found) = node.process().await else {
            return Err(SessionError::NoProcess(self.name().to_owned()));
        };
        let (endpoint, pinned) = found
            .map_err(|refused| Error::from_stack(refused.into()).of_plugin(&self.shared_name()))?;
        Ok(Session {
            plugin: self.clone(),
            endpoint: endpoint.into(),
            pinned,
        })
    }
}

impl Session {
    /// The plugin.
    #[must_use]
    pub const fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// Offers the process `service`, under an id that is chosen, until the [`Offer`] is dropped or the process ends.
    ///
    /// Each call gets a clone of `service`; one that panics is answered with an error, as is one that fails.
    ///
    /// # Errors
    /// [`SessionError::Ended`]; [`SessionError::Link`] if more than 1,024 services are offered at once, or no socket can be made.
    pub async fn serve<S, B>(&self, service: S) -> Result<Offer, SessionError>
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.offer(None, service).await
    }

    /// The same under an `id` that both sides know beforehand, above 0.
    ///
    /// # Errors
    /// As of [`serve`](Self::serve), and if `id` is offered already: it is free when [`Offer::finish`] has returned, or a moment after an
    /// [`Offer`] was dropped.
    pub async fn serve_as<S, B>(&self, id: u32, service: S) -> Result<Offer, SessionError>
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.offer(Some(id), service).await
    }

    async fn offer<S, B>(&self, id: Option<u32>, service: S) -> Result<Offer, SessionError>
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let link = self.pinned.link();
        let accepted = match id {
            Some(id) => link.accept_as(id).await,
            None => link.accept().await,
        };
        match accepted {
            Ok(accepted) => {
                let name = format!("{}'s callback {}", self.plugin.name(), accepted.id());
                let service = InProcess::new(&name, service);
                Ok(Offer::new(accepted, service, self.pinned.clone()))
            }
            Err(error) => Err(self.failed(error).await),
        }
    }

    /// Connects to what the process offers as `id`, and waits 5 seconds for it to do so.
    ///
    /// # Errors
    /// [`SessionError::Ended`]; [`SessionError::Link`] if it is not offered, or cannot be reached.
    pub async fn connect(&self, id: u32) -> Result<Channel, SessionError> {
        let connected = tokio::select! {
            biased;
            connected = self.pinned.connect(id) => connected,
            exited = self.pinned.ended() => return Err(SessionError::Ended(exited)),
        };
        match connected {
            Ok(offered) => Ok(Channel::new(id, self.plugin.shared_name(), offered)),
            Err(error) => Err(self.failed(error).await),
        }
    }

    /// Waits until the process has ended.
    pub async fn ended(&self) -> Exited {
        self.pinned.ended().await
    }

    /// `error`, or that the process has ended, which is why.
    async fn failed(&self, error: LinkError) -> SessionError {
        match self.pinned.exited().await {
            Some(exited) => SessionError::Ended(exited),
            None => SessionError::Link(error),
        }
    }

    fn start(&self, mut request: Request<Body>) -> CallFuture {
        let context = CallContext::of(&request).cloned().unwrap_or_default();
        context
            .endpoint(Arc::clone(&self.endpoint))
            .attach(&mut request);
        request.extensions_mut().insert(self.pinned.clone());
        Service::call(&mut &self.plugin, request)
    }
}

impl<B> Service<Request<B>> for Session
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = CallFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> CallFuture {
        self.start(request.map(Body::new))
    }
}

impl<B> Service<Request<B>> for &Session
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = CallFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> CallFuture {
        self.start(request.map(Body::new))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("plugin", &self.plugin)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
