//! Closures as a service.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use prost::Message;
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower_plugins_layers::BoxError;
use tower_service::Service;

use crate::Body;

/// Methods of gRPC, each of which is a closure: what a plugin may call back, without generated code for it.
///
/// A closure is an `FnMut`: it may count, or keep what it was told. It is called by one call after the other; the futures that it
/// gives run at once. A call of a method that is not there is answered `UNIMPLEMENTED`.
///
/// ```
/// use tonic::Status;
/// use tower_plugins::session::Callbacks;
/// use tower_plugins_proto::v1::{InfoRequest, InfoResponse};
///
/// let mut asked = 0;
/// let callbacks = Callbacks::new().unary("/greet.v1.Asker/Who", move |_: InfoRequest| {
///     asked += 1;
///     let name = format!("the host, asked {asked} times");
///     async move { Ok::<_, Status>(InfoResponse { name, ..InfoResponse::default() }) }
/// });
/// # async fn serve(session: tower_plugins::session::Session, callbacks: Callbacks) -> Result<(), Box<dyn std::error::Error>> {
/// let offer = session.serve(callbacks).await?;
/// # Ok(()) }
/// # let _ = (serve, callbacks);
/// ```
#[derive(Clone, Default)]
pub struct Callbacks {
    methods: HashMap<&'static str, Arc<Method>>,
}

type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Method = dyn Fn(Request<Body>) -> Answer + Send + Sync;

impl Callbacks {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Has `callback` answer the method at `path`, such as `/peer.v1.Adder/Add`, in which one message is sent and one comes back. Messages are at
    /// most 4 MiB. The last one of a path counts.
    #[must_use]
    pub fn unary<F, Req, Res, Fut>(mut self, path: &'static str, callback: F) -> Self
    where
        F: FnMut(Req) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Res, Status>> + Send + 'static,
        Req: Message + Default + 'static,
        Res: Message + Default + 'static,
    {
        let callback = Arc::new(Mutex::new(callback));
        let method = move |request: Request<Body>| -> Answer {
            let callback = Unary(Arc::clone(&callback));
            Box::pin(async move {
                let mut grpc = Grpc::new(ProstCodec::<Res, Req>::default());
                grpc.unary(callback, request).await.map(Body::new)
            })
        };
        self.methods.insert(path, Arc::new(method));
        self
    }
}

impl<B> Service<Request<B>> for Callbacks
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = self.methods.get(request.uri().path()).map(Arc::clone);
        Box::pin(async move {
            Ok(match method {
                Some(method) => method(request.map(Body::new)).await,
                None => {
                    let message = format!("there is no callback for {}", request.uri().path());
                    let status = Status::new(Code::Unimplemented, message);
                    status.into_http::<tonic::body::Body>().map(Body::new)
                }
            })
        })
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.methods.keys()).finish()
    }
}

/// A closure for one call.
struct Unary<F>(Arc<Mutex<F>>);

impl<F, Req, Res, Fut> UnaryService<Req> for Unary<F>
where
    F: FnMut(Req) -> Fut,
    Fut: Future<Output = Result<Res, Status>> + Send + 'static,
    Res: Send + 'static,
{
    type Response = Res;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Res>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Req>) -> Self::Future {
        // One that panicked is called again all the same: it is its own.
        let mut callback = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = callback(request.into_inner());
        Box::pin(async move { Ok(tonic::Response::new(answered.await?)) })
    }
}
