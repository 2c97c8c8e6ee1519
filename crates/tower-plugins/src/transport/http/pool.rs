//! What the pools of both protocols have in common.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ::http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::Instant;
use tower_plugins_layers::Refused;

use super::body::Hold;
use super::connect::{Target, Task};
use super::head::Origin;
use crate::Body;
use crate::config::ConnectionSpec;

/// Longer than any program runs, and short enough to be added to any instant.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What is known of an endpoint without asking it.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Its address, for errors.
    pub(super) name: Arc<str>,
    pub(super) target: Target,
    pub(super) origin: Origin,
    pub(super) spec: ConnectionSpec,
}

impl Endpoint {
    pub(super) fn idle_timeout(&self) -> Duration {
        self.spec.idle_timeout.min(FOREVER)
    }

    /// When a connection that was opened `now` is too old for further calls.
    ///
    /// Up to a tenth sooner than `max_age`, so that those that were opened together are not replaced
    /// together.
    pub(super) fn expires(&self, now: Instant) -> Option<Instant> {
        let age = self.spec.max_age?.min(FOREVER);
        Some(now + age.mul_f64(1.0 - fastrand::f64() / 10.0))
    }

    /// Whether a connection may be kept without a call.
    pub(super) fn keeps_idle(&self) -> bool {
        self.spec.keep_alive
            && self.spec.max_idle_connections > 0
            && !self.spec.idle_timeout.is_zero()
    }
}

/// The connections to one endpoint.
pub(super) trait Pool: Send + Sync + 'static {
    type Lease: Lease;

    fn endpoint(&self) -> &Endpoint;

    /// A connection that can take a request at once.
    fn checkout(self: &Arc<Self>) -> Option<Self::Lease>;

    /// A connection, waited for and opened if need be; a `fresh` one served no call before.
    fn acquire(
        self: &Arc<Self>,
        fresh: bool,
    ) -> impl Future<Output = Result<Self::Lease, Refused>> + Send;

    /// Closes what has been idle for too long; gives the time of the next look.
    fn reap(&self, now: Instant) -> Instant;
}

/// A response, or why there is none, with the request if it was not sent.
pub(super) type Sent = Result<Response<Incoming>, TrySendError<Request<Body>>>;

/// The right of one call to use a connection.
pub(super) trait Lease: Into<Hold> + Send {
    /// Sends `request`, or gives it back if the connection has just closed.
    fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<impl Future<Output = Sent> + Send + use<Self>, Box<Request<Body>>>;

    /// Why the peer has refused this side, if it has: it has read nothing of what was sent.
    fn refusal(&self) -> Option<&str>;

    /// Why the peer may have closed, if there is more to say than that it has.
    fn hint(&self) -> Option<&str>;

    /// Whether anything of the request that was sent last can have reached the peer.
    fn wrote(&self) -> bool;
}

/// A task that closes idle connections for as long as the pool lives.
///
/// Nothing can be due before it looks again: what becomes idle later is due later.
pub(super) fn reaper<P: Pool>(pool: &Arc<P>) -> Task {
    let (pool, idle_timeout) = (Arc::downgrade(pool), pool.endpoint().idle_timeout());
    Task::spawn(reap(pool, idle_timeout))
}

async fn reap<P: Pool>(pool: Weak<P>, idle_timeout: Duration) {
    let mut next = Instant::now() + idle_timeout;
    loop {
        tokio::time::sleep_until(next).await;
        let Some(pool) = pool.upgrade() else { return };
        next = pool.reap(Instant::now());
    }
}
