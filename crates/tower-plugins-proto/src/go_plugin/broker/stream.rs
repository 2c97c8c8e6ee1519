//! The broker's stream, from both ends.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::tokio_stream::{Stream, StreamExt};
use tonic::codegen::{Bytes, StdError};
use tonic::{Request, Response, Status, Streaming};

use super::Broker;
use crate::go_plugin::grpc::ConnInfo;
use crate::go_plugin::grpc::grpc_broker_client::GrpcBrokerClient;
use crate::go_plugin::grpc::grpc_broker_server::GrpcBroker;

/// What this side says on the stream. While it is there, there is no other; when it is dropped, another may be had.
#[derive(Debug)]
pub struct Outgoing {
    broker: Broker,
    /// There until it is dropped.
    messages: Option<mpsc::Receiver<ConnInfo>>,
}

impl Outgoing {
    pub(super) fn new(broker: Broker, messages: mpsc::Receiver<ConnInfo>) -> Self {
        let messages = Some(messages);
        Self { broker, messages }
    }
}

/// It ends when the broker is closed.
impl Stream for Outgoing {
    type Item = ConnInfo;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ConnInfo>> {
        match &mut self.messages {
            Some(messages) => messages.poll_recv(context),
            None => Poll::Ready(None),
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(messages) = self.messages.take() {
            self.broker.take_back(messages);
        }
    }
}

/// The plugin's answer to `StartStream`: it says what is to be said, and hears what is said meanwhile.
#[derive(Debug)]
pub struct Exchange {
    incoming: Streaming<ConnInfo>,
    outgoing: Outgoing,
}

/// It ends when the host's side ends, or the broker is closed.
impl Stream for Exchange {
    type Item = Result<ConnInfo, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match Pin::new(&mut self.incoming).poll_next(context) {
                Poll::Ready(Some(Ok(info))) => self.outgoing.broker.received(info),
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
                Poll::Pending => break,
            }
        }
        Pin::new(&mut self.outgoing)
            .poll_next(context)
            .map(|info| info.map(Ok))
    }
}

/// The plugin's side. One stream at a time: a second is refused as `RESOURCE_EXHAUSTED`, and one after the first has ended is taken.
#[tonic::async_trait]
impl GrpcBroker for Broker {
    type StartStreamStream = Exchange;

    async fn start_stream(
        &self,
        request: Request<Streaming<ConnInfo>>,
    ) -> Result<Response<Exchange>, Status> {
        let outgoing = self
            .outgoing()
            .map_err(|error| Status::resource_exhausted(error.to_string()))?;
        let incoming = request.into_inner();
        Ok(Response::new(Exchange { incoming, outgoing }))
    }
}

impl Broker {
    /// The host's side: opens the stream by `client`, and hears what the plugin says until that ends, or the broker is closed.
    ///
    /// It is to be spawned, not awaited while connecting: Go's side sends no headers before its first message. Dropping it ends the
    /// stream.
    ///
    /// # Errors
    ///
    /// The plugin's status; `UNIMPLEMENTED` if it has no broker, and `UNAVAILABLE` when it ends. `RESOURCE_EXHAUSTED` if there is a
    /// stream already, and `CANCELLED` if the broker is closed.
    pub async fn run<C>(&self, mut client: GrpcBrokerClient<C>) -> Result<(), Status>
    where
        C: GrpcService<Body>,
        C::Error: Into<StdError>,
        C::ResponseBody: tonic::codegen::Body<Data = Bytes> + Send + 'static,
        <C::ResponseBody as tonic::codegen::Body>::Error: Into<StdError> + Send,
    {
        let outgoing = self
            .outgoing()
            .map_err(|error| Status::resource_exhausted(error.to_string()))?;
        let hear = async {
            let mut incoming = client.start_stream(outgoing).await?.into_inner();
            while let Some(info) = incoming.next().await {
                self.received(info?);
            }
            Ok(())
        };
        tokio::select! {
            heard = hear => heard,
            () = self.closed() => Ok(()),
        }
    }
}
