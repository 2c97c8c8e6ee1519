//! How an endpoint is reached: HTTP over TCP, TLS and Unix sockets, lines of JSON on a Unix socket or on
//! the standard streams of a process, HashiCorp's go-plugin, services of this program, and ways that it has itself.
//!
//! A transport is a [`tower_service::Service`] of requests for a shared reference: it is never
//! cloned for a call, is always ready, and boxes one future per call.
//!
#![cfg_attr(feature = "http", doc = "```")]
#![cfg_attr(not(feature = "http"), doc = "```ignore")]
//! use http::{Request, Response};
//! use tower_plugins::Body;
//! use tower_plugins::transport::{InProcess, Transport};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let hello = tower::service_fn(|_request: Request<Body>| async {
//!     Ok::<_, std::io::Error>(Response::new(Body::from("hello")))
//! });
//! let transport = InProcess::new("hello", hello);
//! let response = transport.call(Request::new(Body::empty())).await.unwrap();
//! assert_eq!(response.status(), 200);
//! # }
//! ```

use std::any::Any;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::http::{Request, Response};
use tokio::time::Instant;
use tower_plugins_layers::BoxError;
use tower_service::Service;

use crate::Body;

mod custom;
mod enveloped;
#[cfg(any(feature = "http", feature = "subprocess"))]
mod error;
#[cfg(all(feature = "subprocess", unix))]
mod exec_json;
#[cfg(all(feature = "subprocess", unix))]
mod go_plugin;
#[cfg(feature = "http")]
pub mod http;
mod in_process;
#[cfg(all(any(feature = "http", feature = "subprocess"), unix))]
mod lines;
mod messages;
#[cfg(all(feature = "subprocess", unix))]
pub mod subprocess;
#[cfg(any(feature = "http", feature = "subprocess"))]
mod task;
#[cfg(all(feature = "http", unix))]
mod unix_json;

pub use self::custom::EndpointArgs;
pub(crate) use self::custom::{Factory, Unmade};
pub use self::enveloped::Enveloped;
pub(crate) use self::enveloped::as_map;
#[cfg(all(feature = "subprocess", unix))]
pub use self::exec_json::ExecJson;
#[cfg(all(feature = "subprocess", unix))]
pub use self::go_plugin::{AppVersion, Attached, GoPlugin, InvalidGoPlugin, Output, OutputStream};
#[cfg(all(feature = "subprocess", unix))]
pub(crate) use self::go_plugin::{Offered, Parts as GoPluginParts, Pinned, Sink};
#[cfg(feature = "http")]
pub use self::http::Http;
pub use self::in_process::InProcess;
pub(crate) use self::in_process::panic_text;
#[cfg(feature = "grpc")]
pub(crate) use self::messages::Limit;
pub(crate) use self::messages::{MessageLimits, is_grpc};
#[cfg(all(feature = "http", unix))]
pub use self::unix_json::UnixJson;

/// Longer than any program runs, and short enough to be added to any instant.
#[cfg(all(feature = "subprocess", unix))]
const FOREVER: std::time::Duration = std::time::Duration::from_secs(10 * 365 * 24 * 3600);

/// The future of one call through a transport.
///
/// Dropping it cancels the call.
pub type ResponseFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send + 'a>>;

/// The future of [`Transport::probe`].
pub type ProbeFuture<'a> = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>>;

/// The future of [`Transport::end`].
pub type EndFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How an endpoint is reached.
///
/// A call that ends before the endpoint can have processed anything of it fails with
/// [`Unsent`](tower_plugins_layers::Unsent), with the request in it where that is possible.
/// A call that is cancelled, by dropping its future or its response's body, frees all it held.
pub trait Transport: Any + Send + Sync {
    /// Sends `request` and gives the head of its response, with a body that is still under way.
    fn call(&self, request: Request<Body>) -> ResponseFuture<'_>;

    /// Finds out, without a call, whether the endpoint is there: opens a connection and closes it, or asks whether a
    /// process lives. A health check of the kind `tcp` asks this, and bounds its time.
    ///
    /// # Errors
    /// If the endpoint is not there; by default always, as it cannot be told.
    fn probe(&self) -> ProbeFuture<'_> {
        let error = "this transport cannot tell whether its endpoint is there, without a call";
        Box::pin(std::future::ready(Err(error.into())))
    }

    /// Resolves when all that this has begun has come to its end, after it was dropped: a process, for one. The end of a
    /// plugin waits for it, and with it [`Plugins::shutdown`](crate::Plugins::shutdown), and the start of another in the
    /// place of an `exclusive` plugin. It must not keep what it waits for alive, and must be sure to resolve.
    ///
    /// By default there is nothing to wait for.
    fn end(&self) -> EndFuture {
        Box::pin(std::future::ready(()))
    }

    /// Has what waits to be started again, because it ended too often, start at once: a process, for one.
    ///
    /// By default there is nothing to do.
    fn revive(&self) {}

    /// The same as `call`, for a wire that tells the other side how long it has: from `deadline` on nobody waits for the
    /// response's head. Who calls drops the future then; a transport need not watch the time.
    ///
    /// A transport that does not have it is called by `call`.
    fn call_until(&self, request: Request<Body>, deadline: Option<Instant>) -> ResponseFuture<'_> {
        let _ = deadline;
        self.call(request)
    }
}

impl<'a> Service<Request<Body>> for &'a dyn Transport {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = ResponseFuture<'a>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture<'a> {
        Transport::call(*self, request)
    }
}
