//! What calls to a plugin go through, and what runs beside them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::{Request, Response};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower_plugins_layers::BoxError;
use tower_plugins_proto::go_plugin::broker::Link;
use tower_plugins_proto::go_plugin::grpc::Empty;
use tower_plugins_proto::go_plugin::grpc::grpc_broker_client::GrpcBrokerClient;
use tower_plugins_proto::go_plugin::grpc::grpc_controller_client::GrpcControllerClient;
use tower_service::Service;

use super::output::{Drain, PAUSE, Pump, is_opened_again};
use super::sockets::Sockets;
use crate::Body;
use crate::transport::task::Task;
use crate::transport::{Http, Transport};

/// One process that has said where it is, and was connected to.
pub(super) struct Session {
    channel: Channel,
    version: u32,
    link: Link,
    /// In the order in which they end.
    _output: Drain,
    _broker: Task,
    _driver: Option<Task>,
    broken: CancellationToken,
    /// Where this side listens.
    _sockets: Arc<Sockets>,
}

/// What a session is made of.
pub(super) struct Parts {
    pub(super) channel: Channel,
    pub(super) version: u32,
    /// The connections beside the first, whose stream is not there yet.
    pub(super) link: Link,
    /// Of one socket for all.
    pub(super) driver: Option<Task>,
    /// That one has ended.
    pub(super) broken: CancellationToken,
    pub(super) sockets: Arc<Sockets>,
    pub(super) output: Pump,
}

impl Session {
    /// Begins what runs beside the calls. None of it is waited for: Go's side sends nothing until it has something to say.
    pub(super) fn begin(parts: Parts) -> Self {
        let (broker, channel) = (parts.link.broker().clone(), parts.channel.clone());
        let stream = async move {
            loop {
                let ended = broker.run(GrpcBrokerClient::new(channel.clone())).await;
                if broker.is_closed() || !is_opened_again(&ended) {
                    tracing::debug!(?ended, "the stream of a plugin's broker ended");
                    return;
                }
                sleep(PAUSE).await;
            }
        };
        Self {
            _output: Drain::spawn(parts.channel.clone(), parts.output),
            _broker: Task::spawn(stream),
            _driver: parts.driver,
            broken: parts.broken,
            _sockets: parts.sockets,
            channel: parts.channel,
            version: parts.version,
            link: parts.link,
        }
    }

    pub(super) fn http(&self) -> &Http {
        &self.channel.0
    }

    pub(super) const fn version(&self) -> u32 {
        self.version
    }

    /// The connections beside the first, of either side.
    pub(super) const fn link(&self) -> &Link {
        &self.link
    }

    /// Waits until there is no socket for its connections any more.
    pub(super) async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// Has the plugin told to shut down: whether it heard.
    pub(super) async fn shut_down(&self) -> bool {
        self.link.broker().close();
        let mut controller = GrpcControllerClient::new(self.channel.clone());
        match controller.shutdown(Empty {}).await {
            Ok(_) => true,
            // Go's side ends before it has answered.
            Err(status) => status.code() != tonic::Code::Unimplemented,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.link.broker().close();
    }
}

/// The connections to a plugin, for clients of its own services.
#[derive(Clone)]
pub(super) struct Channel(pub(super) Arc<Http>);

impl Service<Request<tonic::body::Body>> for Channel {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let http = Arc::clone(&self.0);
        Box::pin(async move { http.call(request.map(Body::new)).await })
    }
}
