//! What the end of a call says about the endpoint that answered it.
//!
//! [`Breaker`](crate::Breaker) and [`Load`](crate::Load) judge endpoints by an [`Outcome`], and a
//! [`Classify`] says which. [`HttpGrpc`] is the one they use unless told otherwise; [`ClassifyPolicy`] is the same with
//! other statuses and gRPC codes for failures. It is asked when a response's head comes, and at the end of the body if the head
//! does not decide.
//!
//! | [`Outcome`] | a breaker, an outlier detector | [`Load`](crate::Load) |
//! | --- | --- | --- |
//! | [`Success`](Outcome::Success) | a success | the time it took |
//! | [`Overloaded`](Outcome::Overloaded) | a success | a penalty |
//! | [`Failure`](Outcome::Failure) | a failure | a penalty |
//! | [`Ignored`](Outcome::Ignored) | nothing | nothing |
//!
//! ```
//! use tower_plugins_layers::BreakerLayer;
//! use tower_plugins_layers::breaker::BreakerPolicy;
//! use tower_plugins_layers::classify::ClassifyPolicy;
//!
//! let only_503 = ClassifyPolicy::new().failure_statuses([503]);
//! let breaker = BreakerLayer::new(BreakerPolicy::new()).classify(only_503);
//! # let _ = breaker;
//! ```

mod policy;
#[cfg(feature = "serde")]
mod text;

use std::error::Error as StdError;
use std::sync::LazyLock;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio::time::Instant;

pub use self::policy::ClassifyPolicy;
use crate::context::FAIR;
use crate::deadline::{is_of_type, is_stream};
use crate::{CallContext, End, Reason, header};

/// What the end of a call says about the endpoint that answered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The endpoint works, whatever the caller makes of the answer.
    Success,
    /// The endpoint works and asks for fewer calls. A breaker takes it for a success; a balancer
    /// goes elsewhere.
    Overloaded,
    /// The endpoint does not work.
    Failure,
    /// Nothing: the call was refused on this side, or its caller went away.
    Ignored,
}

/// Says what a call's [`Outcome`] is.
///
/// A classifier has no state, and is asked in the order in which a response comes in: the head, and
/// if that does not decide, the end of the body.
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_plugins_layers::{BoxError, End};
/// use tower_plugins_layers::classify::{Classify, HttpGrpc, Outcome};
///
/// /// A missing page is the server's fault.
/// #[derive(Clone, Copy)]
/// struct Strict;
///
/// impl Classify for Strict {
///     fn head(&self, status: StatusCode, headers: &HeaderMap) -> Option<Outcome> {
///         if status == StatusCode::NOT_FOUND {
///             return Some(Outcome::Failure);
///         }
///         HttpGrpc.head(status, headers)
///     }
///     fn end(&self, end: &End<'_>) -> Outcome {
///         HttpGrpc.end(end)
///     }
///     fn error(&self, error: &(dyn std::error::Error + 'static)) -> Outcome {
///         HttpGrpc.error(error)
///     }
/// }
/// assert_eq!(Strict.head(StatusCode::NOT_FOUND, &HeaderMap::new()), Some(Outcome::Failure));
/// ```
pub trait Classify: Clone + Send + Sync + 'static {
    /// What a response's head says; `None` to wait for the end of the body.
    fn head(&self, status: StatusCode, headers: &HeaderMap) -> Option<Outcome>;

    /// What the end of a body says whose head did not decide.
    fn end(&self, end: &End<'_>) -> Outcome;

    /// What an error in place of a response says.
    fn error(&self, error: &(dyn StdError + 'static)) -> Outcome;
}

/// The usual reading of HTTP and gRPC.
///
/// | seen | outcome |
/// | --- | --- |
/// | 5xx but 501 and 505 | failure |
/// | 429, `RESOURCE_EXHAUSTED` | overloaded |
/// | any other status, 501 and 505 too: they are about the request | success |
/// | `UNKNOWN`, `DEADLINE_EXCEEDED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`, or a `grpc-status` that is no number, in head or trailers | failure |
/// | `CANCELLED` | ignored |
/// | any other gRPC code | success |
/// | a gRPC response that ends without a `grpc-status` | `UNKNOWN`: failure, unless a policy says otherwise |
/// | a body that breaks off | failure |
/// | 101 and `text/event-stream` | success at the head: what follows may last for days |
/// | an error whose [`Reason`] is a refusal on this side: a limit, a breaker, a budget, no endpoint, a drain, a full pool; or a request whose own body failed | ignored |
/// | any other error, one for a deadline or timeout inside too | failure |
///
/// A call that is dropped is ignored, unless its deadline or its attempt's time was over: then the
/// endpoint had its time and did not answer, which is a failure. A caller's own deadline of less than 100 ms
/// says nothing; nor does an answer to such a caller that its time was over: 504 or `DEADLINE_EXCEEDED`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpGrpc;

const USUAL: ClassifyPolicy = ClassifyPolicy::new();

impl Classify for HttpGrpc {
    fn head(&self, status: StatusCode, headers: &HeaderMap) -> Option<Outcome> {
        USUAL.head(status, headers)
    }

    fn end(&self, end: &End<'_>) -> Outcome {
        USUAL.end(end)
    }

    fn error(&self, error: &(dyn StdError + 'static)) -> Outcome {
        of_error(error)
    }
}

/// What an error in place of a response, or of its body, says.
fn of_error(error: &(dyn StdError + 'static)) -> Outcome {
    match Reason::of(error) {
        Some(
            Reason::RateLimited
            | Reason::ConcurrencyLimited
            | Reason::BreakerOpen
            | Reason::NoEndpoint
            | Reason::Draining
            | Reason::DrainCancelled
            | Reason::PoolExhausted
            | Reason::RequestBroken
            | Reason::RequestTooLarge
            | Reason::UpgradeUnsupported
            | Reason::Shed
            | Reason::Unauthenticated
            | Reason::Forbidden
            | Reason::FilterFailed
            | Reason::CredentialsFailed
            | Reason::RetryBudget,
        ) => Outcome::Ignored,
        _ => Outcome::Failure,
    }
}

/// Reads the response of one call as it comes in, and says once what a classifier makes of it.
///
/// It knows what a head or an end alone does not tell: a gRPC response whose status never came is `UNKNOWN`, and a caller
/// that had set itself less than 100 ms says nothing by its time being over.
///
/// ```
/// use http::Response;
/// use tower_plugins_layers::End;
/// use tower_plugins_layers::classify::{HttpGrpc, Outcome, Reading};
///
/// let mut reading = Reading::of_caller(None);
/// let mut response = Response::new(());
/// response.headers_mut().insert("content-type", "application/grpc".parse()?);
/// assert_eq!(reading.head(&HttpGrpc, &response), None);
/// assert_eq!(reading.end(&HttpGrpc, &End::Complete(None)), Outcome::Failure);
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// The caller waits for next to nothing: that its time was over says nothing then.
    hurry: bool,
    /// The head was that of a gRPC response whose status comes with the trailers.
    status_to_come: bool,
}

impl Reading {
    /// Of what answers a caller that waits so long, if it has said so.
    #[must_use]
    pub fn of_caller(waits: Option<Duration>) -> Self {
        Self {
            hurry: waits.is_some_and(|waits| waits < FAIR),
            status_to_come: false,
        }
    }

    /// Of what answers `request`, judged by its context alone.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        Self {
            hurry: CallContext::of(request).is_some_and(CallContext::is_in_a_hurry),
            status_to_come: false,
        }
    }

    /// What the head of `response` says; `None` if the end of its body decides.
    pub fn head<C: Classify, B>(
        &mut self,
        classify: &C,
        response: &Response<B>,
    ) -> Option<Outcome> {
        let headers = response.headers();
        let Some(outcome) = classify.head(response.status(), headers) else {
            self.status_to_come = header::content_type(headers).is_some_and(is_grpc);
            return None;
        };
        let over =
            || response.status() == StatusCode::GATEWAY_TIMEOUT || is_deadline_exceeded(headers);
        Some(self.judge(outcome, over))
    }

    /// What `end` says. One without the status that was to come says `UNKNOWN`, as gRPC has it.
    pub fn end<C: Classify>(self, classify: &C, end: &End<'_>) -> Outcome {
        let silent = self.status_to_come
            && match end {
                End::Complete(trailers) => {
                    trailers.is_none_or(|trailers| !trailers.contains_key(&header::GRPC_STATUS))
                }
                End::Error(_) => false,
            };
        let outcome = if silent {
            classify.end(&End::Complete(Some(&UNKNOWN)))
        } else {
            classify.end(end)
        };
        let over = || match end {
            End::Complete(trailers) => trailers.is_some_and(is_deadline_exceeded),
            End::Error(error) => is_over(*error),
        };
        self.judge(outcome, over)
    }

    /// What an error in place of a response says.
    pub fn error<C: Classify>(self, classify: &C, error: &(dyn StdError + 'static)) -> Outcome {
        self.judge(classify.error(error), || is_over(error))
    }

    fn judge(self, outcome: Outcome, over: impl FnOnce() -> bool) -> Outcome {
        if self.hurry && outcome == Outcome::Failure && over() {
            Outcome::Ignored
        } else {
            outcome
        }
    }
}

/// The trailers of a call whose status is not known.
static UNKNOWN: LazyLock<HeaderMap> = LazyLock::new(|| {
    HeaderMap::from_iter([(header::GRPC_STATUS.clone(), HeaderValue::from_static("2"))])
});

/// Whether this content type is that of gRPC, and not of gRPC-Web, whose trailers are in the body.
fn is_grpc(kind: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    is_of_type(kind, GRPC) && kind.get(GRPC.len()) != Some(&b'-')
}

fn is_over(error: &(dyn StdError + 'static)) -> bool {
    Reason::of(error) == Some(Reason::DeadlineExceeded)
}

fn is_deadline_exceeded(headers: &HeaderMap) -> bool {
    headers
        .get(&header::GRPC_STATUS)
        .is_some_and(|code| code == "4")
}

/// When the layers outside will cut a call short, which they do by dropping it: the one way to tell
/// an endpoint that took too long from a caller that went away.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cutoff {
    call: Option<Instant>,
    /// The caller's own, which binds streams too.
    own: Option<Instant>,
}

impl Cutoff {
    /// When the wait for the head of the response to `request` is cut short, and what decides over its body.
    pub(crate) fn of<B>(request: &Request<B>) -> (Option<Instant>, Self) {
        let Some(context) = CallContext::of(request) else {
            return (None, Self::default());
        };
        let (call, own) = context.judged();
        let attempt = context.attempt_deadline();
        (
            [attempt, call].into_iter().flatten().min(),
            Self { call, own },
        )
    }

    /// When the body that comes with this head is.
    pub(crate) fn of_body<B>(&self, response: &Response<B>) -> Option<Instant> {
        if self.call == self.own || is_stream(response) {
            self.own
        } else {
            self.call
        }
    }

    /// What it says about the endpoint that a call is dropped now, which is cut short at `cut`.
    pub(crate) fn dropped(cut: Option<Instant>) -> Outcome {
        match cut {
            Some(at) if at <= Instant::now() => Outcome::Failure,
            _ => Outcome::Ignored,
        }
    }
}
