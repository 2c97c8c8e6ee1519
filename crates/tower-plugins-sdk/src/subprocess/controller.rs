//! The host ends the plugin.

use tonic::{Request, Response, Status};
use tower_plugins_proto::go_plugin::grpc::Empty;
use tower_plugins_proto::go_plugin::grpc::grpc_controller_server::GrpcController;

use crate::server::Ending;

/// Begins the ending when the host says so, and answers when calls under way are over: a host closes its connection then.
#[derive(Debug)]
pub(super) struct Controller(pub(super) Ending);

#[tonic::async_trait]
impl GrpcController for Controller {
    async fn shutdown(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        self.0.begin.cancel();
        self.0.calls_over.cancelled().await;
        Ok(Response::new(Empty {}))
    }
}
