//! What the plugin offers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tower_plugins_layers::BoxError;
use tower_service::Service;

use crate::transport::Offered;
use crate::{Body, Error};

/// A service that the process of a [`Session`](super::Session) offers: HTTP/2, and so gRPC. It is cheap to clone, always ready, and what
/// a client of tonic's takes as its channel.
///
/// Calls go to the process as they are, without the layers of its plugin. When the process ends, they fail with its
/// [`Exited`](crate::transport::subprocess::Exited) in the chain of their errors. A connection that broke is made anew by the next call,
/// as long as the process still offers it. It is closed with the last clone.
///
/// # Cancellation
/// Dropping the future of a call, or the body of its response, ends the call.
#[derive(Clone)]
pub struct Channel {
    id: u32,
    plugin: Arc<str>,
    offered: Arc<Offered>,
}

impl Channel {
    pub(super) fn new(id: u32, plugin: Arc<str>, offered: Offered) -> Self {
        let offered = Arc::new(offered);
        Self {
            id,
            plugin,
            offered,
        }
    }

    /// What it is offered as.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    fn start(&self, request: Request<Body>) -> ChannelFuture {
        let this = self.clone();
        ChannelFuture(Box::pin(async move {
            let answered = this.offered.call(request).await;
            answered.map_err(|error| Error::from_stack(error).of_plugin(&this.plugin))
        }))
    }
}

impl<B> Service<Request<B>> for Channel
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = ChannelFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ChannelFuture {
        self.start(request.map(Body::new))
    }
}

impl<B> Service<Request<B>> for &Channel
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = ChannelFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ChannelFuture {
        self.start(request.map(Body::new))
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("plugin", &self.plugin)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The future of a call through a [`Channel`].
#[must_use = "futures do nothing unless polled"]
pub struct ChannelFuture(Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>);

impl Future for ChannelFuture {
    type Output = Result<Response<Body>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ChannelFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelFuture").finish_non_exhaustive()
    }
}
