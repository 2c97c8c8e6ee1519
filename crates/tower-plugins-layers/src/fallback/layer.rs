use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, Request, Response, Uri, Version, header};
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use tower_layer::Layer;
use tower_service::Service;

use super::future::{Kept, ResponseFuture};
use super::keep::sealed;
use super::{FallbackPolicy, Keep, NoBody, WithBody};
use crate::BoxError;

/// The body of a request to the other service.
pub type FallbackBody = UnsyncBoxBody<Bytes, BoxError>;

/// Makes [`Fallback`] services: `F` is what is asked instead, `K` what is kept of a body.
#[derive(Clone)]
pub struct FallbackLayer<F = Answer, K = NoBody> {
    plan: Option<Arc<Plan<F>>>,
    keep: K,
}

/// When, and whom to ask.
#[derive(Debug)]
pub struct Plan<F> {
    pub(super) policy: FallbackPolicy,
    pub(super) service: F,
    /// Whether the service looks at its request.
    asks: bool,
}

impl FallbackLayer {
    /// Gives `answer`, each time anew.
    #[must_use]
    pub fn answer(policy: FallbackPolicy, answer: Response<Bytes>) -> Self {
        Self {
            plan: Some(Arc::new(Plan {
                policy,
                service: Answer(Arc::new(answer)),
                asks: false,
            })),
            keep: NoBody,
        }
    }
}

impl<F> FallbackLayer<F> {
    /// Asks `service`.
    #[must_use]
    pub fn service(policy: FallbackPolicy, service: F) -> Self {
        Self {
            plan: Some(Arc::new(Plan {
                policy,
                service,
                asks: true,
            })),
            keep: NoBody,
        }
    }

    /// No fallback: the layer does nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self {
            plan: None,
            keep: NoBody,
        }
    }

    /// Keeps up to `max` bytes of a request's body for the other service. `wrap` makes a body of the
    /// request's own type, such as `axum::body::Body::new`.
    #[must_use]
    pub fn keep_body<R>(self, max: usize, wrap: R) -> FallbackLayer<F, WithBody<R>> {
        FallbackLayer {
            plan: self.plan,
            keep: WithBody { max, wrap },
        }
    }
}

/// What is kept of a request, where something is.
type KeptOf<B, K> = Option<Box<Kept<<K as sealed::Keep<B>>::Kept>>>;

impl<F, K> FallbackLayer<F, K> {
    /// The request as it goes in, and what is kept of it.
    fn keep<B>(&self, request: Request<B>) -> (Request<B>, KeptOf<B, K>)
    where
        K: Keep<B>,
    {
        if !self.plan.as_ref().is_some_and(|plan| plan.asks) {
            return (request, None);
        }
        let (parts, body) = request.into_parts();
        let (body, kept) = self.keep.keep(body);
        let head = Head {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            headers: parts.headers.clone(),
            extensions: parts.extensions.clone(),
        };
        let kept = Box::new(Kept { head, body: kept });
        (Request::from_parts(parts, body), Some(kept))
    }
}

impl<F, K> fmt::Debug for FallbackLayer<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackLayer")
            .field("policy", &self.plan.as_ref().map(|plan| &plan.policy))
            .finish_non_exhaustive()
    }
}

impl<S, F, K: Clone> Layer<S> for FallbackLayer<F, K> {
    type Service = Fallback<S, F, K>;

    fn layer(&self, inner: S) -> Self::Service {
        Fallback {
            inner,
            layer: Self {
                plan: self.plan.clone(),
                keep: self.keep.clone(),
            },
        }
    }
}

/// A copy of a request's head.
pub(super) struct Head {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    extensions: Extensions,
}

impl Head {
    /// The request to the other service.
    pub(super) fn request(self, body: FallbackBody) -> Request<FallbackBody> {
        let empty = http_body::Body::is_end_stream(&body);
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers;
        *request.extensions_mut() = self.extensions;
        if empty {
            request.headers_mut().remove(header::CONTENT_LENGTH);
            request.headers_mut().remove(header::TRANSFER_ENCODING);
        }
        request
    }
}

/// Gives something else where there is no answer. See the [module](crate::fallback).
pub struct Fallback<S, F = Answer, K = NoBody> {
    inner: S,
    layer: FallbackLayer<F, K>,
}

impl<S: Clone, F, K: Clone> Clone for Fallback<S, F, K> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: FallbackLayer {
                plan: self.layer.plan.clone(),
                keep: self.layer.keep.clone(),
            },
        }
    }
}

impl<S: fmt::Debug, F, K> fmt::Debug for Fallback<S, F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback")
            .field("inner", &self.inner)
            .field("layer", &self.layer)
            .finish()
    }
}

impl<S, F, K, B, RB, FB> Service<Request<B>> for Fallback<S, F, K>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    F: Service<Request<FallbackBody>, Response = Response<FB>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
    K: Keep<B>,
    FB: 'static,
{
    type Response = Response<http_body_util::Either<RB, FB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, Arc<Plan<F>>, K::Kept, RB, FB>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (request, kept) = self.layer.keep(request);
        ResponseFuture::new(self.inner.call(request), self.layer.plan.clone(), kept)
    }
}

impl<'a, S, F, K, B, RB, FB> Service<Request<B>> for &'a Fallback<S, F, K>
where
    &'a S: Service<Request<B>, Response = Response<RB>>,
    <&'a S as Service<Request<B>>>::Error: Into<BoxError>,
    F: Service<Request<FallbackBody>, Response = Response<FB>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
    K: Keep<B>,
    FB: 'static,
{
    type Response = Response<http_body_util::Either<RB, FB>>;
    type Error = BoxError;
    type Future =
        ResponseFuture<<&'a S as Service<Request<B>>>::Future, &'a Plan<F>, K::Kept, RB, FB>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.inner).poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (request, kept) = self.layer.keep(request);
        let plan = self.layer.plan.as_deref();
        ResponseFuture::new((&self.inner).call(request), plan, kept)
    }
}

/// The service that gives the same answer to each request.
#[derive(Clone, Debug)]
pub struct Answer(Arc<Response<Bytes>>);

impl<B> Service<Request<B>> for Answer {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Full<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let mut response = Response::new(Full::new(self.0.body().clone()));
        *response.status_mut() = self.0.status();
        *response.version_mut() = self.0.version();
        *response.headers_mut() = self.0.headers().clone();
        *response.extensions_mut() = self.0.extensions().clone();
        ready(Ok(response))
    }
}
