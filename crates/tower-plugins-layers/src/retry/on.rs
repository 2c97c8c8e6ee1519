use std::fmt;
use std::str::FromStr;

use http::StatusCode;

/// One kind of failure that calls for another attempt, as a word: the words are those of Envoy's
/// `retry_on` where it has them.
///
/// | word | the attempt ended in |
/// | --- | --- |
/// | `5xx` | a status from 500 to 599 |
/// | `gateway-error` | 502, 503 or 504 |
/// | `retry-after` | 429 with a `Retry-After` that says how long to wait |
/// | `connect-failure` | `connect_failed` or `pool_exhausted` |
/// | `refused-stream` | any [`Unsent`](crate::Unsent): the request was never processed |
/// | `attempt-timeout` | `attempt_timeout` |
/// | `reset` | `connection_lost`, `stream_idle`, or an error that gives no reason |
/// | a number, such as `429` | that status |
/// | `grpc:` and a code, such as `grpc:unavailable` | that `grpc-status`, in the head or as a first frame that is trailers |
///
/// ```
/// use http::StatusCode;
/// use tower_plugins_layers::retry::RetryOn;
///
/// assert_eq!("5xx".parse(), Ok(RetryOn::ServerError));
/// assert_eq!("429".parse(), Ok(RetryOn::Status(StatusCode::TOO_MANY_REQUESTS)));
/// assert_eq!("grpc:unavailable".parse(), Ok(RetryOn::Grpc(14)));
/// assert_eq!(RetryOn::Grpc(8).to_string(), "grpc:resource-exhausted");
/// assert!("sometimes".parse::<RetryOn>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetryOn {
    /// `5xx`
    ServerError,
    /// `gateway-error`
    GatewayError,
    /// `retry-after`
    RetryAfter,
    /// `connect-failure`
    ConnectFailure,
    /// `refused-stream`
    RefusedStream,
    /// `attempt-timeout`
    AttemptTimeout,
    /// `reset`
    Reset,
    /// This status.
    Status(StatusCode),
    /// This gRPC code, from 1 to 16.
    Grpc(u8),
}

/// The names of gRPC's codes from 1 on.
pub(crate) const CODES: [&str; 16] = [
    "cancelled",
    "unknown",
    "invalid-argument",
    "deadline-exceeded",
    "not-found",
    "already-exists",
    "permission-denied",
    "resource-exhausted",
    "failed-precondition",
    "aborted",
    "out-of-range",
    "unimplemented",
    "internal",
    "unavailable",
    "data-loss",
    "unauthenticated",
];

const WORDS: [(&str, RetryOn); 7] = [
    ("5xx", RetryOn::ServerError),
    ("gateway-error", RetryOn::GatewayError),
    ("retry-after", RetryOn::RetryAfter),
    ("connect-failure", RetryOn::ConnectFailure),
    ("refused-stream", RetryOn::RefusedStream),
    ("attempt-timeout", RetryOn::AttemptTimeout),
    ("reset", RetryOn::Reset),
];

impl RetryOn {
    /// What is retried unless a policy says otherwise: all errors that another attempt may not meet
    /// again, the statuses of gateways, 429 that says how long to wait, and gRPC's `UNAVAILABLE`.
    pub const DEFAULT: [Self; 7] = [
        Self::GatewayError,
        Self::RetryAfter,
        Self::ConnectFailure,
        Self::RefusedStream,
        Self::AttemptTimeout,
        Self::Reset,
        Self::Grpc(14),
    ];
}

impl fmt::Display for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{}", status.as_u16()),
            Self::Grpc(code) => match CODES.get(usize::from(*code).wrapping_sub(1)) {
                Some(name) => write!(f, "grpc:{name}"),
                None => write!(f, "grpc:{code}"),
            },
            word => {
                let found = WORDS.iter().find(|(_, on)| on == word);
                f.write_str(found.map_or("", |(word, _)| word))
            }
        }
    }
}

/// The error of a word that names no kind of failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "nothing is retried on `{0}`: write `5xx`, `gateway-error`, `retry-after`, `connect-failure`, \
     `refused-stream`, `attempt-timeout`, `reset`, a status from 400 to 599, or `grpc:` and a code's \
     name such as `grpc:unavailable`"
)]
pub struct UnknownRetryOn(String);

impl FromStr for RetryOn {
    type Err = UnknownRetryOn;

    fn from_str(text: &str) -> Result<Self, UnknownRetryOn> {
        if let Some((_, on)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*on);
        }
        if let Some(name) = text.strip_prefix("grpc:") {
            let code = (1_u8..).zip(CODES).find(|(_, code)| *code == name);
            let (code, _) = code.ok_or_else(|| UnknownRetryOn(text.to_owned()))?;
            return Ok(Self::Grpc(code));
        }
        match StatusCode::from_bytes(text.as_bytes()) {
            Ok(status) if status.is_client_error() || status.is_server_error() => {
                Ok(Self::Status(status))
            }
            _ => Err(UnknownRetryOn(text.to_owned())),
        }
    }
}

/// A set of them, made for asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OnSet {
    words: Vec<RetryOn>,
    statuses: Vec<StatusCode>,
    codes: Codes,
    server_error: bool,
    pub(super) retry_after: bool,
    pub(super) connect_failure: bool,
    pub(super) refused_stream: bool,
    pub(super) attempt_timeout: bool,
    pub(super) reset: bool,
}

impl OnSet {
    pub(super) fn status(&self, status: StatusCode) -> bool {
        self.server_error && status.is_server_error() || self.statuses.contains(&status)
    }

    pub(super) const fn codes(&self) -> Codes {
        self.codes
    }

    pub(super) fn code(&self, code: &[u8]) -> bool {
        self.codes.has(code)
    }

    pub(super) const fn has_codes(&self) -> bool {
        self.codes.0 != 0
    }

    #[cfg(feature = "serde")]
    pub(super) fn words(&self) -> &[RetryOn] {
        &self.words
    }
}

/// A set of gRPC codes: a bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Codes(u32);

impl Codes {
    /// Whether the `grpc-status` that is `code` is one of them.
    pub(super) fn has(self, code: &[u8]) -> bool {
        let number = match *code {
            [ones @ b'0'..=b'9'] => ones - b'0',
            [b'1', ones @ b'0'..=b'9'] => 10 + ones - b'0',
            _ => return false,
        };
        self.0 & (1 << number) != 0
    }
}

impl FromIterator<RetryOn> for OnSet {
    fn from_iter<I: IntoIterator<Item = RetryOn>>(words: I) -> Self {
        let words: Vec<_> = words.into_iter().collect();
        let has = |on| words.contains(&on);
        let mut statuses = Vec::new();
        let mut codes = 0;
        if has(RetryOn::GatewayError) {
            statuses.extend([
                StatusCode::BAD_GATEWAY,
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::GATEWAY_TIMEOUT,
            ]);
        }
        for word in &words {
            match word {
                RetryOn::Status(status) => statuses.push(*status),
                // 0 is no failure, and there are no codes above 16.
                RetryOn::Grpc(code @ 1..=16) => codes |= 1 << code,
                _ => {}
            }
        }
        Self {
            statuses,
            codes: Codes(codes),
            server_error: has(RetryOn::ServerError),
            retry_after: has(RetryOn::RetryAfter),
            connect_failure: has(RetryOn::ConnectFailure),
            refused_stream: has(RetryOn::RefusedStream),
            attempt_timeout: has(RetryOn::AttemptTimeout),
            reset: has(RetryOn::Reset),
            words,
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for RetryOn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for RetryOn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for OnSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde::Serialize::serialize(self.words(), serializer)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for OnSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = <Vec<RetryOn> as serde::Deserialize>::deserialize(deserializer)?;
        Ok(words.into_iter().collect())
    }
}
