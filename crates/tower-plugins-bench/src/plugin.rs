//! The plugin of the group `subprocess`: this program, when a host starts it. It doubles numbers, as that in Go does.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Status, codegen::Service};
use tonic_prost::ProstCodec;
use tower_plugins_interop::peer::Number;
use tower_plugins_sdk::Plugin;

use crate::Result;

/// The word with which the bench starts itself as the plugin.
pub(crate) const COMMAND: &str = "plugin";

/// Serves the host that started this.
#[tokio::main]
pub(crate) async fn serve() -> Result {
    let plugin = Plugin::new("bench", env!("CARGO_PKG_VERSION"));
    Ok(plugin.service(Peer).serve().await?)
}

/// The one method of `peer.v1.Peer` that is measured: the generated trait has all of them.
#[derive(Clone)]
struct Peer;

impl NamedService for Peer {
    const NAME: &'static str = "peer.v1.Peer";
}

impl Service<Request<Body>> for Peer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async {
            let codec = ProstCodec::<Number, Number>::default();
            Ok(Grpc::new(codec).unary(Double, request).await)
        })
    }
}

struct Double;

impl UnaryService<Number> for Double {
    type Response = Number;
    type Future = Ready<Result<tonic::Response<Number>, Status>>;

    fn call(&mut self, request: tonic::Request<Number>) -> Self::Future {
        let value = 2 * request.into_inner().value;
        ready(Ok(tonic::Response::new(Number { value })))
    }
}
