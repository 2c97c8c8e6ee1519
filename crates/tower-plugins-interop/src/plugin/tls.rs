//! Certificates of files, that somebody who is known certifies.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use tower_plugins_sdk::rustls::crypto::aws_lc_rs;
use tower_plugins_sdk::rustls::pki_types::pem::PemObject;
use tower_plugins_sdk::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tower_plugins_sdk::rustls::server::WebPkiClientVerifier;
use tower_plugins_sdk::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Both roles of who has `own.crt` and `own.key` in `folder`, where `ca.crt` certifies the other side.
pub(crate) fn of(folder: &Path, own: &str) -> Result<(ServerConfig, ClientConfig), Box<dyn Error>> {
    let certificate = CertificateDer::from_pem_file(folder.join(format!("{own}.crt")))?;
    let key = PrivateKeyDer::from_pem_file(folder.join(format!("{own}.key")))?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.crt"))?)?;
    let (roots, provider) = (Arc::new(roots), Arc::new(aws_lc_rs::default_provider()));
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.clone()], key.clone_key())?;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok((server, client))
}
