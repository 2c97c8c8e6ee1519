//! HTTP/2: a connection serves many calls at a time, and another is opened when those are full.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ::http::Request;
use hyper::client::conn::http2;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tower_plugins_layers::{BoxError, Reason, Refused};

use super::body::Hold;
use super::connect::{Notes, Task, too_late};
use super::cut::Cut;
use super::error::{at, connect_failed};
use super::h2_connect::connect;
use super::pool::{self, Endpoint, Pool, Sent};
use crate::Body;

/// A peer of which nothing at all was heard while a call waited for this long, and in vain, may be
/// gone without a word; TCP takes minutes to notice. The next call gets another connection. Pings
/// would tell too, but servers take frequent ones for an attack.
const SILENCE: Duration = Duration::from_secs(1);

/// The connections to an endpoint.
pub(super) struct Connections {
    endpoint: Arc<Endpoint>,
    state: Mutex<State>,
    reaper: Mutex<Option<Task>>,
}

/// Who waits has no connection with room to wait for: whatever makes room hands it on.
#[derive(Default)]
struct State {
    /// Those that take calls. The first with room gets the next one, so that the last fall idle.
    open: Vec<Arc<Conn>>,
    /// The task owns the attempt: a caller that goes away takes nothing from the others.
    connecting: Option<Task>,
    /// First come, first served.
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

type Turn = Result<Lease, Shared>;

pub(super) type Sender = Arc<Mutex<Option<http2::SendRequest<Body>>>>;

pub(super) struct Conn {
    /// None when the connection takes no further request. hyper gives back what it has not taken when
    /// it has no sender any more: until then one that came just too late would wait.
    pub(super) sender: Sender,
    /// How many calls at a time the peer takes.
    pub(super) streams: Arc<AtomicUsize>,
    /// Changed within the lock of the pool's state.
    pub(super) calls: AtomicUsize,
    pub(super) idle_since: Mutex<Instant>,
    /// When it is too old for further calls.
    pub(super) expires: Option<Instant>,
    pub(super) notes: Arc<Notes>,
    pub(super) _driver: Task,
    /// Ends what hyper has spawned for the connection.
    pub(super) cut: Arc<Cut>,
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.cut.make();
    }
}

impl Conn {
    fn is_usable(&self, now: Instant) -> bool {
        let sender = lock(&self.sender);
        sender.as_ref().is_some_and(|sender| !sender.is_closed())
            && self.expires.is_none_or(|expires| now < expires)
    }

    /// Whether it takes one more call, of at most `most`. It has room for one whatever the peer says.
    fn has_room(&self, most: usize) -> bool {
        let calls = self.calls();
        calls == 0 || calls < most && calls < self.streams.load(Ordering::Relaxed)
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn idle_since(&self) -> MutexGuard<'_, Instant> {
        lock(&self.idle_since)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream for one call. Dropping it ends the call's request.
pub(super) struct Lease {
    conn: Arc<Conn>,
    pool: Arc<Connections>,
    began: Instant,
    /// What had been heard of the peer by then.
    heard: usize,
}

impl Lease {
    fn new(pool: &Arc<Connections>, conn: Arc<Conn>, now: Instant) -> Self {
        conn.calls.fetch_add(1, Ordering::Relaxed);
        Self {
            heard: conn.cut.heard(),
            conn,
            pool: Arc::clone(pool),
            began: now,
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
        self.pool.release(&self.conn, self.is_met_with_silence());
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
    ) -> Result<impl Future<Output = Sent> + Send + use<>, Box<Request<Body>>> {
        let sender = lock(&self.conn.sender).clone();
        match sender {
            Some(mut sender) => Ok(sender.try_send_request(request)),
            None => Err(Box::new(request)),
        }
    }

    fn refusal(&self) -> Option<&str> {
        self.conn.notes.refusal()
    }

    fn hint(&self) -> Option<&str> {
        self.conn.notes.hint()
    }

    /// Others write over the same connection: that of one call alone is not known.
    fn wrote(&self) -> bool {
        true
    }
}

impl State {
    /// A connection that takes one more call. Those that take none any more are let go, and close
    /// with the last call on them.
    fn pick(&mut self, endpoint: &Endpoint, now: Instant) -> Option<Arc<Conn>> {
        self.open.retain(|conn| conn.is_usable(now));
        let most = endpoint.spec.max_streams.max(1) as usize;
        let conn = self.open.iter().find(|conn| conn.has_room(most))?;
        Some(Arc::clone(conn))
    }

    fn wait(&mut self) -> oneshot::Receiver<Turn> {
        if self.waiting.len() == self.waiting.capacity() {
            self.waiting.retain(|waiting| !waiting.is_closed());
        }
        let (sender, turn) = oneshot::channel();
        self.waiting.push_back(sender);
        turn
    }

    fn remove(&mut self, conn: &Arc<Conn>) -> Option<Arc<Conn>> {
        let index = self.open.iter().position(|open| Arc::ptr_eq(open, conn))?;
        Some(self.open.remove(index))
    }
}

impl Connections {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            state: Mutex::default(),
            reaper: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// A stream, or the place in the queue for one; a connection is opened if that helps.
    fn lease_or_wait(self: &Arc<Self>, fresh: bool) -> Result<Lease, oneshot::Receiver<Turn>> {
        let mut state = self.state();
        let stale = if fresh {
            std::mem::take(&mut state.open)
        } else {
            Vec::new()
        };
        let now = Instant::now();
        let turn = match state.pick(&self.endpoint, now) {
            Some(conn) => Ok(Lease::new(self, conn, now)),
            None => Err(state.wait()),
        };
        self.open_another(&mut state);
        drop(state);
        drop(stale);
        turn
    }

    /// Begins to connect if someone waits, one connection at a time.
    fn open_another(self: &Arc<Self>, state: &mut State) {
        let most = self.endpoint.spec.max_connections.max(1) as usize;
        if state.waiting.is_empty() || state.connecting.is_some() || state.open.len() >= most {
            return;
        }
        let (attempt, endpoint) = (Attempt(Arc::downgrade(self)), Arc::clone(&self.endpoint));
        state.connecting = Some(Task::spawn(async move {
            attempt.settle(connect(&endpoint).await);
        }));
    }

    /// What came of connecting.
    fn settle(self: &Arc<Self>, connected: Result<Conn, BoxError>) {
        self.watch_idle();
        let mut state = self.state();
        // This ends the task that is running this, at its next await: there is none.
        drop(state.connecting.take());
        let now = Instant::now();
        state.open.retain(|conn| conn.is_usable(now));
        let unheard = match connected {
            Ok(conn) => {
                state.open.push(Arc::new(conn));
                self.hand_on(&mut state)
            }
            Err(error) if state.open.is_empty() => {
                let error = Arc::new(error);
                let waiting = std::mem::take(&mut state.waiting);
                let told = waiting
                    .into_iter()
                    .map(|waiting| waiting.send(Err(Shared(Arc::clone(&error)))));
                told.filter_map(Result::err).collect()
            }
            Err(error) => {
                // Who waits may get a stream of those that are open.
                tracing::debug!(endpoint = &*self.endpoint.name, %error, "no further connection");
                Vec::new()
            }
        };
        drop(state);
        drop(unheard);
    }

    /// Gives who waits what there is, and gives back what nobody took: to be dropped without the lock.
    fn hand_on(self: &Arc<Self>, state: &mut State) -> Vec<Turn> {
        let mut unheard = Vec::new();
        if state.waiting.is_empty() {
            return unheard;
        }
        let now = Instant::now();
        while let Some(waiting) = state.waiting.pop_front() {
            if waiting.is_closed() {
                continue;
            }
            let Some(conn) = state.pick(&self.endpoint, now) else {
                state.waiting.push_front(waiting);
                break;
            };
            unheard.extend(waiting.send(Ok(Lease::new(self, conn, now))).err());
        }
        self.open_another(state);
        unheard
    }

    /// A call on `conn` is over, and met with silence from the peer if it is `silent`.
    fn release(self: &Arc<Self>, conn: &Arc<Conn>, silent: bool) {
        let mut state = self.state();
        let is_idle = conn.calls.fetch_sub(1, Ordering::Relaxed) == 1;
        if is_idle {
            *conn.idle_since() = Instant::now();
        }
        let closed = if silent || is_idle && !self.may_idle(&state) {
            state.remove(conn)
        } else {
            None
        };
        let unheard = self.hand_on(&mut state);
        drop(state);
        drop((closed, unheard));
    }

    /// Whether one of those that are idle now may stay.
    fn may_idle(&self, state: &State) -> bool {
        let most = self.endpoint.spec.max_idle_connections as usize;
        let idle = || state.open.iter().filter(|conn| conn.calls() == 0).count();
        self.endpoint.keeps_idle() && (state.open.len() <= most || idle() <= most)
    }

    fn watch_idle(self: &Arc<Self>) {
        if self.endpoint.keeps_idle() {
            let mut reaper = lock(&self.reaper);
            // It ends before the pool only with the runtime it runs on.
            if reaper.as_ref().is_none_or(Task::is_finished) {
                *reaper = Some(pool::reaper(self));
            }
        }
    }

    /// Why a call got no stream in `limit`.
    fn refuse(&self, limit: Duration) -> Refused {
        let name = &self.endpoint.name;
        if self.state().open.is_empty() {
            return connect_failed(name, too_late(limit));
        }
        let open = self.endpoint.spec.max_connections;
        let cause = format!("max_connections, {open}, were full for {limit:?}");
        let cause = at(name, "waiting for a connection to", cause);
        Refused::new(Reason::PoolExhausted).caused_by(cause)
    }
}

/// An attempt to connect, which tells the pool what came of it, and be it nothing.
struct Attempt(Weak<Connections>);

impl Attempt {
    fn settle(mut self, connected: Result<Conn, BoxError>) {
        if let Some(pool) = std::mem::take(&mut self.0).upgrade() {
            pool.settle(connected);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.settle(Err("the runtime that was connecting is gone".into()));
        }
    }
}

impl Pool for Connections {
    type Lease = Lease;

    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn checkout(self: &Arc<Self>) -> Option<Lease> {
        let now = Instant::now();
        let conn = self.state().pick(&self.endpoint, now)?;
        Some(Lease::new(self, conn, now))
    }

    async fn acquire(self: &Arc<Self>, fresh: bool) -> Result<Lease, Refused> {
        let turn = match self.lease_or_wait(fresh) {
            Ok(lease) => return Ok(lease),
            Err(turn) => turn,
        };
        let limit = self.endpoint.spec.connection_timeout;
        let failed = |cause: BoxError| connect_failed(&self.endpoint.name, cause);
        match timeout(limit, turn).await {
            Ok(Ok(Ok(lease))) => Ok(lease),
            Ok(Ok(Err(error))) => Err(failed(error.into())),
            Ok(Err(_)) => Err(failed("the attempt to connect was given up".into())),
            Err(_) => Err(self.refuse(limit)),
        }
    }

    fn reap(&self, now: Instant) -> Instant {
        let idle_timeout = self.endpoint.idle_timeout();
        let mut next = now + idle_timeout;
        let closed: Vec<_> = self
            .state()
            .open
            .extract_if(.., |conn| {
                if conn.calls() > 0 {
                    return false;
                }
                let due = *conn.idle_since() + idle_timeout;
                if due > now && conn.is_usable(now) {
                    next = next.min(due);
                    return false;
                }
                true
            })
            .collect();
        drop(closed);
        next
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
