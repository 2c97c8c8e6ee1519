//! A certificate and its key, and the TLS that proves it.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use super::super::{Certificate, CertificateError};
use super::verify::Exactly;

/// The one name in a certificate, which Go's side checks.
const NAME: &str = "localhost";

/// What Go's side checks instead, of a brokered connection, before 1.4.4.
const OLD_NAME: &str = "unused";

/// Clocks of one machine differ by no more.
const BEFORE: Duration = Duration::from_secs(30);

/// Thirty years, as Go's side has it: what holds for one run of a process need not end.
const AFTER: Duration = Duration::from_secs(262_980 * 60 * 60);

/// The TLS versions that Go's side speaks.
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// A self-signed certificate and its key, made for one run of a process. It is cheap to clone; the key is never shown.
///
/// The certificate is for ECDSA on P-256, the curve that peers of all languages take, and is otherwise as Go's side makes its own: for
/// `localhost`, and for `unused`, which go-plugin before 1.4.4 looks for on a brokered connection; valid for thirty years from half a minute ago, for servers and for clients.
///
/// ```
/// use tower_plugins_proto::go_plugin::tls::Identity;
///
/// let identity = Identity::generate()?;
/// assert!(identity.certificate().to_pem().starts_with("-----BEGIN CERTIFICATE-----\n"));
/// # Ok::<(), tower_plugins_proto::go_plugin::tls::TlsError>(())
/// ```
#[derive(Clone)]
pub struct Identity {
    certificate: Certificate,
    key: Arc<PrivateKeyDer<'static>>,
}

/// Why there is no [`Identity`], or no TLS with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// No certificate could be made.
    #[error("no certificate can be made for this process: {0}")]
    Generate(#[from] rcgen::Error),
    /// What was made is not taken as a certificate.
    #[error("the certificate that was made for this process is none: {0}")]
    Own(#[from] CertificateError),
    /// The peer's certificate cannot be read.
    #[error("the other side's certificate is in DER, and no certificate that TLS can use: {0}")]
    Peer(#[source] rustls::Error),
    /// TLS does not take the certificate, its key, or the versions.
    #[error("TLS cannot be set up with the certificate of this process: {0}")]
    Config(#[source] rustls::Error),
}

impl Identity {
    /// Makes a new key, and a certificate for it.
    ///
    /// # Errors
    ///
    /// [`TlsError::Generate`] if the system gives no randomness.
    pub fn generate() -> Result<Self, TlsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params(SystemTime::now())?.self_signed(&key)?;
        Ok(Self {
            certificate: Certificate::from_der(certificate.der().as_ref())?,
            key: Arc::new(PrivatePkcs8KeyDer::from(key.serialize_der()).into()),
        })
    }

    /// What the other side has to be told.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The side that connects, to a peer that must have the certificate `server`: TLS 1.2 or 1.3, and HTTP/2 by ALPN.
    ///
    /// It connects with the name [`server_name`], shows its own certificate, and resumes no session: each connection proves both sides
    /// anew.
    ///
    /// # Errors
    ///
    /// [`TlsError::Peer`] if `server` is no certificate that TLS can use.
    pub fn client_config(&self, server: &Certificate) -> Result<Arc<ClientConfig>, TlsError> {
        self.client_config_of(&VERSIONS, server)
    }

    fn client_config_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        server: &Certificate,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = provider();
        let verifier = exactly(server, &provider)?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(TlsError::Config)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(self.chain(), self.key.clone_key())
            .map_err(TlsError::Config)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// The side that accepts, from a peer that must have the certificate `client`: TLS 1.2 or 1.3, and HTTP/2 by ALPN.
    ///
    /// It resumes no session: each connection proves both sides anew. A peer that names no protocol by ALPN is taken, as old
    /// ones do not.
    ///
    /// # Errors
    ///
    /// [`TlsError::Peer`] if `client` is no certificate that TLS can use.
    pub fn server_config(&self, client: &Certificate) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = provider();
        let verifier = exactly(client, &provider)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&VERSIONS)
            .map_err(TlsError::Config)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain(), self.key.clone_key())
            .map_err(TlsError::Config)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.der().to_vec().into()]
    }
}

/// Not the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// The name that a client asks for: `localhost`, whatever the address. The server's certificate is known by its bytes.
///
/// ```
/// assert_eq!(tower_plugins_proto::go_plugin::tls::server_name().to_str(), "localhost");
/// ```
#[must_use]
pub fn server_name() -> ServerName<'static> {
    // A name that cannot be written so is an address, which always can.
    ServerName::try_from(NAME).unwrap_or(ServerName::IpAddress(Ipv4Addr::LOCALHOST.into()))
}

/// Never the process's default: another crate could have set it.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn exactly(certificate: &Certificate, provider: &CryptoProvider) -> Result<Arc<Exactly>, TlsError> {
    let certificate = CertificateDer::from(certificate.der().to_vec());
    ParsedCertificate::try_from(&certificate).map_err(TlsError::Peer)?;
    Ok(Arc::new(Exactly::new(
        certificate,
        provider.signature_verification_algorithms,
    )))
}

fn params(now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new([NAME, OLD_NAME].map(str::to_owned))?;
    params.not_before = (now - BEFORE).into();
    params.not_after = (now + AFTER).into();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "tower-plugins");
    params.distinguished_name.push(DnType::CommonName, NAME);
    // It signs itself, which Go's side takes of an authority alone.
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyAgreement,
        KeyUsagePurpose::KeyCertSign,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    Ok(params)
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConnection, Error, ProtocolVersion, ServerConnection};

    use super::*;

    /// The handshake of two sides that speak the TLS of `version`: what both agreed to.
    fn shaken(
        version: &'static SupportedProtocolVersion,
        client: &Identity,
        server: &Identity,
    ) -> Result<ProtocolVersion, Error> {
        let config = client
            .client_config_of(&[version], server.certificate())
            .unwrap();
        let mut client_end = ClientConnection::new(config, server_name()).unwrap();
        let config = server.server_config(client.certificate()).unwrap();
        let mut server_end = ServerConnection::new(config).unwrap();
        for _ in 0..8 {
            let mut bytes = Vec::new();
            client_end.write_tls(&mut bytes).unwrap();
            server_end.read_tls(&mut bytes.as_slice()).unwrap();
            server_end.process_new_packets()?;
            let mut bytes = Vec::new();
            server_end.write_tls(&mut bytes).unwrap();
            client_end.read_tls(&mut bytes.as_slice()).unwrap();
            client_end.process_new_packets()?;
        }
        assert!(!client_end.is_handshaking() && !server_end.is_handshaking());
        assert_eq!(client_end.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(
            server_end.peer_certificates().unwrap(),
            client.chain().as_slice()
        );
        Ok(server_end.protocol_version().unwrap())
    }

    #[test]
    fn both_versions_of_tls_are_spoken() {
        let (client, server) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        for version in VERSIONS {
            assert_eq!(shaken(version, &client, &server), Ok(version.version));
        }
    }

    #[test]
    fn what_another_makes_of_a_certificate_is_an_error_at_once() {
        let identity = Identity::generate().unwrap();
        let none = Certificate::from_der([0x30, 2, 5, 0]).unwrap();
        let error = identity.client_config(&none).unwrap_err();
        assert!(matches!(error, TlsError::Peer(_)), "{error}");
        let error = identity.server_config(&none).unwrap_err();
        assert!(matches!(error, TlsError::Peer(_)), "{error}");
    }

    #[test]
    fn the_key_is_not_shown() {
        let identity = Identity::generate().unwrap();
        let shown = format!("{identity:?} {identity:#?}");
        assert!(shown.starts_with("Identity { certificate: Certificate("));
        let key = format!("{:?}", &identity.key.secret_der()[..8]);
        assert!(!shown.contains("key") && !shown.contains(key.trim_matches(['[', ']'])));
    }
}
