//! At most so many calls a second: for all callers together, for each key, or for a fleet.
//!
//! [`RateLimitLayer`] takes a token, or the call's [`Cost`] in tokens, out of a bucket for each call. Without
//! it a call is refused at once with [`Reason::RateLimited`](crate::Reason::RateLimited) and the time after
//! which there is one, or, where [`max_wait`](RateLimitLayer::max_wait) allows it, waits its turn:
//! turns come in the order of the calls, and when a caller goes away those behind it move up.
//!
//! ```text
//!            per_second                    a call takes its cost
//!   ──────────────────────▶  [ o o o . . ]  ─────────────────────▶  goes on
//!                               burst            │ not enough
//!                                                ├─ wait <= max_wait ──▶ stands in line
//!                                                └─ else ─────────────▶ refused
//! ```
//!
//! | the bucket is | made with |
//! | --- | --- |
//! | one for all calls | [`RateLimitLayer::new`], [`with_limiter`](RateLimitLayer::with_limiter) a [`RateLimiter`] |
//! | one a key: a header, the peer, an extension, what a closure says | [`keyed`](RateLimitLayer::keyed): a [`KeyedRateLimiter`], bounded in its keys, and a [`KeyBy`] |
//! | somewhere else, for many processes | [`shared`](RateLimitLayer::shared): a [`SharedLimiter`], such as `RedisLimiter` (feature `redis`) |
//!
//! All services made by one layer and its clones draw from the same buckets. The limiters are the handles
//! too: they say what is left, take another rate at run time, and are filled again.
//!
//! A token bucket and the generic cell rate algorithm (GCRA) decide the same of each call: the bucket's fill
//! and the time at which it is full are two ways to write one number. So there is one of them here. What GCRA
//! is often meant for, calls that keep their distance, is a burst of 1.
//!
//! # Options
//!
//! | option | unit | default |
//! | --- | --- | --- |
//! | `per_second` | tokens a second, fractions too | |
//! | `burst` | tokens | |
//! | [`max_wait`](RateLimitLayer::max_wait) | time | 0: refused at once |
//! | [`cost`](RateLimitLayer::cost) | tokens a call | 1 |
//! | [`headers`](RateLimitLayer::headers) | | off |
//! | [`on_error`](RateLimitLayer::on_error) | | [`OnError::Allow`], of a shared limiter only |
//!
//! A [`RateLimitPolicy`] has them as one value, which serde reads and writes.
//!
//! # Errors
//! [`Reason::RateLimited`](crate::Reason::RateLimited), with [`Refused::wait`](crate::Refused::wait) and
//! [`Refused::quota`](crate::Refused::quota); [`Refused::write_to`](crate::Refused::write_to) makes the headers
//! `Retry-After`, `RateLimit-Policy` and `RateLimit` of them for a server's answer.
//! [`Reason::FilterFailed`](crate::Reason::FilterFailed) if a shared limiter cannot be asked and
//! [`OnError::Refuse`] is set. One that failed three times in a row is not asked for a second ([`SharedLimiter`]). With
//! the features `metrics` and `tracing` each call that has no answer is counted in
//! `rate_limit_errors_total`, by `on_error`, and there is an event once in ten seconds at the most.
//!
//! # Cancellation
//! A call that is dropped while it waits leaves the line and has taken nothing. One that has its tokens does
//! not give them back.
//!
//! # Order
//! Outside retry, so that a call takes one token and not one an attempt; inside the deadline, so
//! that waiting counts; inside what makes out the caller, if that is the key.
//!
//! ```
//! use http::{HeaderName, Request, Response};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_plugins_layers::rate_limit::{KeyBy, KeyedRateLimiter};
//! use tower_plugins_layers::{BoxError, RateLimitLayer, Reason, Refused};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! let tenant = HeaderName::from_static("x-tenant");
//! let limiter = KeyedRateLimiter::new(0.5, 1, 10_000).into();
//! let mut service = ServiceBuilder::new()
//!     .layer(RateLimitLayer::keyed(limiter, KeyBy::header(tenant)).headers(true))
//!     .service(service_fn(|_: Request<()>| async { Ok::<_, BoxError>(Response::new(())) }));
//! let mut call = async |tenant: &str| {
//!     let request = Request::builder().header("x-tenant", tenant).body(()).unwrap();
//!     service.ready().await?.call(request).await
//! };
//! let response = call("ann").await.unwrap();
//! assert_eq!(response.headers()["ratelimit"], "\"default\";r=0;t=2");
//! let error = call("ann").await.unwrap_err();
//! assert_eq!(Reason::of(&*error), Some(Reason::RateLimited));
//! assert_eq!(Refused::find(&*error).unwrap().wait().unwrap().as_secs(), 2);
//! assert!(call("bob").await.is_ok());
//! # });
//! ```

mod bucket;
mod key;
mod keyed;
mod limiter;
mod policy;
mod quota;
#[cfg(feature = "redis")]
mod redis;
mod shared;
#[cfg(feature = "serde")]
mod text;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

pub use self::key::{Cost, KeyBy};
pub use self::keyed::{KeyedRateLimiter, WhenFull};
pub use self::limiter::RateLimiter;
use self::limiter::{Standing, Terms};
pub use self::policy::RateLimitPolicy;
pub use self::quota::Quota;
#[cfg(feature = "redis")]
pub use self::redis::RedisLimiter;
use self::shared::Shared;
pub use self::shared::{Decision, OnError, SharedLimiter, Taking};
use crate::gate::{Admission, Gate, take_ready};
use crate::{BoxError, CallContext, RequestHead};

/// Makes [`RateLimit`] services.
#[derive(Clone, Debug)]
pub struct RateLimitLayer {
    settings: Option<Arc<Settings>>,
}

#[derive(Clone, Debug)]
struct Settings {
    limiter: Limiter,
    cost: Cost,
    terms: Terms,
    on_error: OnError,
}

#[derive(Clone, Debug)]
enum Limiter {
    One(Arc<RateLimiter>),
    Keyed(Arc<KeyedRateLimiter>, KeyBy),
    Shared(Arc<Shared>, Option<KeyBy>),
}

impl RateLimitLayer {
    /// `per_second` calls a second on average, and up to `burst` at once.
    #[must_use]
    pub fn new(per_second: f64, burst: u32) -> Self {
        Self::with_limiter(Arc::new(RateLimiter::new(per_second, burst)))
    }

    /// Draws from `limiter`, which others may draw from too.
    #[must_use]
    pub fn with_limiter(limiter: Arc<RateLimiter>) -> Self {
        Self::of(Limiter::One(limiter))
    }

    /// Draws from the bucket in `limiter` of each call's key.
    #[must_use]
    pub fn keyed(limiter: Arc<KeyedRateLimiter>, key: KeyBy) -> Self {
        Self::of(Limiter::Keyed(limiter, key))
    }

    /// Draws from a limiter that other processes draw from too; without `key`, all calls from one bucket of
    /// it. Those who wait for a token ask again when it is due, in no order.
    #[must_use]
    pub fn shared(limiter: Arc<dyn SharedLimiter>, key: impl Into<Option<KeyBy>>) -> Self {
        let shared = Arc::new(Shared::new(limiter));
        Self::of(Limiter::Shared(shared, key.into()))
    }

    /// Any number of calls: the layer does nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self { settings: None }
    }

    fn of(limiter: Limiter) -> Self {
        let settings = Settings {
            limiter,
            cost: Cost::default(),
            terms: Terms {
                max_wait: Duration::ZERO,
                headers: false,
            },
            on_error: OnError::default(),
        };
        Self {
            settings: Some(Arc::new(settings)),
        }
    }

    fn set(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        if let Some(settings) = &mut self.settings {
            set(Arc::make_mut(settings));
        }
        self
    }

    /// How long a call may wait for its tokens. Zero, the default, refuses at once.
    #[must_use]
    pub fn max_wait(self, wait: Duration) -> Self {
        self.set(|settings| settings.terms.max_wait = wait)
    }

    /// How many tokens a call takes. The default is one.
    #[must_use]
    pub fn cost(self, cost: Cost) -> Self {
        self.set(|settings| settings.cost = cost)
    }

    /// Whether responses get the headers `RateLimit-Policy` and `RateLimit`, in place of any that they have
    /// ([`Quota::write_to`]). An error has no headers: [`Refused::write_to`](crate::Refused::write_to) sets
    /// them where it becomes a response.
    #[must_use]
    pub fn headers(self, headers: bool) -> Self {
        self.set(|settings| settings.terms.headers = headers)
    }

    /// What becomes of a call when a shared limiter cannot be asked. The default is to let it through.
    #[must_use]
    pub fn on_error(self, on_error: OnError) -> Self {
        self.set(|settings| settings.on_error = on_error)
    }

    fn admit<B>(&self, request: &Request<B>) -> Admission<Standing> {
        let Some(settings) = &self.settings else {
            return Admission::Granted(Standing(None));
        };
        let Settings {
            limiter,
            cost,
            terms,
            on_error,
        } = &**settings;
        let head = RequestHead::of(request);
        let n = cost.of(&head);
        let now = || CallContext::now(request.extensions());
        match limiter {
            Limiter::One(limiter) => limiter.admit(now(), n, *terms),
            Limiter::Keyed(limiter, by) => {
                by.with(&head, |key| limiter.admit(key, now(), n, *terms))
            }
            Limiter::Shared(shared, by) => {
                let ask = |key: &[u8]| shared::ask(shared, *on_error, key, n, *terms);
                Admission::Wait(match by {
                    Some(by) => by.with(&head, ask),
                    None => ask(b""),
                })
            }
        }
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> RateLimit<S> {
        RateLimit {
            inner,
            layer: self.clone(),
        }
    }
}

/// Lets at most so many calls a second through. See the [module](self).
#[derive(Clone, Debug)]
pub struct RateLimit<S> {
    inner: S,
    layer: RateLimitLayer,
}

impl<S, B, RB> Service<Request<B>> for RateLimit<S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<RB>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let gate = match self.layer.admit(&request) {
            Admission::Granted(standing) => Gate::calling(self.inner.call(request), standing),
            Admission::Wait(wait) => Gate::waiting(wait, take_ready(&mut self.inner), request),
            Admission::Refused(refused) => Gate::refused(refused),
        };
        ResponseFuture { gate }
    }
}

impl<'a, S, B, RB> Service<Request<B>> for &'a RateLimit<S>
where
    &'a S: Service<Request<B>, Response = Response<RB>>,
    <&'a S as Service<Request<B>>>::Error: Into<BoxError>,
{
    type Response = Response<RB>;
    type Error = BoxError;
    type Future = ResponseFuture<&'a S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.inner).poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inner = &self.inner;
        let gate = match self.layer.admit(&request) {
            Admission::Granted(standing) => Gate::calling(inner.call(request), standing),
            Admission::Wait(wait) => Gate::waiting(wait, inner, request),
            Admission::Refused(refused) => Gate::refused(refused),
        };
        ResponseFuture { gate }
    }
}

pin_project! {
    /// The future of [`RateLimit`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<Svc, B>
    where
        Svc: Service<Request<B>>,
    {
        #[pin]
        gate: Gate<Svc, B, Standing>,
    }
}

impl<Svc, B, RB> Future for ResponseFuture<Svc, B>
where
    Svc: Service<Request<B>, Response = Response<RB>>,
    Svc::Error: Into<BoxError>,
{
    type Output = Result<Response<RB>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut gate = self.project().gate;
        let mut polled = gate.as_mut().poll(cx);
        if let Poll::Ready(Ok(response)) = &mut polled
            && let Some(Standing(Some(quota))) = gate.take_permit()
        {
            quota.write_to(response.headers_mut());
        }
        polled
    }
}

impl<Svc, B> std::fmt::Debug for ResponseFuture<Svc, B>
where
    Svc: Service<Request<B>>,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ResponseFuture").field(&self.gate).finish()
    }
}
