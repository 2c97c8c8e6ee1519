//! Places in the stack for layers that few plugins have.
//!
//! Where there are none, a call passes by such a place: its future and its body are those of what is inside. Where there
//! are some, each is called through a box.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::Layer;
use tower_plugins_layers::{BoxError, EndOfStream, ReplayBody, deadline, retry};
use tower_service::Service;

use crate::Body;

/// The future of a call that owns what it calls.
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

/// Puts a layer around what is inside of it.
pub(super) type Wrap<'a> = Box<dyn Fn(Next) -> Next + 'a>;

/// The layers at one place, the outermost first. Most plugins have none.
pub(super) struct Few<'a>(Vec<Wrap<'a>>);

impl<'a> Few<'a> {
    pub(super) const fn none() -> Self {
        Self(Vec::new())
    }

    /// These too, inside of those before.
    pub(super) fn layers(mut self, layers: impl IntoIterator<Item = Wrap<'a>>) -> Self {
        self.0.extend(layers);
        self
    }

    /// This one too, if there is one, inside of those before.
    pub(super) fn layer<L, B>(self, layer: Option<L>) -> Self
    where
        L: Layer<Next> + 'a,
        L::Service: Service<Request<Body>, Response = Response<B>, Error = BoxError, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        self.layers(layer.map(|layer| -> Wrap<'a> {
            Box::new(move |next| Next::new(Cloned(layer.layer(next))))
        }))
    }
}

impl<S: Inside> Layer<S> for Few<'_> {
    type Service = Around<S>;

    fn layer(&self, inside: S) -> Around<S> {
        let mut layers = self.0.iter().rev();
        match layers.next() {
            None => Around::Bare(inside),
            Some(innermost) => Around::Layered(
                layers.fold(innermost(Next::new(inside)), |next, layer| layer(next)),
            ),
        }
    }
}

/// A service that is always ready, and cheap to clone: each call has a clone of its own.
struct Cloned<S>(S);

impl<S, B> Inside for Cloned<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    fn call(self: Arc<Self>, request: Request<Body>) -> Owned {
        let mut service = self.0.clone();
        Box::pin(async move { Ok(service.call(request).await?.map(Body::new)) })
    }
}

/// Has these parts of the stack stand inside of layers that few plugins have. A request that was not sent comes back as
/// the layers outside have passed it on, and as one that those inside know.
macro_rules! insides {
    ($($part:ty, by $request:expr;)*) => {$(
        impl $crate::node::around::Inside for $part {
            fn call(
                self: ::std::sync::Arc<Self>,
                request: ::http::Request<$crate::Body>,
            ) -> $crate::node::around::Owned {
                Box::pin(async move {
                    let request = request.map($request);
                    let response = ::tower_service::Service::call(&mut &*self, request).await?;
                    Ok(response.map($crate::Body::boxed))
                })
            }
        }
    )*};
}

pub(super) use insides;

/// A part of the stack, with layers around it or without.
pub(super) enum Around<S> {
    Bare(S),
    Layered(Next),
}

impl<S> fmt::Debug for Around<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare(_) => "Bare",
            Self::Layered(_) => "Layered",
        })
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

/// A response's body as the layers inside make it, which is what those at a place make of theirs: of one type, a response
/// is not touched where there are none.
pub(super) trait OfPlain {
    fn of_plain(body: Body) -> Self;
}

impl OfPlain for Body {
    fn of_plain(body: Body) -> Self {
        body
    }
}

impl<B: OfPlain, G> OfPlain for EndOfStream<B, G> {
    fn of_plain(body: Body) -> Self {
        B::of_plain(body).into()
    }
}

impl<B: OfPlain + http_body::Body> OfPlain for retry::ResponseBody<B> {
    fn of_plain(body: Body) -> Self {
        B::of_plain(body).into()
    }
}

impl<B: OfPlain> OfPlain for deadline::ResponseBody<B> {
    fn of_plain(body: Body) -> Self {
        B::of_plain(body).into()
    }
}

impl<'a, S, B, RB> Service<Request<B>> for &'a Around<S>
where
    &'a S: Service<Request<B>, Response = Response<RB>, Error = BoxError>,
    B: Plain,
    RB: OfPlain,
{
    type Response = Response<RB>;
    type Error = BoxError;
    type Future = AroundFuture<<&'a S as Service<Request<B>>>::Future>;

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
                future: Arc::clone(&layers.0).call(request.map(Plain::plain)),
            },
        }
    }
}

pin_project! {
    #[project = Projected]
    pub(super) enum AroundFuture<F> {
        Bare { #[pin] future: F },
        Layered { future: Owned },
    }
}

impl<F, RB> Future for AroundFuture<F>
where
    F: Future<Output = Result<Response<RB>, BoxError>>,
    RB: OfPlain,
{
    type Output = Result<Response<RB>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::Bare { future } => future.poll(cx),
            Projected::Layered { future } => {
                let response = ready!(future.as_mut().poll(cx))?;
                Poll::Ready(Ok(response.map(RB::of_plain)))
            }
        }
    }
}
