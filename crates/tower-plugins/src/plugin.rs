//! The handle to one plugin.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response};
use tokio::time::Instant;
use tower_plugins_layers::{BoxError, CallContext, Reason};
use tower_service::Service;

use crate::Body;
use crate::call::{self, Invoke, Method, PluginInfo};
use crate::embed::{ForwardAuth, GrpcProxy, Route};
use crate::error::{Error, Kind};
use crate::graph::{Found, GraphCell};
use crate::node::{self, Node, PluginHealth};

/// A handle to one plugin, by name: cheap to clone, and always ready.
///
/// It is a [`Service`] of `http::Request<B>` for any body `B` of [`Bytes`], so that it can be called
/// as it is, mounted in axum with [`into_route`](Self::into_route), and given to a tonic-generated
/// client as its channel. [`invoke`](Self::invoke) makes a typed call.
///
/// Each call looks the name up in the graph that serves at that moment, and stays with what it found
/// until the last byte of its response.
///
/// # Cancellation
/// Dropping the future of a call, or the body of its response, ends the call.
#[derive(Clone)]
pub struct Plugin {
    name: Arc<str>,
    cell: Arc<GraphCell>,
}

impl Plugin {
    pub(crate) const fn new(name: Arc<str>, cell: Arc<GraphCell>) -> Self {
        Self { name, cell }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Makes a typed call: await it as it is, or set a timeout, headers and more before.
    pub fn invoke<'a, Req: ?Sized, Res, C>(
        &'a self,
        method: &'a Method<Req, Res, C>,
        request: &'a Req,
    ) -> Invoke<'a, Req, Res, C> {
        Invoke::new(self, method, request)
    }

    /// This plugin as a service that answers errors with responses, for routers that want that:
    /// `axum::Router::route_service("/x", plugin.into_route())`.
    #[must_use]
    pub const fn into_route(self) -> Route {
        Route::new(self)
    }

    /// This plugin as a gRPC service that passes on each call to it, whatever its messages are: for tonic's `Routes`, and
    /// for axum routers.
    #[must_use]
    pub const fn into_grpc_proxy(self) -> GrpcProxy {
        GrpcProxy::new(self)
    }

    /// This plugin as what a [`FilterLayer`](tower_plugins_layers::FilterLayer) asks about each call, with a `GET` of
    /// `path`.
    #[must_use]
    pub const fn into_forward_auth(self, path: PathAndQuery) -> ForwardAuth {
        ForwardAuth::new(self, path)
    }

    /// How it is, as [`Plugins::health`](crate::Plugins::health) says; `None` if it is not in the graph.
    #[must_use]
    pub fn health(&self) -> Option<PluginHealth> {
        let graph = self.cell.load();
        graph.node(&self.name).map(|node| node.health())
    }

    /// Opens a typed stream, over gRPC: `requests` go to the plugin one by one, and its answers come back as
    /// they are. Await it as it is, or set a timeout and headers before.
    ///
    /// ```
    /// use tower_plugins::call::Method;
    ///
    /// static UPPER: Method<String, String> = Method::post("/upper");
    ///
    /// # async fn shout(plugin: tower_plugins::Plugin) -> Result<(), tower_plugins::Error> {
    /// let words = futures_util::stream::iter(["one", "two"].map(str::to_owned));
    /// let mut answers = plugin.invoke_stream(&UPPER, words).await?;
    /// while let Some(answer) = answers.next().await {
    ///     println!("{}", answer?);
    /// }
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "grpc")]
    pub fn invoke_stream<'a, S, Req: ?Sized, Res, C>(
        &'a self,
        method: &'a Method<Req, Res, C>,
        requests: S,
    ) -> call::InvokeStream<'a, S, Req, Res, C> {
        call::InvokeStream::new(self, method, requests)
    }

    /// What the plugin says of itself: over gRPC by `tower_plugins.v1.Plugin/Info`, over HTTP by `GET /info`. One
    /// that has no such answer (`UNIMPLEMENTED`; 404, 405 or 501), and a service of the program, is what its config
    /// says.
    ///
    /// It is a call like any other, through the plugin's whole stack.
    ///
    /// ```
    /// # use tower_plugins::{Body, Plugins, call::InfoSource, config::{Config, PluginSpec}};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let hello = tower::service_fn(|_: http::Request<Body>| async {
    /// #     Ok::<_, std::io::Error>(http::Response::new(Body::empty()))
    /// # });
    /// # let config = Config::new().with(PluginSpec::in_process("greeter", "hello")?);
    /// # let plugins = Plugins::builder().service("hello", hello).start(config).await?;
    /// let info = plugins.plugin("greeter").info().await?;
    /// assert_eq!((info.name.as_str(), info.source), ("greeter", InfoSource::Config));
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// Those of a call, and `answer` or `decode` for an answer that is another status or no description.
    pub async fn info(&self) -> Result<PluginInfo, Error> {
        call::info(self).await
    }

    /// The node for a call with these headers. While the plugin is exchanged, that takes until it is there again, until
    /// `limit` at the latest.
    pub(crate) async fn find(
        &self,
        headers: &HeaderMap,
        mut limit: Option<Instant>,
    ) -> Result<Arc<Node>, Error> {
        let mut found = self.cell.find(&self.name, headers);
        while let Found::Held(held) = found {
            let refused = |reason| Error::new(Kind::Refused(reason)).of_plugin(&self.name);
            limit = held.limit(headers, limit);
            let gate = held.gate();
            let waiting = gate.enter().ok_or_else(|| refused(Reason::Draining))?;
            let opened = waiting.opened(limit).await;
            opened.map_err(|_| refused(Reason::DeadlineExceeded))?;
            found = self.cell.find(&self.name, headers);
            // Who was to bring it back is gone.
            if matches!(&found, Found::Held(same) if Arc::ptr_eq(same.gate(), gate)) {
                break;
            }
        }
        self.found(found)
    }

    fn found(&self, found: Found) -> Result<Arc<Node>, Error> {
        let kind = match found {
            Found::Node(node) => return Ok(node),
            Found::Held(_) => Kind::Refused(Reason::Draining),
            Found::Nothing => Kind::NotFound,
            Found::Shutdown => Kind::Shutdown,
        };
        Err(Error::new(kind).of_plugin(&self.name))
    }

    fn start(&self, mut request: Request<Body>) -> CallFuture {
        if CallContext::of(&request).is_none() {
            CallContext::new().attach(&mut request);
        }
        let state = match self.cell.find(&self.name, request.headers()) {
            Found::Held(_) => State::Calling(Box::pin(self.clone().held(request))),
            found => match self.found(found) {
                Ok(node) => State::Calling(node.call(request)),
                Err(error) => State::Failed(Some(error)),
            },
        };
        CallFuture { state }
    }

    /// A call that waits for its plugin first.
    async fn held(self, request: Request<Body>) -> Result<Response<Body>, Error> {
        let limit = CallContext::of(&request).and_then(CallContext::deadline);
        let node = self.find(request.headers(), limit).await?;
        node.call(request).await
    }
}

impl<B> Service<Request<B>> for Plugin
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

impl<B> Service<Request<B>> for &Plugin
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

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The future of a call to a [`Plugin`].
#[must_use = "futures do nothing unless polled"]
pub struct CallFuture {
    state: State,
}

enum State {
    Calling(node::CallFuture),
    Failed(Option<Error>),
}

impl Future for CallFuture {
    type Output = Result<Response<Body>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Calling(call) => call.as_mut().poll(cx),
            State::Failed(error) => {
                Poll::Ready(Err(error.take().unwrap_or_else(|| Error::new(Kind::Other))))
            }
        }
    }
}

impl fmt::Debug for CallFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").finish_non_exhaustive()
    }
}
