use std::error::Error as StdError;
#[cfg(feature = "tracing")]
use std::sync::Arc;

use http::{HeaderMap, Request, Response};
use tokio::time::Instant;

use crate::sharded::{Held, Shared};
use crate::{CallContext, End, FallbackUsed, OnEnd, Reason, header};

/// The name of what is called, and the handles of its metrics.
#[derive(Debug)]
pub(super) struct Names {
    #[cfg(feature = "tracing")]
    name: Box<str>,
    #[cfg(feature = "metrics")]
    metrics: metrics_of::Handles,
}

impl Names {
    #[cfg_attr(
        not(any(feature = "tracing", feature = "metrics")),
        expect(unused_variables)
    )]
    pub(super) fn new(name: &str) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            name: name.into(),
            #[cfg(feature = "metrics")]
            metrics: metrics_of::Handles::new(name),
        }
    }
}

/// How a call went wrong, in one word.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure {
    Reason(Reason),
    Other,
}

impl Failure {
    pub(super) fn of(error: &(dyn StdError + 'static)) -> Self {
        Reason::of(error).map_or(Self::Other, Self::Reason)
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Reason(reason) => reason.as_str(),
            Self::Other => "error",
        }
    }
}

/// One call. Dropped before its end, it was given up by its caller.
#[derive(Debug)]
pub(crate) struct Record {
    names: Held<Names>,
    start: Instant,
    failed_head: bool,
    pub(super) span: Span,
}

impl Record {
    pub(super) fn begin<B>(names: &Shared<Names>, request: &Request<B>) -> Self {
        #[cfg(feature = "metrics")]
        names.metrics.begin();
        Self {
            start: CallContext::now(request.extensions()),
            failed_head: false,
            span: Span::of(names, request),
            names: names.hold(),
        }
    }

    pub(super) fn head<B>(&mut self, response: &Response<B>) {
        self.span.status(response.status().as_u16());
        if let Some(FallbackUsed(reason)) = response.extensions().get() {
            self.span.fallback(reason.as_str());
            #[cfg(feature = "metrics")]
            self.names.metrics.fallback(*reason);
        }
        self.failed_head = failed_at_head(response);
    }

    pub(super) fn failed(self, error: &(dyn StdError + 'static)) {
        self.end(Some(Failure::of(error)));
    }

    fn end(self, failure: Option<Failure>) {
        if let Some(failure) = failure {
            self.span.failure(failure.as_str());
        }
        #[cfg(feature = "metrics")]
        self.names.metrics.end(self.start, failure);
        #[cfg(not(feature = "metrics"))]
        let _ = (&self.names, self.start);
    }
}

impl OnEnd for Record {
    fn on_end(self, end: End<'_>) {
        let failure = failed_at_end(&end, self.failed_head);
        self.end(failure);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        #[cfg(feature = "metrics")]
        self.names.metrics.leave();
    }
}

/// Whether this head says that the call failed.
pub(super) fn failed_at_head<B>(response: &Response<B>) -> bool {
    response.status().is_server_error() || grpc_failed(response.headers())
}

/// How a call failed, if it did, whose body ends so.
pub(super) fn failed_at_end(end: &End<'_>, failed_head: bool) -> Option<Failure> {
    match end {
        End::Complete(trailers) => {
            let failed = failed_head || trailers.is_some_and(grpc_failed);
            failed.then_some(Failure::Reason(Reason::Status))
        }
        End::Error(error) => Some(Failure::of(*error)),
    }
}

fn grpc_failed(headers: &HeaderMap) -> bool {
    headers
        .get(&header::GRPC_STATUS)
        .is_some_and(|status| status.as_bytes() != b"0")
}

#[cfg(feature = "metrics")]
mod metrics_of {
    use std::fmt;
    use std::sync::OnceLock;

    use metrics::{Counter, Gauge, Histogram, SharedString, counter, gauge, histogram};
    use tokio::time::Instant;

    use super::Failure;
    use crate::Reason;

    pub(super) struct Handles {
        name: SharedString,
        requests: Counter,
        success: Counter,
        failure: [OnceLock<Counter>; Reason::ALL.len() + 1],
        duration: Histogram,
        active: Gauge,
    }

    impl Handles {
        pub(super) fn new(name: &str) -> Self {
            let name: SharedString = name.to_owned().into();
            Self {
                requests: counter!("plugin_requests_total", "plugin_name" => name.clone()),
                success: counter!("plugin_requests_success_total", "plugin_name" => name.clone()),
                failure: [const { OnceLock::new() }; Reason::ALL.len() + 1],
                duration: histogram!("plugin_request_duration_seconds", "plugin_name" => name.clone()),
                active: gauge!("plugin_active_requests", "plugin_name" => name.clone()),
                name,
            }
        }

        pub(super) fn begin(&self) {
            self.requests.increment(1);
            self.active.increment(1.0);
        }

        pub(super) fn end(&self, start: Instant, failure: Option<Failure>) {
            self.duration.record(start.elapsed());
            let Some(failure) = failure else {
                return self.success.increment(1);
            };
            let index = match failure {
                Failure::Reason(reason) => reason as usize,
                Failure::Other => Reason::ALL.len(),
            };
            // One handle a reason, made when the reason first occurs.
            self.failure[index]
                .get_or_init(|| {
                    counter!(
                        "plugin_requests_failure_total",
                        "plugin_name" => self.name.clone(),
                        "reason" => failure.as_str(),
                    )
                })
                .increment(1);
        }

        /// Looked up each time: there is a fallback in place of an answer, not on every call's path.
        pub(super) fn fallback(&self, reason: Reason) {
            counter!(
                "plugin_fallback_total",
                "plugin_name" => self.name.clone(),
                "reason" => reason.as_str(),
            )
            .increment(1);
        }

        pub(super) fn leave(&self) {
            self.active.decrement(1.0);
        }
    }

    impl fmt::Debug for Handles {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Handles")
                .field("name", &self.name)
                .finish_non_exhaustive()
        }
    }
}

/// A call's span; nothing without the feature `tracing`.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    #[cfg(feature = "tracing")]
    // Shared with the body, and small where nobody listens.
    span: Option<Arc<tracing::Span>>,
}

#[cfg(feature = "tracing")]
impl Span {
    pub(super) const fn none() -> Self {
        Self { span: None }
    }

    fn of<B>(names: &Names, request: &Request<B>) -> Self {
        let span = tracing::info_span!(
            "plugin.call",
            plugin.name = %names.name,
            http.request.method = %request.method(),
            url.path = request.uri().path(),
            http.response.status_code = tracing::field::Empty,
            error.r#type = tracing::field::Empty,
            fallback.reason = tracing::field::Empty,
        );
        Self {
            span: (!span.is_none()).then(|| Arc::new(span)),
        }
    }

    fn status(&self, status: u16) {
        if let Some(span) = &self.span {
            span.record("http.response.status_code", status);
        }
    }

    fn fallback(&self, reason: &'static str) {
        if let Some(span) = &self.span {
            span.record("fallback.reason", reason);
        }
    }

    fn failure(&self, failure: &'static str) {
        if let Some(span) = &self.span {
            span.record("error.type", failure);
        }
    }

    /// In the span until the guard is dropped, before any `await`.
    pub(super) fn entered(&self) -> Option<tracing::span::Entered<'_>> {
        self.span.as_ref().map(|span| span.enter())
    }
}

#[cfg(not(feature = "tracing"))]
#[expect(clippy::unused_self, reason = "the same interface as with the feature")]
impl Span {
    pub(super) const fn none() -> Self {
        Self {}
    }

    const fn of<B>(_: &Names, _: &Request<B>) -> Self {
        Self {}
    }

    const fn status(&self, _: u16) {}

    const fn fallback(&self, _: &'static str) {}

    const fn failure(&self, _: &'static str) {}

    pub(super) const fn entered(&self) -> Option<()> {
        None
    }
}
