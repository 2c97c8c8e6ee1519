//! A call goes to the endpoint that is likely to answer first, and never to one that would refuse it.
//!
//! [`Balance`] holds a set of [`Member`]s and picks one for each call, when the call is made: no
//! endpoint is kept ready or held for a call that may never come. [`BalancePolicy`] says how, by one
//! [`Strategy`] of ten. An [`EndpointSet`] is a set that changes while calls are made.
//!
//! ```text
//!  call ──► subset ──────► level ─────────────► strategy ───────► endpoint
//!           by labels      by priority, zone    by load, turn,    with its own
//!                          and health           chance or key     breaker and load
//! ```
//!
//! # Which may be picked
//! Members that are not [available](Member::is_available), as their breaker is open, are skipped, and so are those that are
//! [ejected](Member::is_ejected). If less than the [`panic_threshold`](BalancePolicy::panic_threshold) would be left,
//! ejection is ignored; a breaker's refusal never is. When nobody is left, the call ends with
//! [`Reason::NoEndpoint`](crate::Reason) and the shortest time after which one may be.
//!
//! A member's breaker may have let in somebody else between the pick and the call. If it gives the
//! request back ([`give_back`](crate::BreakerLayer::give_back)), the call is offered to the others,
//! at most once to each; no endpoint has seen it, so that this is no retry. Every other error is the
//! caller's. A balance, or subset, of one member lets the member speak for itself.
//!
//! # Levels
//! Endpoints of the same [priority](EndpointMeta::priority) are a level; with a [`zone`](BalancePolicy::zone) those of
//! other zones are a level of their own, after those here. A level gets `1.4 * usable / all` of what those before it
//! have left, 1.4 being the [`overprovisioning`](BalancePolicy::overprovisioning) factor; if that does not add up to
//! everything, in proportion. Levels are counted anew at most every 10 ms; a level without anybody is passed over at once.
//!
//! # Strategies
//!
//! | strategy | weights | slow start | costs |
//! | --- | --- | --- | --- |
//! | [`PeakEwma`](Strategy::PeakEwma) (default) | yes | yes | two looks |
//! | [`RoundRobin`](Strategy::RoundRobin) | no | yes | one look |
//! | [`WeightedRoundRobin`](Strategy::WeightedRoundRobin) | yes | yes | one look, in an order that is made beforehand |
//! | [`Random`](Strategy::Random) | no | yes | one look |
//! | [`WeightedRandom`](Strategy::WeightedRandom) | yes | yes | one look |
//! | [`LeastRequest`](Strategy::LeastRequest) | yes | yes | two looks |
//! | [`LeastConnections`](Strategy::LeastConnections) | yes | yes | a look at each of up to 32; of more, at 10 |
//! | [`LeastLatency`](Strategy::LeastLatency) | yes | yes | a look at each of up to 32; of more, at 10 |
//! | [`RingHash`](Strategy::RingHash) | yes | no | one look; a bound that is reached: one at each, for its calls |
//! | [`Maglev`](Strategy::Maglev) | yes | no | as the ring; a set of 1,000 has a table of 256 KiB |
//!
//! More are looked at only as far as those that were are not to be picked. Nothing is allocated for a pick.
//!
//! # Load
//! [`Load`] measures what a member costs, and [`Breaker`](crate::Breaker) over it adds whether it is
//! available. A circuit that may be probed costs nothing, so that the endpoint is soon found to work
//! again although its failures made it look slow.
//!
//! # Options
//! Those of [`BalancePolicy`], which has a table of them; what is said of an endpoint, its weight, priority, zone and labels, is
//! an [`EndpointMeta`].
//!
//! # Errors and cancellation
//! [`Reason::NoEndpoint`](crate::Reason::NoEndpoint) as above, and what the endpoint's call ends in. A call that is dropped drops the endpoint's call. A pick that was made counts as one.
//!
//! # Calls for one endpoint
//! With [`CallContext::endpoint`](crate::CallContext::endpoint) a call goes to the endpoint with that key or to none.
//!
//! # Attempts that go elsewhere
//! A [`Visited`](crate::Visited) in the [`CallContext`](crate::CallContext) has each attempt of a call go to an
//! endpoint that no other went to, as long as there is one.
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
pub mod health;
mod inside;
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
pub use health::{Health, HealthHandle, HealthLayer};
pub use key::KeyFrom;
pub use load::{Load, LoadBody, LoadFuture, LoadLayer, Pending};
pub use member::Member;
pub use meta::EndpointMeta;
pub use policy::{BalancePolicy, Strategy, SubsetFallback};
pub use service::{Balance, LiveBalance};
pub use set::{Change, EndpointSet};
pub use slow_start::{Arrival, SlowStart, SlowStartLayer, SlowStartPolicy};
pub use status::{EndpointStatus, LevelStatus};
