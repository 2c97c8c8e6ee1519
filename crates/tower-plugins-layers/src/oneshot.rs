//! One call of a service beside the one inside.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::time::Duration;

use http::{Request, Response};
use tower_service::Service;

use crate::BoxError;

/// A call of another service. Boxed: it is a call of its own, and not on every call's path.
pub(crate) type Other<B> = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

/// Waits for `service` to be ready and calls it, within `timeout`.
pub(crate) async fn oneshot<S, B, RB>(
    mut service: S,
    request: Request<B>,
    timeout: Option<Duration>,
) -> Result<Response<RB>, BoxError>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
{
    let call = async move {
        poll_fn(|cx| service.poll_ready(cx))
            .await
            .map_err(Into::into)?;
        service.call(request).await.map_err(Into::into)
    };
    match timeout {
        Some(timeout) => tokio::time::timeout(timeout, call)
            .await
            .map_err(|_| TookTooLong)?,
        None => call.await,
    }
}

/// The error of a service beside the one inside that did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer in time")]
pub(crate) struct TookTooLong;
