//! One endpoint: the layers of an attempt, from the balancer to the wire.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_plugins_layers::balance::Load;
use tower_plugins_layers::{BoxError, Breaker, CallContext, Credentials};
use tower_service::Service;

use crate::Body;
use crate::transport::{ResponseFuture, Transport};

/// An attempt goes through these from left to right, and its response back.
pub(super) type Endpoint = Breaker<Load<Credentials<Wire>>>;

/// The way to the plugin.
#[derive(Clone)]
pub(super) struct Wire(pub(super) Arc<dyn Transport>);

impl<'a> Service<Request<Body>> for &'a Wire {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = ResponseFuture<'a>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> ResponseFuture<'a> {
        // The context is of this stack's layers; what the plugin should know goes in headers.
        CallContext::detach(&mut request);
        self.0.call(request)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}
