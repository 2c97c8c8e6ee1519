//! `auth`, `authorize`, `filter` and `fallback`.

use std::time::Duration;

use tower_plugins_layers::Reason;

use super::super::Secret;
use super::{JwtSpec, OAuth2Spec};

/// `auth`: what is sent with each attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialsSpec {
    /// `none`.
    #[default]
    None,
    /// `api-key`.
    ApiKey {
        /// The header that carries it (`header`, default `x-api-key`).
        header: http::HeaderName,
        /// The key.
        key: Secret,
    },
    /// `bearer`.
    Bearer {
        /// The token.
        token: Secret,
    },
    /// `basic`.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// `oauth2`.
    OAuth2(Box<OAuth2Spec>),
    /// `custom`: the headers of `auth.headers`.
    Custom {
        /// Name and value.
        headers: Vec<(http::HeaderName, Secret)>,
    },
}

/// `authorize`: who may call. What was shown is taken off a request before it goes on, unless it is to be forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthorizeSpec {
    /// The callers that are known by an API key, each by its name.
    pub api_keys: Vec<(String, Secret)>,
    /// The header in which API keys are looked for.
    pub api_key_header: http::HeaderName,
    /// The callers that are known by a bearer token, each by its name.
    pub bearer_tokens: Vec<(String, Secret)>,
    /// The callers that are known by a token which somebody else signed.
    pub jwt: Option<JwtSpec>,
    /// Whether a call that shows nothing goes on as well. One that shows something must show something good.
    pub anonymous: bool,
    /// Whether what was shown goes on with the request.
    pub forward_credentials: bool,
}

/// `filter`: a service of the program that is asked about each call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilterSpec {
    /// The name under which the program registered it.
    pub service: String,
    /// The headers of a request that it sees.
    pub headers: Vec<http::HeaderName>,
    /// The headers of its answer that go on with the request.
    pub copy_headers: Vec<http::HeaderName>,
    /// How long it has to its response's head.
    pub timeout: Duration,
    /// Whether a call goes on when it could not be asked.
    pub fail_open: bool,
}

/// `fallback`: a fixed answer, or another service's, where the call ends for one of some reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FallbackSpec {
    /// The reasons that call for it.
    pub on: Vec<Reason>,
    /// The name under which the program registered the service that is asked. Without it the answer is
    /// the fixed one below.
    pub service: Option<String>,
    /// The status of the answer.
    pub status: http::StatusCode,
    /// Its body.
    pub body: String,
    /// Its `content-type`.
    pub content_type: String,
}
