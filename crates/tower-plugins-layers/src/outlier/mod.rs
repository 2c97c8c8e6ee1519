//! Endpoints that fail more than the others of their set are left out for a while.
//!
//! A [`Breaker`](crate::Breaker) judges an endpoint by itself; an [`OutlierDetector`] compares it with the
//! others, and knows how many may be missing. Each endpoint of a [`Balance`](crate::Balance) has the
//! [`OutlierLayer`] that the detector made for it; the balancer leaves out those that are ejected. The
//! rules and their names are those of Envoy's outlier detection and of gRFC A50.
//!
//! # States
//!
//! ```text
//!               n failures in a row (at once), or the sweep of an interval:
//!               success rate < mean - 1.9 * stdev, or failures >= percentage,
//!               and no more than max_ejection_percent are out afterwards
//!        +----+ ------------------------------------------------> +---------+
//!        | in |                                                   | ejected |
//!        +----+ <------------------------------------------------ +---------+
//!               base_ejection * times is over, with a clean sheet
//!
//!        times: 1 more with each ejection, 1 less with each healthy interval
//! ```
//!
//! An endpoint that [`eject`](OutlierDetector::eject) takes out stays out until
//! [`restore`](OutlierDetector::restore) puts it back.
//!
//! # The limit
//! An ejection happens only if no more endpoints than
//! [`max_ejection_percent`](OutlierPolicy::max_ejection_percent) of the set are out *afterwards*. As 10
//! percent of fewer than ten is none, [`always_eject_one`](OutlierPolicy::always_eject_one) lets one of two
//! or more be out all the same; it is on by default, as in gRFC A50, where Envoy's is off. When endpoints
//! leave the set and too many of the rest are out, those who have been out longest are put back by the
//! next call. A sole endpoint is never ejected, unless the limit is 100 percent.
//!
//! # Time
//! There is no task. The first call after an interval's end judges it, and an ejection is over at its time
//! whether or not there are calls. Options and their defaults are in [`OutlierPolicy`].
//!
//! # Watching and steering
//! [`status`](OutlierDetector::status) is the set as it is, [`subscribe`](OutlierDetector::subscribe) gives
//! each change. With the feature `tracing` changes are events, `endpoint ejected` and `endpoint restored`,
//! with the fields `plugin_name`, `endpoint` and `reason`; with the feature `metrics` there are the counter
//! `outlier_ejections_total` (`plugin_name`, `reason`) and the gauge `outlier_ejected` (`plugin_name`).
//! `plugin_name` is the name that [`named`](OutlierDetector::named) gave the set.
//!
//! An endpoint is known by its name: one that leaves the set while it is ejected and comes back is still
//! ejected. [`renewed`](OutlierDetector::renewed) hands what is known to a detector with another policy.
//!
//! # Errors
//! None of its own: a call is never refused here. `Balance` asks ejected endpoints all the same when too few are
//! left ([`panic_threshold`](crate::balance::BalancePolicy::panic_threshold)). What a failure is, the
//! [classifier](crate::classify) says: refusals on this side are none.
//!
//! # Cancelling
//! A call that is dropped counts as nothing, or as a failure if its deadline or its attempt's time was over.
//!
//! # Order
//! Around all that each endpoint has of its own, inside [`Balance`](crate::Balance): a refusal by the endpoint's
//! breaker is no failure, and outside of the balancer there is nothing to compare.
//!
//! ```
//! use http::{Request, Response};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::outlier::{OutlierDetector, OutlierPolicy};
//! use tower_plugins_layers::balance::{LoadLayer, Strategy};
//! use tower_plugins_layers::{Balance, BoxError};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let detector = OutlierDetector::new(OutlierPolicy::new().consecutive_failures(1));
//! let endpoints = ["one", "two", "three"].map(|name| {
//!     ServiceBuilder::new()
//!         .layer(detector.endpoint(name))
//!         .layer(LoadLayer::new())
//!         .service(service_fn(move |_: Request<()>| async move {
//!             let status = if name == "two" { 503 } else { 200 };
//!             let response = Response::builder().status(status);
//!             Ok::<_, BoxError>(response.body(String::new()).unwrap())
//!         }))
//! });
//! let mut balance = Balance::new(Strategy::RoundRobin, endpoints);
//! let mut failed = 0;
//! for _ in 0..100 {
//!     let response = balance.ready().await.unwrap().call(Request::new(())).await.unwrap();
//!     failed += usize::from(response.status() == 503);
//! }
//! assert_eq!((failed, detector.ejected()), (1, 1));
//! # });
//! ```

mod detector;
mod event;
mod future;
mod history;
mod judge;
mod layer;
mod policy;
mod service;

pub use detector::OutlierDetector;
pub use event::{OutlierChange, OutlierEvent, OutlierStatus};
pub use future::{Answered, ResponseBody, ResponseFuture};
pub use layer::OutlierLayer;
pub use policy::OutlierPolicy;
pub use service::Outlier;
