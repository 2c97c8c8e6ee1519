//! How a plugin ends.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tower_plugins_interop::peer::Number;
use tower_plugins_interop::peer::peer_client::PeerClient;
use tower_plugins_proto::go_plugin::broker::{Broker, Multiplexed};
use tower_plugins_proto::go_plugin::grpc::Empty;
use tower_plugins_proto::go_plugin::grpc::grpc_controller_client::GrpcControllerClient;
use tower_plugins_proto::go_plugin::socket::Socket;
use tower_plugins_proto::go_plugin::{Handshake, env};

use super::{PLUGIN, Running, channel, command, within};

/// A call that goes on until it is ended.
struct Call {
    numbers: mpsc::Sender<Number>,
    doubles: Streaming<Number>,
}

impl Call {
    async fn begin(mut peer: PeerClient<Channel>) -> Self {
        let (numbers, sent) = mpsc::channel(1);
        let doubles = peer.doubles(ReceiverStream::new(sent)).await.unwrap();
        let doubles = doubles.into_inner();
        let mut call = Self { numbers, doubles };
        assert_eq!(call.double(1).await, 2);
        call
    }

    async fn double(&mut self, value: i64) -> i64 {
        self.numbers.send(Number { value }).await.unwrap();
        within(self.doubles.message()).await.unwrap().unwrap().value
    }

    /// Ends it, with an answer.
    async fn end(mut self) {
        assert_eq!(self.double(2).await, 4);
        drop(self.numbers);
        assert_eq!(within(self.doubles.message()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_sigterm_has_it_end_after_the_calls_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Running::start(command(directory.path())).await;
    let call = Call::begin(plugin.peer().await).await;
    plugin.signal("TERM");
    // It has heard of it when its socket is gone.
    let address = plugin.address();
    let gone = async {
        while address.path().unwrap().exists() {
            tokio::task::yield_now().await;
        }
    };
    within(gone).await;
    call.end().await;
    assert_eq!(plugin.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_sigint_is_for_its_host() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Running::start(command(directory.path())).await;
    let mut peer = plugin.peer().await;
    for value in 1..20 {
        plugin.signal("INT");
        let answer = peer.double(Number { value }).await.unwrap();
        assert_eq!(answer.into_inner().value, 2 * value);
    }
}

#[tokio::test]
async fn a_shutdown_is_answered_after_the_calls_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Running::start(command(directory.path())).await;
    let channel = plugin.channel().await;
    let call = Call::begin(PeerClient::new(channel.clone())).await;
    let mut controller = GrpcControllerClient::new(channel);
    let mut shutdown = tokio::spawn(async move { controller.shutdown(Empty {}).await });
    let address = plugin.address();
    let gone = async {
        while address.path().unwrap().exists() {
            tokio::task::yield_now().await;
        }
    };
    within(gone).await;
    assert!(!shutdown.is_finished());
    call.end().await;
    within(&mut shutdown).await.unwrap().unwrap();
    assert_eq!(plugin.ended().await.0, Some(0));
}

#[tokio::test]
async fn what_it_does_at_its_end_is_before_the_answer() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Running::start(command(directory.path())).await;
    let channel = plugin.channel().await;
    let stall = Number { value: 300 };
    PeerClient::new(channel.clone())
        .stall_shutdown(stall)
        .await
        .unwrap();
    let began = tokio::time::Instant::now();
    let mut controller = GrpcControllerClient::new(channel);
    within(controller.shutdown(Empty {})).await.unwrap();
    assert!(began.elapsed().as_millis() >= 300);
    assert_eq!(plugin.ended().await.0, Some(0));
}

#[tokio::test]
async fn on_one_socket_it_ends_with_that() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = command(directory.path());
    command.env(env::MULTIPLEX_GRPC, "true");
    let plugin = Running::start(command).await;
    let socket = Socket::connect(&plugin.address()).await.unwrap();
    let (multiplexed, driver) = Multiplexed::host(socket, &Broker::new());
    let driver = tokio::spawn(driver);
    let first = channel(multiplexed.open().await.unwrap()).await;
    let answer = PeerClient::new(first).double(Number { value: 2 }).await;
    assert_eq!(answer.unwrap().into_inner().value, 4);
    driver.abort();
    assert_eq!(plugin.ended().await.0, Some(0));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_host_that_wants_one_socket_and_does_not_connect_in_five_seconds_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = command(directory.path());
    command.env(env::MULTIPLEX_GRPC, "true");
    let (code, log) = Running::start(command).await.ended().await;
    assert_eq!(code, Some(1));
    assert!(log.contains("did not connect within 5s"), "{log}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn it_ends_with_the_process_that_started_it_if_it_is_to() {
    let directory = tempfile::tempdir().unwrap();
    let handshake = Handshake::default();
    let mut host = Command::new("sh");
    // A host that ends when its stdin does, without a word to its plugin.
    host.args(["-c", "\"$0\" \"$@\" & read -r _", PLUGIN, "-end-with-host"])
        .env(handshake.cookie_key(), handshake.cookie_value())
        .env(env::UNIX_SOCKET_DIR, directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut host = host.spawn().unwrap();
    let mut stdout = BufReader::new(host.stdout.take().unwrap());
    let mut line = String::new();
    within(stdout.read_line(&mut line)).await.unwrap();
    assert!(line.starts_with("1|1|unix|"), "{line}");
    drop(host.stdin.take());
    within(host.wait()).await.unwrap();
    // The plugin's own stdout was the host's.
    let mut rest = String::new();
    within(stdout.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "");
}

#[tokio::test]
async fn by_hand_it_serves_where_it_is_told_until_a_signal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    for signal in ["TERM", "INT"] {
        let mut command = command(directory.path());
        // The flag is before the cookie.
        command.arg(format!("--listen=unix:{}", path.display()));
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        within(log.read_line(&mut line)).await.unwrap();
        assert_eq!(line, format!("plugin listens on unix:{}\n", path.display()));

        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        stream
            .write_all(b"GET /none HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        let socket = tokio::net::UnixStream::connect(&path).await.unwrap();
        let call = Call::begin(PeerClient::new(channel(socket).await)).await;

        let pid = child.id().unwrap().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-s", signal, &pid])
            .status();
        assert!(sent.unwrap().success());
        call.end().await;
        let status = within(child.wait()).await.unwrap();
        assert_eq!(status.code(), Some(0));
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn by_hand_a_second_signal_ends_it_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let mut command = command(directory.path());
    command
        .arg("--listen")
        .arg(format!("unix:{}", path.display()));
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    within(log.read_line(&mut String::new())).await.unwrap();
    let socket = tokio::net::UnixStream::connect(&path).await.unwrap();
    let _call = Call::begin(PeerClient::new(channel(socket).await)).await;
    let pid = child.id().unwrap().to_string();
    let interrupt = || {
        let sent = std::process::Command::new("kill")
            .args(["-s", "INT", &pid])
            .status();
        assert!(sent.unwrap().success());
    };
    interrupt();
    let gone = async {
        while path.exists() {
            tokio::task::yield_now().await;
        }
    };
    within(gone).await;
    interrupt();
    assert_eq!(within(child.wait()).await.unwrap().code(), Some(0));
}
