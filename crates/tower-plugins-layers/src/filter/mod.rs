//! Another service is asked about each call.
//!
//! [`FilterLayer`] sends a request of its own, with the method, the path and chosen headers of the call, to
//! another service. What that answers decides whether the call goes on, goes on changed, or ends with that
//! answer.
//!
//! ```text
//! call ──► the filter's service ──► 2xx ──► the call goes on, with headers of the answer
//!                  │
//!                  ├ another status ──► the answer is the call's
//!                  └ 5xx, an error, no answer in time ──► refused, or with `fail_open` goes on
//! ```
//!
//! | option | default | |
//! | --- | --- | --- |
//! | [`headers`](FilterPolicy::headers) | none | which headers of the request the filter sees |
//! | [`copy_headers`](FilterPolicy::copy_headers) | none | which headers of its answer go on with the request |
//! | [`timeout`](FilterPolicy::timeout) | 1 s | how long it has to its response's head |
//! | [`fail_open`](FilterPolicy::fail_open) | no | whether a call goes on when the filter could not be asked |
//! | [`send_body`](FilterLayer::send_body) | no | how much of the request's body it sees, and what is done with a larger one |
//! | [`decide`](FilterLayer::decide) | as above | a reading of the answer of your own |
//!
//! The headers of `copy_headers` are the filter's alone: what the caller wrote under such a name is taken off
//! before the call goes on, whatever the filter answers, and it is not sent to the filter unless it is among
//! `headers` too. The filter's request has the [`CallContext`](crate::CallContext) and the
//! [`Principal`](crate::Principal) of the call, for services within the program.
//!
//! # Errors
//! [`Reason::FilterFailed`](crate::Reason::FilterFailed), with its cause, where the filter could not be asked, took
//! too long, answered with 5xx, or the body was larger than it may see.
//! [`Reason::RequestBroken`](crate::Reason::RequestBroken) where the body failed that it was to see.
//!
//! # Cancelling
//! Dropping the call drops the question. The service inside was not called then.
//!
//! # Order
//! Inside the deadline, so that the question counts; outside of what the answer is to spare, such as retries
//! and limits. Inside of [authorize](crate::authorize), so that only callers that are let in cost a question.
//!
//! ```
//! use bytes::Bytes;
//! use http::{HeaderName, Request, Response, StatusCode};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::BoxError;
//! use tower_plugins_layers::filter::{FilterBody, FilterLayer, FilterPolicy};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let owner = HeaderName::from_static("x-owner");
//! let gate = service_fn(|asked: Request<FilterBody>| async move {
//!     let mut answer = Response::new(Full::<Bytes>::default());
//!     if asked.uri().path() == "/private" {
//!         *answer.status_mut() = StatusCode::FORBIDDEN;
//!     }
//!     answer.headers_mut().insert("x-owner", "ann".parse()?);
//!     Ok::<_, BoxError>(answer)
//! });
//! let service = ServiceBuilder::new()
//!     .layer(FilterLayer::new(FilterPolicy::new().copy_headers([owner]), gate))
//!     .service(service_fn(|request: Request<()>| async move {
//!         assert_eq!(request.headers()["x-owner"], "ann");
//!         Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
//!     }));
//! let ask = |path| service.clone().oneshot(Request::get(path).body(()).unwrap());
//! assert_eq!(ask("/public").await.unwrap().status(), 200);
//! assert_eq!(ask("/private").await.unwrap().status(), 403);
//! # });
//! ```

mod body;
mod decide;
mod layer;
mod policy;
#[cfg(feature = "serde")]
mod text;

pub use body::{Buffered, Head, Larger, Take, WithBody};
pub use decide::{Change, Decide, Decision, Http};
pub use layer::{Filter, FilterBody, FilterLayer, ResponseFuture};
pub use policy::FilterPolicy;
