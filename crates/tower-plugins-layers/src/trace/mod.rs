//! What happened to each call, as metrics and a span.
//!
//! [`TraceLayer`] sees a call from its beginning until its response's body has ended or been
//! dropped, refusals of the layers inside included. With the feature `metrics` it records, through
//! the `metrics` facade, for the layer's `name` in the label `plugin_name`:
//!
//! | metric | kind | what |
//! | --- | --- | --- |
//! | `plugin_requests_total` | counter | calls begun |
//! | `plugin_requests_success_total` | counter | calls that ended well |
//! | `plugin_requests_failure_total` | counter | calls that failed; the label `reason` has the [`Reason`](crate::Reason), or `error` |
//! | `plugin_fallback_total` | counter | answers that a [fallback](crate::fallback) gave; the label `reason` says why |
//! | `plugin_request_duration_seconds` | histogram | from the beginning to the end of the body; calls that their caller gave up are not in it |
//! | `plugin_active_requests` | gauge | calls under way |
//!
//! A response with a status of 500 and above or with a `grpc-status` other than 0 is a failure. A
//! call that its caller gave up is neither a success nor a failure.
//!
//! Handles are made when the layer is made, so install the recorder before.
//!
//! ```text
//!   call ──▶ ├── layers inside ── head ── body ──┤ trailers, end, error or drop
//!            total, active +1                    success or failure, its time, active -1
//! ```
//!
//! With the feature `tracing` each call has a span `plugin.call` at level info with the fields
//! `plugin.name`, `http.request.method`, `url.path`, `http.response.status_code`, `error.type` and `fallback.reason`;
//! when nobody listens it costs a check. [`AttemptTraceLayer`] has one for each attempt.
//!
//! | option | default | |
//! | --- | --- | --- |
//! | `name` | | what calls are counted under, and what the span names |
//!
//! # Errors and cancellation
//! Its errors are those of the service inside. Dropping the future, or the response's body before its end, ends the call as
//! one that its caller gave up.
//!
//! # Order
//! Outermost, so that it sees every outcome.
//!
//! ```
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::{BoxError, TraceLayer};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(TraceLayer::new("greeter"))
//!     .service(service_fn(|_: Request<()>| async {
//!         Ok::<_, BoxError>(Response::new("hello".to_owned()))
//!     }));
//! service.oneshot(Request::new(())).await.unwrap();
//! # });
//! ```

#[cfg(feature = "tracing")]
pub mod attempt;
mod record;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

#[cfg(feature = "tracing")]
pub use self::attempt::{Attempt, AttemptTrace, AttemptTraceLayer};
use self::record::{Record, Span};
use crate::end_of_stream::Held;
use crate::sharded::Shared;
use crate::{BoxError, EndOfStream};

/// Makes [`Trace`] services.
#[derive(Clone, Debug)]
pub struct TraceLayer {
    names: Shared<record::Names>,
}

impl TraceLayer {
    /// Records calls under `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            names: Shared::new(record::Names::new(name)),
        }
    }
}

impl<S> Layer<S> for TraceLayer {
    type Service = Trace<S>;

    fn layer(&self, inner: S) -> Trace<S> {
        Trace {
            inner,
            names: self.names.clone(),
        }
    }
}

/// Records its calls. See the [module](self).
#[derive(Clone, Debug)]
pub struct Trace<S> {
    inner: S,
    names: Shared<record::Names>,
}

impl<S, B, RB> Service<Request<B>> for Trace<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    RB: Body<Error: Into<BoxError>>,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let record = Record::begin(&self.names, &request);
        let inner = {
            let _entered = record.span.entered();
            self.inner.call(request)
        };
        ResponseFuture {
            inner,
            record: Some(record),
        }
    }
}

impl<'a, S, B, RB> Service<Request<B>> for &'a Trace<S>
where
    &'a S: Service<Request<B>, Response = Response<RB>>,
    <&'a S as Service<Request<B>>>::Error: Into<BoxError>,
    RB: Body<Error: Into<BoxError>>,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<<&'a S as Service<Request<B>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.inner).poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let record = Record::begin(&self.names, &request);
        let inner = {
            let _entered = record.span.entered();
            (&self.inner).call(request)
        };
        ResponseFuture {
            inner,
            record: Some(record),
        }
    }
}

pin_project! {
    /// The future of [`Trace`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        record: Option<Record>,
    }
}

impl<F, RB, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    E: Into<BoxError>,
    RB: Body<Error: Into<BoxError>>,
{
    type Output = Result<Response<ResponseBody<RB>>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = {
            let _entered = this.record.as_ref().map(|record| record.span.entered());
            this.inner.poll(cx)
        };
        if polled.is_pending() {
            return Poll::Pending;
        }
        let mut record = this.record.take();
        let span = record
            .as_ref()
            .map_or_else(Span::none, |record| record.span.clone());
        let held = match &polled {
            Poll::Ready(Ok(response)) => {
                if let Some(record) = &mut record {
                    record.head(response);
                }
                Held::by(response.body(), record.take())
            }
            _ => Held::Nobody,
        };
        match polled {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(response.map(|body| ResponseBody {
                inner: EndOfStream::with(body, held),
                span,
            }))),
            Poll::Ready(Err(error)) => {
                let error = error.into();
                if let Some(record) = record {
                    record.failed(&*error);
                }
                Poll::Ready(Err(error))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

pin_project! {
    /// The body of [`Trace`]'s responses.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        inner: EndOfStream<B, Option<Record>>,
        span: Span,
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.project();
        let _entered = this.span.entered();
        this.inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
