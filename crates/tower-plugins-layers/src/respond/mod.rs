//! Errors of layers as responses.
//!
//! A layer that refuses a call ends it in an error, but a server's service may not fail: axum asks for
//! [`Infallible`], and a tonic client should see a status. [`RespondLayer`], outermost, answers in the place of
//! what failed: by the [`Reason`]'s status in HTTP, or, to a request of `application/grpc`, with a
//! gRPC response of trailers only. Neither says more than the reason's own words: causes may name addresses.
//!
//! What the error tells a caller goes into headers: a wait that is known into `Retry-After`, in whole seconds and
//! rounded up; the state of a rate limit into `RateLimit-Policy` and `RateLimit`; and on a 401 the challenge of an
//! [`AuthorizeLayer`](crate::AuthorizeLayer) into `WWW-Authenticate`.
//!
//! ```text
//!   request ──▶ RespondLayer ──▶ rate limit ──▶ … ──▶ the service
//!   429     ◀── answers      ◀── Err(rate_limited)
//! ```
//!
//! | reason | HTTP | gRPC |
//! | --- | --- | --- |
//! | `rate_limited` | 429 | 8 |
//! | `concurrency_limited`, `shed` | 503 | 8 |
//! | `breaker_open`, `no_endpoint`, `draining`, `drain_cancelled`, `pool_exhausted`, `filter_failed`, `forced` | 503 | 14 |
//! | `deadline_exceeded`, `attempt_timeout`, `stream_idle` | 504 | 4 |
//! | `unauthenticated` | 401 | 16 |
//! | `forbidden` | 403 | 7 |
//! | `request_broken` | 400 | 1 |
//! | `request_too_large` | 413 | 8 |
//! | `upgrade_unsupported` | 501 | 12 |
//! | `response_too_large` | 502 | 8 |
//! | `panicked` | 500 | 13 |
//! | any other | 502 | 14 |
//! | an error without a reason | 500 | 13 |
//!
//! | option | default | |
//! | --- | --- | --- |
//! | [`reason_header`](RespondLayer::reason_header) | none | a response header for the reason's word, such as `x-refused-reason` |
//!
//! An error of readiness is answered too, by the next call. One that comes once the head is out, such as a
//! deadline that ends a body, is the body's: the server cuts the response off. Cancelling drops the call
//! inside.
//!
//! # Order
//! Outermost, even of [`TraceLayer`](crate::TraceLayer), which must see a refusal as what it is and not as a response.
//!
//! As it stands where services are owned, it has no form that is called by reference.
//!
//! ```
//! use axum::{Router, body::Body, http::Request, routing::get};
//! use http::HeaderName;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_plugins_layers::{RateLimitLayer, RespondLayer};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let app: Router = Router::new().route("/", get(|| async { "hello" })).layer(
//!     ServiceBuilder::new()
//!         .layer(RespondLayer::new().reason_header(HeaderName::from_static("x-refused-reason")))
//!         .layer(RateLimitLayer::new(0.1, 1)),
//! );
//! let get = || Request::get("/").body(Body::empty()).unwrap();
//! assert_eq!(app.clone().oneshot(get()).await.unwrap().status(), 200);
//! let refused = app.oneshot(get()).await.unwrap();
//! assert_eq!(refused.status(), 429);
//! assert_eq!(refused.headers()["retry-after"], "10");
//! assert_eq!(refused.headers()["x-refused-reason"], "rate_limited");
//! # });
//! ```

mod dialect;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{Either, Full};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

pub use self::dialect::{Dialect, write_headers};
use crate::{BoxError, Reason, Refused};

/// The body of [`Respond`]'s responses: that of the service inside, or a line of text.
pub type ResponseBody<B> = Either<B, Full<Bytes>>;

/// Makes [`Respond`] services.
#[derive(Clone, Debug, Default)]
pub struct RespondLayer {
    reason_header: Option<HeaderName>,
}

impl RespondLayer {
    /// Answers in the place of what failed.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            reason_header: None,
        }
    }

    /// Puts the reason's word into the header `name`. Off by default: it tells callers how the server is made.
    #[must_use]
    pub fn reason_header(mut self, name: HeaderName) -> Self {
        self.reason_header = Some(name);
        self
    }
}

impl<S> Layer<S> for RespondLayer {
    type Service = Respond<S>;

    fn layer(&self, inner: S) -> Respond<S> {
        Respond {
            inner,
            layer: self.clone(),
            broken: None,
        }
    }
}

/// Answers in the place of what failed. See the [module](self).
#[derive(Debug)]
pub struct Respond<S> {
    inner: S,
    layer: RespondLayer,
    /// Why the service inside is not ready, until a call is told.
    broken: Option<BoxError>,
}

impl<S: Clone> Clone for Respond<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: self.layer.clone(),
            broken: None,
        }
    }
}

impl<S, B, RB> Service<Request<B>> for Respond<S>
where
    S: Service<Request<B>, Response = Response<RB>, Error: Into<BoxError>>,
    RB: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.broken.is_none()
            && let Err(error) = ready!(self.inner.poll_ready(cx))
        {
            self.broken = Some(error.into());
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let dialect = Dialect::of(&request);
        let state = match self.broken.take() {
            Some(error) => State::Broken { error: Some(error) },
            None => State::Call {
                future: self.inner.call(request),
            },
        };
        ResponseFuture {
            state,
            dialect,
            reason_header: self.layer.reason_header.clone(),
        }
    }
}

pin_project! {
    /// The future of [`Respond`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
        dialect: Dialect,
        reason_header: Option<HeaderName>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<F> {
        Call { #[pin] future: F },
        Broken { error: Option<BoxError> },
    }
}

impl<F, RB, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody<RB>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let error = match this.state.project() {
            Projected::Call { future } => match ready!(future.poll(cx)) {
                Ok(response) => return Poll::Ready(Ok(response.map(Either::Left))),
                Err(error) => error.into(),
            },
            // A future that is polled after its end has nothing to say.
            Projected::Broken { error } => match error.take() {
                Some(error) => error,
                None => return Poll::Pending,
            },
        };
        let response = answer(*this.dialect, &error, this.reason_header.take());
        Poll::Ready(Ok(response.map(|text| Either::Right(Full::new(text)))))
    }
}

fn answer(dialect: Dialect, error: &BoxError, header: Option<HeaderName>) -> Response<Bytes> {
    let Some(refused) = Refused::find(&**error) else {
        return dialect.respond(StatusCode::INTERNAL_SERVER_ERROR, 13, "internal error");
    };
    let reason = refused.reason();
    let mut response = dialect.respond(
        reason.http_status(),
        reason.grpc_code(),
        &Refused::new(reason).to_string(),
    );
    write_headers(&**error, &mut response);
    if let Some(name) = header {
        let word = HeaderValue::from_static(reason.as_str());
        response.headers_mut().insert(name, word);
    }
    response
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}

impl Reason {
    /// The HTTP status by which a server answers a call that ended for this.
    #[must_use]
    pub const fn http_status(self) -> StatusCode {
        self.statuses().0
    }

    /// The code of the gRPC status by which a server answers a call that ended for this.
    #[must_use]
    pub const fn grpc_code(self) -> i32 {
        self.statuses().1
    }

    const fn statuses(self) -> (StatusCode, i32) {
        match self {
            Self::RateLimited => (StatusCode::TOO_MANY_REQUESTS, 8),
            Self::ConcurrencyLimited | Self::Shed => (StatusCode::SERVICE_UNAVAILABLE, 8),
            Self::BreakerOpen
            | Self::NoEndpoint
            | Self::Draining
            | Self::DrainCancelled
            | Self::PoolExhausted
            | Self::FilterFailed
            | Self::CredentialsFailed
            | Self::RetryBudget
            | Self::Forced => (StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::DeadlineExceeded | Self::AttemptTimeout | Self::StreamIdle => {
                (StatusCode::GATEWAY_TIMEOUT, 4)
            }
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, 16),
            Self::Forbidden => (StatusCode::FORBIDDEN, 7),
            Self::RequestBroken => (StatusCode::BAD_REQUEST, 1),
            Self::RequestTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, 8),
            Self::UpgradeUnsupported => (StatusCode::NOT_IMPLEMENTED, 12),
            Self::ResponseTooLarge => (StatusCode::BAD_GATEWAY, 8),
            Self::Panicked => (StatusCode::INTERNAL_SERVER_ERROR, 13),
            Self::ConnectFailed
            | Self::ConnectionLost
            | Self::Status
            | Self::Hedged
            | Self::ConsecutiveFailures
            | Self::FailureRate
            | Self::SlowCalls
            | Self::SuccessRate
            | Self::ProbeFailed => (StatusCode::BAD_GATEWAY, 14),
        }
    }
}
