//! Plugins of our SDK: under hosts in Go, and started by the test, which then is the host.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tower_plugins_interop::peer::peer_client::PeerClient;
use tower_plugins_proto::go_plugin::broker::Io;
use tower_plugins_proto::go_plugin::socket::Socket;
use tower_plugins_proto::go_plugin::tls::{Identity, Tls};
use tower_plugins_proto::go_plugin::{Address, Handshake, HandshakeLine, env};

mod corners;
mod ends;
mod go;
mod handshake;
mod services;
mod stdio;
pub(crate) mod trust;

/// The plugin that is written with the SDK.
pub(crate) const PLUGIN: &str = env!("CARGO_BIN_EXE_plugin");

/// What a test waits for an event at most.
const BOUND: Duration = Duration::from_secs(30);

async fn within<F: Future>(what: F) -> F::Output {
    timeout(BOUND, what).await.unwrap()
}

/// The command that starts the plugin as a host does, with its sockets in `directory`.
fn command(directory: &Path) -> Command {
    let handshake = Handshake::default();
    let mut command = Command::new(PLUGIN);
    command
        .env(handshake.cookie_key(), handshake.cookie_value())
        .env(env::UNIX_SOCKET_DIR, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// A plugin that has said where it listens.
struct Running {
    child: Child,
    said: String,
    stdout: BufReader<ChildStdout>,
    stderr: ChildStderr,
}

impl Running {
    async fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        within(stdout.read_line(&mut said)).await.unwrap();
        Self {
            child,
            said,
            stdout,
            stderr,
        }
    }

    fn line(&self) -> HandshakeLine {
        HandshakeLine::parse(&self.said).unwrap()
    }

    fn address(&self) -> Address {
        self.line().address().clone()
    }

    /// gRPC to it, without TLS.
    async fn channel(&self) -> Channel {
        channel(Socket::connect(&self.address()).await.unwrap()).await
    }

    async fn peer(&self) -> PeerClient<Channel> {
        PeerClient::new(self.channel().await)
    }

    /// Both roles of the host that has `identity`.
    fn tls(&self, identity: &Identity) -> Tls {
        Tls::pinned(identity, self.line().certificate().unwrap()).unwrap()
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-s", signal, &pid])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Its exit code, and all else that it wrote to stderr.
    async fn ended(mut self) -> (Option<i32>, String) {
        let status = within(self.child.wait()).await.unwrap();
        let (mut log, mut rest) = (String::new(), Vec::new());
        within(self.stderr.read_to_string(&mut log)).await.unwrap();
        within(self.stdout.read_to_end(&mut rest)).await.unwrap();
        (status.code(), log)
    }
}

/// gRPC on `stream`.
async fn channel<T>(stream: T) -> Channel
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    try_channel(stream).await.unwrap()
}

pub(crate) async fn try_channel<T>(stream: T) -> Result<Channel, tonic::transport::Error>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let mut stream = Some(hyper_util::rt::TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = stream.take();
        async move { stream.ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected)) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    within(endpoint.connect_with_connector(connector)).await
}

/// TLS to who listens at `address`, as the host.
pub(crate) async fn secured(address: &Address, tls: &Tls) -> std::io::Result<Io> {
    within(tls.connect(Socket::connect(address).await?)).await
}
