//! A span for each attempt of a call.
//!
//! [`AttemptTraceLayer`] stands around one endpoint, inside of the layers that make attempts. Where somebody listens
//! each attempt has a span `plugin.attempt`, at level info and within that of its call:
//!
//! | field | |
//! | --- | --- |
//! | `server.address` | the endpoint |
//! | `http.request.resend_count` | attempts of the call before this one, where a [`CallContext`] tells |
//! | `http.response.status_code` | when the head has come |
//! | `error.type` | the [`Reason`] when the attempt failed, or `error`, by the rules of [`TraceLayer`](super::TraceLayer) |
//!
//! ```text
//!   plugin.call      ├────────────────────────────────────────────────┤
//!   plugin.attempt     ├─ 0: attempt_timeout ─┤
//!   plugin.attempt                                ├─ 1: 200, its body ┤
//! ```
//!
//! It is entered while the attempt's future is polled, and closed when the response's body is gone. An attempt that is
//! dropped when its time was over, or its call's, has [`attempt_timeout`](crate::Reason::AttemptTimeout) or
//! [`deadline_exceeded`](crate::Reason::DeadlineExceeded); one that is dropped earlier, by its caller or as the
//! loser of a hedge, has neither a status nor an error.
//!
//! Nothing is allocated, timed or written down where nobody listens.
//!
//! # Errors and cancellation
//! Its errors are those of the service inside. Dropping the future drops the call inside, and closes the span.
//!
//! # Order
//! Inside [`RetryLayer`](crate::RetryLayer), [`HedgeLayer`](crate::HedgeLayer) and the balancer, around each endpoint;
//! and inside of its breaker, so that a span is an attempt which was made, and not one that was refused.
//!
//! ```
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::retry::ReplayBody;
//! use tower_plugins_layers::trace::AttemptTraceLayer;
//! use tower_plugins_layers::{BoxError, RetryLayer, RetryPolicy, TraceLayer};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(TraceLayer::new("greeter"))
//!     .layer(RetryLayer::new(RetryPolicy::new()))
//!     .layer(AttemptTraceLayer::new("http://10.0.0.7:8080"))
//!     .service(service_fn(|_: Request<ReplayBody<String>>| async {
//!         Ok::<_, BoxError>(Response::new("hello".to_owned()))
//!     }));
//! service.oneshot(Request::new(String::new())).await.unwrap();
//! # });
//! ```

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;
use tracing::field::Empty;
use tracing::span::Entered;

use super::record::{Failure, failed_at_end, failed_at_head};
use crate::classify::Cutoff;
use crate::{BoxError, CallContext, End, EndOfStream, OnEnd, Reason};

/// Makes [`AttemptTrace`] services of one endpoint.
#[derive(Clone, Debug)]
pub struct AttemptTraceLayer {
    endpoint: Arc<str>,
}

impl AttemptTraceLayer {
    /// Attempts at `endpoint`, as spans should name it: without credentials.
    #[must_use]
    pub fn new(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.into(),
        }
    }
}

impl<S> Layer<S> for AttemptTraceLayer {
    type Service = AttemptTrace<S>;

    fn layer(&self, inner: S) -> AttemptTrace<S> {
        AttemptTrace {
            inner,
            layer: self.clone(),
        }
    }
}

/// Has a span for each attempt. See the [module](self).
#[derive(Clone, Debug)]
pub struct AttemptTrace<S> {
    inner: S,
    layer: AttemptTraceLayer,
}

impl AttemptTraceLayer {
    fn attempt<B, F>(
        &self,
        request: Request<B>,
        call: impl FnOnce(Request<B>) -> F,
    ) -> AttemptFuture<F> {
        let attempt = Attempt::begin(&self.endpoint, &request);
        let inner = {
            let _entered = attempt.as_ref().map(Attempt::enter);
            call(request)
        };
        AttemptFuture { inner, attempt }
    }
}

impl<S, B, RB> Service<Request<B>> for AttemptTrace<S>
where
    S: Service<Request<B>, Response = Response<RB>, Error: Into<BoxError>>,
    RB: Body<Error: Into<BoxError>>,
{
    type Response = Response<EndOfStream<RB, Attempt>>;
    type Error = BoxError;
    type Future = AttemptFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.layer
            .attempt(request, |request| self.inner.call(request))
    }
}

impl<'a, S, B, RB> Service<Request<B>> for &'a AttemptTrace<S>
where
    &'a S: Service<Request<B>, Response = Response<RB>, Error: Into<BoxError>>,
    RB: Body<Error: Into<BoxError>>,
{
    type Response = Response<EndOfStream<RB, Attempt>>;
    type Error = BoxError;
    type Future = AttemptFuture<<&'a S as Service<Request<B>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.inner).poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inner = &self.inner;
        self.layer.attempt(request, |request| inner.call(request))
    }
}

pin_project! {
    /// The future of [`AttemptTrace`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct AttemptFuture<F> {
        #[pin]
        inner: F,
        attempt: Option<Attempt>,
    }
}

impl<F, RB, E> Future for AttemptFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    E: Into<BoxError>,
    RB: Body<Error: Into<BoxError>>,
{
    type Output = Result<Response<EndOfStream<RB, Attempt>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = {
            let _entered = this.attempt.as_ref().map(Attempt::enter);
            ready!(this.inner.poll(cx)).map_err(Into::into)
        };
        let Some(mut attempt) = this.attempt.take() else {
            return Poll::Ready(result.map(|response| response.map(EndOfStream::from)));
        };
        Poll::Ready(match result {
            Ok(response) => {
                attempt.head(&response);
                Ok(response.map(|body| EndOfStream::new(body, attempt)))
            }
            Err(error) => {
                attempt.failed(&*error);
                Err(error)
            }
        })
    }
}

/// One attempt that somebody listens to, until its response's body has ended: what [`AttemptTrace`] is made of, for a
/// service that has a place of its own to keep it in.
#[derive(Debug)]
pub struct Attempt(Box<Open>);

#[derive(Debug)]
struct Open {
    span: Span,
    /// When the layers outside drop it, and why.
    cut: Option<(Instant, Reason)>,
    cutoff: Cutoff,
    failed_head: bool,
}

impl Attempt {
    /// An attempt at `endpoint`, if somebody listens.
    #[must_use]
    pub fn begin<B>(endpoint: &str, request: &Request<B>) -> Option<Self> {
        let span = tracing::info_span!(
            "plugin.attempt",
            server.address = endpoint,
            http.request.resend_count = CallContext::of(request).map(CallContext::attempt),
            http.response.status_code = Empty,
            error.r#type = Empty,
        );
        if span.is_none() {
            return None;
        }
        let context = CallContext::of(request);
        let attempt = context.and_then(CallContext::attempt_deadline);
        let call = context.and_then(CallContext::deadline);
        let cuts = [
            attempt.map(|at| (at, Reason::AttemptTimeout)),
            call.map(|at| (at, Reason::DeadlineExceeded)),
        ];
        let (_, cutoff) = Cutoff::of(request);
        Some(Self(Box::new(Open {
            span,
            cut: cuts.into_iter().flatten().min_by_key(|(at, _)| *at),
            cutoff,
            failed_head: false,
        })))
    }

    /// In the span until the guard is dropped, before any `await`.
    pub fn enter(&self) -> Entered<'_> {
        self.0.span.enter()
    }

    /// The response's head has come: hold the attempt in its body next, in an [`EndOfStream`].
    pub fn head<B>(&mut self, response: &Response<B>) {
        let open = &mut *self.0;
        let status = response.status().as_u16();
        open.span.record("http.response.status_code", status);
        // Told at once: what is to be retried is dropped unread.
        open.failed_head = failed_at_head(response);
        if open.failed_head {
            return self.end(Some(Failure::Reason(Reason::Status)));
        }
        let cut = open.cutoff.of_body(response);
        open.cut = cut.map(|at| (at, Reason::DeadlineExceeded));
    }

    /// An error has come in place of a response.
    pub fn failed(mut self, error: &(dyn StdError + 'static)) {
        self.end(Some(Failure::of(error)));
    }

    fn end(&mut self, failure: Option<Failure>) {
        self.0.cut = None;
        if let Some(failure) = failure {
            self.0.span.record("error.type", failure.as_str());
        }
    }
}

impl OnEnd for Attempt {
    fn on_end(mut self, end: End<'_>) {
        if !self.0.failed_head {
            self.end(failed_at_end(&end, false));
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some((at, reason)) = self.0.cut
            && at <= Instant::now()
        {
            self.end(Some(Failure::Reason(reason)));
        }
    }
}
