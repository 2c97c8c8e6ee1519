use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::first_frame::Hears;
use super::meter::Meter;
use super::{ReplayBody, ResponseBody, ResponseFuture, RetryPolicy};
use crate::BoxError;
use crate::gate::take_ready;

/// Makes [`Retry`] services, which share the policy and its budget.
#[derive(Clone, Debug)]
pub struct RetryLayer {
    policy: Option<Arc<RetryPolicy>>,
}

impl RetryLayer {
    /// Repeats calls as `policy` says.
    #[must_use]
    pub fn new(mut policy: RetryPolicy) -> Self {
        policy.hears = Hears::of(&policy);
        Self {
            policy: policy.is_armed().then(|| Arc::new(policy)),
        }
    }

    /// Repeats calls as `policy` says, and with the feature `metrics` counts what it repeats under
    /// `name`.
    #[must_use]
    pub fn named(name: &str, mut policy: RetryPolicy) -> Self {
        if policy.is_armed() {
            policy.meter = Meter::new(name);
        }
        Self::new(policy)
    }

    /// Repeats nothing: each request goes through, its body as [`ReplayBody::passthrough`].
    #[must_use]
    pub const fn off() -> Self {
        Self { policy: None }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry {
            inner,
            policy: self.policy.clone(),
        }
    }
}

/// Repeats calls that failed and may be repeated. See the [module](crate::retry).
///
/// The bodies of requests and responses must be [`Unpin`], as those of hyper, axum and tonic are; others can be boxed.
#[derive(Clone, Debug)]
pub struct Retry<S> {
    inner: S,
    policy: Option<Arc<RetryPolicy>>,
}

impl<S, B, RB> Service<Request<B>> for Retry<S>
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
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Some(policy) = &self.policy else {
            return ResponseFuture::once(self.inner.call(request.map(ReplayBody::passthrough)));
        };
        let policy = Arc::clone(policy);
        // The instance that is ready makes the first attempt, and stays with the call.
        ResponseFuture::new(take_ready(&mut self.inner), policy, request)
    }
}

impl<'a, S, B, RB> Service<Request<B>> for &'a Retry<S>
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
        (&self.inner).poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inner = &self.inner;
        let Some(policy) = self.policy.as_deref() else {
            return ResponseFuture::once(inner.call(request.map(ReplayBody::passthrough)));
        };
        ResponseFuture::new(inner, policy, request)
    }
}
