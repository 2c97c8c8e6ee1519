//! One endpoint: the layers of an attempt, from the balancer to the wire.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use tokio::time::Instant;
use tower_plugins_layers::balance::{Load, Member};
use tower_plugins_layers::{
    BoxError, BreakerLayer, CallContext, CredentialsLayer, ReplayBody, Unsent,
};
use tower_service::Service;

use super::stage::stages;
use crate::Body;
use crate::transport::{self, Transport};

// An attempt goes through these from the top to the bottom, and its response back.
stages! {
    Endpoint: BreakerLayer => Load<Shown>, of ReplayBody<Body>;
    Shown: CredentialsLayer => Wire, of ReplayBody<Body>;
}

impl Member for Endpoint {
    fn load(&self, now: Instant) -> f64 {
        self.0.load(now)
    }

    fn is_available(&self, now: Instant) -> bool {
        self.0.is_available(now)
    }

    fn retry_after(&self, now: Instant) -> Option<Duration> {
        self.0.retry_after(now)
    }

    fn is_ejected(&self, now: Instant) -> bool {
        self.0.is_ejected(now)
    }

    fn ramp(&self, now: Instant) -> f64 {
        self.0.ramp(now)
    }

    fn in_flight(&self) -> usize {
        self.0.in_flight()
    }

    fn rtt(&self, now: Instant) -> Duration {
        self.0.rtt(now)
    }

    fn weighted_load(&self, now: Instant, weight: f64) -> f64 {
        self.0.weighted_load(now, weight)
    }
}

/// The way to the plugin: where what retry may send again becomes a plain request.
#[derive(Clone)]
pub(super) struct Wire(pub(super) Arc<dyn Transport>);

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
        let request = request.map(|body| match body.into_inner() {
            Ok(body) => body,
            Err(body) => body.into_whole().map_or_else(Body::boxed, Body::from),
        });
        WireFuture(self.0.call(request))
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

/// Gives a request that was not sent back as one that retry knows.
pub(super) struct WireFuture<'a>(transport::ResponseFuture<'a>);

impl Future for WireFuture<'_> {
    type Output = Result<Response<Body>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let error = match ready!(self.0.as_mut().poll(cx)) {
            Ok(response) => return Poll::Ready(Ok(response)),
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
