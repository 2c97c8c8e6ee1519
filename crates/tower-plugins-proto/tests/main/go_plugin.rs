//! The services that a plugin of HashiCorp's go-plugin has beside the program's own.

use prost::Message;
use tonic::codegen::BoxStream;
use tonic::codegen::tokio_stream::{StreamExt, iter};
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_prost_build::FileDescriptorSet;
use tower_plugins_proto::go_plugin::broker::Broker;
use tower_plugins_proto::go_plugin::grpc::grpc_broker_server::GrpcBrokerServer;
use tower_plugins_proto::go_plugin::grpc::grpc_controller_client::GrpcControllerClient;
use tower_plugins_proto::go_plugin::grpc::grpc_controller_server::{
    GrpcController, GrpcControllerServer,
};
use tower_plugins_proto::go_plugin::grpc::grpc_stdio_client::GrpcStdioClient;
use tower_plugins_proto::go_plugin::grpc::grpc_stdio_server::{GrpcStdio, GrpcStdioServer};
use tower_plugins_proto::go_plugin::grpc::stdio_data::Channel;
use tower_plugins_proto::go_plugin::grpc::{DESCRIPTOR_SET, Empty, StdioData};

struct Plugin;

fn printed() -> [StdioData; 2] {
    [(Channel::Stdout, "out"), (Channel::Stderr, "\0err\n")].map(|(channel, data)| StdioData {
        channel: channel.into(),
        data: data.into(),
    })
}

#[tonic::async_trait]
impl GrpcController for Plugin {
    async fn shutdown(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }
}

#[tonic::async_trait]
impl GrpcStdio for Plugin {
    type StreamStdioStream = BoxStream<StdioData>;

    async fn stream_stdio(
        &self,
        _: Request<()>,
    ) -> Result<Response<Self::StreamStdioStream>, Status> {
        Ok(Response::new(Box::pin(iter(printed().map(Ok)))))
    }
}

#[tokio::test]
async fn a_plugin_is_shut_down_and_tells_what_it_prints() {
    let mut controller = GrpcControllerClient::new(GrpcControllerServer::new(Plugin));
    controller.shutdown(Empty {}).await.unwrap();
    let mut stdio = GrpcStdioClient::new(GrpcStdioServer::new(Plugin));
    let heard = stdio.stream_stdio(()).await.unwrap().into_inner();
    let heard: Vec<_> = heard.map(Result::unwrap).collect().await;
    assert_eq!(heard, printed());
}

#[test]
fn the_names_and_numbers_are_those_of_gos_side() {
    assert_eq!(GrpcBrokerServer::<Broker>::NAME, "plugin.GRPCBroker");
    assert_eq!(
        GrpcControllerServer::<Plugin>::NAME,
        "plugin.GRPCController"
    );
    assert_eq!(GrpcStdioServer::<Plugin>::NAME, "plugin.GRPCStdio");
    let [out, err] = printed().map(|data| data.encode_to_vec());
    assert_eq!(out, b"\x08\x01\x12\x03out");
    assert_eq!(err, b"\x08\x02\x12\x05\0err\n");
    assert_eq!(Channel::Invalid as i32, 0);
}

#[test]
fn the_services_are_described() {
    let set = FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap();
    let services: Vec<_> = set
        .file
        .iter()
        .flat_map(|file| {
            file.service
                .iter()
                .map(move |service| (file.package(), service.name()))
        })
        .collect();
    assert_eq!(
        services,
        [
            ("plugin", "GRPCController"),
            ("plugin", "GRPCStdio"),
            ("plugin", "GRPCBroker")
        ]
    );
}
