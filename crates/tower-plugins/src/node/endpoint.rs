//! One endpoint: the layers of an attempt, from the balancer to the wire.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response, header};
use tokio::time::Instant;
use tower_plugins_layers::balance::{Health, Load, SlowStart};
use tower_plugins_layers::classify::ClassifyPolicy;
use tower_plugins_layers::credentials::TokenCredentialsLayer;
use tower_plugins_layers::retry::EndpointBudgetLayer;
use tower_plugins_layers::trace::Attempt;
use tower_plugins_layers::{
    BoxError, BreakerLayer, CallContext, Credentials, EndOfStream, OutlierLayer, ReplayBody,
    TimeLeft, Unsent,
};
use tower_service::Service;

use super::around::Plain;
use super::label::Label;
use super::stage::{members, stages};
use crate::Body;
use crate::transport::{self, MessageLimits, Transport, is_grpc};

/// The layer of an endpoint's breaker.
pub(super) type Circuit = BreakerLayer<ClassifyPolicy>;

// An attempt goes through these from the top to the bottom, and its response back.
stages! {
    Endpoint: OutlierLayer => Budgeted, of ReplayBody<Body>;
    Budgeted: EndpointBudgetLayer => Guarded, of ReplayBody<Body>;
    Guarded: Circuit => Load<TimeLeft<Shown>>, of ReplayBody<Body>;
    Shown: TokenCredentialsLayer => Credentials<Wire>, of ReplayBody<Body>;
}

members!(Endpoint, Budgeted, Guarded);

/// All of an endpoint, as it stands in a balancer.
pub(super) type EndpointStack = SlowStart<Health<Endpoint>>;

/// The way to the plugin: where what retry may send again becomes a plain request.
///
/// It has the attempt's span itself: a layer for it would wrap each body, whether somebody listens or not.
#[derive(Clone)]
pub(super) struct Wire {
    transport: Arc<dyn Transport>,
    endpoint: Arc<str>,
    /// Nobody else has it as long as there are calls.
    _label: Arc<Label>,
    /// Of an endpoint that speaks gRPC.
    limits: Option<MessageLimits>,
    /// Whether this program is the proxy that `proxy-authorization` is for (RFC 9110, section 11.7.1).
    is_hop: bool,
}

impl Wire {
    /// `endpoint` is what spans call it.
    pub(super) fn new(
        transport: Arc<dyn Transport>,
        endpoint: &str,
        label: Arc<Label>,
        limits: Option<MessageLimits>,
        is_hop: bool,
    ) -> Self {
        Self {
            transport,
            endpoint: endpoint.into(),
            _label: label,
            limits,
            is_hop,
        }
    }

    fn send(
        &self,
        request: Request<Body>,
        deadline: Option<Instant>,
    ) -> transport::ResponseFuture<'_> {
        let Some(limits) = &self.limits else {
            return self.transport.call_until(request, deadline);
        };
        match limits.of_request(request) {
            Ok(request) => self.transport.call_until(request, deadline),
            Err(refused) => Box::pin(std::future::ready(Err(refused))),
        }
    }
}

impl<'a> Service<Request<ReplayBody<Body>>> for &'a Wire {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = WireFuture<'a>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<ReplayBody<Body>>) -> WireFuture<'a> {
        let attempt = Attempt::begin(&self.endpoint, &request);
        // The context is of this stack's layers; what the plugin should know goes in headers, or as its
        // wire has it.
        let deadline = CallContext::of(&request).and_then(|context| {
            let both = [context.deadline(), context.attempt_deadline()];
            both.into_iter().flatten().min()
        });
        CallContext::detach(&mut request);
        if self.is_hop {
            request.headers_mut().remove(header::PROXY_AUTHORIZATION);
        }
        let is_grpc = self.limits.is_some() && is_grpc(request.headers());
        let call = {
            let _entered = attempt.as_ref().map(Attempt::enter);
            self.send(request.map(Plain::plain), deadline)
        };
        WireFuture {
            call,
            attempt,
            limits: self.limits.as_ref(),
            is_grpc,
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

/// Gives a request that was not sent back as one that retry knows.
pub(super) struct WireFuture<'a> {
    call: transport::ResponseFuture<'a>,
    attempt: Option<Attempt>,
    limits: Option<&'a MessageLimits>,
    is_grpc: bool,
}

impl Future for WireFuture<'_> {
    type Output = Result<Response<Body>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let polled = {
            let _entered = this.attempt.as_ref().map(Attempt::enter);
            this.call.as_mut().poll(cx)
        };
        if polled.is_pending() {
            return Poll::Pending;
        }
        let polled = match this.limits {
            None => polled,
            Some(limits) => polled
                .map(|result| result.map(|response| limits.of_response(response, this.is_grpc))),
        };
        let polled = match this.attempt.take() {
            None => polled,
            Some(attempt) => polled.map(|result| seen(attempt, result)),
        };
        match polled {
            Poll::Ready(Err(error)) => Poll::Ready(Err(given_back(error))),
            polled => polled,
        }
    }
}

/// Tells the attempt's span what came of it; the body of a response goes on to do so.
fn seen(
    mut attempt: Attempt,
    result: Result<Response<Body>, BoxError>,
) -> Result<Response<Body>, BoxError> {
    match result {
        Ok(response) => {
            attempt.head(&response);
            Ok(response.map(|body| Body::boxed(EndOfStream::new(body, attempt))))
        }
        Err(error) => {
            attempt.failed(&*error);
            Err(error)
        }
    }
}

/// A request that was not sent, as one that retry knows.
fn given_back(error: BoxError) -> BoxError {
    match Unsent::<Body>::recover(error) {
        Ok((request, cause)) => {
            let request = request.map(|request| request.map(ReplayBody::passthrough));
            Unsent::new(request, cause).into()
        }
        Err(error) => error,
    }
}
