use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, Uri};
use tower_plugins_layers::BoxError;
use tower_service::Service;

use crate::error::Error;
use crate::plugin::CallFuture;
use crate::{Body, Plugin};

const METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// A plugin that decides about calls at one path, as services of forward authentication do: what a
/// [`FilterLayer`](tower_plugins_layers::FilterLayer) asks.
///
/// Each question is a `GET` of that path. What it is about stands in headers: the call's method in
/// `x-forwarded-method`, its path and query in `x-forwarded-uri`, and its host in `x-forwarded-host` where
/// [`FilterPolicy::headers`](tower_plugins_layers::FilterPolicy::headers) has `host`. The other headers of that policy,
/// such as `authorization` and `cookie`, are in it as they are.
///
/// ```no_run
/// use axum::{Router, routing::get};
/// use http::header::{AUTHORIZATION, HOST};
/// use http::{HeaderName, uri::PathAndQuery};
/// use tower::ServiceBuilder;
/// use tower_plugins_layers::{FilterLayer, FilterPolicy, RespondLayer};
///
/// # fn mount(plugins: tower_plugins::Plugins) {
/// let policy = FilterPolicy::new()
///     .headers([AUTHORIZATION, HOST])
///     .copy_headers([HeaderName::from_static("x-user")]);
/// let auth = plugins.plugin("auth").into_forward_auth(PathAndQuery::from_static("/verify"));
/// let app: Router = Router::new().route("/", get(|| async { "let in" })).layer(
///     ServiceBuilder::new()
///         .layer(RespondLayer::new()) // a plugin that cannot be asked is a 503
///         .layer(FilterLayer::new(policy, auth)),
/// );
/// # }
/// ```
///
/// # Errors
/// Those of a call to the plugin.
///
/// # Cancellation
/// Dropping the future ends the call.
#[derive(Clone, Debug)]
pub struct ForwardAuth {
    plugin: Plugin,
    path: PathAndQuery,
}

impl ForwardAuth {
    pub(crate) const fn new(plugin: Plugin, path: PathAndQuery) -> Self {
        Self { plugin, path }
    }

    fn question<B>(&self, request: &mut Request<B>) {
        let about = request.uri().path_and_query();
        let about = about.and_then(|uri| HeaderValue::try_from(uri.as_str()).ok());
        let host = request.headers_mut().remove(HOST).or_else(|| {
            let authority = request.uri().authority()?;
            HeaderValue::try_from(authority.as_str()).ok()
        });
        let method = HeaderValue::try_from(request.method().as_str()).ok();
        for (name, value) in [(METHOD, method), (URI, about), (FORWARDED_HOST, host)] {
            match value {
                Some(value) => request.headers_mut().insert(name, value),
                None => request.headers_mut().remove(name),
            };
        }
        *request.method_mut() = Method::GET;
        *request.uri_mut() = Uri::from(self.path.clone());
    }
}

impl<B> Service<Request<B>> for ForwardAuth
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = CallFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> CallFuture {
        self.question(&mut request);
        self.plugin.call(request)
    }
}
