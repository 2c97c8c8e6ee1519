//! The plugin with every layer armed.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::BodyExt;
use tower::service_fn;
use tower_plugins::config::{Config, Format};
use tower_plugins::{Body, Plugins};
use tower_service::Service;

use crate::Result;

/// Every layer, armed so that none of them ever acts.
pub(super) const ARMED: &str = "
    auth: { method: api-key, api_key: a-key-that-is-no-secret }
    rate_limit: { requests_per_second: 100000000 }
    concurrency: { max_concurrent: 100000 }
    retry: { max_retries: 2, attempt_timeout: 5s }
    circuit_breaker: { failure_threshold: 5, failure_rate: 0.5 }
    load_balancing: { strategy: peak-ewma }
";

/// Endpoints in this process, all of them the same service.
pub(super) const SERVICES: [&str; 3] = ["one", "two", "three"];

/// A set with the plugin `full` over so many endpoints, its policy as `policy` says.
pub(super) async fn in_process(policy: &str, endpoints: usize) -> Result<Plugins> {
    let text = format!(
        "
plugins:
  - name: full
    transport: in-process
    endpoints: [{}]
    connection: {{ request_timeout: 10s }}
{policy}",
        SERVICES[..endpoints].join(", ")
    );
    start(&text).await
}

/// The set of the config `text`, with these services.
pub(super) async fn start(text: &str) -> Result<Plugins> {
    let mut builder = Plugins::builder();
    for name in SERVICES {
        builder = builder.service(name, null());
    }
    Ok(builder.start(Config::parse(text, Format::Yaml)?).await?)
}

/// The service that does nothing but answer.
pub(super) fn null() -> impl Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Body>, Infallible>> + Send,
> + Clone
+ Send
+ Sync
+ 'static {
    service_fn(|_: Request<Body>| async { Ok(answer()) })
}

pub(super) fn answer() -> Response<Body> {
    Response::new(Body::from(Bytes::from_static(b"a short answer")))
}

/// A method, a URI and a header; a call that may be repeated.
///
/// Nothing of it is shared: threads that clone one parsed URI would meet in its count.
pub(super) fn request() -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = Uri::from_static("/v1/items?limit=10");
    let accept = HeaderValue::from_static("application/json");
    request.headers_mut().insert(http::header::ACCEPT, accept);
    request
}

/// Reads `response` to its end.
pub(super) async fn drain<B>(response: Response<B>) -> Result
where
    B: http_body::Body + Unpin,
    B::Error: Into<crate::BoxError>,
{
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        std::hint::black_box(frame.map_err(Into::into)?);
    }
    Ok(())
}
