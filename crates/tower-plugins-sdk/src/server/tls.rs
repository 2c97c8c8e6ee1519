//! TLS with a certificate of the plugin's own.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::Error;

/// What is agreed on by ALPN.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// TLS 1.2 or 1.3 with a certificate and its chain, and its key, of files in PEM.
pub(crate) fn from_files(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, Error> {
    let failed = |file: &Path, error: &dyn std::fmt::Display| {
        Error::Tls(format!("{}: {error}", file.display()))
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(certificate, &error))?;
    if chain.is_empty() {
        return Err(failed(certificate, &"there is no certificate in it"));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, &error))?;
    // Never the process's default: another crate could have set it.
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|error| failed(certificate, &error))?;
    Ok(Arc::new(config))
}

/// `config` with `protocols` by ALPN, where it does not say any.
pub(crate) fn with_protocols(config: &Arc<ServerConfig>, http1: bool) -> Arc<ServerConfig> {
    if !config.alpn_protocols.is_empty() {
        return config.clone();
    }
    let mut config = ServerConfig::clone(config);
    let spoken = if http1 {
        &PROTOCOLS[..]
    } else {
        &PROTOCOLS[..1]
    };
    config.alpn_protocols = spoken.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}
