//! What a handler says went wrong.

use std::borrow::Cow;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use tonic::Code;

/// A boxed error, into which `?` turns any other.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The longest message that is sent, in bytes: over gRPC it is a trailer.
const MAX_MESSAGE: usize = 4096;

/// What kind of failure it is: gRPC's words, with the status that each has over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// What was asked makes no sense: 400, `INVALID_ARGUMENT`.
    InvalidArgument,
    /// The caller has not said who it is: 401, `UNAUTHENTICATED`.
    Unauthenticated,
    /// The caller may not do this: 403, `PERMISSION_DENIED`.
    PermissionDenied,
    /// There is no such thing: 404, `NOT_FOUND`.
    NotFound,
    /// There is such a thing already: 409, `ALREADY_EXISTS`.
    AlreadyExists,
    /// Another call was in the way: 409, `ABORTED`.
    Aborted,
    /// Something has to be done first: 412, `FAILED_PRECONDITION`.
    FailedPrecondition,
    /// Too much is asked for, now or at all: 429, `RESOURCE_EXHAUSTED`. Hosts take it for an overload and may ask again.
    ResourceExhausted,
    /// The plugin failed: 500, `INTERNAL`.
    Internal,
    /// The plugin does not do this: 501, `UNIMPLEMENTED`.
    Unimplemented,
    /// Not now: 503, `UNAVAILABLE`. Hosts ask again, where the call may be repeated.
    Unavailable,
    /// The caller's time is up: 504, `DEADLINE_EXCEEDED`.
    DeadlineExceeded,
}

impl Kind {
    /// The kind in one word, which answers in JSON have in `kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// Whether the same call may succeed later: hosts ask again, within their rules.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::ResourceExhausted | Self::Unavailable)
    }

    pub(super) const fn status(self) -> StatusCode {
        self.row().1
    }

    pub(super) const fn code(self) -> Code {
        self.row().2
    }

    const fn row(self) -> (&'static str, StatusCode, Code) {
        use StatusCode as S;
        match self {
            Self::InvalidArgument => ("invalid_argument", S::BAD_REQUEST, Code::InvalidArgument),
            Self::Unauthenticated => ("unauthenticated", S::UNAUTHORIZED, Code::Unauthenticated),
            Self::PermissionDenied => ("permission_denied", S::FORBIDDEN, Code::PermissionDenied),
            Self::NotFound => ("not_found", S::NOT_FOUND, Code::NotFound),
            Self::AlreadyExists => ("already_exists", S::CONFLICT, Code::AlreadyExists),
            Self::Aborted => ("aborted", S::CONFLICT, Code::Aborted),
            Self::FailedPrecondition => (
                "failed_precondition",
                S::PRECONDITION_FAILED,
                Code::FailedPrecondition,
            ),
            Self::ResourceExhausted => (
                "resource_exhausted",
                S::TOO_MANY_REQUESTS,
                Code::ResourceExhausted,
            ),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, Code::Internal),
            Self::Unimplemented => ("unimplemented", S::NOT_IMPLEMENTED, Code::Unimplemented),
            Self::Unavailable => ("unavailable", S::SERVICE_UNAVAILABLE, Code::Unavailable),
            Self::DeadlineExceeded => (
                "deadline_exceeded",
                S::GATEWAY_TIMEOUT,
                Code::DeadlineExceeded,
            ),
        }
    }

    fn of_code(code: Code) -> Self {
        match code {
            Code::InvalidArgument | Code::OutOfRange => Self::InvalidArgument,
            Code::Unauthenticated => Self::Unauthenticated,
            Code::PermissionDenied => Self::PermissionDenied,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::Aborted => Self::Aborted,
            Code::FailedPrecondition => Self::FailedPrecondition,
            Code::ResourceExhausted => Self::ResourceExhausted,
            Code::Unimplemented => Self::Unimplemented,
            Code::Unavailable => Self::Unavailable,
            Code::DeadlineExceeded => Self::DeadlineExceeded,
            Code::Ok | Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
                Self::Internal
            }
        }
    }
}

/// Why a call failed, as its caller is told it over every wire.
///
/// ```
/// use std::time::Duration;
/// use tower_plugins_sdk::router::{CallError, Kind};
///
/// let error = CallError::new(Kind::NotFound, "there is no image 7").code("no_image");
/// assert_eq!(error.to_string(), "there is no image 7");
///
/// let later = CallError::new(Kind::Unavailable, "the disk is full").retry_after(Duration::from_secs(3));
/// assert!(later.kind().is_retryable());
/// ```
#[derive(Clone, Debug)]
pub struct CallError {
    kind: Kind,
    message: String,
    code: Option<Cow<'static, str>>,
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
    is_verdict: bool,
}

impl CallError {
    /// A failure of this `kind`, with the text of `error` and of all its causes. The caller sees that text, of which
    /// at most 4 KiB are sent.
    #[must_use]
    pub fn new(kind: Kind, error: impl Into<BoxError>) -> Self {
        Self {
            kind,
            message: with_causes(&*error.into()),
            code: None,
            status: None,
            retry_after: None,
            is_verdict: true,
        }
    }

    /// A failure of the plugin's, with the text of `error`.
    #[must_use]
    pub fn internal(error: impl Into<BoxError>) -> Self {
        Self::new(Kind::Internal, error)
    }

    /// A word for programs, such as `no_image`. It is in `code` of answers in JSON, and in the metadata
    /// `x-error-code` of gRPC.
    #[must_use]
    pub fn code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// How long the caller should wait before it asks again: the header `retry-after`, and gRPC's
    /// `grpc-retry-pushback-ms`.
    #[must_use]
    pub const fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Answers over HTTP with `status` in place of the kind's.
    #[must_use]
    pub const fn status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The same, as one that no handler decided on: it has a status of its own within an envelope too.
    pub(super) const fn before_the_handler(mut self) -> Self {
        self.is_verdict = false;
        self
    }

    /// Whether a handler has answered with it, and not one that says to ask again.
    pub(super) const fn is_verdict(&self) -> bool {
        self.is_verdict && !self.kind.is_retryable()
    }

    pub(super) fn http_status(&self) -> StatusCode {
        self.status.unwrap_or(self.kind.status())
    }

    pub(super) fn word(&self) -> Option<&str> {
        self.code.as_deref()
    }

    pub(super) const fn wait(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for CallError {}

fn with_causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Many say their cause themselves.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    let cut = (0..=MAX_MESSAGE.min(text.len())).rfind(|at| text.is_char_boundary(*at));
    text.truncate(cut.unwrap_or_default());
    text
}

/// An error that a handler may return.
///
/// A program says for its own errors what kind each is. A handler that has nothing to say about kinds returns
/// [`BoxError`], into which `?` turns any error: it is [`Kind::Internal`], unless there is a [`CallError`] or a
/// [`tonic::Status`] in its chain, which then says.
///
/// ```
/// use std::fmt;
/// use tower_plugins_sdk::router::{CallError, IntoCallError, Kind};
///
/// #[derive(Debug)]
/// enum ResizeError { NoImage, Io(std::io::Error) }
///
/// impl IntoCallError for ResizeError {
///     fn into_call_error(self) -> CallError {
///         match self {
///             Self::NoImage => CallError::new(Kind::NotFound, "there is no such image").code("no_image"),
///             Self::Io(error) => CallError::internal(error),
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say what kind of failure it is",
    label = "not an error of a handler",
    note = "implement `IntoCallError` for it: `CallError::internal(self)` is enough for an `std::error::Error`",
    note = "or return `CallError`, or `BoxError`, into which `?` turns any error"
)]
pub trait IntoCallError {
    /// The error as a caller is told it.
    fn into_call_error(self) -> CallError;
}

impl IntoCallError for CallError {
    fn into_call_error(self) -> CallError {
        self
    }
}

impl IntoCallError for Infallible {
    fn into_call_error(self) -> CallError {
        match self {}
    }
}

impl IntoCallError for BoxError {
    fn into_call_error(self) -> CallError {
        let mut next: Option<&(dyn StdError + 'static)> = Some(&*self);
        while let Some(error) = next {
            if let Some(said) = error.downcast_ref::<CallError>() {
                let message = with_causes(&*self);
                return CallError {
                    message,
                    ..said.clone()
                };
            }
            if let Some(status) = error.downcast_ref::<tonic::Status>() {
                return CallError::new(Kind::of_code(status.code()), status.message());
            }
            next = error.source();
        }
        CallError::internal(self)
    }
}

impl IntoCallError for tonic::Status {
    fn into_call_error(self) -> CallError {
        CallError::new(Kind::of_code(self.code()), self.message())
    }
}

/// Failures of the plugin's, which say no more than their text.
macro_rules! internal {
    ($($error:ty),*) => { $(
        impl IntoCallError for $error {
            fn into_call_error(self) -> CallError {
                CallError::internal(self)
            }
        }
    )* };
}

internal!(
    &'static str,
    String,
    fmt::Error,
    std::io::Error,
    std::num::ParseIntError,
    std::string::FromUtf8Error,
    serde_json::Error
);
