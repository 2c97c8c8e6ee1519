//! A plugin of HashiCorp's go-plugin in Go, reached with what this crate has: handshake, TLS, broker, in both modes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower_plugins_proto::go_plugin::broker::{Broker, Multiplexed};
use tower_plugins_proto::go_plugin::grpc::Empty;
use tower_plugins_proto::go_plugin::grpc::grpc_broker_client::GrpcBrokerClient;
use tower_plugins_proto::go_plugin::grpc::grpc_controller_client::GrpcControllerClient;
use tower_plugins_proto::go_plugin::tls::{Identity, server_name};
use tower_plugins_proto::go_plugin::{Address, HandshakeLine, env, offer_versions};

/// What a test waits for an event at most.
const BOUND: Duration = Duration::from_secs(30);

async fn within<F: Future>(what: F) -> F::Output {
    timeout(BOUND, what).await.unwrap()
}

/// What Go makes of the plugin, once for all tests; `None` where there is no Go, or it cannot get what it needs.
static PLUGIN: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
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

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A running plugin, and the host's end of it.
struct Running {
    child: Child,
    channel: Channel,
    link: Link,
}

/// How its connections are made.
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

    /// Connects to what the plugin accepts as `id`.
    async fn dial(&self, id: u32) -> Channel {
        let stream: Box<dyn Io> = match &self.multiplexed {
            Some(multiplexed) => Box::new(multiplexed.dial(id).await.unwrap()),
            None => Box::new(connected(&self.broker.find(id).await.unwrap()).await),
        };
        channel(self.connector(stream).await).await
    }

    /// Serves health to the plugin, once, as a new id.
    async fn accept(&self) -> u32 {
        let id = self.broker.next_id();
        if let Some(multiplexed) = &self.multiplexed {
            let mut incoming = multiplexed.accept(id).unwrap();
            let this = self.clone();
            tokio::spawn(async move { this.serve(incoming.next().await.unwrap()).await });
        } else {
            let path = self.directory.join(format!("host{id}"));
            let listener = UnixListener::bind(&path).unwrap();
            self.broker.offer(id, Address::Unix(path)).await.unwrap();
            let this = self.clone();
            tokio::spawn(async move { this.serve(listener.accept().await.unwrap().0).await });
        }
        id
    }

    async fn serve(&self, stream: impl Io + 'static) {
        let stream: Box<dyn Io> = match &self.tls {
            Some((_, acceptor)) => Box::new(acceptor.accept(stream).await.unwrap()),
            None => Box::new(stream),
        };
        let (reporter, health) = tonic_health::server::health_reporter();
        let status = ServingStatus::Serving;
        reporter.set_service_status("of the host", status).await;
        let service = TowerToHyperService::new(Routes::new(health));
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // It ends as the plugin has it.
        drop(server.serve_connection(TokioIo::new(stream), service).await);
    }
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

impl Running {
    async fn start(program: &Path, directory: &TempDir, multiplex: bool, certify: bool) -> Self {
        let identity = certify.then(|| Identity::generate().unwrap());
        let mut command = Command::new(program);
        command
            .env("PEER_PLUGIN", "of the tests")
            .env(env::PROTOCOL_VERSIONS, offer_versions([4, 5]))
            .env("TMPDIR", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        if multiplex {
            command.env(env::MULTIPLEX_GRPC, "true");
        }
        if let Some(identity) = &identity {
            command.env(env::CLIENT_CERT, identity.certificate().to_pem());
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = within(lines.next_line()).await.unwrap().unwrap();
        let line = HandshakeLine::parse(&line).unwrap();
        assert_eq!(line.version(), 5);
        assert_eq!(line.multiplexing(), multiplex.then_some(true));
        let tls = identity.map(|identity| {
            let certificate = line.certificate().unwrap();
            let client = identity.client_config(certificate).unwrap();
            let server = identity.server_config(certificate).unwrap();
            (TlsConnector::from(client), TlsAcceptor::from(server))
        });
        let (broker, socket) = (Broker::new(), connected(line.address()).await);
        let mut link = Link {
            broker: broker.clone(),
            multiplexed: None,
            tls,
            directory: directory.path().to_owned(),
        };
        let stream = if multiplex {
            let (multiplexed, driver) = Multiplexed::host(socket, &broker);
            tokio::spawn(driver);
            let first = within(multiplexed.open()).await.unwrap();
            link.multiplexed = Some(multiplexed);
            link.connector(first).await
        } else {
            link.connector(socket).await
        };
        let channel = channel(stream).await;
        let client = GrpcBrokerClient::new(channel.clone());
        tokio::spawn(async move { broker.run(client).await });
        Self {
            child,
            channel,
            link,
        }
    }

    async fn ask(&self, path: &'static str, id: u32) -> String {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<u32, String>::default();
        let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
        let answer = client.unary(tonic::Request::new(id), path, codec).await;
        answer.unwrap().into_inner()
    }

    /// Each calls the other's `count` connections, all at once.
    async fn call_both_ways(&self, count: u32) {
        let mut calls = JoinSet::new();
        for id in 1..=count {
            assert_eq!(self.ask("/peer.Peer/Accept", id).await, "accepts");
            let link = self.link.clone();
            calls.spawn(async move {
                let mut health = HealthClient::new(link.dial(id).await);
                let service = "of the plugin".to_owned();
                let status = health.check(HealthCheckRequest { service }).await.unwrap();
                let status = status.into_inner().status;
                assert_eq!(status, ServingStatus::Serving as i32);
            });
        }
        for _ in 0..count {
            let id = self.link.accept().await;
            assert_eq!(self.ask("/peer.Peer/Dial", id).await, "SERVING");
        }
        calls.join_all().await;
    }

    async fn shut_down(mut self) {
        self.link.broker.close();
        let mut controller = GrpcControllerClient::new(self.channel);
        // Its answer may be lost.
        drop(within(controller.shutdown(Empty {})).await);
        assert!(within(self.child.wait()).await.unwrap().success());
    }
}

async fn both_call_each_other(multiplex: bool, certify: bool) {
    let Some(program) = &*PLUGIN else {
        let required = std::env::var_os("TOWER_PLUGINS_REQUIRE_PEERS");
        let said = "no go, or no go-plugin, here";
        assert!(required.is_none_or(|is| is != "1"), "{said}");
        eprintln!("skipped: {said}");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(program, &directory, multiplex, certify).await;
    within(running.call_both_ways(8)).await;
    running.shut_down().await;
}

#[tokio::test]
async fn host_and_go_plugin_call_each_other() {
    both_call_each_other(false, false).await;
}

#[tokio::test]
async fn host_and_go_plugin_call_each_other_with_certificates() {
    both_call_each_other(false, true).await;
}

#[tokio::test]
async fn host_and_go_plugin_call_each_other_on_one_socket() {
    both_call_each_other(true, false).await;
}

#[tokio::test]
async fn host_and_go_plugin_call_each_other_on_one_socket_with_certificates() {
    both_call_each_other(true, true).await;
}
