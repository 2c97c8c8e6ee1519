//! With TLS.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tower_plugins_sdk::Plugin;
use tower_plugins_sdk::axum::{Router, routing::get};
use tower_plugins_sdk::rustls::crypto::aws_lc_rs;
use tower_plugins_sdk::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tower_plugins_sdk::rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::direct::within;

#[tokio::test]
async fn https_has_both_versions_of_http_by_alpn() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], secret)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let plugin = Plugin::new("greeter", "1.0.0")
        .router(Router::new().route("/", get(|| async { "hello" })))
        .tls(server);
    let served = tokio::spawn(plugin.serve_on(listener));

    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    for (offered, chosen) in [
        (&[&b"h2"[..], b"http/1.1"][..], &b"h2"[..]),
        (&[b"http/1.1"], b"http/1.1"),
    ] {
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        client.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
        let connector = TlsConnector::from(Arc::new(client));
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = within(connector.connect(name, stream)).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(chosen));
    }
    served.abort();
}
