//! Who may connect.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tower_plugins_interop::peer::Number;
use tower_plugins_interop::peer::peer_client::PeerClient;
use tower_plugins_interop::{GoHost, Version};
use tower_plugins_proto::go_plugin::socket::Socket;
use tower_plugins_proto::go_plugin::tls::{Identity, Tls};
use tower_plugins_proto::go_plugin::{Address, Certificate, env};
use tower_plugins_sdk::rustls::client::ResolvesClientCert;
use tower_plugins_sdk::rustls::crypto::aws_lc_rs;
use tower_plugins_sdk::rustls::pki_types::CertificateDer;
use tower_plugins_sdk::rustls::pki_types::pem::PemObject;
use tower_plugins_sdk::rustls::sign::CertifiedKey;
use tower_plugins_sdk::rustls::{ClientConfig, RootCertStore, SignatureScheme};

use super::{PLUGIN, Running, channel, command, secured, try_channel, within};

/// The plugin of a host that has this certificate.
async fn certified(host: &Identity) -> (Running, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = command(directory.path());
    command.env(env::CLIENT_CERT, host.certificate().to_pem());
    (Running::start(command).await, directory)
}

async fn doubles(mut peer: PeerClient<tonic::transport::Channel>) -> bool {
    let answer = peer.double(Number { value: 21 }).await;
    answer.is_ok_and(|answer| answer.into_inner().value == 42)
}

#[tokio::test]
async fn under_auto_mtls_nobody_but_the_host_is_served() {
    let host = Identity::generate().unwrap();
    let (plugin, _directory) = certified(&host).await;
    let address = plugin.address();

    // One with another certificate, which it has the plugin trust in vain.
    let other = plugin.tls(&Identity::generate().unwrap());
    if let Ok(io) = secured(&address, &other).await
        && let Ok(channel) = try_channel(io).await
    {
        // In TLS 1.3 a client is refused after its own handshake.
        assert!(!doubles(PeerClient::new(channel)).await);
    }
    // One that shows none.
    let shy = shy(&host, plugin.line().certificate().unwrap());
    if let Ok(io) = secured(&address, &Tls::default().client(shy)).await
        && let Ok(channel) = try_channel(io).await
    {
        assert!(!doubles(PeerClient::new(channel)).await);
    }
    // One without TLS.
    let socket = Socket::connect(&address).await.unwrap();
    if let Ok(channel) = try_channel(socket).await {
        assert!(!doubles(PeerClient::new(channel)).await);
    }
    // And the host.
    let io = secured(&address, &plugin.tls(&host)).await.unwrap();
    assert!(doubles(PeerClient::new(channel(io).await)).await);
}

/// A client that is as the host is, but shows no certificate.
fn shy(host: &Identity, plugin: &Certificate) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(&host.client_config(plugin).unwrap());
    config.client_auth_cert_resolver = Arc::new(Nobody);
    Arc::new(config)
}

#[derive(Debug)]
struct Nobody;

impl ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn who_connects_and_says_nothing_or_nonsense_disturbs_nobody() {
    let host = Identity::generate().unwrap();
    let (secured_plugin, _directory) = certified(&host).await;
    let directory = tempfile::tempdir().unwrap();
    let plain = Running::start(command(directory.path())).await;
    for plugin in [&secured_plugin, &plain] {
        let address = plugin.address();
        let path = address.path().unwrap();
        for _ in 0..50 {
            drop(UnixStream::connect(path).unwrap());
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        }
    }
    assert!(doubles(plain.peer().await).await);
    let tls = secured_plugin.tls(&host);
    let io = secured(&secured_plugin.address(), &tls).await.unwrap();
    assert!(doubles(PeerClient::new(channel(io).await)).await);
}

/// Certificates of one authority for a host and a plugin.
pub(crate) fn authority(folder: &Path) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join("ca.crt"), issuer.pem()).unwrap();
    for name in ["host", "plugin"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(folder.join(format!("{name}.crt")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

#[tokio::test]
async fn a_plugins_own_certificate_is_before_those_of_the_run_and_is_not_announced() {
    let folder = tempfile::tempdir().unwrap();
    authority(folder.path());
    let folder = folder.path().to_str().unwrap();
    let host = Identity::generate().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut command = command(directory.path());
    command
        .args(["-tls", folder])
        .env(env::CLIENT_CERT, host.certificate().to_pem());
    let said = Running::start(command).await.said;
    assert!(said.ends_with("|grpc|\n"), "{said}");

    for version in [Version::V1_4_10, Version::V1_8_0] {
        let Some(host) = GoHost::new(version) else {
            return;
        };
        let host = host.flags(["-tls", folder]).arguments(["-tls", folder]);
        let seen = host.run("double,broker=2,kill", PLUGIN).await.unwrap();
        assert_eq!(seen.failure(), None);
        assert_eq!(seen.step("broker")["sums"], serde_json::json!([41, 42]));
        // Who speaks no TLS is not served.
        let host = GoHost::new(version).unwrap().arguments(["-tls", folder]);
        let seen = host.run("double", PLUGIN).await.unwrap();
        assert!(seen.failure().is_some());
    }
}

#[tokio::test]
async fn by_hand_it_has_its_certificate_from_files() {
    let folder = tempfile::tempdir().unwrap();
    authority(folder.path());
    let file = |name: &str| folder.path().join(name);
    let (certificate, key) = (file("plugin.crt"), file("plugin.key"));
    let start = |certificate: &Path, key: &Path| {
        let mut command = Command::new(PLUGIN);
        command.env("TOWER_PLUGINS_LISTEN", "https://localhost:0");
        command
            .arg("--tls-cert")
            .arg(certificate)
            .arg("--tls-key")
            .arg(key);
        command
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    };
    for (certificate, key) in [
        (&key, &key),
        (&certificate, &certificate),
        (&certificate, &file("none")),
    ] {
        let failed = within(start(certificate, key).wait_with_output())
            .await
            .unwrap();
        assert_eq!(failed.status.code(), Some(1));
        let said = String::from_utf8(failed.stderr).unwrap();
        assert!(said.contains("cannot speak TLS: /"), "{said}");
    }

    let mut plugin = start(&certificate, &key);
    let mut said = String::new();
    let mut stderr = BufReader::new(plugin.stderr.take().unwrap());
    within(stderr.read_line(&mut said)).await.unwrap();
    let address = said
        .trim()
        .strip_prefix("plugin listens on https://")
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(file("ca.crt")).unwrap())
        .unwrap();
    let mut client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let address = Address::parse("tcp", address).unwrap();
    let io = secured(&address, &Tls::default().client(Arc::new(client)))
        .await
        .unwrap();
    assert!(doubles(PeerClient::new(channel(io).await)).await);
}
