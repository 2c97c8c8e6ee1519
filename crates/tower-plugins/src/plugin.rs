//! The handle to one plugin.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tower_plugins_layers::{BoxError, CallContext};
use tower_service::Service;

use crate::Body;
use crate::call::{Invoke, Method};
use crate::embed::Route;
use crate::error::{Error, Kind};
use crate::graph::{Found, GraphCell};
use crate::node::{self, PluginHealth};

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

    /// How it is, as [`Plugins::health`](crate::Plugins::health) says; `None` if it is not in the graph.
    #[must_use]
    pub fn health(&self) -> Option<PluginHealth> {
        match self.cell.find(&self.name) {
            Found::Node(node) => Some(node.health()),
            Found::Nothing | Found::Shutdown => None,
        }
    }

    fn start(&self, mut request: Request<Body>) -> CallFuture {
        let kind = match self.cell.find(&self.name) {
            Found::Node(node) => {
                if CallContext::of(&request).is_none() {
                    CallContext::new().attach(&mut request);
                }
                return CallFuture {
                    state: State::Calling(node.call(request)),
                };
            }
            Found::Nothing => Kind::NotFound,
            Found::Shutdown => Kind::Shutdown,
        };
        CallFuture {
            state: State::Failed(Some(Error::new(kind).of_plugin(&self.name))),
        }
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
