//! A circuit breaker: an endpoint that fails is left alone for a while.
//!
//! ```text
//!            failures in a row, or too large a
//!            share of failures or of slow calls
//!   ┌────────┐ ─────────────────────────────▶ ┌──────┐
//!   │ closed │                                │ open │ ◀─┐
//!   └────────┘ ◀───────┐                      └──────┘   │
//!                      │                open time over,  │
//!          all probes  │               and a call comes  │ one probe fails
//!            succeed   │   ┌───────────┐        │        │ or is slow: open
//!                      └── │ half-open │ ◀──────┘        │ for twice as long
//!                          └───────────┘ ────────────────┘
//!
//!   force_open, force_closed: there it stays, until reset
//! ```
//!
//! A *closed* circuit lets calls through and counts how they end. Too many failures or slow calls
//! ([`BreakerPolicy`] says how many) *open* it: calls are refused at once. After the open time, and after the
//! time for which the endpoint asked to be left alone (`Retry-After` or `grpc-retry-pushback-ms` of an answer
//! that failed, 300 s at the most), the circuit is *half-open*: a few calls are let in as probes. It closes
//! when they all succeed and opens again, for twice as long, when one fails.
//!
//! A call ends with its response's body, and what its end says of the endpoint is the classifier's
//! decision ([`HttpGrpc`](crate::classify::HttpGrpc) by default): status, `grpc-status` in the head or trailers,
//! a body that breaks off, a time limit. A call that began before the circuit last changed says nothing: it is
//! news of another time. When probes take longer than the circuit was open, more are let in, so that a
//! circuit never stays half-open for ever.
//!
//! # Options
//! Those of [`BreakerPolicy`], and of the layer: [`classify`](BreakerLayer::classify),
//! [`give_back`](BreakerLayer::give_back), [`name`](BreakerLayer::name). A [`BreakerHandle`] watches a circuit and
//! steers it.
//!
//! # Errors
//! [`Reason::BreakerOpen`](crate::Reason::BreakerOpen), with the time after which another call has a chance.
//!
//! # Cancellation
//! A call that is dropped says nothing and gives its permit back, unless its time was over, which is a failure.
//!
//! One layer value is one circuit: all services it makes, and their clones, share the
//! [`BreakerHistory`]. Keep that, and [`with_history`](BreakerLayer::with_history) puts a changed
//! policy over what is known already.
//!
//! # Order
//! Outside whatever sends the call, inside retry, hedge and balance, so that each attempt counts. The
//! limits that only this side knows go outside it; those it sees are not failures in any case.
//!
//! # Cost
//! A closed circuit costs a call two loads of a word that only failures write, and, if a share is
//! judged, one atomic add for a window of time, of ten buckets whatever the calls in it, and three for one of
//! calls. Slow calls cost the clock. A circuit that is [`off`](BreakerLayer::off) costs a branch.
//!
//! ```
//! use http::{Request, Response};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::{BoxError, BreakerLayer, Reason};
//! use tower_plugins_layers::breaker::{BreakerPolicy, BreakerState};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let layer = BreakerLayer::new(BreakerPolicy::new().consecutive_failures(2));
//! let breaker = layer.handle();
//! let mut service = ServiceBuilder::new()
//!     .layer(layer)
//!     .service(service_fn(|_: Request<()>| async {
//!         Ok::<_, BoxError>(Response::builder().status(503).body(String::new())?)
//!     }));
//! for _ in 0..2 {
//!     service.ready().await.unwrap().call(Request::new(())).await.unwrap();
//! }
//! assert_eq!(breaker.state(), BreakerState::Open);
//! let error = service.ready().await.unwrap().call(Request::new(())).await.unwrap_err();
//! assert_eq!(Reason::of(&*error), Some(Reason::BreakerOpen));
//! # });
//! ```

mod count;
mod events;
mod future;
mod handle;
mod history;
mod layer;
mod policy;
mod service;
mod state;
#[cfg(feature = "serde")]
mod text;
mod window;
mod word;

pub use events::Transition;
pub use future::{Outstanding, ResponseBody, ResponseFuture};
pub use handle::BreakerHandle;
pub use history::BreakerHistory;
pub use layer::BreakerLayer;
pub use policy::BreakerPolicy;
pub use service::Breaker;
pub use state::{BreakerSnapshot, BreakerState};
