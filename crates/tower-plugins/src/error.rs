//! The one public error, and the one table of what each kind means to the outside.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tower_plugins_layers::{BoxError, Reason, Refused, ReplayBody, Unsent};

use crate::Body;
use crate::call::DecodeError;
use crate::config::ConfigError;
use crate::reload::DrainTimeout;

/// What went wrong with a call to a plugin, with a config or with a reload.
///
/// What kind it is, is asked with the `is_*` methods; [`reason`](Self::reason) has the one word that
/// also stands in metrics and spans. Causes are in the [`source`](StdError::source) chain, which is
/// for people and not a promise. With the feature `grpc` a `tonic::Status` stands in that chain, so
/// that a generated client sees the code of the table below.
#[doc = include_str!("error.md")]
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    plugin: Option<Arc<str>>,
    source: Option<Source>,
}

#[cfg(feature = "grpc")]
type Source = tonic::Status;
#[cfg(not(feature = "grpc"))]
type Source = BoxError;

/// Who is to blame, as far as can be told from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Blame {
    /// The caller, or the program's own config.
    Caller,
    /// This side: a limit, a drain, a panic in the program.
    Here,
    /// The plugin, or the way to it.
    Plugin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    NotFound,
    Shutdown,
    Config,
    /// A newer config came first.
    Superseded,
    /// A config that was taken back came again.
    Frozen,
    /// A config was worse.
    RolledBack,
    /// Calls were still under way when a drain's time was over.
    DrainTimeout,
    Encode,
    Decode,
    /// The plugin answered a typed call with this status.
    Status(StatusCode),
    /// The plugin answered a typed call, and its answer is an error.
    Plugin,
    /// The plugin answered a typed call with this gRPC code.
    #[cfg(feature = "grpc")]
    Answered(i32),
    Refused(Reason),
    Other,
}

/// A row of the table: kind, HTTP status, gRPC code, whether another try may help, blame.
struct Row(u16, i32, bool, Blame);

impl Kind {
    const fn row(self) -> Row {
        use Blame::{Caller, Here, Plugin};
        match self {
            Self::NotFound => Row(404, 12, false, Caller),
            Self::Shutdown => Row(503, 14, false, Here),
            Self::Config => Row(500, 9, false, Caller),
            Self::Superseded => Row(409, 10, false, Caller),
            Self::Frozen => Row(409, 9, false, Caller),
            Self::RolledBack => Row(500, 9, false, Plugin),
            Self::DrainTimeout => Row(504, 4, true, Plugin),
            Self::Encode => Row(400, 3, false, Caller),
            Self::Decode => Row(502, 13, false, Plugin),
            Self::Status(_) | Self::Plugin => Row(502, 2, false, Plugin),
            #[cfg(feature = "grpc")]
            Self::Answered(code) => Row(502, code, code == 14, Plugin),
            Self::Other => Row(502, 14, true, Plugin),
            Self::Refused(reason) => {
                let (retryable, blame) = match reason {
                    Reason::RateLimited
                    | Reason::ConcurrencyLimited
                    | Reason::Shed
                    | Reason::Draining
                    | Reason::FilterFailed
                    | Reason::CredentialsFailed
                    | Reason::RetryBudget
                    | Reason::Forced
                    | Reason::PoolExhausted => (true, Here),
                    Reason::DrainCancelled | Reason::Panicked => (false, Here),
                    Reason::Unauthenticated
                    | Reason::Forbidden
                    | Reason::RequestBroken
                    | Reason::RequestTooLarge
                    | Reason::UpgradeUnsupported => (false, Caller),
                    Reason::ResponseTooLarge => (false, Plugin),
                    _ => (true, Plugin),
                };
                let status = reason.http_status().as_u16();
                Row(status, reason.grpc_code(), retryable, blame)
            }
        }
    }

    /// What happened, and what to do about it.
    fn message(self) -> std::borrow::Cow<'static, str> {
        match self {
            Self::NotFound => {
                "no such plugin in the running config: check the name, or whether it is enabled"
            }
            Self::Shutdown => "the plugins are shut down",
            Self::Config => "the config was refused",
            Self::Superseded => "a newer config came before this one was taken",
            Self::Frozen => {
                "this config was rolled back before: change it, or force it if the fault was elsewhere"
            }
            Self::RolledBack => "the config served, did worse than the one before, and was taken back",
            Self::DrainTimeout => "calls were still under way when the drain's time was over",
            Self::Encode => "the request could not be encoded",
            Self::Decode => "the response could not be decoded",
            Self::Status(status) => {
                return format!("the plugin answered with status {status}").into();
            }
            #[cfg(feature = "grpc")]
            Self::Answered(code) => {
                let code = tonic::Code::from_i32(code);
                return format!("the plugin answered with {code:?}").into();
            }
            Self::Plugin => "the plugin answered with an error",
            Self::Refused(reason) => return Refused::new(reason).to_string().into(),
            Self::Other => "the call failed",
        }
        .into()
    }
}

impl Error {
    pub(crate) fn new(kind: Kind) -> Self {
        Self(Box::new(Inner {
            kind,
            plugin: None,
            source: None,
        }))
        .with_source(None)
    }

    pub(crate) fn caused_by(kind: Kind, source: impl Into<BoxError>) -> Self {
        Self::new(kind).with_source(Some(source.into()))
    }

    #[cfg(feature = "grpc")]
    fn with_source(mut self, source: Option<BoxError>) -> Self {
        let Row(_, code, ..) = self.0.kind.row();
        let mut message = self.0.kind.message().into_owned();
        if let Some(source) = &source {
            let cause = source.to_string();
            // A refusal says what its kind says, and more.
            message = if cause.starts_with(&message) {
                cause
            } else {
                format!("{message}: {cause}")
            };
        }
        let mut status = tonic::Status::new(tonic::Code::from_i32(code), message);
        if let Some(source) = source {
            status.set_source(Arc::from(source));
        }
        self.0.source = Some(status);
        self
    }

    #[cfg(not(feature = "grpc"))]
    fn with_source(mut self, source: Option<BoxError>) -> Self {
        self.0.source = source;
        self
    }

    /// The error that `status` stands for.
    #[cfg(feature = "grpc")]
    pub(crate) fn of_status(kind: Kind, status: tonic::Status) -> Self {
        Self(Box::new(Inner {
            kind,
            plugin: None,
            source: Some(status),
        }))
    }

    /// The same error once more.
    #[cfg(feature = "grpc")]
    pub(crate) fn duplicate(&self) -> Self {
        Self(Box::new(Inner {
            kind: self.0.kind,
            plugin: self.0.plugin.clone(),
            source: self.0.source.clone(),
        }))
    }

    /// The error of a call that went through the stack.
    pub(crate) fn from_stack(error: BoxError) -> Self {
        // What was not sent will not be: the request need not be carried along.
        let error = match Unsent::<ReplayBody<Body>>::recover(error) {
            Ok((_, cause)) => cause,
            Err(error) => error,
        };
        match error.downcast::<Self>() {
            Ok(error) => *error,
            Err(error) => {
                let kind = Reason::of(&*error).map_or(Kind::Other, Kind::Refused);
                Self::caused_by(kind, error)
            }
        }
    }

    /// The error of a response's body.
    pub(crate) fn from_body(error: BoxError) -> Self {
        if error.is::<http_body_util::LengthLimitError>() {
            let refused = Refused::new(Reason::ResponseTooLarge).caused_by(error);
            return Self::caused_by(Kind::Refused(Reason::ResponseTooLarge), refused);
        }
        Self::from_stack(error)
    }

    /// The error of a config file that cannot be watched.
    #[cfg(feature = "watch")]
    pub(crate) fn watch(error: std::io::Error) -> Self {
        Self::caused_by(Kind::Config, error)
    }

    /// Another owner of an error that stands in the status.
    pub(crate) fn shared(error: &Arc<Self>) -> Self {
        let mut shared = Self::caused_by(error.0.kind, Arc::clone(error));
        shared.0.plugin.clone_from(&error.0.plugin);
        shared
    }

    pub(crate) fn of_plugin(mut self, name: &Arc<str>) -> Self {
        self.0.plugin.get_or_insert_with(|| Arc::clone(name));
        self
    }

    /// The plugin that was called.
    #[must_use]
    pub fn plugin(&self) -> Option<&str> {
        self.0.plugin.as_deref()
    }

    /// The one word for why the call was refused, cut or failed, if there is one.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self.0.kind {
            Kind::Refused(reason) => Some(reason),
            _ => None,
        }
    }

    /// How long to wait before another call has a chance, if that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        Refused::find(self).and_then(Refused::wait)
    }

    /// The HTTP status by which a server that called the plugin should answer.
    #[must_use]
    pub fn http_status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.kind.row().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The gRPC status code by which a server that called the plugin should answer.
    #[must_use]
    pub fn grpc_code(&self) -> i32 {
        self.0.kind.row().1
    }

    /// Whether the same call, made again later, may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.kind.row().2
    }

    /// Who is to blame.
    #[must_use]
    pub fn blame(&self) -> Blame {
        self.0.kind.row().3
    }

    /// Whether there is no plugin of that name.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.0.kind == Kind::NotFound
    }

    /// Whether the plugins are shut down.
    #[must_use]
    pub fn is_shutdown(&self) -> bool {
        self.0.kind == Kind::Shutdown
    }

    /// Whether a config was refused; [`config`](Self::config) has the problems.
    #[must_use]
    pub fn is_config(&self) -> bool {
        self.0.kind == Kind::Config
    }

    /// Whether a newer config came before this one was taken.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.0.kind == Kind::Superseded
    }

    /// Whether a config was refused because it was rolled back before, and says nothing else since.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.0.kind == Kind::Frozen
    }

    /// Whether a config served, was worse, and was taken back.
    #[must_use]
    pub fn is_rolled_back(&self) -> bool {
        self.0.kind == Kind::RolledBack
    }

    /// What was left of a drain when its time was over.
    #[must_use]
    pub fn drain_timeout(&self) -> Option<&DrainTimeout> {
        let mut source = self.source();
        while let Some(cause) = source {
            if let Some(left) = cause.downcast_ref() {
                return Some(left);
            }
            source = cause.source();
        }
        None
    }

    /// Whether a time ran out: the call's, an attempt's or a stream's.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        #[cfg(feature = "grpc")]
        if self.0.kind == Kind::Answered(tonic::Code::DeadlineExceeded as i32) {
            return true;
        }
        matches!(
            self.reason(),
            Some(Reason::DeadlineExceeded | Reason::AttemptTimeout | Reason::StreamIdle)
        )
    }

    /// Whether the call was refused here, without the plugin having been asked.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(
            self.reason(),
            Some(
                Reason::RateLimited
                    | Reason::ConcurrencyLimited
                    | Reason::Shed
                    | Reason::BreakerOpen
                    | Reason::NoEndpoint
                    | Reason::RetryBudget
                    | Reason::Draining
                    | Reason::PoolExhausted
            )
        )
    }

    /// Whether the call outlived its node's drain and was cancelled.
    #[must_use]
    pub fn is_drain_cancelled(&self) -> bool {
        self.reason() == Some(Reason::DrainCancelled)
    }

    /// Whether a request or response of a typed call could not be encoded or decoded.
    #[must_use]
    pub fn is_codec(&self) -> bool {
        matches!(self.0.kind, Kind::Encode | Kind::Decode)
    }

    /// Whether the plugin answered a typed call with an error: a status that is no success, or an
    /// error in the answer.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        match self.0.kind {
            Kind::Status(_) | Kind::Plugin => true,
            #[cfg(feature = "grpc")]
            Kind::Answered(_) => true,
            _ => false,
        }
    }

    /// The gRPC code with which the plugin answered a typed call. The whole status, with its message and
    /// details, is the [`source`](StdError::source).
    #[must_use]
    #[cfg(feature = "grpc")]
    pub fn answered_code(&self) -> Option<i32> {
        match self.0.kind {
            Kind::Answered(code) => Some(code),
            _ => None,
        }
    }

    /// The status with which the plugin answered a typed call, when it was no success.
    #[must_use]
    pub fn answered_status(&self) -> Option<StatusCode> {
        match self.0.kind {
            Kind::Status(status) => Some(status),
            _ => None,
        }
    }

    /// The problems of the config that was refused.
    #[must_use]
    pub fn config(&self) -> Option<&ConfigError> {
        let mut next = self.source();
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref() {
                return Some(error);
            }
            next = error.source();
        }
        None
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Invalid(error) => Self::caused_by(Kind::Decode, error),
            DecodeError::Plugin(error) => Self::caused_by(Kind::Plugin, error),
        }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::caused_by(Kind::Config, error)
    }
}

#[cfg(feature = "grpc")]
impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        Self::new(tonic::Code::from_i32(error.grpc_code()), error.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(plugin) = self.plugin() {
            write!(f, "plugin `{plugin}`: ")?;
        }
        f.write_str(&self.0.kind.message())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("plugin", &self.0.plugin)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    #[cfg(feature = "grpc")]
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }

    #[cfg(not(feature = "grpc"))]
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// All kinds with a name, for the test that holds the table in the docs.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_the_docs_is_the_table_in_the_code() {
        let kinds = [
            ("not_found", Kind::NotFound),
            ("shutdown", Kind::Shutdown),
            ("config", Kind::Config),
            ("superseded", Kind::Superseded),
            ("frozen", Kind::Frozen),
            ("rolled_back", Kind::RolledBack),
            ("drain_timeout", Kind::DrainTimeout),
            ("encode", Kind::Encode),
            ("decode", Kind::Decode),
            ("answer", Kind::Plugin),
            ("answer", Kind::Status(StatusCode::NOT_FOUND)),
            ("other", Kind::Other),
            #[cfg(feature = "grpc")]
            ("answer", Kind::Answered(2)),
        ];
        let reasons = Reason::ALL.map(|reason| (reason.as_str(), Kind::Refused(reason)));
        let docs = include_str!("error.md");
        // A package has no docs/: the page is here once more, for docs.rs.
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md");
        if let Ok(page) = std::fs::read_to_string(page) {
            assert_eq!(docs, page, "src/error.md is to be a copy of docs/errors.md");
        }
        for (name, kind) in kinds.into_iter().chain(reasons) {
            let Row(http, grpc, retryable, blame) = kind.row();
            let retryable = if retryable { "yes" } else { "no" };
            let row = format!("| `{name}` | {http} | {grpc} | {retryable} | {blame:?} |");
            assert!(docs.contains(&row), "docs/errors.md lacks: {row}");
        }
    }
}
