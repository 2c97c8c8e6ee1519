//! A circuit breaker: an endpoint that fails is left alone for a while.
//!
//! A *closed* circuit lets calls through and counts how they end. Too many failures
//! ([`BreakerPolicy`] says how many) *open* it: calls are refused at once with
//! [`Reason::BreakerOpen`](crate::Reason) and the time after which another has a chance. After the
//! open time the circuit is *half-open*: a few calls are let in as probes. It closes when they all
//! succeed and opens again, for twice as long, when one fails.
//!
//! A call ends with its response's body, and what its end says of the endpoint is the classifier's
//! decision ([`HttpGrpc`](crate::classify::HttpGrpc) by default). A call that is dropped says nothing
//! and gives its permit back, unless its time was over. A call that began before the circuit last
//! changed says nothing either: it is news of another time. When probes take longer than the circuit
//! was open, more are let in, so that a circuit never stays half-open for ever.
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
//! A closed circuit costs a call two loads of a word that only failures write, and, if the rate is
//! armed, an atomic add. One that is [`off`](BreakerLayer::off) costs a branch.
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

mod future;
mod history;
mod layer;
mod policy;
mod service;
mod window;

pub use future::{Outstanding, ResponseBody, ResponseFuture};
pub use history::{BreakerHistory, BreakerState};
pub use layer::{BreakerHandle, BreakerLayer};
pub use policy::BreakerPolicy;
pub use service::Breaker;
