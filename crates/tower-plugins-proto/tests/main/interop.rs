//! HashiCorp's go-plugin in Go, as plugin and as host, at the other end of what this crate has: handshake, TLS and broker, in both
//! modes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower_plugins_proto::go_plugin::broker::Link;
use tower_plugins_proto::go_plugin::tls::Tls;

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

/// Connects to what the other side accepts as `id`.
async fn dial(link: &Link, id: u32) -> Channel {
    channel(link.connect(id).await.unwrap()).await
}

/// Accepts one connection as `id`, on which `service` serves.
async fn accept(link: &Link, id: u32, service: &'static str) {
    let mut accepted = link.accept_as(id).await.unwrap();
    tokio::spawn(async move {
        let io = accepted.next().await.unwrap();
        serve(io, healthy(service).await).await;
    });
}

async fn serve(io: impl Io + 'static, routes: Routes) {
    let service = TowerToHyperService::new(routes);
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // It ends as the other side has it.
    drop(server.serve_connection(TokioIo::new(io), service).await);
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

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

/// gRPC on `stream`.
async fn channel(stream: impl Io + 'static) -> Channel {
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = stream.take();
        async move { stream.ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected)) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(connector).await.unwrap()
}

fn with(link: Link, tls: Option<&Tls>) -> Link {
    match tls {
        Some(tls) => link.tls(tls.clone()),
        None => link,
    }
}
