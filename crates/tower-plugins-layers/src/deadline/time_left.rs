//! What is left of a call's time, for the service that is called.

use std::task::{Context, Poll};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use super::header::{TimeoutHeader, write_grpc};
use super::is_of_type;
use crate::CallContext;
use crate::header::{GRPC_TIMEOUT, content_type};

/// Tells the service inside how much of the call's time is left, so that it does not work on for a
/// caller that has gone.
///
/// A gRPC request (`content-type: application/grpc…`) gets a `grpc-timeout` if its caller has a
/// deadline of its own: a policy's ends at the head of a stream, and whether a call is one shows only there.
/// Any other request gets the [header](Self::header), if one is set, with what is left until the
/// earliest of the call's deadlines and the attempt's. Both replace what the caller wrote, and are never
/// more than that: the caller's own deadline is among those that count.
///
/// ```text
///   deadline 10 s      ├──────────────────────────────────────────────────┤
///   a token, a place   ├── 2 s ──┤
///   attempt                      ├─ x-request-timeout: 8 ─▶ the endpoint
/// ```
///
/// | option | default | |
/// | --- | --- | --- |
/// | [`header`](Self::header) | none | the header of calls that are not gRPC, in the form of a [`TimeoutHeader`] |
///
/// # Errors and cancellation
/// Its errors are those of the service inside. Dropping the future drops the call inside.
///
/// # Order
/// Innermost but for credentials, one for each endpoint: inside of [`Deadline`](super::Deadline) and
/// [`AttemptTimeout`](crate::AttemptTimeout), whose times it reads in the [`CallContext`], and of whatever waits, since
/// what is left is what is left after that. Without a context it does nothing.
///
/// ```
/// use std::time::Duration;
/// use http::{HeaderName, Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_plugins_layers::{BoxError, DeadlineLayer, TimeLeftLayer};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let service = ServiceBuilder::new()
///     .layer(DeadlineLayer::new(Duration::from_secs(2)))
///     .layer(TimeLeftLayer::new().header(HeaderName::from_static("x-request-timeout")))
///     .service(service_fn(|request: Request<()>| async move {
///         assert_eq!(request.headers()["x-request-timeout"], "2");
///         Ok::<_, BoxError>(Response::new(String::new()))
///     }));
/// service.oneshot(Request::new(())).await?;
/// # Ok::<_, BoxError>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct TimeLeftLayer {
    header: Option<TimeoutHeader>,
}

impl TimeLeftLayer {
    /// Writes `grpc-timeout` for gRPC, and nothing for other calls.
    #[must_use]
    pub const fn new() -> Self {
        Self { header: None }
    }

    /// Writes the header `name` for calls that are not gRPC, in the form of a [`TimeoutHeader`].
    #[must_use]
    pub fn header(mut self, name: http::HeaderName) -> Self {
        self.header = Some(TimeoutHeader::new(name));
        self
    }

    fn tell<B>(&self, request: &mut Request<B>) {
        let Some(context) = CallContext::of(request) else {
            return;
        };
        let now = CallContext::now(request.extensions());
        let left = |at: tokio::time::Instant| at.saturating_duration_since(now);
        if is_grpc(request) {
            if let Some(at) = context.callers_deadline() {
                let value = write_grpc(left(at));
                request.headers_mut().insert(&GRPC_TIMEOUT, value);
            }
        } else if let Some(header) = &self.header
            && let Some(at) = super::earliest([context.deadline(), context.attempt_deadline()])
        {
            let value = header.write(left(at));
            request.headers_mut().insert(header.name(), value);
        }
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    content_type(request.headers()).is_some_and(|kind| is_of_type(kind, b"application/grpc"))
}

impl<S> Layer<S> for TimeLeftLayer {
    type Service = TimeLeft<S>;

    fn layer(&self, inner: S) -> TimeLeft<S> {
        TimeLeft {
            inner,
            layer: self.clone(),
        }
    }
}

/// Tells the service inside how much time is left. See [`TimeLeftLayer`].
#[derive(Clone, Debug)]
pub struct TimeLeft<S> {
    inner: S,
    layer: TimeLeftLayer,
}

impl<S, B> Service<Request<B>> for TimeLeft<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        self.layer.tell(&mut request);
        self.inner.call(request)
    }
}

impl<'a, S, B> Service<Request<B>> for &'a TimeLeft<S>
where
    &'a S: Service<Request<B>>,
{
    type Response = <&'a S as Service<Request<B>>>::Response;
    type Error = <&'a S as Service<Request<B>>>::Error;
    type Future = <&'a S as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        (&self.inner).poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        self.layer.tell(&mut request);
        (&self.inner).call(request)
    }
}
