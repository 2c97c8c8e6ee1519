//! A plugin in Go.

use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tower_plugins_proto::go_plugin::broker::{Broker, Link, Multiplexed};
use tower_plugins_proto::go_plugin::grpc::Empty;
use tower_plugins_proto::go_plugin::grpc::grpc_broker_client::GrpcBrokerClient;
use tower_plugins_proto::go_plugin::grpc::grpc_controller_client::GrpcControllerClient;
use tower_plugins_proto::go_plugin::socket::{Listen, Socket};
use tower_plugins_proto::go_plugin::tls::{Identity, Tls};
use tower_plugins_proto::go_plugin::{HandshakeLine, env, offer_versions};

use super::{Io, accept, channel, check, dial, peer, with, within};

/// A running plugin, and the host's end of it.
struct Running {
    child: Child,
    channel: Channel,
    link: Link,
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
        let tls = identity.map(|identity| Tls::pinned(&identity, line.certificate().unwrap()));
        let tls = tls.transpose().unwrap();
        let broker = Broker::new();
        let socket = Socket::connect(line.address()).await.unwrap();
        let (link, channel) = if multiplex {
            let (multiplexed, driver) = Multiplexed::host(socket, &broker);
            tokio::spawn(driver);
            let first = within(multiplexed.open()).await.unwrap();
            let link = Link::multiplexed(multiplexed);
            (link, main(first, tls.as_ref()).await)
        } else {
            let link = Link::new(broker.clone(), Listen::unix().directory(directory.path()));
            (link, main(socket, tls.as_ref()).await)
        };
        let link = with(link, tls.as_ref());
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
                assert!(check(dial(&link, id).await, "of the plugin").await.unwrap());
            });
        }
        for _ in 0..count {
            let id = self.link.broker().next_id();
            accept(&self.link, id, "of the host").await;
            assert_eq!(self.ask("/peer.Peer/Dial", id).await, "SERVING");
        }
        calls.join_all().await;
    }

    async fn shut_down(mut self) {
        self.link.broker().close();
        let mut controller = GrpcControllerClient::new(self.channel);
        // Its answer may be lost.
        drop(within(controller.shutdown(Empty {})).await);
        assert!(within(self.child.wait()).await.unwrap().success());
    }
}

async fn main(stream: impl Io + 'static, tls: Option<&Tls>) -> Channel {
    match tls {
        Some(tls) => channel(tls.connect(stream).await.unwrap()).await,
        None => channel(stream).await,
    }
}

async fn both_call_each_other(multiplex: bool, certify: bool) {
    let Some(program) = peer() else {
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
