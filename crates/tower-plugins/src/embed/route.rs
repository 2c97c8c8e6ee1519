use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderName, Request, Response};
use tower_plugins_layers::BoxError;
use tower_service::Service;

use super::respond::Dialect;
#[cfg(feature = "http")]
use super::upgrade::Caller;
use crate::plugin::CallFuture;
use crate::{Body, Plugin};

/// A plugin as a service that never fails: errors become responses by the table of
/// [`Error`](crate::Error), in HTTP or, to a gRPC request, in gRPC.
///
/// ```no_run
/// use http::HeaderName;
///
/// # fn mount(plugins: tower_plugins::Plugins) {
/// let auth = plugins.plugin("auth").into_route();
/// let app: axum::Router = axum::Router::new().route_service(
///     "/auth/{*rest}",
///     auth.reason_header(HeaderName::from_static("x-refused-reason")),
/// );
/// # }
/// ```
///
/// # Upgrades
/// WebSockets, over HTTP/2 too, and whatever else a request of HTTP/1.1 asks for in `upgrade`, go through: when the plugin grants it with
/// a 101, the caller's connection and the plugin's are joined in a task of their own, which a drain waits for and
/// `drain_timeout` cuts. See [`upgrade`](crate::upgrade).
///
/// # Cancellation
/// Dropping the future, or the body of the response, ends the call.
#[derive(Clone, Debug)]
pub struct Route {
    plugin: Plugin,
    reason_header: Option<HeaderName>,
}

impl Route {
    pub(crate) const fn new(plugin: Plugin) -> Self {
        Self {
            plugin,
            reason_header: None,
        }
    }

    /// Puts the word of an error's [`Reason`](crate::Reason) into the response header `name`, where the error has
    /// one. Off by default: it tells callers how the server is made. A plugin's own answers are left as they are.
    #[must_use]
    pub fn reason_header(mut self, name: HeaderName) -> Self {
        self.reason_header = Some(name);
        self
    }
}

impl<B> Service<Request<B>> for Route
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RouteFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[cfg_attr(not(feature = "http"), allow(unused_mut))]
    fn call(&mut self, mut request: Request<B>) -> RouteFuture {
        RouteFuture {
            dialect: Dialect::of(&request),
            #[cfg(feature = "http")]
            caller: Caller::of(&mut request),
            call: self.plugin.call(request),
            reason_header: self.reason_header.clone(),
        }
    }
}

/// The future of [`Route`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct RouteFuture {
    call: CallFuture,
    dialect: Dialect,
    #[cfg(feature = "http")]
    caller: Option<Caller>,
    reason_header: Option<HeaderName>,
}

impl Future for RouteFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(match ready!(Pin::new(&mut self.call).poll(cx)) {
            #[cfg(feature = "http")]
            Ok(mut response) => {
                let joined = self.caller.take().map(|caller| caller.join(&mut response));
                match joined {
                    Some(Err(error)) => self.dialect.respond(&error, None),
                    _ => response,
                }
            }
            #[cfg(not(feature = "http"))]
            Ok(response) => response,
            Err(error) => self.dialect.respond(&error, self.reason_header.take()),
        }))
    }
}
