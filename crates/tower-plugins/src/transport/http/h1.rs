//! HTTP/1.1: a connection serves one call at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::http::Request;
use hyper::client::conn::http1;
use tokio::sync::{Semaphore, TryAcquireError};
use tokio::time::{Instant, timeout};
use tower_plugins_layers::{Reason, Refused};

use super::body::Hold;
use super::connect::{Notes, Task};
use super::error::{at, connect_failed};
use super::pool::{self, Endpoint, Pool, Sent};
use crate::Body;

/// How long a connection may take to be ready for the next request once a response is complete.
/// It needs one turn of its task; one that takes longer is still busy with the last request's
/// body, and is closed.
const SETTLE: Duration = Duration::from_millis(100);

/// hyper's limit for a connection's buffer, unless the head may be larger.
const BUFFER: usize = 400 * 1024;

/// The connections to an endpoint.
///
/// A call first takes a slot, then the idle connection that came back last, and opens one only
/// when none is idle. A connection comes back before its slot does. So there are never more
/// connections than slots, although only the busy ones have one.
pub(super) struct Connections {
    endpoint: Endpoint,
    /// Ordered by the time they became idle.
    idle: Mutex<Idle>,
    slots: Semaphore,
    reaper: Mutex<Option<Task>>,
}

/// Boxed, because a response's body is moved about with its connection in it.
type Idle = Vec<Box<Conn>>;

struct Conn {
    sender: http1::SendRequest<Body>,
    idle_since: Instant,
    /// When it is too old for further calls.
    expires: Option<Instant>,
    notes: Arc<Notes>,
    used: bool,
    _driver: Task,
}

/// The right to use a connection. Gives itself back.
struct Slot(Arc<Connections>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.slots.add_permits(1);
    }
}

/// A connection for one call. Dropping it closes the connection.
pub(super) struct Lease {
    // Closed before the slot is free.
    conn: Box<Conn>,
    slot: Slot,
}

impl Lease {
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.slot.0.endpoint
    }

    /// The response is complete: the connection may serve another call.
    pub(super) fn complete(self) {
        // In this order, so that a connection that is not kept closes before its slot is free.
        let Self { slot, mut conn } = self;
        let pool = &slot.0;
        if pool.endpoint.keeps_idle() && !conn.sender.is_closed() {
            let now = Instant::now();
            if conn.is_aged(now) {
                return;
            }
            let mut idle = pool.idle();
            if idle.len() < pool.endpoint.spec.max_idle_connections as usize {
                conn.idle_since = now;
                conn.used = true;
                idle.push(conn);
            }
        }
    }
}

impl From<Lease> for Hold {
    fn from(lease: Lease) -> Self {
        Self::H1(lease)
    }
}

impl pool::Lease for Lease {
    fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<impl Future<Output = Sent> + Send + use<>, Box<Request<Body>>> {
        // A used one may have been closed by the peer meanwhile.
        self.conn.notes.begin(self.conn.used);
        Ok(self.conn.sender.try_send_request(request))
    }

    fn refusal(&self) -> Option<&str> {
        self.conn.notes.refusal()
    }

    fn hint(&self) -> Option<&str> {
        self.conn.notes.hint()
    }

    fn wrote(&self) -> bool {
        self.conn.notes.wrote()
    }
}

impl Connections {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        let slots = endpoint.spec.max_connections.max(1) as usize;
        Self {
            endpoint,
            idle: Mutex::default(),
            slots: Semaphore::new(slots.min(Semaphore::MAX_PERMITS)),
            reaper: Mutex::default(),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_slot(self: &Arc<Self>) -> Result<Slot, TryAcquireError> {
        self.slots.try_acquire()?.forget();
        Ok(Slot(Arc::clone(self)))
    }

    async fn slot(self: &Arc<Self>) -> Result<Slot, Refused> {
        if let Ok(slot) = self.try_slot() {
            return Ok(slot);
        }
        let limit = self.endpoint.spec.connection_timeout;
        match timeout(limit, self.slots.acquire()).await {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(Slot(Arc::clone(self)))
            }
            // The semaphore is never closed: it is the time that is over.
            Ok(Err(_)) | Err(_) => {
                let open = self.endpoint.spec.max_connections;
                let cause = format!("max_connections, {open}, were busy for {limit:?}");
                let cause = at(&self.endpoint.name, "waiting for a connection to", cause);
                Err(Refused::new(Reason::PoolExhausted).caused_by(cause))
            }
        }
    }

    /// The connection that came back last. Those that are of no use any more are closed.
    fn pop(&self) -> Option<Box<Conn>> {
        let now = Instant::now();
        let mut idle = self.idle();
        while let Some(conn) = idle.pop() {
            if conn.is_usable(now, self.endpoint.idle_timeout()) {
                return Some(conn);
            }
        }
        None
    }

    async fn connect(self: &Arc<Self>) -> Result<Box<Conn>, Refused> {
        let endpoint = &self.endpoint;
        let failed = |cause| connect_failed(&endpoint.name, cause);
        let stream = endpoint
            .target
            .connect(endpoint.spec.connection_timeout)
            .await
            .map_err(failed)?;
        let notes = Arc::clone(&stream.notes);
        let head = endpoint.spec.max_response_head as usize;
        let (sender, connection) = http1::Builder::new()
            .max_header_size(head)
            .max_buf_size(head.max(BUFFER))
            .handshake(stream)
            .await
            .map_err(|error| connect_failed(&endpoint.name, error))?;
        let name = Arc::clone(&endpoint.name);
        let driver = Task::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(endpoint = &*name, %error, "connection ended");
            }
        });
        self.watch_idle();
        let now = Instant::now();
        Ok(Box::new(Conn {
            sender,
            idle_since: now,
            expires: endpoint.expires(now),
            notes,
            used: false,
            _driver: driver,
        }))
    }

    fn watch_idle(self: &Arc<Self>) {
        if self.endpoint.keeps_idle() {
            let mut reaper = self.reaper.lock().unwrap_or_else(PoisonError::into_inner);
            // It ends before the pool only with the runtime it runs on.
            if reaper.as_ref().is_none_or(Task::is_finished) {
                *reaper = Some(pool::reaper(self));
            }
        }
    }
}

impl Conn {
    fn is_usable(&self, now: Instant, idle_timeout: Duration) -> bool {
        !self.sender.is_closed()
            && now.duration_since(self.idle_since) < idle_timeout
            && !self.is_aged(now)
    }

    fn is_aged(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

impl Pool for Connections {
    type Lease = Lease;

    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn checkout(self: &Arc<Self>) -> Option<Lease> {
        let slot = self.try_slot().ok()?;
        let (now, idle_timeout) = (Instant::now(), self.endpoint.idle_timeout());
        let conn = self
            .idle()
            .pop_if(|conn| conn.sender.is_ready() && conn.is_usable(now, idle_timeout))?;
        Some(Lease { conn, slot })
    }

    async fn acquire(self: &Arc<Self>, fresh: bool) -> Result<Lease, Refused> {
        let slot = self.slot().await?;
        if fresh {
            // What is idle is as stale as those before; and one opened beside it would be one
            // more than there may be.
            drop(std::mem::take(&mut *self.idle()));
        }
        while let Some(mut conn) = self.pop() {
            if conn.sender.is_ready()
                || timeout(SETTLE, conn.sender.ready())
                    .await
                    .is_ok_and(|ready| ready.is_ok())
            {
                return Ok(Lease { conn, slot });
            }
        }
        Ok(Lease {
            conn: self.connect().await?,
            slot,
        })
    }

    fn reap(&self, now: Instant) -> Instant {
        let idle_timeout = self.endpoint.idle_timeout();
        let (closed, next) = {
            let mut idle = self.idle();
            let closed: Vec<_> = idle
                .extract_if(.., |conn| !conn.is_usable(now, idle_timeout))
                .collect();
            (
                closed,
                idle.first().map_or(now, |oldest| oldest.idle_since) + idle_timeout,
            )
        };
        drop(closed);
        next
    }
}
