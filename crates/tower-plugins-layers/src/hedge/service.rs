use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::HedgePolicy;
use crate::BoxError;
use crate::retry::{ReplayBody, ResponseBody, ResponseFuture, Retry, RetryLayer, RetryPolicy};

/// Makes [`Hedge`] services, which share the policy, its budget and what it has measured.
#[derive(Clone, Debug)]
pub struct HedgeLayer {
    attempts: RetryLayer,
}

impl HedgeLayer {
    /// Hedges as `policy` says, with the rules and the budget of [`RetryPolicy::new`].
    #[must_use]
    pub fn new(policy: HedgePolicy) -> Self {
        Self::with_rules(policy, RetryPolicy::new())
    }

    /// Hedges as `policy` says. What may be repeated, the failures that are waited out, the budget and
    /// the bytes of a body that are kept are those of `rules`, by which no call is retried.
    #[must_use]
    pub fn with_rules(policy: HedgePolicy, rules: RetryPolicy) -> Self {
        Self {
            attempts: RetryLayer::new(rules.max_retries(0).hedge(policy)),
        }
    }
}

impl<S> Layer<S> for HedgeLayer {
    type Service = Hedge<S>;

    fn layer(&self, inner: S) -> Hedge<S> {
        Hedge {
            attempts: self.attempts.layer(inner),
        }
    }
}

/// Makes another attempt of a call that is slow. See the [module](super).
///
/// The bodies of requests and responses must be [`Unpin`], as those of hyper, axum and tonic are; others can be boxed.
#[derive(Clone, Debug)]
pub struct Hedge<S> {
    attempts: Retry<S>,
}

impl<S, B, RB> Service<Request<B>> for Hedge<S>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    RB: Body + Unpin,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, Arc<RetryPolicy>, RB>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.attempts.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.attempts.call(request)
    }
}

impl<'a, S, B, RB> Service<Request<B>> for &'a Hedge<S>
where
    &'a S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
    <&'a S as Service<Request<ReplayBody<B>>>>::Error: Into<BoxError>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    RB: Body + Unpin,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<&'a S, B, &'a RetryPolicy, RB>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.attempts).poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        (&self.attempts).call(request)
    }
}
