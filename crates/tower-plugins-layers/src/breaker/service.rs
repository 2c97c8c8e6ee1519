use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::future::State;
use super::{BreakerHandle, BreakerLayer, ResponseBody, ResponseFuture};
use crate::BoxError;
use crate::classify::{Classify, HttpGrpc};

/// Leaves an endpoint that fails alone for a while. See the [module](super).
///
/// Its readiness is that of the service inside: a call is let in or refused when it is made, so that
/// a permit is never held by who does not call.
#[derive(Clone, Debug)]
pub struct Breaker<S, C = HttpGrpc> {
    pub(super) inner: S,
    pub(super) layer: BreakerLayer<C>,
}

impl<S, C> Breaker<S, C> {
    /// The view of the circuit from outside.
    #[must_use]
    pub fn handle(&self) -> BreakerHandle {
        self.layer.handle()
    }

    /// The service inside.
    #[must_use]
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    pub(crate) const fn circuit(&self) -> &BreakerHandle {
        self.layer.handle_ref()
    }
}

impl<S, B, RB, C> Service<Request<B>> for Breaker<S, C>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    B: Send + 'static,
    RB: http_body::Body,
    C: Classify,
{
    type Response = Response<ResponseBody<RB, C>>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.layer.admit(&request) {
            Ok((outstanding, cutoff)) => ResponseFuture {
                state: State::Call {
                    inner: self.inner.call(request),
                    outstanding,
                    cutoff,
                },
            },
            Err(wait) => ResponseFuture::refused(self.layer.refuse(request, wait)),
        }
    }
}

impl<'a, S, B, RB, C> Service<Request<B>> for &'a Breaker<S, C>
where
    &'a S: Service<Request<B>, Response = Response<RB>>,
    <&'a S as Service<Request<B>>>::Error: Into<BoxError>,
    B: Send + 'static,
    RB: http_body::Body,
    C: Classify,
{
    type Response = Response<ResponseBody<RB, C>>;
    type Error = BoxError;
    type Future = ResponseFuture<<&'a S as Service<Request<B>>>::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.inner).poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.layer.admit(&request) {
            Ok((outstanding, cutoff)) => ResponseFuture {
                state: State::Call {
                    inner: (&self.inner).call(request),
                    outstanding,
                    cutoff,
                },
            },
            Err(wait) => ResponseFuture::refused(self.layer.refuse(request, wait)),
        }
    }
}
