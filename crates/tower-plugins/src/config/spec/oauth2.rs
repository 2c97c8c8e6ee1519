use std::time::Duration;

use super::super::{FileContents, Secret};

/// `auth` with `method: oauth2`: a bearer token that the program asks for in its own name (RFC 6749,
/// section 4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OAuth2Spec {
    /// Where tokens are asked for (`token_url`): over `https`, or over `http` on this machine.
    pub token_url: http::Uri,
    /// Who asks.
    pub client_id: String,
    /// What it shows for that.
    pub client_secret: Secret,
    /// What the token is to be good for.
    pub scopes: Vec<String>,
    /// Whom it is for.
    pub audience: Option<String>,
    /// Where `client_id` and `client_secret` stand in the question.
    pub auth_style: AuthStyle,
    /// How long before its end a token is refreshed; after half its life, if that is later.
    pub refresh_before: Duration,
    /// How long an answer is waited for, at most 30 s.
    pub timeout: Duration,
    /// Who vouches for the token endpoint's certificate (`ca_file`); `None` is the system's roots.
    pub ca: Option<FileContents>,
}

/// Where a client says who it is when it asks for a token (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthStyle {
    /// `header`: as `authorization: Basic`, which every server has to take.
    #[default]
    Header,
    /// `body`: as fields of the form.
    Body,
}
