//! A second attempt of a call that is slow, and the first good answer.
//!
//! [`HedgeLayer`] begins another attempt of a call whose first has not answered within a delay: a
//! live [quantile](HedgePolicy::quantile) of how long attempts take, or a [fixed](HedgePolicy::delay) time. The
//! first good answer is the call's; the other attempts are dropped before it is handed on. That cuts
//! the tail of latencies for a few calls more, as in Dean and Barroso, "The Tail at Scale" (2013).
//!
//! ```text
//!   0        delay                                    end
//!   |--------- first -------------------------- x     dropped: the other was sooner
//!            |--------- second ----> good answer ---> the caller has it
//! ```
//!
//! # Which calls
//! Those that may be repeated, by the [rules of retry](crate::retry#what-may-be-repeated), and whose path is one
//! of [`HedgePolicy::paths`], if there are any. A hedge is taken out of the same [`Budget`](crate::retry::Budget) as
//! retries, and begun only before the deadline, and when the attempt under way is through with the
//! request's body and all of it was kept.
//!
//! # What ends a call
//! As gRFC A6 has it:
//!
//! | an attempt ends in | then |
//! | --- | --- |
//! | a good answer | the call ends with it |
//! | an answer that is not retried, such as 404 or 500 | the call ends with it |
//! | a failure that is retried ([`RetryPolicy::on`]) | the next attempt begins at once, or when `Retry-After` or `grpc-retry-pushback-ms` says, if there may be another; those under way go on |
//! | one whose pushback says not to retry | no other attempt begins; those under way go on |
//! | a refusal on this side, such as `no_endpoint` | likewise: a hedge fails no call |
//!
//! When none is under way and none may begin, the call ends with the last failure. It is committed at its
//! response's head. A gRPC response whose head has no `grpc-status` is an outcome at its first frame, as
//! [retry](crate::retry#when-an-attempt-is-over) has it, while another attempt is under way or may begin.
//!
//! # The delay
//! First attempts that succeed are measured, from their beginning to the head. One that was cut short
//! because another was sooner counts with the time it had: left out, the slow would be missing, and
//! the delay would grow shorter and shorter. While there are fewer than
//! [`min_samples`](HedgePolicy::min_samples) the delay is the fixed one; without one nothing is begun because of slowness.
//!
//! # Options
//! Those of [`HedgePolicy`], which has a table of them. What may be repeated, what is retried and the budget are a
//! [`RetryPolicy`]'s ([`HedgeLayer::with_rules`], or [`RetryPolicy::hedge`]).
//!
//! # Errors and cancellation
//! The layer refuses nothing itself. Dropping the future drops all attempts. Memory is allocated for a hedge
//! only when it begins.
//!
//! # Order
//! Where [retry](crate::retry) stands: inside the deadline and the limits, outside the attempt timeout and what
//! picks an endpoint. [`Balance`](crate::Balance) sends a hedge to another endpoint than the attempts before, if there
//! is one. Both together are one layer, [`RetryPolicy::hedge`]: a call is hedged or retried.
//!
//! ```
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use std::time::Duration;
//! use http::{Request, Response};
//! use http_body_util::Empty;
//! use bytes::Bytes;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::{BoxError, HedgeLayer, ReplayBody, hedge::HedgePolicy};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
//! let mut service = ServiceBuilder::new()
//!     .layer(HedgeLayer::new(HedgePolicy::after(Duration::from_millis(50))))
//!     .service(service_fn(|_: Request<ReplayBody<Empty<Bytes>>>| async {
//!         // The first attempt hangs.
//!         if ATTEMPTS.fetch_add(1, Ordering::Relaxed) == 0 {
//!             std::future::pending::<()>().await;
//!         }
//!         Ok::<_, BoxError>(Response::new(Empty::<Bytes>::new()))
//!     }));
//! let start = tokio::time::Instant::now();
//! let response = service.ready().await.unwrap().call(Request::new(Empty::new())).await.unwrap();
//! assert_eq!(response.status(), 200);
//! assert_eq!(start.elapsed().as_millis(), 50);
//! # });
//! ```

mod latency;
mod policy;
mod race;
mod service;

pub use latency::Latencies;
pub use policy::HedgePolicy;
pub use service::{Hedge, HedgeLayer};

pub(crate) use race::Race;

#[allow(unused_imports, reason = "the text above links to it")]
use crate::retry::RetryPolicy;
