//! What calls to a plugin go through, and what runs beside them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::{Request, Response};
use tower_plugins_layers::BoxError;
use tower_plugins_proto::go_plugin::Certificate;
use tower_plugins_proto::go_plugin::broker::{Broker, Multiplexed};
use tower_plugins_proto::go_plugin::grpc::Empty;
use tower_plugins_proto::go_plugin::grpc::grpc_broker_client::GrpcBrokerClient;
use tower_plugins_proto::go_plugin::grpc::grpc_controller_client::GrpcControllerClient;
use tower_plugins_proto::go_plugin::tls::Identity;
use tower_service::Service;

use super::output::{Drain, Pump};
use super::sockets::Sockets;
use crate::Body;
use crate::transport::task::Task;
use crate::transport::{Http, Transport};

/// One process that has said where it is, and was connected to.
///
/// Calls both ways are made of [`broker`](Self::broker), which has its stream, with [`multiplexed`](Self::multiplexed) where all
/// connections go over one socket, and [`certificates`](Self::certificates) where they are encrypted. A call has its session as
/// `Running::session`.
pub(super) struct Session {
    channel: Channel,
    version: u32,
    broker: Broker,
    multiplexed: Option<Multiplexed>,
    certificates: Option<Certificates>,
    sockets: Arc<Sockets>,
    /// In the order in which they end.
    _output: Drain,
    _broker: Task,
    _driver: Option<Task>,
    _stdout: Task,
}

/// What both sides show each other, on each connection.
#[expect(dead_code, reason = "for the connections of the broker")]
pub(super) struct Certificates {
    pub(super) host: Identity,
    pub(super) plugin: Certificate,
}

/// What a session is made of.
pub(super) struct Parts {
    pub(super) channel: Channel,
    pub(super) version: u32,
    pub(super) broker: Broker,
    pub(super) multiplexed: Option<(Multiplexed, Task)>,
    pub(super) certificates: Option<Certificates>,
    pub(super) sockets: Arc<Sockets>,
    pub(super) output: Pump,
    pub(super) stdout: Task,
}

impl Session {
    /// Begins what runs beside the calls. None of it is waited for: Go's side sends nothing until it has something to say.
    pub(super) fn begin(parts: Parts) -> Self {
        let (broker, client) = (
            parts.broker.clone(),
            GrpcBrokerClient::new(parts.channel.clone()),
        );
        let stream = async move {
            if let Err(status) = broker.run(client).await {
                tracing::debug!(%status, "the stream of a plugin's broker ended");
            }
        };
        let (multiplexed, driver) = parts.multiplexed.unzip();
        Self {
            _output: Drain::spawn(parts.channel.clone(), parts.output),
            _broker: Task::spawn(stream),
            _driver: driver,
            _stdout: parts.stdout,
            channel: parts.channel,
            version: parts.version,
            broker: parts.broker,
            multiplexed,
            certificates: parts.certificates,
            sockets: parts.sockets,
        }
    }

    pub(super) fn http(&self) -> &Http {
        &self.channel.0
    }

    pub(super) const fn version(&self) -> u32 {
        self.version
    }

    /// Has the plugin told to shut down: whether it heard.
    pub(super) async fn shut_down(&self) -> bool {
        self.broker.close();
        let mut controller = GrpcControllerClient::new(self.channel.clone());
        match controller.shutdown(Empty {}).await {
            Ok(_) => true,
            // Go's side ends before it has answered.
            Err(status) => status.code() != tonic::Code::Unimplemented,
        }
    }
}

#[expect(dead_code, reason = "for the connections of the broker")]
impl Session {
    /// The host's end of the stream on which connections are offered.
    pub(super) const fn broker(&self) -> &Broker {
        &self.broker
    }

    /// There where all connections go over one socket.
    pub(super) const fn multiplexed(&self) -> Option<&Multiplexed> {
        self.multiplexed.as_ref()
    }

    /// There where both sides made them for this one run.
    pub(super) const fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// Where the host may listen for the plugin: the directory goes with the process.
    pub(super) fn socket_directory(&self) -> &std::path::Path {
        self.sockets.directory()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.broker.close();
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
