//! The same servers over TLS, for anyone and for clients with a certificate.

use tempfile::NamedTempFile;
use tonic::Code;
use tower_plugins::{Plugin, Plugins};

use super::{Peer, every_shape};
use crate::grpc::auth::file;
use crate::grpc::server::calculator::DivideRequest;
use crate::grpc::server::client;
use crate::support::{causes, config, within};
use crate::transport::tls::server::{Ca, Certified};

/// A certificate and its key.
struct Pair(NamedTempFile, NamedTempFile);

impl Pair {
    fn of(certified: &Certified) -> Self {
        let identity = certified.identity();
        Self(file(identity.cert.expose()), file(identity.key.expose()))
    }

    fn keys(&self) -> String {
        let (cert, key) = (self.0.path().display(), self.1.path().display());
        format!(", cert_file: {cert}, key_file: {key}")
    }
}

async fn plugin(port: &str, ca: &NamedTempFile, keys: &str) -> Plugin {
    let ca = ca.path().display();
    // The division after a stream that nobody read may go again, as over TCP.
    let config = config(&format!(
        "plugins: {{ p: {{ transport: grpc-tls, endpoint: 'localhost:{port}', tls: {{ ca_file: {ca}{keys} }},
            retry: {{ idempotent: ['/calculator.v1.Calculator/Divide'] }} }} }}"
    ));
    Plugins::builder().start(config).await.unwrap().plugin("p")
}

/// What a call says that is refused in the handshake, with all its causes.
async fn refused(plugin: Plugin) -> String {
    let divide = DivideRequest {
        dividend: 1.0,
        divisor: 2.0,
    };
    let status = within(client(plugin).divide(divide)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    causes(&status)
}

async fn a_server_is_reached(peer: Option<Peer>) {
    let Some(peer) = peer else { return };
    let ca = Ca::new();
    let trusted = file(ca.file().expose());
    let shows = Pair::of(&ca.certify(&["localhost"]));
    let (cert, key) = (shows.0.path(), shows.1.path());
    let (_server, port) = peer.serve("127.0.0.1:0", &[cert, key]).await;
    every_shape(plugin(&port, &trusted, "").await).await;

    let stranger = file(Ca::new().file().expose());
    let text = refused(plugin(&port, &stranger, "").await).await;
    assert!(text.contains("was issued by none of those in"), "{text}");

    let clients = [cert, key, trusted.path()];
    let (_server, port) = peer.serve("127.0.0.1:0", &clients).await;
    let me = Pair::of(&ca.certify(&["me"]));
    every_shape(plugin(&port, &trusted, &me.keys()).await).await;
    let text = refused(plugin(&port, &trusted, "").await).await;
    // grpcio closes the connection without a word.
    let is_told = peer.0 == "go";
    assert!(!is_told || text.contains("client certificate"), "{text}");
}

#[tokio::test]
async fn a_server_in_python_is_reached_over_tls_and_with_a_client_certificate() {
    a_server_is_reached(Peer::python()).await;
}

#[tokio::test]
async fn a_server_in_go_is_reached_over_tls_and_with_a_client_certificate() {
    a_server_is_reached(Peer::go()).await;
}
