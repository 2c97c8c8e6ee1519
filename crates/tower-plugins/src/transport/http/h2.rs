//! HTTP/2: all calls share a connection.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ::http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::watch;
use tokio::time::Instant;
use tower_plugins_layers::{BoxError, Refused};

use super::body::Hold;
use super::connect::{Notes, Task};
use super::cut::{Cut, CutStream};
use super::error::connect_failed;
use super::pool::{self, Endpoint, Pool};
use crate::Body;

// A large body is not to wait for window updates on a network of some delay.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 5 << 20;

/// A peer of which nothing at all was heard while a call waited for this long, and in vain, may be
/// gone without a word; TCP takes minutes to notice. The next call gets another connection. Pings
/// would tell too, but servers take frequent ones for an attack.
const SILENCE: Duration = Duration::from_secs(1);

/// The connection to an endpoint, and its next one.
pub(super) struct Connection {
    endpoint: Arc<Endpoint>,
    state: Mutex<State>,
    reaper: Mutex<Option<Task>>,
}

enum State {
    Closed,
    /// The task owns the attempt: a caller that goes away takes nothing from the others.
    Connecting(watch::Receiver<Option<Connected>>, Task),
    Open(Arc<Conn>),
}

type Connected = Result<Arc<Conn>, Arc<BoxError>>;

struct Conn {
    sender: http2::SendRequest<Body>,
    usage: Mutex<Usage>,
    notes: Arc<Notes>,
    _driver: Task,
    /// Ends what hyper has spawned for the connection.
    cut: Arc<Cut>,
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.cut.make();
    }
}

struct Usage {
    calls: usize,
    idle_since: Instant,
}

/// A connection for one call. Dropping it ends the call's request.
pub(super) struct Lease {
    conn: Arc<Conn>,
    pool: Arc<Connection>,
    began: Instant,
    /// What had been heard of the peer by then.
    heard: usize,
}

impl Lease {
    fn new(pool: &Arc<Connection>, conn: &Arc<Conn>) -> Self {
        conn.usage().calls += 1;
        Self {
            conn: Arc::clone(conn),
            pool: Arc::clone(pool),
            began: Instant::now(),
            heard: conn.cut.heard(),
        }
    }

    /// Whether the peer has not been heard since the call began, which is some time ago.
    fn is_met_with_silence(&self) -> bool {
        self.conn.cut.heard() == self.heard && self.began.elapsed() >= SILENCE
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.pool.endpoint
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let last = {
            let mut usage = self.conn.usage();
            usage.calls -= 1;
            if usage.calls == 0 {
                usage.idle_since = Instant::now();
            }
            usage.calls == 0
        };
        if last && !self.pool.endpoint.keeps_idle() || self.is_met_with_silence() {
            self.pool.close_if(|conn| Arc::ptr_eq(conn, &self.conn));
        }
    }
}

impl From<Lease> for Hold {
    fn from(lease: Lease) -> Self {
        Self::H2(lease)
    }
}

impl pool::Lease for Lease {
    fn send(
        &mut self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>> + Send + use<>
    {
        self.conn.sender.clone().try_send_request(request)
    }

    fn refusal(&self) -> Option<&str> {
        self.conn.notes.refusal()
    }
}

impl Conn {
    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            state: Mutex::new(State::Closed),
            reaper: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the open connection away if `condition` says so; calls on it go on.
    fn close_if(&self, condition: impl FnOnce(&Arc<Conn>) -> bool) {
        let mut state = self.state();
        let closed = match &*state {
            State::Open(conn) if condition(conn) => std::mem::replace(&mut *state, State::Closed),
            _ => return,
        };
        drop(state);
        drop(closed);
    }

    /// The attempt to connect that is under way, or a new one.
    fn connecting(self: &Arc<Self>) -> Result<Lease, watch::Receiver<Option<Connected>>> {
        let mut state = self.state();
        match &*state {
            State::Open(conn) if !conn.sender.is_closed() => return Ok(Lease::new(self, conn)),
            State::Connecting(result, task) if !task.is_finished() => return Err(result.clone()),
            _ => {}
        }
        let (sender, receiver) = watch::channel(None);
        let (pool, endpoint) = (Arc::downgrade(self), Arc::clone(&self.endpoint));
        let task = Task::spawn(async move {
            let connected = connect(&endpoint).await.map_err(Arc::new);
            settle(&pool, &connected);
            sender.send_replace(Some(connected));
        });
        *state = State::Connecting(receiver.clone(), task);
        Err(receiver)
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

/// Makes what came of connecting the pool's state, if there is a pool still.
fn settle(pool: &Weak<Connection>, connected: &Connected) {
    let Some(pool) = pool.upgrade() else { return };
    pool.watch_idle();
    let next = match connected {
        Ok(conn) => State::Open(Arc::clone(conn)),
        Err(_) => State::Closed,
    };
    let connecting = std::mem::replace(&mut *pool.state(), next);
    // This ends the task that is running this, at its next await: there is none.
    drop(connecting);
}

async fn connect(endpoint: &Endpoint) -> Result<Arc<Conn>, BoxError> {
    let cut = Arc::<Cut>::default();
    let stream = endpoint
        .target
        .connect(endpoint.spec.connection_timeout)
        .await?;
    let notes = Arc::clone(&stream.notes);
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(endpoint.spec.max_response_head)
        .handshake(CutStream {
            stream,
            cut: Arc::clone(&cut),
        })
        .await?;
    let name = Arc::clone(&endpoint.name);
    let driver = Task::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(endpoint = &*name, %error, "connection ended");
        }
    });
    let usage = Mutex::new(Usage {
        calls: 0,
        idle_since: Instant::now(),
    });
    Ok(Arc::new(Conn {
        sender,
        usage,
        notes,
        _driver: driver,
        cut,
    }))
}

impl Pool for Connection {
    type Lease = Lease;

    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn checkout(self: &Arc<Self>) -> Option<Lease> {
        match &*self.state() {
            State::Open(conn) if !conn.sender.is_closed() => Some(Lease::new(self, conn)),
            _ => None,
        }
    }

    async fn acquire(self: &Arc<Self>, fresh: bool) -> Result<Lease, Refused> {
        if fresh {
            self.close_if(|_| true);
        }
        let mut result = match self.connecting() {
            Ok(lease) => return Ok(lease),
            Err(result) => result,
        };
        let failed = |cause: BoxError| connect_failed(&self.endpoint.name, cause);
        let connected = match result.wait_for(Option::is_some).await {
            Ok(connected) => connected.clone(),
            Err(_) => return Err(failed("the runtime that was connecting is gone".into())),
        };
        match connected {
            Some(Ok(conn)) => Ok(Lease::new(self, &conn)),
            Some(Err(error)) => Err(failed(Box::new(Shared(error)))),
            None => Err(failed("the attempt to connect was given up".into())),
        }
    }

    fn reap(&self, now: Instant) -> Instant {
        let idle_timeout = self.endpoint.idle_timeout();
        let mut next = now + idle_timeout;
        self.close_if(|conn| {
            let usage = conn.usage();
            if usage.calls > 0 {
                return false;
            }
            let due = usage.idle_since + idle_timeout;
            next = next.min(due.max(now));
            conn.sender.is_closed() || due <= now
        });
        if next <= now {
            now + idle_timeout
        } else {
            next
        }
    }
}

/// The error of an attempt to connect that several calls waited for.
#[derive(Debug)]
struct Shared(Arc<BoxError>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Shared {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}
