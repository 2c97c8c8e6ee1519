//! An endpoint that something beside the calls holds to be unfit is left out.
//!
//! [`HealthLayer`] stands among an endpoint's own layers. Whoever finds out how the endpoint is, such as a checker or an
//! operator, says so to the layer's [`HealthHandle`]: one that is unhealthy counts as ejected. [`Balance`](crate::Balance) passes it over, unless too few are left
//! ([`panic_threshold`](super::BalancePolicy::panic_threshold)), and asks the only one of its set whatever is said of it.
//!
//! ```text
//!              Balance           who is out?          HealthHandle::set_healthy
//!   call ──▶ picks one of ──▶ Health ▸ outlier ▸ …  ◀── a checker, an operator
//!                         ──▶ Health ▸ outlier ▸ …  ◀──
//! ```
//!
//! | option | default | |
//! | --- | --- | --- |
//! | [`with_handle`](HealthLayer::with_handle) | a handle of its own | what says how the endpoint is |
//!
//! # Errors and cancellation
//! It hands calls on as they are: it adds nothing to them, refuses none and has no errors. A call that is under way when
//! the endpoint becomes unhealthy goes on. A call that is dropped is no matter to it.
//!
//! # Order
//! Inside of [`SlowStart`](super::SlowStart), which has to see the endpoint get well, and outside of
//! [`Outlier`](crate::Outlier) or anywhere else among the endpoint's layers: who is out for one of them is out.
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::BodyExt;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::balance::{HealthLayer, LoadLayer, Strategy};
//! use tower_plugins_layers::{Balance, BoxError};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let (one, two) = (HealthLayer::new(), HealthLayer::new());
//! let handle = one.handle();
//! let endpoints = [(one, "one"), (two, "two")].map(|(health, name)| {
//!     ServiceBuilder::new()
//!         .layer(health)
//!         .layer(LoadLayer::new())
//!         .service(service_fn(move |_: Request<()>| async move {
//!             Ok::<_, BoxError>(Response::new(String::from(name)))
//!         }))
//! });
//! let mut balance = Balance::new(Strategy::RoundRobin, endpoints);
//! handle.set_healthy(false);
//! for _ in 0..10 {
//!     let response = balance.ready().await.unwrap().call(Request::new(())).await.unwrap();
//!     let body = response.into_body().collect().await.unwrap();
//!     assert_eq!(body.to_bytes(), "two");
//! }
//! # });
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;
use tower_layer::Layer;

use super::Member;

/// Says whether an endpoint is fit for calls. Clones are of the same endpoint, which is healthy until somebody says
/// otherwise.
#[derive(Clone, Debug, Default)]
pub struct HealthHandle {
    unhealthy: Arc<AtomicBool>,
}

impl HealthHandle {
    /// Of an endpoint that is healthy.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it is healthy. The next pick goes by it.
    pub fn set_healthy(&self, is_healthy: bool) {
        self.unhealthy.store(!is_healthy, Relaxed);
    }

    /// Whether it is healthy, as was last said.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !self.unhealthy.load(Relaxed)
    }
}

/// Makes [`Health`] services of one endpoint.
#[derive(Clone, Debug, Default)]
pub struct HealthLayer {
    handle: Option<HealthHandle>,
}

impl HealthLayer {
    /// Of an endpoint that is healthy.
    #[must_use]
    pub fn new() -> Self {
        Self::with_handle(HealthHandle::new())
    }

    /// Of the endpoint that `handle` speaks of.
    #[must_use]
    pub const fn with_handle(handle: HealthHandle) -> Self {
        Self {
            handle: Some(handle),
        }
    }

    /// Nobody says how the endpoint is.
    #[must_use]
    pub const fn off() -> Self {
        Self { handle: None }
    }

    /// What to say it to. Of a layer that is off it speaks of nothing.
    #[must_use]
    pub fn handle(&self) -> HealthHandle {
        self.handle.clone().unwrap_or_default()
    }
}

impl<S> Layer<S> for HealthLayer {
    type Service = Health<S>;

    fn layer(&self, inner: S) -> Health<S> {
        Health {
            inner,
            layer: self.clone(),
        }
    }
}

/// An endpoint that is left out while it is unhealthy. See [`HealthLayer`].
#[derive(Clone, Debug)]
pub struct Health<S> {
    inner: S,
    layer: HealthLayer,
}

impl<S> Health<S> {
    /// The service inside.
    #[must_use]
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: Member> Member for Health<S> {
    fn load(&self, now: Instant) -> f64 {
        self.inner.load(now)
    }

    fn is_available(&self, now: Instant) -> bool {
        self.inner.is_available(now)
    }

    fn takes_retry(&self, now: Instant) -> bool {
        self.inner.takes_retry(now)
    }

    fn retry_after(&self, now: Instant) -> Option<Duration> {
        self.inner.retry_after(now)
    }

    fn is_ejected(&self, now: Instant) -> bool {
        let handle = self.layer.handle.as_ref();
        handle.is_some_and(|handle| !handle.is_healthy()) || self.inner.is_ejected(now)
    }

    fn ramp(&self, now: Instant) -> f64 {
        self.inner.ramp(now)
    }

    fn is_back(&self, now: Instant) -> bool {
        self.inner.is_back(now)
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn rtt(&self, now: Instant) -> Duration {
        self.inner.rtt(now)
    }

    fn weighted_load(&self, now: Instant, weight: f64) -> f64 {
        self.inner.weighted_load(now, weight)
    }
}

super::inside::calls_inside!(Health);
