use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use super::OutlierLayer;
use super::future::{ResponseBody, ResponseFuture};
use crate::BoxError;
use crate::balance::Member;
use crate::classify::{Classify, HttpGrpc};

/// Tells a detector how an endpoint's calls end. See the [module](super).
#[derive(Clone, Debug)]
pub struct Outlier<S, C = HttpGrpc> {
    inner: S,
    layer: OutlierLayer<C>,
}

impl<S, C> Outlier<S, C> {
    pub(super) const fn new(inner: S, layer: OutlierLayer<C>) -> Self {
        Self { inner, layer }
    }

    /// The service inside.
    #[must_use]
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: Member, C> Member for Outlier<S, C> {
    fn load(&self, now: Instant) -> f64 {
        self.inner.load(now)
    }

    fn is_available(&self, now: Instant) -> bool {
        self.inner.is_available(now)
    }

    fn takes_retry(&self, now: Instant) -> bool {
        self.inner.takes_retry(now)
    }

    fn retry_after(&self, now: Instant) -> Option<Duration> {
        let back = self.layer.until(now);
        back.map(|at| at.saturating_duration_since(now))
            .max(self.inner.retry_after(now))
    }

    fn is_ejected(&self, now: Instant) -> bool {
        self.layer.is_ejected(now) || self.inner.is_ejected(now)
    }

    fn ramp(&self, now: Instant) -> f64 {
        self.inner.ramp(now)
    }

    fn is_back(&self, now: Instant) -> bool {
        self.inner.is_back(now)
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn rtt(&self, now: Instant) -> Duration {
        self.inner.rtt(now)
    }

    fn weighted_load(&self, now: Instant, weight: f64) -> f64 {
        self.inner.weighted_load(now, weight)
    }
}

impl<S, B, RB, C> Service<Request<B>> for Outlier<S, C>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    RB: Body,
    C: Classify,
{
    type Response = Response<ResponseBody<RB, C>>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (watched, cutoff) = self.layer.begin(&request);
        ResponseFuture {
            inner: self.inner.call(request),
            watched,
            cutoff,
        }
    }
}

impl<'a, S, B, RB, C> Service<Request<B>> for &'a Outlier<S, C>
where
    &'a S: Service<Request<B>, Response = Response<RB>>,
    <&'a S as Service<Request<B>>>::Error: Into<BoxError>,
    RB: Body,
    C: Classify,
{
    type Response = Response<ResponseBody<RB, C>>;
    type Error = BoxError;
    type Future = ResponseFuture<<&'a S as Service<Request<B>>>::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.inner).poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (watched, cutoff) = self.layer.begin(&request);
        ResponseFuture {
            inner: (&self.inner).call(request),
            watched,
            cutoff,
        }
    }
}
