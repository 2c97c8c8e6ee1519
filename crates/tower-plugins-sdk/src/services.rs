//! What a plugin serves.

use std::convert::Infallible;
use std::fmt;

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::Route;
use tonic::body::Body;
use tonic::server::NamedService;
use tower_layer::Layer;
use tower_plugins_proto::v1::plugin_server::SERVICE_NAME;
use tower_service::Service;

/// What a plugin serves: gRPC services, and HTTP paths beside them.
///
/// ```
/// use tower_plugins_sdk::Services;
/// use tower_plugins_sdk::axum::{Router, routing::get};
///
/// let services = Services::new().router(Router::new().route("/hello", get(|| async { "hello" })));
/// # let _ = services;
/// ```
#[derive(Clone, Default)]
pub struct Services {
    router: Router,
    names: Vec<&'static str>,
    descriptors: Vec<&'static [u8]>,
}

impl Services {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With the gRPC service `service`, as tonic makes it: `GreeterServer::new(…)`.
    ///
    /// A message that it receives may have 4 MiB, which is tonic's limit; `max_decoding_message_size` of `GreeterServer` raises it.
    ///
    /// # Panics
    ///
    /// If there is a service of its name already.
    #[must_use]
    pub fn service<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        // Only its routes: what to do with other paths is not for it to say.
        let routes = tonic::service::Routes::from(Router::new()).add_service(service);
        self.router = self.router.merge(routes.into_axum_router());
        self
    }

    /// With the paths of `router`: typed handlers ([`router::Router`](crate::router::Router)), an axum `Router`, tonic's `Routes`, or other services. A fallback of it answers what nobody else does.
    ///
    /// # Panics
    ///
    /// If there is one of its paths already, or if both have a fallback.
    #[must_use]
    pub fn router(self, router: impl Into<Self>) -> Self {
        self.and(router.into())
    }

    /// With `layer` around each of the services and paths that are here so far. Health, reflection and the protocol's own services
    /// are not among them.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_plugins_sdk::Services;
    /// use tower_plugins_sdk::axum::response::Response;
    /// use tower_plugins_sdk::axum::routing::get;
    /// use tower_plugins_sdk::axum::{Router, middleware::map_response};
    ///
    /// async fn name<B>(mut response: Response<B>) -> Response<B> {
    ///     response.headers_mut().insert("x-served-by", "greeter".parse().unwrap());
    ///     response
    /// }
    ///
    /// let services = Services::new()
    ///     .router(Router::new().route("/hello", get(|| async { "hello" })))
    ///     .layer(map_response(name));
    /// # let _ = services;
    /// ```
    #[must_use]
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Error: Into<Infallible> + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        self.router = self.router.layer(layer);
        self
    }

    /// With what describes the services: an encoded `google.protobuf.FileDescriptorSet`, as `tonic-prost-build` writes it with
    /// `file_descriptor_set_path`. Reflection answers with it; without it, it knows the services' names alone.
    #[must_use]
    pub fn descriptors(mut self, set: &'static [u8]) -> Self {
        self.descriptors.push(set);
        self
    }

    /// With `service`, unless the plugin has one of its name.
    pub(crate) fn or_service<S>(self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        if self.names.contains(&S::NAME) {
            return self;
        }
        self.service(service)
    }

    /// All of both.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.names.extend(other.names);
        self.descriptors.extend(other.descriptors);
        self
    }

    /// The names of the gRPC services.
    pub(crate) fn names(&self) -> &[&'static str] {
        &self.names
    }

    #[cfg(feature = "reflection")]
    pub(crate) fn descriptor_sets(&self) -> &[&'static [u8]] {
        &self.descriptors
    }

    pub(crate) fn into_router(self) -> Router {
        self.router
    }
}

impl From<Router> for Services {
    fn from(router: Router) -> Self {
        Self {
            router,
            ..Self::default()
        }
    }
}

/// The names of its services are not known then: health and reflection do not have them.
impl From<tonic::service::Routes> for Services {
    fn from(routes: tonic::service::Routes) -> Self {
        routes.into_axum_router().into()
    }
}

/// Of its typed handlers, with the gRPC service that they are beside.
impl<S: Send + Sync + 'static> From<crate::router::Router<S>> for Services {
    fn from(router: crate::router::Router<S>) -> Self {
        let mut services = Self::from(router.into_axum());
        services.names.push(SERVICE_NAME);
        services
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}
