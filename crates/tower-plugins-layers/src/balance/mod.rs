//! A call goes to the endpoint that is likely to answer first, and never to one that would refuse it.
//!
//! [`Balance`] holds a set of [`Member`]s and picks one for each call, when the call is made: no
//! endpoint is kept ready or held for a call that may never come. [`BalancePolicy`] says how.
//! Members that are not available are skipped; when none is, the call ends with
//! [`Reason::NoEndpoint`](crate::Reason) and the shortest time after which one may be.
//!
//! A member's breaker may have let in somebody else between the pick and the call. If it gives the
//! request back ([`give_back`](crate::BreakerLayer::give_back)), the call is offered to the others,
//! at most once to each; no endpoint has seen it, so that this is no retry. Every other error is the
//! caller's. A balance of one member lets the member speak for itself.
//!
//! [`Load`] measures what a member costs, and [`Breaker`] over it adds whether it is
//! available. A circuit that may be probed costs nothing, so that the endpoint is soon found to work
//! again although its failures made it look slow.
//!
//! # Order
//! Inside retry, hedge and the attempt's timeout, so that each attempt picks anew; breaker and load
//! are each endpoint's own, inside.
//!
//! ```
//! use http::{Request, Response};
//! use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::{Balance, BoxError, BreakerLayer};
//! use tower_plugins_layers::balance::{LoadLayer, Strategy};
//! use tower_plugins_layers::breaker::BreakerPolicy;
//!
//! async fn answer(_: Request<String>) -> Result<Response<String>, BoxError> {
//!     Ok(Response::new(String::from("here")))
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let endpoints = (0..3).map(|_| {
//!     ServiceBuilder::new()
//!         .layer(BreakerLayer::new(BreakerPolicy::new()).give_back())
//!         .layer(LoadLayer::new())
//!         .service(service_fn(answer))
//! });
//! let mut balance = Balance::new(Strategy::PeakEwma, endpoints);
//! balance.ready().await.unwrap().call(Request::new(String::new())).await.unwrap();
//! # });
//! ```

mod ewma;
mod future;
mod key;
mod load;
mod member;
mod meta;
mod pick;
mod policy;
mod service;
mod set;
pub mod slow_start;
mod snapshot;
mod status;
#[cfg(feature = "serde")]
mod text;

pub use ewma::EndpointLoad;
pub use future::ResponseFuture;
pub use key::{KeyFrom, RequestHead};
pub use load::{Load, LoadBody, LoadFuture, LoadLayer, Pending};
pub use member::Member;
pub use meta::EndpointMeta;
pub use policy::{BalancePolicy, Strategy, SubsetFallback};
pub use service::{Balance, LiveBalance};
pub use set::{Change, EndpointSet};
pub use slow_start::{Arrival, SlowStart, SlowStartLayer, SlowStartPolicy};
pub use status::{EndpointStatus, LevelStatus};
