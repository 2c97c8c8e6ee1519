//! A server that speaks TLS, and those who vouch for it and for its clients.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PublicKeyData,
    date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tower_plugins::Body;
use tower_plugins::config::{Address, FileContents, Identity, TlsSpec};

/// A certificate authority.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate, with its key.
pub(crate) struct Certified {
    pub(crate) certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Ca {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        Self::named(&format!("ca {}", NUMBER.fetch_add(1, Ordering::Relaxed)))
    }

    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap());
        Self(issuer.unwrap())
    }

    pub(crate) fn file(&self) -> FileContents {
        FileContents::new("the-ca.pem", self.0.pem().into_bytes())
    }

    /// A spec that trusts whom this authority has certified.
    pub(crate) fn trusted(&self) -> TlsSpec {
        let mut spec = TlsSpec::default();
        spec.ca = Some(self.file());
        spec
    }

    pub(crate) fn certify(&self, names: &[&str]) -> Certified {
        self.certify_until(names, 2999)
    }

    pub(crate) fn certify_until(&self, names: &[&str], year: i32) -> Certified {
        let since_epoch = date_time_ymd(year, 1, 1) - date_time_ymd(1970, 1, 1);
        self.certify_at(names, since_epoch.try_into().unwrap())
    }

    /// A certificate that expires in the time that is `left`.
    pub(crate) fn certify_for(&self, names: &[&str], left: Duration) -> Certified {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        self.certify_at(names, now + left)
    }

    fn certify_at(&self, names: &[&str], not_after: Duration) -> Certified {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(1970, 1, 1) + not_after;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Certified { certificate, key }
    }

    fn store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add(self.0.der().clone()).unwrap();
        store
    }
}

impl Certified {
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            cert: FileContents::new("the-client.pem", self.certificate.pem().into_bytes()),
            key: FileContents::new("the-client.key", self.key.serialize_pem().into_bytes()),
        }
    }

    /// The pin of its public key.
    pub(crate) fn pin(&self) -> String {
        let digest = *FileContents::new("", self.key.subject_public_key_info()).digest();
        format!("sha256/{}", BASE64_STANDARD.encode(digest))
    }

    /// What the server calls it.
    pub(crate) fn fingerprint(&self) -> String {
        fingerprint(self.certificate.der())
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = *FileContents::new("", certificate.to_vec()).digest();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a server shows and wants.
pub(crate) struct Setup<'a> {
    pub(crate) shows: &'a Certified,
    /// Who vouches for clients, which then have to show a certificate.
    pub(crate) clients: Option<&'a Ca>,
    pub(crate) version: &'static SupportedProtocolVersion,
    pub(crate) alpn: &'a [&'a str],
}

impl<'a> Setup<'a> {
    /// TLS 1.3, any client, both protocols.
    pub(crate) const fn new(shows: &'a Certified) -> Self {
        Self {
            shows,
            clients: None,
            version: &version::TLS13,
            alpn: &["h2", "http/1.1"],
        }
    }

    pub(crate) fn config(&self) -> ServerConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[self.version])
            .unwrap();
        let builder = match self.clients {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let roots = Arc::new(ca.store());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = vec![self.shows.certificate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(self.shows.key.serialize_der().into());
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = self
            .alpn
            .iter()
            .map(|name| name.as_bytes().into())
            .collect();
        config
    }

    pub(crate) async fn start(&self) -> TlsServer {
        self.start_at("127.0.0.1:0").await
    }

    /// A server that gives each body back, and says in the head whom it talks to.
    pub(crate) async fn start_at(&self, address: &str) -> TlsServer {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(self.config()));
        let accepted = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    connection = listener.accept() => {
                        counter.fetch_add(1, Ordering::SeqCst);
                        tasks.spawn(serve(acceptor.clone(), connection.unwrap().0));
                    }
                    Some(_) = tasks.join_next() => {}
                }
            }
        });
        TlsServer {
            port,
            accepted,
            task,
        }
    }
}

/// Ends with this value.
pub(crate) struct TlsServer {
    pub(crate) port: u16,
    accepted: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl TlsServer {
    /// Its address, by the name or address `host`.
    pub(crate) fn at(&self, host: &str) -> Address {
        Address::https(&format!("https://{host}:{}", self.port)).unwrap()
    }

    /// The connections it was asked for.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream) {
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let session = stream.get_ref().1;
    let client = session
        .peer_certificates()
        .map(|chain| fingerprint(&chain[0]));
    let client = client.unwrap_or_default();
    let is_h2 = session.alpn_protocol() == Some(b"h2");
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&client, request.map(Body::new));
        async { Ok::<_, Infallible>(answer) }
    });
    let io = TokioIo::new(stream);
    if is_h2 {
        let builder = http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(io, service).await;
    } else {
        let _ = http1::Builder::new().serve_connection(io, service).await;
    }
}

fn answer(client: &str, request: Request<Body>) -> Response<Body> {
    let host = request.headers().get("host").cloned();
    let authority = request
        .uri()
        .authority()
        .map(|it| it.as_str().parse().unwrap());
    let mut response = Response::builder()
        .header("x-client", client)
        .header("x-scheme", request.uri().scheme_str().unwrap_or_default())
        .header("x-version", format!("{:?}", request.version()))
        .header("x-host", host.or(authority).unwrap());
    if request.uri().path() == "/fail" {
        response = response.status(StatusCode::INTERNAL_SERVER_ERROR);
    }
    response.body(request.into_body()).unwrap()
}
