//! What went wrong with TLS, in words that say what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustls::{AlertDescription as Alert, CertificateError, Error};

use super::tls::alpn;
use crate::config::pem::pin;
use crate::config::{Pin, Protocol, TlsSpec, TlsVersion};

/// What the spec told this side, as far as a message has to know it.
pub(super) struct Told {
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    min_version: TlsVersion,
    protocol: Protocol,
    pins: Vec<Pin>,
}

/// An error with its explanation. hyper keeps of some errors only what they display: it is all there.
#[derive(Debug)]
struct Explained {
    what: String,
    error: Option<Error>,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.error {
            Some(error) => write!(f, " ({error})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Explained {}

fn explained(what: impl Into<String>, error: Option<Error>) -> io::Error {
    let what = what.into();
    io::Error::new(io::ErrorKind::InvalidData, Explained { what, error })
}

/// The error of rustls's that `error` carries.
pub(super) fn tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

impl Told {
    pub(super) fn new(spec: &TlsSpec, protocol: Protocol) -> Self {
        Self {
            ca: spec.ca.as_ref().map(|file| file.path().to_owned()),
            cert: spec
                .identity
                .as_ref()
                .map(|identity| identity.cert.path().to_owned()),
            min_version: spec.min_version,
            protocol,
            pins: spec.pins.clone(),
        }
    }

    /// The error of a handshake that failed.
    pub(super) fn handshake(&self, error: io::Error) -> io::Error {
        match tls(&error) {
            Some(tls) => explained(self.what(tls), Some(tls.clone())),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                explained("it closed the connection during the TLS handshake", None)
            }
            None => error,
        }
    }

    /// The error of a connection after the handshake, and whether it is that the peer has turned this
    /// side away for who it is.
    pub(super) fn later(&self, error: io::Error) -> (io::Error, bool) {
        match tls(&error) {
            Some(Error::AlertReceived(alert)) => {
                let error = explained(self.alert(*alert), tls(&error).cloned());
                (error, self.turns_away(*alert))
            }
            _ => (error, false),
        }
    }

    /// Why a peer may have closed that has not said a word, if `error` is that it has.
    ///
    /// Over TLS 1.3 one that wants a certificate should say so, and some do not.
    pub(super) fn why_closed(&self, error: &io::Error) -> Option<&'static str> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        let kinds = [
            BrokenPipe,
            ConnectionAborted,
            ConnectionReset,
            UnexpectedEof,
        ];
        let is_closed = kinds.contains(&error.kind());
        (is_closed && self.cert.is_none()).then_some(
            "it closed the connection before it said anything: it may require a client certificate \
             (set tls.cert_file and tls.key_file)",
        )
    }

    /// An error unless the peer speaks the protocol that was asked for.
    ///
    /// One that names none speaks HTTP/1.1: that is what all spoke before it could be named.
    pub(super) fn negotiated(&self, name: Option<&[u8]>) -> io::Result<()> {
        match (self.protocol, name) {
            (Protocol::Http1, None) => Ok(()),
            (protocol, Some(name)) if name == alpn(protocol) => Ok(()),
            _ => Err(explained(self.other_protocol(), None)),
        }
    }

    /// An error unless `certificate`, the peer's own, has a public key that was pinned, or none was.
    pub(super) fn pinned(&self, certificate: Option<&[u8]>) -> io::Result<()> {
        if self.pins.is_empty() {
            return Ok(());
        }
        let pin = certificate.and_then(pin);
        if pin.is_some_and(|pin| self.pins.contains(&pin)) {
            return Ok(());
        }
        let found = pin.map_or_else(|| "which cannot be read".to_owned(), |pin| pin.to_string());
        let what = format!(
            "its certificate has a public key, {found}, that is none of tls.pins: add it if it is the \
             endpoint's own, and not that of somebody on the way"
        );
        Err(explained(what, None))
    }

    fn other_protocol(&self) -> &'static str {
        match self.protocol {
            Protocol::Http1 => "it does not take HTTP/1.1 over TLS: set connection.protocol: http2",
            Protocol::Http2 => {
                "it did not agree to HTTP/2 (ALPN h2) in the TLS handshake: set \
                 connection.protocol: http1"
            }
        }
    }

    fn what(&self, error: &Error) -> String {
        match error {
            Error::InvalidCertificate(error) => self.certificate(error),
            Error::AlertReceived(alert) => self.alert(*alert),
            Error::PeerIncompatible(_) => self.version(),
            Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
                "what it says is not TLS: if it takes plain HTTP, it is transport: http".into()
            }
            Error::NoApplicationProtocol => self.other_protocol().into(),
            _ => "the TLS handshake failed".into(),
        }
    }

    fn certificate(&self, error: &CertificateError) -> String {
        // A wrong signature is that of an issuer with the same name and another key.
        use CertificateError::{
            BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext,
            NotValidYet, NotValidYetContext, UnknownIssuer,
        };
        match (error, &self.ca) {
            (UnknownIssuer | BadSignature, None) => {
                "its certificate was issued by none of this system's roots: set tls.ca_file to the \
                 certificate of its issuer"
                    .into()
            }
            (UnknownIssuer | BadSignature, Some(ca)) => format!(
                "its certificate was issued by none of those in {ca:?}: set tls.ca_file to the \
                 certificate of its issuer"
            ),
            (NotValidForName | NotValidForNameContext { .. }, _) => {
                "its certificate is for another name: set tls.server_name to one that it has".into()
            }
            (Expired | ExpiredContext { .. }, _) => {
                "its certificate has expired: it has to be renewed there, unless this machine's \
                 clock is wrong"
                    .into()
            }
            (NotValidYet | NotValidYetContext { .. }, _) => {
                "its certificate is not valid yet: wait, unless this machine's clock is wrong"
                    .into()
            }
            _ => "its certificate cannot be accepted".into(),
        }
    }

    fn alert(&self, alert: Alert) -> String {
        match (alert, &self.cert) {
            (Alert::ProtocolVersion, _) => self.version(),
            (Alert::NoApplicationProtocol, _) => self.other_protocol().into(),
            (Alert::UnrecognisedName, _) => {
                "it does not know the name it is called by: set tls.server_name to one that it has"
                    .into()
            }
            (Alert::HandshakeFailure, None) => {
                "it refused the TLS handshake: it may require a client certificate (set \
                 tls.cert_file and tls.key_file), or share no cipher suite"
                    .into()
            }
            (alert, None) if self.turns_away(alert) => {
                "it requires a client certificate: set tls.cert_file and tls.key_file".into()
            }
            (alert, Some(cert)) if self.turns_away(alert) => format!(
                "it does not accept the client certificate in {cert:?}: set tls.cert_file and \
                 tls.key_file to one of an issuer that it knows"
            ),
            _ => "it broke off TLS".into(),
        }
    }

    fn version(&self) -> String {
        match self.min_version {
            TlsVersion::Tls12 => "it speaks neither TLS 1.2 nor TLS 1.3 as this side does".into(),
            TlsVersion::Tls13 => {
                "it does not speak TLS 1.3: set tls.min_version: \"1.2\", if that will do".into()
            }
        }
    }

    /// Whether a peer says by `alert` that it does not take this side's certificate, or the lack of one.
    const fn turns_away(&self, alert: Alert) -> bool {
        match alert {
            Alert::CertificateRequired
            | Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied => true,
            // An issuer of the name that it knows, with another key.
            Alert::DecryptError => self.cert.is_some(),
            _ => false,
        }
    }
}
