//! Layers of the program's own.
//!
//! Such a layer knows services that are called by value: each call has its own clone of it, made and
//! driven to readiness by the adaptor that services of the program are called through, which also keeps its panics
//! to the call.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use serde::de::DeserializeOwned;
use tower::Layer;
use tower_plugins_layers::BoxError;
use tower_service::Service;

use super::around::{Inside, Next, Owned, Wrap};
use crate::Body;
use crate::config::{ConfigError, LayerSpec, Options, Place};
use crate::transport::InProcess;

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
    pub(super) fn at(self, place: Place) -> impl Iterator<Item = Wrap<'a>> {
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
            .map(|(name, Applied(layer))| -> Wrap<'a> {
                Box::new(move |next| Next::new(layer(name, next)))
            })
    }
}

impl Inside for InProcess {
    fn call(self: Arc<Self>, request: Request<Body>) -> Owned {
        Box::pin(async move { (&*self).call(request).await })
    }
}
