//! HashiCorp's go-plugin in Go, as plugin and as host, at the other end of what this crate has: handshake, TLS and broker, in both
//! modes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower_plugins_proto::go_plugin::broker::{Broker, Multiplexed};
use tower_plugins_proto::go_plugin::tls::{Identity, server_name};
use tower_plugins_proto::go_plugin::{Address, Certificate};

mod go_host;
mod go_plugin;

/// What a test waits for an event at most.
const BOUND: Duration = Duration::from_secs(30);

async fn within<F: Future>(what: F) -> F::Output {
    timeout(BOUND, what).await.unwrap()
}

/// What Go makes of the peer, once for all tests; `None` where there is no Go, or it cannot get what it needs.
static PEER: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-plugin-peer");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/go-plugin");
    let build = std::process::Command::new("go")
        .args(["build", "-o"])
        .args([program.as_path(), Path::new(".")])
        .current_dir(source)
        .stdin(Stdio::null())
        .status();
    build
        .is_ok_and(|status| status.success())
        .then_some(program)
});

fn peer() -> Option<&'static Path> {
    let peer = PEER.as_deref();
    if peer.is_none() {
        let required = std::env::var_os("TOWER_PLUGINS_REQUIRE_PEERS");
        let said = "no go, or no go-plugin, here";
        assert!(required.is_none_or(|is| is != "1"), "{said}");
        eprintln!("skipped: {said}");
    }
    peer
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// How one side makes connections.
#[derive(Clone)]
struct Link {
    broker: Broker,
    /// There in multiplexed mode.
    multiplexed: Option<Multiplexed>,
    /// There with AutoMTLS.
    tls: Option<(TlsConnector, TlsAcceptor)>,
    directory: PathBuf,
}

impl Link {
    async fn connector(&self, stream: impl Io + 'static) -> Box<dyn Io> {
        match &self.tls {
            Some((connector, _)) => {
                Box::new(connector.connect(server_name(), stream).await.unwrap())
            }
            None => Box::new(stream),
        }
    }

    /// Connects to what the other side accepts as `id`.
    async fn dial(&self, id: u32) -> Channel {
        let stream: Box<dyn Io> = match &self.multiplexed {
            Some(multiplexed) => Box::new(multiplexed.dial(id).await.unwrap()),
            None => Box::new(connected(&self.broker.find(id).await.unwrap()).await),
        };
        channel(self.connector(stream).await).await
    }

    /// Accepts one connection as `id`, on which `service` serves.
    async fn accept(&self, id: u32, service: &'static str) {
        if let Some(multiplexed) = &self.multiplexed {
            let mut incoming = multiplexed.accept(id).unwrap();
            let this = self.clone();
            tokio::spawn(async move {
                let connection = incoming.next().await.unwrap();
                this.serve(connection, healthy(service).await).await;
            });
        } else {
            let path = self.directory.join(format!("accepts{id}"));
            let listener = UnixListener::bind(&path).unwrap();
            self.broker.offer(id, Address::Unix(path)).await.unwrap();
            let this = self.clone();
            tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                this.serve(stream, healthy(service).await).await;
            });
        }
    }

    async fn serve(&self, stream: impl Io + 'static, routes: Routes) {
        let stream: Box<dyn Io> = match &self.tls {
            Some((_, acceptor)) => Box::new(acceptor.accept(stream).await.unwrap()),
            None => Box::new(stream),
        };
        let service = TowerToHyperService::new(routes);
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // It ends as the other side has it.
        drop(server.serve_connection(TokioIo::new(stream), service).await);
    }
}

/// Says that `service` serves.
async fn healthy(service: &str) -> Routes {
    let (reporter, health) = tonic_health::server::health_reporter();
    let status = ServingStatus::Serving;
    reporter.set_service_status(service, status).await;
    Routes::new(health)
}

/// What is at the other end of `channel` says of `service`.
async fn check(channel: Channel, service: &str) -> Result<bool, Status> {
    let service = service.to_owned();
    let check = HealthCheckRequest { service };
    let answer = HealthClient::new(channel).check(check).await?;
    Ok(answer.into_inner().status == ServingStatus::Serving as i32)
}

async fn connected(address: &Address) -> UnixStream {
    UnixStream::connect(address.path().unwrap()).await.unwrap()
}

/// gRPC on `stream`.
async fn channel(stream: Box<dyn Io>) -> Channel {
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = stream.take();
        async move { stream.ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected)) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(connector).await.unwrap()
}

/// Both roles in TLS between `identity` and who has `other`.
fn tls(identity: &Identity, other: &Certificate) -> (TlsConnector, TlsAcceptor) {
    let client = identity.client_config(other).unwrap();
    let server = identity.server_config(other).unwrap();
    (client.into(), server.into())
}
