//! Ways to reach an endpoint that are the program's own.

use std::fmt;
use std::sync::Arc;

use http::Request;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tower_plugins_layers::BoxError;

use super::in_process::{Call, unpanicked};
use super::{EndFuture, ProbeFuture, ResponseFuture, Transport};
use crate::Body;
use crate::config::{ConnectionSpec, Options};

/// What a transport of the program's own is made of, for one endpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointArgs<O> {
    /// The plugin that it is an endpoint of.
    pub plugin: String,
    /// Where it is, as the config says: the text of `endpoint`, or of `url` in one of `endpoints`.
    pub endpoint: String,
    /// `connection`. What of it means something is the transport's matter.
    pub connection: ConnectionSpec,
    /// The plugin's `options`.
    pub options: O,
}

/// Why there is no transport.
pub(crate) enum Unmade {
    /// Its options are none.
    Options(serde_json::Error),
    /// The program said so.
    Refused(BoxError),
}

type Make = dyn Fn(EndpointArgs<&Options>) -> Result<Arc<dyn Transport>, Unmade> + Send + Sync;

/// Makes transports, for configs that name it.
pub(crate) struct Factory(Box<Make>);

impl Factory {
    pub(crate) fn new<O, T, E>(
        name: &str,
        make: impl Fn(EndpointArgs<O>) -> Result<T, E> + Send + Sync + 'static,
    ) -> Self
    where
        O: DeserializeOwned,
        T: Transport,
        E: Into<BoxError>,
    {
        let name: Arc<str> = name.into();
        Self(Box::new(move |args| {
            let options = args.options.read().map_err(Unmade::Options)?;
            let args = EndpointArgs {
                plugin: args.plugin,
                endpoint: args.endpoint,
                connection: args.connection,
                options,
            };
            let made = unpanicked(&name, || make(args).map_err(Into::into));
            let transport = made.and_then(|made| made).map_err(Unmade::Refused)?;
            Ok(Arc::new(Caught {
                name: Arc::clone(&name),
                transport,
            }))
        }))
    }

    pub(crate) fn make(&self, args: EndpointArgs<&Options>) -> Result<Arc<dyn Transport>, Unmade> {
        (self.0)(args)
    }
}

impl fmt::Debug for Factory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Factory")
    }
}

/// A transport whose panics are the errors of single calls.
struct Caught<T> {
    name: Arc<str>,
    transport: T,
}

impl<T: Transport> Transport for Caught<T> {
    fn call(&self, request: Request<Body>) -> ResponseFuture<'_> {
        self.call_until(request, None)
    }

    fn end(&self) -> EndFuture {
        self.transport.end()
    }

    fn call_until(&self, request: Request<Body>, deadline: Option<Instant>) -> ResponseFuture<'_> {
        match unpanicked(&self.name, || self.transport.call_until(request, deadline)) {
            Ok(call) => Box::pin(Call::new(&self.name, call)),
            Err(panicked) => Box::pin(std::future::ready(Err(panicked))),
        }
    }

    // Who asks catches the panics of the future.
    fn probe(&self) -> ProbeFuture<'_> {
        match unpanicked(&self.name, || self.transport.probe()) {
            Ok(probe) => probe,
            Err(panicked) => Box::pin(std::future::ready(Err(panicked))),
        }
    }
}
