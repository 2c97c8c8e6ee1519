//! One endpoint: the layers of an attempt, from the balancer to the wire.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use tower_plugins_layers::balance::Load;
use tower_plugins_layers::classify::ClassifyPolicy;
use tower_plugins_layers::{
    BoxError, BreakerLayer, CallContext, CredentialsLayer, OutlierLayer, ReplayBody, TimeLeft,
    Unsent,
};
use tower_service::Service;

use super::around::Plain;
use super::stage::{members, stages};
use crate::Body;
use crate::transport::{self, MessageLimits, Transport};

/// The layer of an endpoint's breaker.
pub(super) type Circuit = BreakerLayer<ClassifyPolicy>;

// An attempt goes through these from the top to the bottom, and its response back.
stages! {
    Endpoint: OutlierLayer => Guarded, of ReplayBody<Body>;
    Guarded: Circuit => Load<TimeLeft<Shown>>, of ReplayBody<Body>;
    Shown: CredentialsLayer => Wire, of ReplayBody<Body>;
}

members!(Endpoint, Guarded);

/// The way to the plugin: where what retry may send again becomes a plain request.
#[derive(Clone)]
pub(super) struct Wire {
    pub(super) transport: Arc<dyn Transport>,
    /// Of an endpoint that speaks gRPC.
    pub(super) limits: Option<MessageLimits>,
}

impl<'a> Service<Request<ReplayBody<Body>>> for &'a Wire {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = WireFuture<'a>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<ReplayBody<Body>>) -> WireFuture<'a> {
        // The context is of this stack's layers; what the plugin should know goes in headers.
        CallContext::detach(&mut request);
        let request = request.map(Plain::plain);
        let Some(limits) = &self.limits else {
            return WireFuture(self.transport.call(request), None);
        };
        match limits.of_request(request) {
            Ok(request) => WireFuture(self.transport.call(request), Some(limits)),
            Err(refused) => WireFuture(Box::pin(std::future::ready(Err(refused))), None),
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

/// Gives a request that was not sent back as one that retry knows.
pub(super) struct WireFuture<'a>(transport::ResponseFuture<'a>, Option<&'a MessageLimits>);

impl Future for WireFuture<'_> {
    type Output = Result<Response<Body>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let error = match ready!(self.0.as_mut().poll(cx)) {
            Ok(response) => {
                return Poll::Ready(Ok(match self.1 {
                    Some(limits) => limits.of_response(response),
                    None => response,
                }));
            }
            Err(error) => error,
        };
        Poll::Ready(Err(match Unsent::<Body>::recover(error) {
            Ok((request, cause)) => {
                let request = request.map(|request| request.map(ReplayBody::passthrough));
                Unsent::new(request, cause).into()
            }
            Err(error) => error,
        }))
    }
}
