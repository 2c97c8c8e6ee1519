//! Calls that failed and may be repeated are made again.
//!
//! [`RetryLayer`] makes an attempt anew when it ended in a [retryable way](RetryPolicy#what-is-retried),
//! after a [backoff](Backoff) with jitter, as long as a shared [budget](Budget) allows it. A call
//! that is out of retries ends with its last response or error, as it came.
//!
//! # What may be repeated
//! A call is *idempotent* when HTTP says so of its method (`GET`, `HEAD`, `OPTIONS`, `TRACE`, `QUERY`,
//! `PUT`, `DELETE`), when it has an `Idempotency-Key` header, when its [`CallContext`](crate::CallContext) says so, or
//! when [the policy](RetryPolicy::idempotent) names its path; never is one that asks for an upgrade (an `Upgrade`
//! header), such as a WebSocket. Any other call is repeated only when
//! the request was provably never processed and came back: an [`Unsent`](crate::Unsent) error of
//! the service inside, which must be the outermost error. A path of [`RetryPolicy::never`] is not
//! repeated whatever else holds.
//!
//! Then these decide, in this order: the budget; the deadline of the call's context, past which no
//! backoff goes: such a call fails at once with what it has; and the request's body. As much of it
//! as [`RetryPolicy::max_replay`] is kept while an attempt reads it, by handle and not by copy. A
//! larger body is sent all the same, but not again.
//!
//! ```text
//!            retryable, repeatable, in budget, in time
//!        +---------------------------------------------> backoff
//!        |  trailers that say so                            |
//!        |        ^                                         | the wait is over
//!     attempt --> look (gRPC: at the first frame)           |
//!        ^  |        |                                      |
//!        |  |        | anything else                        |
//!        |  +--------+---> the caller has it                |
//!        +--------------------------------------------------+
//! ```
//!
//! # When an attempt is over
//! At its response's head, which is also when the call is committed: a failure in a body comes to the
//! caller. The failed response is dropped before the backoff begins.
//!
//! A gRPC response whose head has no `grpc-status` is looked at as far as its first frame, when
//! another attempt may be made and the request has been sent whole: trailers with a status that is
//! retried are a failed attempt; a message, or anything else, commits the call, and the frame is handed on
//! as it is. The head comes to the caller with the first frame then, or after
//! [`RetryPolicy::first_frame_wait`]: a server that streams may be silent for long. A call that is not to be
//! repeated, or has no attempts left, is never held up.
//!
//! # Budgets
//! The policy's budget is for all its calls. An endpoint may have one of its own besides, an
//! [`EndpointBudgetLayer`].
//!
//! # Options
//! Those of [`RetryPolicy`], which has a table of them: three retries, a backoff from 100 ms to 5 s with full jitter, and a
//! budget of a fifth of all calls unless it says otherwise.
//!
//! # Errors
//! The last attempt's, as it came. If the body was larger than what is kept, a [`NotReplayable`]
//! stands around it. The layer refuses nothing itself.
//!
//! # Attempts
//! Each attempt gets a copy of the request's extensions, and a context with its number. [`Balance`](crate::Balance)
//! sends those beyond the first to an endpoint where none was before, as long as there is one that takes calls:
//! of the last four. A layer between that asks the balancer on another task hides where the first went. Dropping
//! the future drops the attempt or the wait. An error of a service that does not become ready for
//! another attempt ends the call.
//!
//! A layer that has [a name](RetryLayer::named) counts, with the feature `metrics`, attempts beyond the
//! first in `plugin_retries_total`, whose label `reason` has the [`Reason`](crate::Reason) of the failure before or
//! `error`, and those that a budget refused in `plugin_retries_refused_total`.
//!
//! # Order
//! Inside the deadline and the limits, outside the attempt timeout and what picks an endpoint.
//!
//! ```
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Empty;
//! use bytes::Bytes;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::{BoxError, ReplayBody, RetryLayer, RetryPolicy};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
//! let mut service = ServiceBuilder::new()
//!     .layer(RetryLayer::new(RetryPolicy::new().max_retries(2)))
//!     .service(service_fn(|_: Request<ReplayBody<Empty<Bytes>>>| async {
//!         let mut response = Response::new(Empty::<Bytes>::new());
//!         if ATTEMPTS.fetch_add(1, Ordering::Relaxed) == 0 {
//!             *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
//!         }
//!         Ok::<_, BoxError>(response)
//!     }));
//! let response = service.ready().await.unwrap().call(Request::new(Empty::new())).await.unwrap();
//! assert_eq!(response.status(), StatusCode::OK);
//! assert_eq!(ATTEMPTS.load(Ordering::Relaxed), 2);
//! # });
//! ```

mod backoff;
mod budget;
mod call;
mod endpoint;
mod first_frame;
mod future;
mod head;
mod meter;
mod on;
mod paths;
mod policy;
mod replay;
mod service;
mod verdict;

pub use backoff::{Backoff, Jitter};
pub use budget::{Budget, BudgetLimits, Deposit, Withdrawal};
pub use endpoint::{EndpointBudget, EndpointBudgetFuture, EndpointBudgetLayer, Learns};
pub use first_frame::ResponseBody;
pub use future::ResponseFuture;
#[cfg(feature = "serde")]
pub(crate) use on::CODES as GRPC_CODES;
pub use on::{RetryOn, UnknownRetryOn};
pub use policy::RetryPolicy;
pub(crate) use replay::Replay;
pub use replay::{NotReplayable, ReplayBody};
pub use service::{Retry, RetryLayer};

pub(crate) use call::{Call, Copied, Outcome};
pub(crate) use first_frame::Look;
pub(crate) use paths::Paths;
pub(crate) use verdict::Verdict;
