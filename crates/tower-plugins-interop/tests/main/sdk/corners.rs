//! What plugins do that are no example, on a runtime of one thread.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncBufReadExt;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::ServiceExt;
use tower_plugins_interop::pattern;
use tower_plugins_proto::go_plugin::broker::Broker;
use tower_plugins_proto::go_plugin::grpc::Empty;
use tower_plugins_proto::go_plugin::grpc::grpc_broker_client::GrpcBrokerClient;
use tower_plugins_proto::go_plugin::grpc::grpc_controller_client::GrpcControllerClient;
use tower_plugins_proto::go_plugin::grpc::grpc_stdio_client::GrpcStdioClient;
use tower_plugins_proto::go_plugin::socket::Socket;
use tower_plugins_proto::go_plugin::tls::Identity;
use tower_plugins_proto::go_plugin::{Handshake, env};

use super::{Running, channel, secured, within};

fn command(directory: &Path, case: &str) -> Command {
    let handshake = Handshake::default();
    let mut command = Command::new(env!("CARGO_BIN_EXE_corners"));
    command
        .arg(case)
        .env(handshake.cookie_key(), handshake.cookie_value())
        .env(env::UNIX_SOCKET_DIR, directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// The status of `GET path`.
async fn get(channel: &Channel, path: &str) -> u16 {
    let request = http::Request::get(format!("http://localhost{path}"));
    let request = request.body(Body::empty()).unwrap();
    let answer = within(channel.clone().oneshot(request)).await.unwrap();
    answer.status().as_u16()
}

#[tokio::test]
async fn the_programs_own_signal_ends_a_hosts_plugin_too() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Running::start(command(directory.path(), "once")).await;
    assert_eq!(get(&plugin.channel().await, "/finish").await, 200);
    assert_eq!(plugin.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_handler_that_prints_ten_mebibytes_on_the_one_thread_loses_none() {
    const LENGTH: usize = 10 << 20;
    let directory = tempfile::tempdir().unwrap();
    let plugin = Running::start(command(directory.path(), "once")).await;
    let channel = plugin.channel().await;
    let mut stdio = GrpcStdioClient::new(channel.clone());
    let mut heard = stdio.stream_stdio(()).await.unwrap().into_inner();
    let began = Instant::now();
    let print = tokio::spawn(async move { get(&channel, &format!("/print/{LENGTH}")).await });
    let mut printed = Vec::new();
    while printed.len() < LENGTH {
        printed.extend(within(heard.message()).await.unwrap().unwrap().data);
    }
    assert!(printed == pattern(LENGTH));
    assert_eq!(within(print).await.unwrap(), 200);
    assert!(began.elapsed() < Duration::from_secs(5), "it stood still");
}

#[tokio::test]
async fn a_plugin_that_prints_without_end_ends_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    for hears in [false, true] {
        let plugin = Running::start(command(directory.path(), "once")).await;
        let channel = plugin.channel().await;
        let mut stdio = GrpcStdioClient::new(channel.clone());
        if hears {
            let mut heard = stdio.stream_stdio(()).await.unwrap().into_inner();
            tokio::spawn(async move { while let Ok(Some(_)) = heard.message().await {} });
        }
        assert_eq!(get(&channel, "/flood").await, 200);
        let began = Instant::now();
        let mut controller = GrpcControllerClient::new(channel);
        drop(within(controller.shutdown(Empty {})).await);
        let (code, log) = plugin.ended().await;
        assert_eq!(code, Some(0), "{log}");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "{hears}: it took {took:?}");
    }
}

#[tokio::test]
async fn a_future_that_is_dropped_leaves_neither_sockets_nor_the_pipe() {
    let directory = tempfile::tempdir().unwrap();
    let mut plugin = Running::start(command(directory.path(), "dropped")).await;
    let channel = plugin.channel().await;
    let broker = Broker::new();
    let stream = broker.run(GrpcBrokerClient::new(channel.clone()));
    let calls = async {
        assert_eq!(get(&channel, "/offer").await, 200);
        assert_eq!(get(&channel, "/finish").await, 200);
        let mut line = String::new();
        within(plugin.stdout.read_line(&mut line)).await.unwrap();
        assert_eq!(line, "it goes on\n");
    };
    tokio::join!(async { drop(stream.await) }, calls);
    let none = async {
        while std::fs::read_dir(directory.path()).unwrap().count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    within(none).await;
    drop(plugin.child.stdin.take());
    assert_eq!(plugin.ended().await.0, Some(0));
}

#[tokio::test]
async fn one_process_serves_one_host() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Running::start(command(directory.path(), "twice")).await;
    let channel = plugin.channel().await;
    let mut controller = GrpcControllerClient::new(channel);
    within(controller.shutdown(Empty {})).await.unwrap();
    let (code, log) = plugin.ended().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("serves its host already"), "{log}");
}

#[tokio::test]
async fn who_says_it_twice_is_answered_twice() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Running::start(command(directory.path(), "once")).await;
    let mut said = JoinSet::new();
    for _ in 0..3 {
        let mut controller = GrpcControllerClient::new(plugin.channel().await);
        said.spawn(async move { controller.shutdown(Empty {}).await });
    }
    plugin.signal("TERM");
    plugin.signal("TERM");
    while let Some(answer) = within(said.join_next()).await {
        // Who comes after the signal may find nobody.
        drop(answer.unwrap());
    }
    assert_eq!(plugin.ended().await.0, Some(0));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn peers_that_stand_still_do_not_hold_up_the_end() {
    let directory = tempfile::tempdir().unwrap();
    for host in [None, Some(Identity::generate().unwrap())] {
        let mut command = command(directory.path(), "once");
        if let Some(host) = &host {
            command.env(env::CLIENT_CERT, host.certificate().to_pem());
        }
        let plugin = Running::start(command).await;
        // Nothing is said on these.
        let mut silent = Vec::new();
        for _ in 0..8 {
            silent.push(Socket::connect(&plugin.address()).await.unwrap());
        }
        let channel = match &host {
            None => plugin.channel().await,
            Some(host) => {
                let tls = plugin.tls(host);
                channel(secured(&plugin.address(), &tls).await.unwrap()).await
            }
        };
        // And this is not read.
        let mut stdio = GrpcStdioClient::new(channel.clone());
        let unread = stdio.stream_stdio(()).await.unwrap();
        assert_eq!(get(&channel, "/print/4000000").await, 200);
        let began = Instant::now();
        let mut controller = GrpcControllerClient::new(channel);
        within(controller.shutdown(Empty {})).await.unwrap();
        assert_eq!(plugin.ended().await.0, Some(0));
        let took = began.elapsed();
        assert!(took < Duration::from_secs(4), "it took {took:?}");
        drop((silent, unread));
    }
}

#[tokio::test]
async fn calls_that_are_given_up_leave_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Running::start(command(directory.path(), "once")).await;
    let pid = plugin.child.id().unwrap();
    let channel = plugin.channel().await;
    let left = || {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .count();
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        (open, threads.count())
    };
    assert_eq!(get(&channel, "/print/1").await, 200);
    let before = left();
    for _ in 0..200 {
        let connection = plugin.channel().await;
        let mut health = tonic_health::pb::health_client::HealthClient::new(connection);
        let service = "plugin".to_owned();
        let request = tonic_health::pb::HealthCheckRequest { service };
        let watch = within(health.watch(request)).await.unwrap();
        drop(watch);
    }
    let settled = async {
        while left() != before {
            assert_eq!(get(&channel, "/print/1").await, 200);
        }
    };
    within(settled).await;
}

#[tokio::test]
async fn a_sigterm_before_the_host_connects_is_its_end() {
    let directory = tempfile::tempdir().unwrap();
    for multiplexed in ["", "true"] {
        let mut command = command(directory.path(), "once");
        command.env(env::MULTIPLEX_GRPC, multiplexed);
        let plugin = Running::start(command).await;
        plugin.signal("TERM");
        let began = Instant::now();
        let (code, log) = plugin.ended().await;
        assert_eq!(code, Some(0), "{log}");
        assert!(began.elapsed() < Duration::from_secs(3));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
