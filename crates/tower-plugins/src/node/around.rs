//! Places in the stack for layers of the program's own.
//!
//! Such a layer knows services that are called by value: each call has its own clone of it, made and
//! driven to readiness by the adaptor that services of the program are called through, which also keeps its panics
//! to the call.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Either;
use pin_project_lite::pin_project;
use tower::Layer;
use tower_plugins_layers::{BoxError, ReplayBody};
use tower_service::Service;

use crate::Body;
use crate::transport::{InProcess, ResponseFuture};

/// Where in a plugin's stack a layer of one's own stands.
///
/// ```text
///   trace ▸ drain ▸ CALL ▸ fallback ▸ authorize ▸ deadline ▸ rate_limit ▸ concurrency
///         ▸ retry ▸ ATTEMPT ▸ attempt_timeout ▸ balance
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// Around each call: seen by metrics and counted by a drain, outside of all else. It sees what a fallback answers,
    /// and calls that are refused. The deadline, which is counted from the beginning of the call, does not cut it
    /// short.
    Call,
    /// Around each attempt: inside of retry, which sees what it does to the response, and outside of the
    /// attempt's timeout.
    Attempt,
}

pub(super) type Owned = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

/// What is inside of a layer of one's own: the rest of the stack. Always ready.
#[derive(Clone)]
pub struct Next(Arc<dyn Inside>);

/// A part of the stack that can be called by whoever owns it.
pub(super) trait Inside: Send + Sync + 'static {
    fn call(self: Arc<Self>, request: Request<Body>) -> Owned;
}

impl Next {
    pub(super) fn new(inside: impl Inside) -> Self {
        Self(Arc::new(inside))
    }
}

impl Service<Request<Body>> for Next {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Owned;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Owned {
        Arc::clone(&self.0).call(request)
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Next")
    }
}

/// Applies a layer, whose service is called by a name.
type Apply = dyn Fn(&str, Next) -> InProcess + Send + Sync;

/// A layer of the program's own, and where it stands.
pub(crate) struct OwnLayer {
    /// The one plugin that has it, or all.
    plugin: Option<String>,
    place: Place,
    name: String,
    around: Box<Apply>,
}

impl OwnLayer {
    pub(crate) fn new<L, B>(plugin: Option<&str>, place: Place, name: &str, layer: L) -> Self
    where
        L: Layer<Next> + Send + Sync + 'static,
        L::Service: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self {
            plugin: plugin.map(str::to_owned),
            place,
            name: name.to_owned(),
            around: Box::new(move |name, next| InProcess::new(name, layer.layer(next))),
        }
    }
}

impl fmt::Debug for OwnLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnLayer")
            .field("plugin", &self.plugin)
            .field("place", &self.place)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A part of the stack, with the program's layers around it or without.
pub(super) enum Around<S> {
    Bare(S),
    Layered(InProcess),
}

impl<S: Inside> Around<S> {
    /// `inside`, in those of `layers` that `plugin` has at `place`; the first of them is outermost.
    pub(super) fn of(inside: S, layers: &[OwnLayer], plugin: &str, place: Place) -> Self {
        let mut here = layers.iter().rev().filter(|layer| {
            layer.place == place && layer.plugin.as_deref().is_none_or(|name| name == plugin)
        });
        let Some(innermost) = here.next() else {
            return Self::Bare(inside);
        };
        let innermost_service = (innermost.around)(&innermost.name, Next::new(inside));
        Self::Layered(here.fold(innermost_service, |service, layer| {
            (layer.around)(&layer.name, Next::new(service))
        }))
    }
}

impl Inside for InProcess {
    fn call(self: Arc<Self>, request: Request<Body>) -> Owned {
        Box::pin(async move { (&*self).call(request).await })
    }
}

impl<S> fmt::Debug for Around<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bare(_) => f.write_str("Bare"),
            Self::Layered(layers) => f.debug_tuple("Layered").field(layers).finish(),
        }
    }
}

/// A request's body as transports and layers of the program's own see it.
pub(super) trait Plain {
    fn plain(self) -> Body;
}

impl Plain for Body {
    fn plain(self) -> Body {
        self
    }
}

impl Plain for ReplayBody<Body> {
    fn plain(self) -> Body {
        match self.into_inner() {
            Ok(body) => body,
            Err(body) => body.into_whole().map_or_else(Body::boxed, Body::from),
        }
    }
}

impl<'a, S, B, RB> Service<Request<B>> for &'a Around<S>
where
    &'a S: Service<Request<B>, Response = Response<RB>, Error = BoxError>,
    B: Plain,
{
    type Response = Response<Either<RB, Body>>;
    type Error = BoxError;
    type Future = AroundFuture<'a, <&'a S as Service<Request<B>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Around::Bare(inside) => { inside }.poll_ready(cx),
            Around::Layered(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self {
            Around::Bare(inside) => AroundFuture::Bare {
                future: { inside }.call(request),
            },
            Around::Layered(layers) => AroundFuture::Layered {
                future: { layers }.call(request.map(Plain::plain)),
            },
        }
    }
}

pin_project! {
    #[project = Projected]
    pub(super) enum AroundFuture<'a, F> {
        Bare { #[pin] future: F },
        Layered { future: ResponseFuture<'a> },
    }
}

impl<F, RB> Future for AroundFuture<'_, F>
where
    F: Future<Output = Result<Response<RB>, BoxError>>,
{
    type Output = Result<Response<Either<RB, Body>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project() {
            Projected::Bare { future } => {
                ready!(future.poll(cx)).map(|response| response.map(Either::Left))
            }
            Projected::Layered { future } => {
                ready!(future.as_mut().poll(cx)).map(|response| response.map(Either::Right))
            }
        })
    }
}
