//! What a plugin serves.

use std::convert::Infallible;
use std::fmt;

use axum::Router;
use axum::response::IntoResponse;
use tonic::body::Body;
use tonic::server::NamedService;
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

    /// With the paths of `router`, an axum `Router` or what makes one. Its fallback answers what nobody else does.
    ///
    /// # Panics
    ///
    /// If there is one of its paths already, or if both have a fallback.
    #[must_use]
    pub fn router(mut self, router: impl Into<Router>) -> Self {
        self.router = self.router.merge(router.into());
        self
    }

    /// With what describes the services: an encoded `google.protobuf.FileDescriptorSet`, as `tonic-prost-build` writes it with
    /// `file_descriptor_set_path`. Reflection answers with it; without it, it knows the services' names alone.
    #[must_use]
    pub fn descriptors(mut self, set: &'static [u8]) -> Self {
        self.descriptors.push(set);
        self
    }

    /// All of both.
    #[cfg(feature = "subprocess")]
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

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}
