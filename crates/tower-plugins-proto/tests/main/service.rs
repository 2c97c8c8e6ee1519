//! A generated client calls a generated server, through tonic's framing and without a socket.

use tonic::codegen::BoxStream;
use tonic::codegen::tokio_stream::{StreamExt, iter};
use tonic::{Code, Request, Response, Status, Streaming};
use tower_plugins_proto::v1::plugin_client::PluginClient;
use tower_plugins_proto::v1::plugin_server::{Plugin, PluginServer};
use tower_plugins_proto::v1::{ExecuteRequest, ExecuteResponse, InfoRequest, InfoResponse};

struct Echo;

fn echo(request: ExecuteRequest) -> ExecuteResponse {
    ExecuteResponse {
        payload: request.payload,
        content_type: request.content_type,
        metadata: request.metadata,
        request_id: request.request_id,
    }
}

#[tonic::async_trait]
impl Plugin for Echo {
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse {
            name: "echo".into(),
            ..Default::default()
        }))
    }

    async fn execute(
        &self,
        request: Request<ExecuteRequest>,
    ) -> Result<Response<ExecuteResponse>, Status> {
        match request.get_ref().method.as_str() {
            "echo" => Ok(Response::new(echo(request.into_inner()))),
            other => Err(Status::unimplemented(format!("no method {other}"))),
        }
    }

    type ExecuteStreamStream = BoxStream<ExecuteResponse>;

    async fn execute_stream(
        &self,
        request: Request<Streaming<ExecuteRequest>>,
    ) -> Result<Response<Self::ExecuteStreamStream>, Status> {
        Ok(Response::new(Box::pin(
            request.into_inner().map(|message| message.map(echo)),
        )))
    }
}

fn client() -> PluginClient<PluginServer<Echo>> {
    PluginClient::new(PluginServer::new(Echo))
}

fn request(method: &str, payload: &'static str) -> ExecuteRequest {
    ExecuteRequest {
        method: method.into(),
        payload: payload.into(),
        metadata: [("tenant".into(), "t".into())].into(),
        request_id: "r-1".into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_plugin_says_what_it_is() {
    let info = client().info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.name, "echo");
}

#[tokio::test]
async fn a_method_is_given_its_payload_and_metadata() {
    let sent = request("echo", "hello");
    let answer = client().execute(sent.clone()).await.unwrap().into_inner();
    assert_eq!(answer, echo(sent));
}

#[tokio::test]
async fn an_unknown_method_is_a_status() {
    let status = client().execute(request("other", "")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_stream_is_answered_message_by_message() {
    let sent = iter(["one", "two"].map(|payload| request("echo", payload)));
    let answers = client().execute_stream(sent).await.unwrap().into_inner();
    let payloads: Vec<_> = answers
        .map(|answer| answer.unwrap().payload)
        .collect()
        .await;
    assert_eq!(payloads, ["one", "two"]);
}
