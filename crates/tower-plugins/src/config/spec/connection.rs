//! `connection` and `tls`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::uri::Authority;
#[cfg(feature = "tls")]
use sha2::{Digest, Sha256};

use super::super::{FileContents, Secret};

/// `connection`, less the keys that are policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ConnectionSpec {
    /// `connection.protocol`.
    pub protocol: Protocol,
    /// Connections open at once to an endpoint.
    pub max_connections: u32,
    /// Calls at once on one connection over HTTP/2; the peer may allow fewer.
    pub max_streams: u32,
    /// Connections kept open without a call.
    pub max_idle_connections: u32,
    /// How long a connection is kept without a call.
    pub idle_timeout: Duration,
    /// How old a connection may be when it is given a call; `None` is no limit.
    pub max_age: Option<Duration>,
    /// How long connecting may take.
    pub connection_timeout: Duration,
    /// The proxy on the way to the endpoints.
    pub proxy: ProxySpec,
    /// What it is told: a user and a password, with a colon between them.
    pub proxy_auth: Option<Secret>,
    /// Whether a connection serves more than one call.
    pub keep_alive: bool,
    /// Whether no compressed responses are asked for on behalf of callers that say nothing of that. Over a Unix
    /// socket none ever are.
    pub disable_compression: bool,
    /// The largest response head, in bytes.
    pub max_response_head: u32,
    /// The largest response body, in bytes, decompressed; `None` is no limit, and 16 MiB with `unix-json`.
    pub max_response_body: Option<u64>,
}

/// `connection.proxy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProxySpec {
    /// `off`: none.
    #[default]
    Off,
    /// `environment`: the one that `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say.
    Environment,
    /// The one at this host and port.
    At(Authority),
}

/// `connection.protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// `http1`.
    #[default]
    Http1,
    /// `http2`: prior knowledge, no upgrade.
    Http2,
}

/// `tls`: who the endpoints must prove to be, and what this side shows them.
///
/// What the files hold is part of it: two that are equal make the same connections, and a certificate
/// that was rotated is a difference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TlsSpec {
    /// The certificates that vouch for the endpoints (`ca_file`); `None` is the system's.
    pub ca: Option<FileContents>,
    /// The name that the endpoints' certificates must have (`server_name`); `None` is the host of
    /// the URL.
    pub server_name: Option<String>,
    /// What this side shows (`cert_file` and `key_file`).
    pub identity: Option<Identity>,
    /// The oldest version of TLS that is spoken (`min_version`).
    pub min_version: TlsVersion,
    /// The public keys of which the endpoints' certificates must have one (`pins`); none is any.
    pub pins: Vec<Pin>,
    /// How long before a certificate expires, the endpoints' or this side's, a warning is logged
    /// (`expiry_warning`); `None` is never.
    pub expiry_warning: Option<Duration>,
}

/// The SHA-256 of a public key: of its SubjectPublicKeyInfo in DER (RFC 7469, section 2.4).
///
/// ```
/// use tower_plugins::config::Pin;
///
/// let pin: Pin = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".parse()?;
/// assert_eq!(pin.to_string(), "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
/// # Ok::<(), tower_plugins::config::InvalidPin>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of the public key that is `spki` in DER.
    #[cfg(feature = "tls")]
    pub(crate) fn of(spki: &[u8]) -> Self {
        Self(Sha256::digest(spki).into())
    }
}

/// A text that is no [`Pin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not `sha256/` and the base64 of 32 bytes")]
pub struct InvalidPin;

impl FromStr for Pin {
    type Err = InvalidPin;

    fn from_str(text: &str) -> Result<Self, InvalidPin> {
        let base64 = text.strip_prefix("sha256/").ok_or(InvalidPin)?;
        let bytes = BASE64_STANDARD.decode(base64).map_err(|_| InvalidPin)?;
        bytes.try_into().map(Self).map_err(|_| InvalidPin)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256/{}", BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A certificate with its key, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The certificate, and those between it and a root.
    pub cert: FileContents,
    /// The private key: PKCS #8, PKCS #1 or SEC1.
    pub key: FileContents,
}

/// `tls.min_version`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// `1.2`.
    #[default]
    Tls12,
    /// `1.3`.
    Tls13,
}
