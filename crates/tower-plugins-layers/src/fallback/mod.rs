//! Something else where there is no answer.
//!
//! When a call ends in one of the chosen ways, [`FallbackLayer`] gives a fixed answer, or asks another
//! service. The answer says so: in its header `x-fallback` and in its extension [`FallbackUsed`], which a
//! [`TraceLayer`](crate::TraceLayer) outside of it counts.
//!
//! ```text
//! call ──► the service inside ──► a good answer ──► the caller
//!                   │
//!                   ├ an error or status that is not chosen ──► the caller
//!                   └ one that is ──► fixed answer, or another service ──► the caller, marked
//!                                              └ fails ──► what there was before
//! ```
//!
//! | option | default | |
//! | --- | --- | --- |
//! | [`on`](FallbackPolicy::on) | see [`FallbackPolicy`] | the [`Reason`](crate::Reason)s that call for it |
//! | [`on_statuses`](FallbackPolicy::on_statuses) | none | the statuses that do |
//! | [`on_any_error`](FallbackPolicy::on_any_error) | no | whether each other error does |
//! | [`header`](FallbackPolicy::header) | `x-fallback` | which header has the reason; `None` for none |
//! | [`timeout`](FallbackPolicy::timeout) | 1 s | how long the other service has to its response's head |
//! | [`keep_body`](FallbackLayer::keep_body) | nothing is kept | how much of a body is kept for the other service |
//!
//! # What is kept of a request
//! For a fixed answer nothing. For another service a copy of the head is made before the call; it gets that
//! with an empty body, unless [`FallbackLayer::keep_body`] keeps the body while the service inside reads it. A
//! body that was larger than what is kept leaves no fallback.
//!
//! # Errors
//! None of its own. When the other service fails or takes too long, the call ends as it would have without.
//!
//! # Cancelling
//! A caller that goes away, or whose body breaks off ([`Reason::RequestBroken`](crate::Reason::RequestBroken)),
//! gets no fallback. Dropping the call drops what is under way. Once a response's head was handed on there is
//! none either: a body that breaks off stays broken.
//!
//! # Order
//! Outermost but for what records calls and drains: it sees what all others refuse. Inside a deadline it would
//! have no time left when the deadline is why it is needed.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::fallback::{FallbackLayer, FallbackPolicy, FallbackUsed};
//! use tower_plugins_layers::{BoxError, Reason, Refused};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(FallbackLayer::answer(FallbackPolicy::new(), Response::new("[]".into())))
//!     .service(service_fn(|_: Request<()>| async {
//!         Err::<Response<Full<Bytes>>, BoxError>(Refused::new(Reason::BreakerOpen).into())
//!     }));
//! let response = service.oneshot(Request::new(())).await.unwrap();
//! assert_eq!(response.headers()["x-fallback"], "breaker_open");
//! assert_eq!(response.extensions().get(), Some(&FallbackUsed(Reason::BreakerOpen)));
//! assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "[]");
//! # });
//! ```

mod future;
mod keep;
mod layer;
mod policy;
#[cfg(feature = "serde")]
mod text;

pub use future::ResponseFuture;
pub use keep::{Keep, NoBody, WithBody};
pub use layer::{Answer, Fallback, FallbackBody, FallbackLayer};
pub use policy::{FallbackPolicy, FallbackUsed};
