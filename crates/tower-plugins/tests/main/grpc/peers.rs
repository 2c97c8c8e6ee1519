//! Servers and clients of gRPC in other languages: grpcio in Python, and grpc-go.
//!
//! A test whose peer is not installed says so and passes, unless `TOWER_PLUGINS_REQUIRE_PEERS` is set.

mod tls;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::Duration;

use axum::Router;
use futures_util::stream::{self, StreamExt};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request};
use tower_plugins::{HealthReport, HealthStatus, Plugin, Plugins};

use super::server::calculator::DivideRequest;
use super::server::{Server, Way, client, number};
use crate::support::{config, skipped, within};

/// How a peer is started: what it is called, and the command before its own arguments.
struct Peer(&'static str, Vec<PathBuf>);

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers")
}

fn succeeds(command: &Path, arguments: &[&str], directory: &Path) -> bool {
    let mut command = std::process::Command::new(command);
    let command = command.args(arguments).current_dir(directory);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A Python that has grpcio: what `.ci/run install` has made of one, or this system's.
static PYTHON: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../peers/python/bin/python");
    let has_grpc = |python: &PathBuf| {
        let arguments = ["-c", "import grpc, google.protobuf, grpc_health"];
        succeeds(python, &arguments, &tests())
    };
    [made, "python3".into()].into_iter().find(has_grpc)
});

/// What Go makes of the peer, once for all tests.
static GO: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("calculator-go");
    let arguments = ["build", "-o", program.to_str()?, "."];
    succeeds(Path::new("go"), &arguments, &tests().join("go")).then_some(program)
});

impl Peer {
    fn python() -> Option<Self> {
        let Some(python) = PYTHON.clone() else {
            skipped("Python with grpcio and its health checking");
            return None;
        };
        Some(Self("python", vec![python, tests().join("calculator.py")]))
    }

    fn go() -> Option<Self> {
        let Some(program) = GO.clone() else {
            skipped("Go");
            return None;
        };
        Some(Self("go", vec![program]))
    }

    fn command(&self, what: &str, address: &str) -> Command {
        let description = "../../examples/generated/calculator.binpb";
        let description = Path::new(env!("CARGO_MANIFEST_DIR")).join(description);
        let mut command = Command::new(&self.1[0]);
        command.args(&self.1[1..]).arg(what).arg(description);
        command.arg(address).kill_on_drop(true);
        command
    }

    /// A server at `address`, and the port that it listens on; over TLS with the files of a certificate and its key,
    /// and of who certifies clients if they need a certificate.
    async fn serve(&self, address: &str, tls: &[&Path]) -> (Child, String) {
        let mut command = self.command("serve", address);
        command.args(tls);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = command.spawn().unwrap();
        let output = server.stdout.take().unwrap();
        let mut lines = BufReader::new(output).lines();
        let port = within(lines.next_line()).await.unwrap();
        (server, port.expect("a line with the port"))
    }

    /// A client that calls what is at `target`, in each shape.
    async fn call(&self, target: &str) {
        let output = within(self.command("call", target).output()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", self.0);
    }
}

async fn every_shape(plugin: Plugin) {
    let mut client = client(plugin);
    let divide = |divisor| DivideRequest {
        dividend: 1.0,
        divisor,
    };
    let quotient = within(client.divide(divide(8.0))).await.unwrap();
    assert_eq!(quotient.into_inner(), number(0.125));
    let numbers = || stream::iter((1..=100).map(f64::from).map(number));
    let sum = within(client.sum(numbers())).await.unwrap();
    assert_eq!(sum.into_inner(), number(5050.0));
    let count = within(client.count(number(100.0))).await.unwrap();
    let count = within(count.into_inner().map(Result::unwrap).collect::<Vec<_>>()).await;
    assert_eq!(count, numbers().collect::<Vec<_>>().await);
    let sums = within(client.running_sum(numbers().take(4))).await.unwrap();
    let sums = within(sums.into_inner().map(Result::unwrap).collect::<Vec<_>>()).await;
    assert_eq!(sums, [1.0, 3.0, 6.0, 10.0].map(number));

    let status = within(client.divide(divide(0.0))).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "cannot divide by 0 %");
    assert_eq!(status.metadata().get("x-why").unwrap(), "because");
    let below = stream::iter([1.0, -1.0].map(number));
    let mut sums = within(client.running_sum(below))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(within(sums.message()).await.unwrap(), Some(number(1.0)));
    let status = within(sums.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);

    let mut endless = Request::new(stream::pending());
    endless.set_timeout(Duration::from_millis(200));
    let status = within(client.sum(endless)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let dropped = within(client.count(number(1e15))).await.unwrap();
    drop(dropped);
    within(client.divide(divide(2.0))).await.unwrap();
}

async fn a_server_is_reached(peer: Option<Peer>) {
    let Some(peer) = peer else { return };
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", directory.path().join("peer.sock").display());
    for address in ["127.0.0.1:0", &socket] {
        let (_server, port) = peer.serve(address, &[]).await;
        let target = address.replace(":0", &format!(":{port}"));
        // A stream that nobody reads may cost its connection, by h2's bound on small frames, and the division after it then
        // goes again.
        let config = config(&format!(
            "plugins: {{ p: {{ transport: grpc, endpoint: '{target}', retry: {{ idempotent: ['/calculator.v1.Calculator/Divide'] }} }} }}"
        ));
        let plugins = Plugins::builder().start(config).await.unwrap();
        every_shape(plugins.plugin("p")).await;
        assert_eq!(plugins.active_requests("p"), 0);
    }
}

/// A server's own service of health is asked, and watched.
async fn health_is_known(peer: Option<Peer>) {
    let Some(peer) = peer else { return };
    for kind in ["grpc", "grpc-watch"] {
        let (mut server, port) = peer.serve("127.0.0.1:0", &[]).await;
        let mut says = server.stdin.take().unwrap();
        // What is watched is told at once: another check comes after an hour.
        let (interval, timeout) = match kind {
            "grpc" => ("2s", "2s"),
            _ => ("1h", "1h"),
        };
        let config = config(&format!(
            "plugins: {{ p: {{ transport: grpc, endpoint: '127.0.0.1:{port}', health_check: {{ kind: {kind},
                service: calculator.v1.Calculator, interval: {interval}, unhealthy_interval: 20ms, timeout: {timeout}, jitter: 0,
                failure_limit: 1, healthy_threshold: 1 }} }} }}"
        ));
        let plugins = Plugins::builder().start(config).await.unwrap();
        let mut health = plugins.subscribe_health();
        // The server does not know the service yet.
        let states = [
            (None, HealthStatus::Unhealthy),
            (Some("SERVING"), HealthStatus::Healthy),
            (Some("NOT_SERVING"), HealthStatus::Unhealthy),
            (Some("SERVING"), HealthStatus::Healthy),
        ];
        for (said, status) in states {
            if let Some(said) = said {
                says.write_all(format!("{said}\n").as_bytes())
                    .await
                    .unwrap();
                says.flush().await.unwrap();
            }
            let is_so = |report: &HealthReport| report.plugin("p").unwrap().status == status;
            within(health.wait_for(is_so)).await.unwrap();
        }
    }
}

/// An axum program that passes all on to a plugin.
fn axum_front(plugin: Plugin, listener: TcpListener) -> JoinHandle<()> {
    let app = Router::new().fallback_service(plugin.into_route());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() })
}

/// A tonic program that does.
fn tonic_front(plugin: Plugin, listener: TcpListener) -> JoinHandle<()> {
    let app = Router::new().fallback_service(plugin.into_grpc_proxy());
    let server = tonic::transport::Server::builder().add_routes(app.into());
    let server = server.serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(async { server.await.unwrap() })
}

/// A client in another language calls a program, which passes all on to a plugin.
async fn a_client_reaches(peer: Option<Peer>, front: fn(Plugin, TcpListener) -> JoinHandle<()>) {
    let Some(peer) = peer else { return };
    let mut server = Server::start(Way::Tcp).await;
    let plugins = server.plugins("").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let front = front(plugins.plugin("p"), listener);
    peer.call(&target).await;
    // Two counts, two running sums; the last one was cancelled.
    for _ in 0..4 {
        server.ended().await;
    }
    front.abort();
}

#[tokio::test]
async fn a_server_in_python_is_reached_in_every_shape() {
    a_server_is_reached(Peer::python()).await;
}

#[tokio::test]
async fn a_server_in_go_is_reached_in_every_shape() {
    a_server_is_reached(Peer::go()).await;
}

#[tokio::test]
async fn the_health_of_a_server_in_python_is_asked_and_watched() {
    health_is_known(Peer::python()).await;
}

#[tokio::test]
async fn the_health_of_a_server_in_go_is_asked_and_watched() {
    health_is_known(Peer::go()).await;
}

#[tokio::test]
async fn a_client_in_python_reaches_a_plugin_behind_a_route() {
    a_client_reaches(Peer::python(), axum_front).await;
}

#[tokio::test]
async fn a_client_in_go_reaches_a_plugin_behind_a_route() {
    a_client_reaches(Peer::go(), axum_front).await;
}

#[tokio::test]
async fn a_client_in_python_reaches_a_plugin_behind_a_tonic_server() {
    a_client_reaches(Peer::python(), tonic_front).await;
}

#[tokio::test]
async fn a_client_in_go_reaches_a_plugin_behind_a_tonic_server() {
    a_client_reaches(Peer::go(), tonic_front).await;
}
