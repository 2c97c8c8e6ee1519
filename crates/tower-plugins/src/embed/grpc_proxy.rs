use std::borrow::Cow;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;
use tower_plugins_layers::BoxError;
use tower_service::Service;

use super::respond::Dialect;
use crate::error::Error;
use crate::plugin::CallFuture;
use crate::{Body, Plugin};

/// A plugin as a gRPC service that knows none of its messages: bytes go through, both ways at once, and trailers with
/// them.
///
/// It never fails, and each of its answers to a gRPC request has a gRPC status. What a [`Route`](super::Route) leaves to
/// HTTP it says in gRPC:
///
/// | what happened | the caller sees |
/// | --- | --- |
/// | an [`Error`], such as an open breaker, in place of an answer | trailers only, by the error's table |
/// | an answer that breaks off, or is cut by a deadline or a drain | its messages so far, then trailers by the table |
/// | an answer that is not gRPC, such as a proxy's 502 | trailers only, by the status (gRPC's mapping of HTTP) |
/// | an answer with a `grpc-status`, whatever else it is in HTTP | that status, and what stands beside it |
/// | an answer without a status at its end | trailers with `INTERNAL`, or by the status of HTTP if that is not 200 |
/// | a request that is not gRPC | 415 |
///
/// `grpc-timeout` bounds the call, and what is left of it goes on to the plugin. The path is sent as it comes: a router
/// that nests it under a prefix takes that off.
///
/// ```no_run
/// use axum::Router;
/// use tonic::service::Routes;
///
/// # async fn serve(plugins: tower_plugins::Plugins) -> Result<(), tonic::transport::Error> {
/// let calculator = plugins.plugin("calculator").into_grpc_proxy();
/// let everything_else = plugins.plugin("legacy").into_grpc_proxy();
/// let routes = Router::new()
///     .route_service("/calculator.v1.Calculator/{method}", calculator)
///     .fallback_service(everything_else);
/// tonic::transport::Server::builder()
///     .add_routes(Routes::from(routes)) // .add_service(...) for services of the program's own
///     .serve(([127, 0, 0, 1], 50051).into())
///     .await
/// # }
/// ```
///
/// # Cancellation
/// Dropping the future, or the body of the response, ends the call.
#[derive(Clone, Debug)]
pub struct GrpcProxy {
    plugin: Plugin,
}

impl GrpcProxy {
    pub(crate) const fn new(plugin: Plugin) -> Self {
        Self { plugin }
    }
}

impl<B> Service<Request<B>> for GrpcProxy
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = GrpcProxyFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> GrpcProxyFuture {
        let call = is_grpc(request.headers()).then(|| self.plugin.call(request));
        GrpcProxyFuture { call }
    }
}

/// The future of [`GrpcProxy`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct GrpcProxyFuture {
    /// `None` for what is not gRPC.
    call: Option<CallFuture>,
}

impl Future for GrpcProxyFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(call) = &mut self.call else {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Poll::Ready(Ok(response));
        };
        Poll::Ready(Ok(match ready!(Pin::new(call).poll(cx)) {
            Ok(response) => with_status(response),
            Err(error) => Dialect::grpc().respond(&error, None),
        }))
    }
}

/// Whether the content is gRPC's; that of gRPC-Web is not.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// `response`, which ends with a gRPC status whatever happens: with its own, if it has one.
fn with_status(response: Response<Body>) -> Response<Body> {
    let (status, is_grpc) = (response.status(), is_grpc(response.headers()));
    if response.headers().contains_key(GRPC_STATUS) {
        return match (status, is_grpc) {
            (StatusCode::OK, true) => response,
            _ => trailers_only(response),
        };
    }
    let ends = if status == StatusCode::OK && is_grpc {
        Missing {
            code: 13,
            message: NO_STATUS.into(),
        }
    } else {
        Missing {
            code: code_of(status),
            message: format!("the plugin answered with status {status}, and not in gRPC").into(),
        }
    };
    // Its trailers may have a status.
    if is_grpc && !http_body::Body::is_end_stream(response.body()) {
        let mut response = response.map(|inner| {
            Body::boxed(ToTheStatus {
                inner: Some(inner),
                missing: ends,
            })
        });
        *response.status_mut() = StatusCode::OK;
        return response;
    }
    Dialect::grpc().say(status, ends.code, &ends.message)
}

/// An answer of nothing but its head, which has the status, whatever else it is in HTTP.
fn trailers_only(mut response: Response<Body>) -> Response<Body> {
    *response.status_mut() = StatusCode::OK;
    *response.body_mut() = Body::empty();
    let headers = response.headers_mut();
    for about_body in [
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::TRAILER,
    ] {
        headers.remove(about_body);
    }
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    response
}

/// What is said where there is no status.
struct Missing {
    code: i32,
    message: Cow<'static, str>,
}

/// The code that stands for an answer of HTTP, by gRPC's own table (http-grpc-status-mapping).
fn code_of(status: StatusCode) -> i32 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

const GRPC_STATUS: &str = "grpc-status";

const NO_STATUS: &str = "the answer ended without a gRPC status";

fn trailers(code: i32, message: &str) -> HeaderMap {
    let answer = Dialect::grpc().say(StatusCode::OK, code, message);
    let mut trailers = answer.into_parts().0.headers;
    trailers.remove(header::CONTENT_TYPE);
    trailers
}

impl Missing {
    fn trailers(&self) -> HeaderMap {
        trailers(self.code, &self.message)
    }
}

/// A body whose error becomes trailers, and that is not over before there were some.
struct ToTheStatus {
    inner: Option<Body>,
    missing: Missing,
}

impl http_body::Body for ToTheStatus {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { inner, missing } = &mut *self;
        let Some(inner) = inner else {
            return Poll::Ready(None);
        };
        let last = match ready!(Pin::new(inner).poll_frame(cx)) {
            Some(Ok(frame)) if !frame.is_trailers() => return Poll::Ready(Some(Ok(frame))),
            Some(Ok(frame)) => match frame.into_trailers() {
                Ok(said) if !said.contains_key(GRPC_STATUS) => {
                    let mut all = said;
                    all.extend(missing.trailers());
                    Frame::trailers(all)
                }
                Ok(said) => Frame::trailers(said),
                Err(frame) => frame,
            },
            Some(Err(error)) => Frame::trailers(match error.downcast_ref::<Error>() {
                Some(error) => trailers(error.grpc_code(), &error.to_string()),
                None => trailers(13, "the answer broke off"),
            }),
            None => Frame::trailers(missing.trailers()),
        };
        self.inner = None;
        Poll::Ready(Some(Ok(last)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_none()
    }
}
