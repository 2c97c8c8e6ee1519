//! The services that each plugin has.

use tonic::codegen::tokio_stream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};
use tower_plugins_interop::peer::{Empty, Number};

use super::{Running, command, within};

/// All of a plugin.
const SERVICES: [&str; 7] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "peer.v1.Peer",
    "plugin.GRPCBroker",
    "plugin.GRPCController",
    "plugin.GRPCStdio",
];

#[tokio::test]
async fn both_reflections_list_all_services_and_know_their_files() {
    use v1::server_reflection_client::ServerReflectionClient;
    use v1::server_reflection_request::MessageRequest as Ask;
    use v1::server_reflection_response::MessageResponse as Said;

    let directory = tempfile::tempdir().unwrap();
    let plugin = Running::start(command(directory.path())).await;
    let mut reflection = ServerReflectionClient::new(plugin.channel().await);
    let ask = |ask| v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(ask),
    };
    let mut asked = vec![ask(Ask::ListServices(String::new()))];
    asked.extend(SERVICES.map(|name| ask(Ask::FileContainingSymbol(name.to_owned()))));
    let asked = tokio_stream::iter(asked);
    let mut answers = reflection
        .server_reflection_info(asked)
        .await
        .unwrap()
        .into_inner();
    let mut next = async || {
        within(answers.message())
            .await
            .unwrap()
            .unwrap()
            .message_response
    };
    let Some(Said::ListServicesResponse(list)) = next().await else {
        panic!("it is no list");
    };
    let mut names: Vec<_> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    names.sort();
    assert_eq!(names, SERVICES);
    for name in SERVICES {
        let found = next().await;
        assert!(
            matches!(found, Some(Said::FileDescriptorResponse(_))),
            "{name}: {found:?}"
        );
    }

    let mut older =
        v1alpha::server_reflection_client::ServerReflectionClient::new(plugin.channel().await);
    let list = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let asked = tokio_stream::iter([v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(list),
    }]);
    let mut answers = older
        .server_reflection_info(asked)
        .await
        .unwrap()
        .into_inner();
    let answer = within(answers.message())
        .await
        .unwrap()
        .unwrap()
        .message_response;
    let Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answer
    else {
        panic!("it is no list");
    };
    assert_eq!(list.service.len(), SERVICES.len());
}

#[tokio::test]
async fn health_is_of_the_plugin_and_of_its_services_and_changes_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Running::start(command(directory.path())).await;
    let channel = plugin.channel().await;
    let mut health = HealthClient::new(channel);
    let ask = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    for service in ["", "plugin", "peer.v1.Peer"] {
        let status = health
            .check(ask(service))
            .await
            .unwrap()
            .into_inner()
            .status();
        assert_eq!(status.as_str_name(), "SERVING", "{service}");
    }
    let unknown = health.check(ask("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);

    let mut watched = health.watch(ask("plugin")).await.unwrap().into_inner();
    let mut next = async || within(watched.message()).await;
    assert_eq!(
        next().await.unwrap().unwrap().status().as_str_name(),
        "SERVING"
    );
    let mut peer = plugin.peer().await;
    peer.set_health(Number { value: 0 }).await.unwrap();
    assert_eq!(
        next().await.unwrap().unwrap().status().as_str_name(),
        "NOT_SERVING"
    );
    // A watch holds no end up, and is told of it.
    plugin.signal("TERM");
    let ended = loop {
        match next().await {
            Ok(Some(_)) => {}
            ended => break ended,
        }
    };
    assert_eq!(ended.unwrap_err().code(), tonic::Code::Unavailable);
    assert_eq!(plugin.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_service_that_is_not_there_is_unimplemented() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Running::start(command(directory.path())).await;
    let mut client = tonic::client::Grpc::new(plugin.channel().await);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<Empty, Empty>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/nobody.Nothing/Do");
    let answer = client
        .unary(tonic::Request::new(Empty {}), path, codec)
        .await;
    assert_eq!(answer.unwrap_err().code(), tonic::Code::Unimplemented);
}
