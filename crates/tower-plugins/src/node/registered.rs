//! A service of the program that is asked beside the call itself.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tower_plugins_layers::{BoxError, CallContext};
use tower_service::Service;

use super::Services;
use crate::Body;
use crate::error::{Error, Kind};
use crate::transport::{InProcess, Transport};

/// Asks with bodies of any type, by a future that borrows nothing.
#[derive(Clone, Debug)]
pub(super) struct Registered(InProcess);

impl Registered {
    pub(super) fn find(name: &str, services: &Services) -> Result<Self, Error> {
        let service = services.get(name).ok_or_else(|| {
            Error::caused_by(
                Kind::Config,
                format!(
                    "no service `{name}` is registered: register it with Plugins::builder().service(\"{name}\", …)"
                ),
            )
        });
        service.cloned().map(Self)
    }

    pub(super) fn into_inner(self) -> InProcess {
        self.0
    }
}

impl<B> Service<Request<B>> for Registered
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The context is of this stack's layers, as on the way to the plugin.
        CallContext::detach(&mut request);
        let (service, request) = (self.0.clone(), request.map(Body::new));
        Box::pin(async move { service.call(request).await })
    }
}
