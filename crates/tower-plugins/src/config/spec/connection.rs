//! `connection` and `tls`.

use std::time::Duration;

use super::super::FileContents;

/// `connection`, less the keys that are policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ConnectionSpec {
    /// `connection.protocol`.
    pub protocol: Protocol,
    /// Connections open at once to an endpoint.
    pub max_connections: u32,
    /// Connections kept open without a call.
    pub max_idle_connections: u32,
    /// How long a connection is kept without a call.
    pub idle_timeout: Duration,
    /// How long connecting may take.
    pub connection_timeout: Duration,
    /// Whether a connection serves more than one call.
    pub keep_alive: bool,
    /// The largest response head, in bytes.
    pub max_response_head: u32,
    /// The largest response body, in bytes; `None` is no limit, and 16 MiB with `unix-json`.
    pub max_response_body: Option<u64>,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
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
