//! Places in the stack for layers of the program's own.
//!
//! Such a layer knows services that are called by value: each call has its own clone of it, made and
//! driven to readiness by the adaptor that services of the program are called through, which also keeps its panics
//! to the call.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Either;
use pin_project_lite::pin_project;
use serde::de::DeserializeOwned;
use tower::Layer;
use tower_plugins_layers::{BoxError, ReplayBody};
use tower_service::Service;

use crate::Body;
use crate::config::{ConfigError, LayerSpec, Options, Place};
use crate::transport::{InProcess, ResponseFuture};

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

/// A layer of the program's own, for a service of any type that it makes.
struct Applied(Box<Apply>);

impl Applied {
    fn new<L, B>(layer: L) -> Self
    where
        L: Layer<Next> + Send + Sync + 'static,
        L::Service: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self(Box::new(move |name, next| {
            InProcess::new(name, layer.layer(next))
        }))
    }
}

/// A layer that the program puts into stacks by code, and where it stands.
pub(crate) struct OwnLayer {
    /// The one plugin that has it, or all.
    plugin: Option<String>,
    place: Place,
    name: String,
    layer: Applied,
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
            layer: Applied::new(layer),
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

/// Makes a layer of its options, for configs that name it.
pub(crate) struct Recipe(Box<Make>);

type Make = dyn Fn(&Options) -> Result<Applied, BoxError> + Send + Sync;

impl Recipe {
    pub(crate) fn new<O, L, B, E>(make: impl Fn(O) -> Result<L, E> + Send + Sync + 'static) -> Self
    where
        O: DeserializeOwned,
        L: Layer<Next> + Send + Sync + 'static,
        L::Service: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self(Box::new(move |options| {
            Ok(Applied::new(make(options.read()?).map_err(Into::into)?))
        }))
    }
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recipe")
    }
}

/// A layer that a config names. Its state is in it, and goes on while its spec is equal.
#[derive(Clone)]
pub(super) struct NamedLayer {
    pub(super) spec: LayerSpec,
    layer: Arc<Applied>,
}

impl NamedLayer {
    pub(super) fn make(
        spec: &LayerSpec,
        recipes: &HashMap<String, Recipe>,
    ) -> Result<Self, ConfigError> {
        let Some(Recipe(make)) = recipes.get(&spec.name) else {
            return Err(spec.unknown(recipes.keys().map(String::as_str)));
        };
        let layer = make(&spec.options).map_err(|error| spec.refused(&error))?;
        Ok(Self {
            spec: spec.clone(),
            layer: Arc::new(layer),
        })
    }
}

/// The layers of the program's own that a plugin has, those by code before those by its config.
#[derive(Clone, Copy)]
pub(super) struct Own<'a> {
    pub(super) plugin: &'a str,
    pub(super) by_code: &'a [OwnLayer],
    pub(super) by_config: &'a [NamedLayer],
}

impl<'a> Own<'a> {
    /// Those at `place`, the outermost first.
    fn at(self, place: Place) -> impl DoubleEndedIterator<Item = (&'a str, &'a Applied)> {
        let of_plugin = move |layer: &&OwnLayer| {
            let plugin = layer.plugin.as_deref();
            layer.place == place && plugin.is_none_or(|name| name == self.plugin)
        };
        let by_code = self.by_code.iter().filter(of_plugin);
        let by_config = self.by_config.iter();
        let by_config = by_config.filter(move |layer| layer.spec.at == place);
        by_code
            .map(|layer| (layer.name.as_str(), &layer.layer))
            .chain(by_config.map(|layer| (layer.spec.name.as_str(), &*layer.layer)))
    }
}

/// A part of the stack, with the program's layers around it or without.
pub(super) enum Around<S> {
    Bare(S),
    Layered(InProcess),
}

impl<S: Inside> Around<S> {
    /// `inside`, in those of `layers` at `place`; the first of them is outermost.
    pub(super) fn of(inside: S, layers: Own<'_>, place: Place) -> Self {
        let mut here = layers.at(place).rev();
        let Some((name, Applied(innermost))) = here.next() else {
            return Self::Bare(inside);
        };
        let innermost = innermost(name, Next::new(inside));
        Self::Layered(here.fold(innermost, |service, (name, Applied(layer))| {
            layer(name, Next::new(service))
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
