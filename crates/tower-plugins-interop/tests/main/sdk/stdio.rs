//! What a plugin prints.

use tower_plugins_interop::pattern;
use tower_plugins_interop::peer::peer_client::PeerClient;
use tower_plugins_interop::peer::{Number, Sink, WriteRequest};
use tower_plugins_proto::go_plugin::grpc::Empty;
use tower_plugins_proto::go_plugin::grpc::grpc_controller_client::GrpcControllerClient;
use tower_plugins_proto::go_plugin::grpc::grpc_stdio_client::GrpcStdioClient;
use tower_plugins_proto::go_plugin::grpc::stdio_data::Channel as Of;

use super::{Running, command, within};

/// A length that is no multiple of any piece's.
const LENGTH: i64 = 300_001;

fn write(sink: Sink) -> WriteRequest {
    WriteRequest {
        sink: sink.into(),
        length: LENGTH,
    }
}

#[tokio::test]
async fn what_was_printed_before_and_at_the_end_is_heard_in_its_order() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Running::start(command(directory.path())).await;
    let channel = plugin.channel().await;
    let mut peer = PeerClient::new(channel.clone());
    // Nobody listens yet.
    peer.write(write(Sink::Stdout)).await.unwrap();
    peer.write(write(Sink::Stderr)).await.unwrap();
    let mut stdio = GrpcStdioClient::new(channel.clone());
    let mut heard = stdio.stream_stdio(()).await.unwrap().into_inner();
    let mut controller = GrpcControllerClient::new(channel);
    let shutdown = tokio::spawn(async move {
        peer.write(write(Sink::Stdout)).await.unwrap();
        controller.shutdown(Empty {}).await
    });
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(data) = within(heard.message()).await.unwrap() {
        match data.channel() {
            Of::Stdout => stdout.extend(data.data),
            Of::Stderr => stderr.extend(data.data),
            Of::Invalid => panic!("it is neither"),
        }
    }
    let once = pattern(LENGTH as usize);
    assert!(stderr == once);
    assert!(stdout == [once.clone(), once].concat());
    within(shutdown).await.unwrap().unwrap();
    assert_eq!(plugin.ended().await.0, Some(0));
}

#[tokio::test]
async fn who_attaches_anew_hears_what_is_printed_from_then_on() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Running::start(command(directory.path())).await;
    let first = plugin.channel().await;
    let heard = GrpcStdioClient::new(first).stream_stdio(()).await.unwrap();
    let second = plugin.channel().await;
    let mut stdio = GrpcStdioClient::new(second.clone());
    let mut newer = stdio.stream_stdio(()).await.unwrap().into_inner();
    let mut heard = heard.into_inner();
    assert_eq!(within(heard.message()).await.unwrap(), None);
    let mut peer = PeerClient::new(second);
    peer.write(write(Sink::Stdout)).await.unwrap();
    let mut length = 0;
    while length < LENGTH {
        let data = within(newer.message()).await.unwrap().unwrap();
        length += data.data.len() as i64;
    }
}

#[tokio::test]
async fn a_host_that_hears_nothing_holds_nothing_up() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Running::start(command(directory.path())).await;
    let mut peer = plugin.peer().await;
    for _ in 0..8 {
        within(peer.write(write(Sink::Stdout))).await.unwrap();
    }
    let answer = within(peer.double(Number { value: 1 })).await;
    assert_eq!(answer.unwrap().into_inner().value, 2);
}
