//! TLS of which each side trusts exactly the other's certificate: with each other, and with Go's.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tower_plugins_proto::go_plugin::tls::{Identity, NotTheOne, server_name};
use tower_plugins_proto::go_plugin::{Certificate, CertificateError};

mod go;

/// What the client and the server make of a connection on which the server says `hello`.
async fn joined(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> (io::Result<String>, io::Result<()>) {
    let (near, far) = duplex(64 << 10);
    let accept = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.write_all(b"hello").await?;
        stream.shutdown().await
    };
    let connect = async {
        let mut stream = TlsConnector::from(client)
            .connect(server_name(), near)
            .await?;
        let mut heard = String::new();
        // In TLS 1.3 a client hears of its refusal when it reads.
        stream.read_to_string(&mut heard).await?;
        Ok(heard)
    };
    tokio::join!(connect, accept)
}

fn identity() -> Identity {
    Identity::generate().unwrap()
}

/// Whether `error` comes of a certificate that was not the one.
fn is_not_the_one(error: &io::Error) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = error.get_ref().map(|error| error as _);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(cause))) =
            error.downcast_ref()
        {
            return cause.0.is::<NotTheOne>();
        }
        next = error.source();
    }
    false
}

#[tokio::test]
async fn two_sides_that_know_each_other_connect() {
    let (client, server) = (identity(), identity());
    let joined = joined(
        client.client_config(server.certificate()).unwrap(),
        server.server_config(client.certificate()).unwrap(),
    );
    let (heard, served) = joined.await;
    assert_eq!(heard.unwrap(), "hello");
    served.unwrap();
}

#[tokio::test]
async fn a_client_refuses_each_server_but_the_one() {
    let (client, server, other) = (identity(), identity(), identity());
    let joined = joined(
        client.client_config(other.certificate()).unwrap(),
        server.server_config(client.certificate()).unwrap(),
    );
    let (heard, served) = joined.await;
    let error = heard.unwrap_err();
    assert!(is_not_the_one(&error), "{error:?}");
    served.unwrap_err();
}

#[tokio::test]
async fn a_server_refuses_each_client_but_the_one() {
    let (client, server, other) = (identity(), identity(), identity());
    let joined = joined(
        client.client_config(server.certificate()).unwrap(),
        server.server_config(other.certificate()).unwrap(),
    );
    let (heard, served) = joined.await;
    let error = served.unwrap_err();
    assert!(is_not_the_one(&error), "{error:?}");
    heard.unwrap_err();
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_server_refuses_a_client_without_a_certificate() {
    let (client, server) = (identity(), identity());
    let mut config = client.client_config(server.certificate()).unwrap();
    Arc::make_mut(&mut config).client_auth_cert_resolver = Arc::new(NoCertificate);
    let server = server.server_config(client.certificate()).unwrap();
    let (heard, served) = joined(config, server).await;
    let error = served.unwrap_err();
    let error = error.get_ref().unwrap().downcast_ref();
    assert_eq!(error, Some(&rustls::Error::NoCertificatesPresented));
    heard.unwrap_err();
}

/// It has a certificate that is not its own: that of `shown`, with its own key.
#[tokio::test]
async fn who_shows_the_certificate_must_have_its_key() {
    let (client, server, thief) = (identity(), identity(), identity());
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = provider.key_provider.load_private_key(key.into()).unwrap();
    let shown = vec![client.certificate().der().to_vec().into()];
    let stolen = CertifiedKey::new(shown, key);
    let mut config = thief.client_config(server.certificate()).unwrap();
    Arc::make_mut(&mut config).client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(stolen));
    let server = server.server_config(client.certificate()).unwrap();
    let (heard, served) = joined(config, server).await;
    let error = served.unwrap_err();
    let error = error.get_ref().unwrap().downcast_ref();
    assert_eq!(
        error,
        Some(&rustls::Error::InvalidCertificate(
            rustls::CertificateError::BadSignature
        ))
    );
    heard.unwrap_err();
}

#[test]
fn a_certificate_comes_over_as_it_is_as_pem_and_in_the_line() {
    let certificate = identity().certificate().clone();
    let pem = certificate.to_pem();
    assert!(pem.lines().all(|line| line.len() <= 64));
    assert_eq!(Certificate::from_pem(&pem), Ok(certificate.clone()));
    // What comes through an environment may have other ends of lines, and text around it.
    let odd = format!("# host\r\n{}", pem.trim_end().replace('\n', "\r\n"));
    assert_eq!(Certificate::from_pem(&odd), Ok(certificate.clone()));
    let text = certificate.to_base64();
    assert!(!text.contains('='));
    assert_eq!(Certificate::from_base64(&text), Ok(certificate));
}

#[test]
fn what_is_not_one_certificate_in_pem_is_refused() {
    let pem = identity().certificate().to_pem();
    for text in [
        "",
        "hello",
        "-----BEGIN CERTIFICATE-----\nMAIF",
        "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        &pem.replace("CERTIFICATE", "PRIVATE KEY"),
        &pem.repeat(2),
    ] {
        let read = Certificate::from_pem(text);
        assert!(
            matches!(read, Err(CertificateError::Pem(_))),
            "{text} {read:?}"
        );
    }
}

#[test]
fn each_identity_is_new() {
    assert_ne!(identity().certificate(), identity().certificate());
}
