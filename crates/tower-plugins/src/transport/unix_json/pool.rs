//! The connections to a socket, of which each serves one call at a time.

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};
use tower_plugins_layers::{Reason, Refused};

use crate::config::ConnectionSpec;
use crate::transport::error::{at, connect_failed};
use crate::transport::lines::Lines;
use crate::transport::task::Task;

/// Longer than any program runs, and short enough to be added to any instant.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The connections to the plugin at `path`.
///
/// A call first takes a slot, then the idle connection that came back last, and opens one only when
/// none is idle. A connection comes back before its slot does, so that there are never more
/// connections than slots.
pub(super) struct Pool {
    /// Its address, for errors.
    pub(super) name: Arc<str>,
    path: PathBuf,
    spec: ConnectionSpec,
    /// Ordered by the time they became idle.
    idle: Mutex<Vec<Idle>>,
    slots: Semaphore,
    reaper: Mutex<Option<Task>>,
}

struct Idle {
    lines: Lines<UnixStream>,
    since: Instant,
}

/// A connection for one call. Dropping it closes the connection.
pub(super) struct Lease {
    // Closed before the slot is free.
    pub(super) lines: Lines<UnixStream>,
    /// Whether it served a call before: the peer may have closed it meanwhile.
    pub(super) is_used: bool,
    slot: Slot,
}

/// The right to use a connection. Gives itself back.
struct Slot(Arc<Pool>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.slots.add_permits(1);
    }
}

impl Lease {
    /// The call is over: unless it is out of step, the connection may serve another.
    pub(super) fn complete(self) {
        // In this order, so that a connection that is not kept closes before its slot is free.
        let Self { slot, lines, .. } = self;
        let pool = &slot.0;
        if pool.keeps_idle() && lines.is_in_step() {
            let mut idle = pool.idle();
            if idle.len() < pool.spec.max_idle_connections as usize {
                let since = Instant::now();
                idle.push(Idle { lines, since });
            }
        }
    }
}

impl Pool {
    pub(super) fn new(name: Arc<str>, path: PathBuf, spec: ConnectionSpec) -> Self {
        let slots = spec.max_connections.max(1) as usize;
        Self {
            name,
            path,
            spec,
            idle: Mutex::default(),
            slots: Semaphore::new(slots.min(Semaphore::MAX_PERMITS)),
            reaper: Mutex::default(),
        }
    }

    /// A connection, waited for and opened if need be; a `fresh` one served no call before.
    pub(super) async fn acquire(self: &Arc<Self>, fresh: bool) -> Result<Lease, Refused> {
        let slot = self.slot().await?;
        if fresh {
            // What is idle is as stale as those before; and one opened beside it would be one more
            // than there may be.
            drop(std::mem::take(&mut *self.idle()));
        }
        if let Some(lines) = self.pop() {
            return Ok(Lease {
                lines,
                is_used: true,
                slot,
            });
        }
        Ok(Lease {
            lines: self.connect().await?,
            is_used: false,
            slot,
        })
    }

    async fn slot(self: &Arc<Self>) -> Result<Slot, Refused> {
        let limit = self.spec.connection_timeout;
        match timeout(limit, self.slots.acquire()).await {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(Slot(Arc::clone(self)))
            }
            // The semaphore is never closed: it is the time that is over.
            Ok(Err(_)) | Err(_) => {
                let open = self.spec.max_connections;
                let cause = format!("max_connections, {open}, were busy for {limit:?}");
                let cause = at(&self.name, "waiting for a connection to", cause);
                Err(Refused::new(Reason::PoolExhausted).caused_by(cause))
            }
        }
    }

    /// The connection that came back last. Those that are of no use any more are closed.
    fn pop(&self) -> Option<Lines<UnixStream>> {
        let now = Instant::now();
        let mut idle = self.idle();
        while let Some(Idle { lines, since }) = idle.pop() {
            if now.duration_since(since) < self.idle_timeout() && is_silent(lines.stream()) {
                return Some(lines);
            }
        }
        None
    }

    pub(super) async fn connect(self: &Arc<Self>) -> Result<Lines<UnixStream>, Refused> {
        let limit = self.spec.connection_timeout;
        let stream = timeout(limit, UnixStream::connect(&self.path)).await;
        let stream = stream.unwrap_or_else(|_| {
            let message = format!("no connection within the connection_timeout of {limit:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        });
        let stream = stream.map_err(|error| connect_failed(&self.name, error))?;
        self.watch_idle();
        Ok(Lines::new(stream))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle_timeout(&self) -> Duration {
        self.spec.idle_timeout.min(FOREVER)
    }

    /// Whether a connection may be kept without a call.
    fn keeps_idle(&self) -> bool {
        self.spec.keep_alive
            && self.spec.max_idle_connections > 0
            && !self.spec.idle_timeout.is_zero()
    }

    fn watch_idle(self: &Arc<Self>) {
        if self.keeps_idle() {
            let mut reaper = self.reaper.lock().unwrap_or_else(PoisonError::into_inner);
            // It ends before the pool only with the runtime it runs on.
            if reaper.as_ref().is_none_or(Task::is_finished) {
                let reap = reap(Arc::downgrade(self), self.idle_timeout());
                *reaper = Some(Task::spawn(reap));
            }
        }
    }

    /// Closes what has been idle for too long; gives the time of the next look.
    fn reap(&self, now: Instant) -> Instant {
        let limit = self.idle_timeout();
        let (closed, next) = {
            let mut idle = self.idle();
            let closed: Vec<_> = idle
                .extract_if(.., |idle| now.duration_since(idle.since) >= limit)
                .collect();
            (closed, idle.first().map_or(now, |idle| idle.since) + limit)
        };
        drop(closed);
        next
    }
}

/// Closes idle connections for as long as the pool lives. Nothing can be due before it looks again:
/// what becomes idle later is due later.
async fn reap(pool: Weak<Pool>, idle_timeout: Duration) {
    let mut next = Instant::now() + idle_timeout;
    loop {
        sleep_until(next).await;
        let Some(pool) = pool.upgrade() else { return };
        next = pool.reap(Instant::now());
    }
}

/// Whether the peer has said nothing, not even that it has closed. The socket itself is asked: the
/// runtime learns of it only when it next looks at all of them.
fn is_silent(stream: &UnixStream) -> bool {
    let socket = SockRef::from(stream);
    let read = (&*socket).read(&mut [0]);
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
