//! Connections beside the first, which either side offers the other: go-plugin's `GRPCBroker`.
//!
//! Who offers one takes an id ([`Broker::next_id`]), listens on a new socket, says so ([`Broker::offer`]), and tells the id to the
//! other side in a message of the program's own. That one asks where it is ([`Broker::find`]) and connects. Of both sides'
//! `Broker`s, each is one end of one stream: [`Broker::run`] is the host's end, and the plugin serves its own in a
//! [`GrpcBrokerServer`](super::grpc::grpc_broker_server::GrpcBrokerServer).
//!
//! That is the normal mode. Where the host asked for it, and the plugin agreed, all connections go over the one socket that there is:
//! [`Multiplexed`]. [`Link`] does either, and TLS, and is what a program uses.
//!
//! ```
//! use tower_plugins_proto::go_plugin::broker::Broker;
//! use tower_plugins_proto::go_plugin::grpc::grpc_broker_client::GrpcBrokerClient;
//! use tower_plugins_proto::go_plugin::grpc::grpc_broker_server::GrpcBrokerServer;
//! use tower_plugins_proto::go_plugin::Address;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let (host, plugin) = (Broker::new(), Broker::new());
//! // Between them is a connection, as a rule.
//! let server = GrpcBrokerServer::new(plugin.clone());
//! let stream = tokio::spawn({
//!     let host = host.clone();
//!     async move { host.run(GrpcBrokerClient::new(server)).await }
//! });
//!
//! let id = plugin.next_id();
//! plugin.offer(id, Address::Unix("/tmp/plugin43".into())).await?;
//! assert_eq!(host.find(id).await?, Address::Unix("/tmp/plugin43".into()));
//!
//! host.close();
//! stream.await??;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

mod connection;
mod io;
mod knocks;
mod link;
mod message;
mod multiplexed;
mod pending;
#[cfg(feature = "tls")]
mod secure;
mod session;
mod stream;

use self::knocks::{Knocks, NotAccepted};
use self::pending::{Offered, Pending, Ticket, Wanted};
use super::grpc::ConnInfo;
use super::{Address, AddressError};

pub use connection::Connection;
pub use io::Io;
pub use link::{Accepted, Dialer, Link, LinkError};
pub use message::Message;
pub use multiplexed::{Driver, Incoming, Multiplexed};
pub use stream::{Exchange, Outgoing};

/// How long an offer is waited for, and how long one is kept that nobody takes.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// The most offers and takers at once. A peer that offers more is not heard.
pub const MAX_PENDING: usize = 1_024;

/// Messages that wait for the stream; beyond, who offers waits.
const OUTGOING: usize = 16;

/// One side's end of the stream on which connections are offered. It is cheap to clone, and all clones are the same.
///
/// It carries no connection itself: see the [module](self). It is not closed by being dropped.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
}

struct Shared {
    last_id: AtomicU32,
    pending: Mutex<Pending<Address, oneshot::Sender<Address>>>,
    knocks: Mutex<Knocks<mpsc::Sender<Connection>, oneshot::Sender<Option<String>>>>,
    /// There until it is closed.
    outgoing: Mutex<Option<mpsc::Sender<ConnInfo>>>,
    /// There while there is no stream.
    idle: Mutex<Option<mpsc::Receiver<ConnInfo>>>,
    closed: watch::Sender<bool>,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// Nobody offered it in time.
    #[error(
        "the other side did not offer the connection {0} within {TIMEOUT:?}; it must accept it before, or right after, it tells \
         its id"
    )]
    TimedOut(u32),
    /// Somebody here waits for it, or accepts it, already.
    #[error("the connection {0} is waited for, or accepted, here already; each is for one")]
    Twice(u32),
    /// The other side answered the knock so.
    #[error("the other side refuses the connection {id}: {why}")]
    Refused {
        /// Names the connection.
        id: u32,
        /// What it said.
        why: String,
    },
    /// The other side did not take a stream on the one socket.
    #[error(
        "the other side did not take a new stream on the one socket within {TIMEOUT:?}; does it still run?"
    )]
    Opens,
    /// Too many are waited for.
    #[error(
        "{MAX_PENDING} connections are offered, waited for or accepted already, which is the most"
    )]
    Full,
    /// The other side could not be told where it is.
    #[error("the connection cannot be offered: {0}")]
    Address(#[from] AddressError),
    /// There is a stream already.
    #[error("the broker has its stream already, and there can be one at a time")]
    Streams,
    /// The broker is closed.
    #[error("the broker is closed: this side, or the plugin, is ending")]
    Closed,
}

impl Broker {
    /// A broker without a stream: what is offered waits for that.
    #[must_use]
    pub fn new() -> Self {
        let (outgoing, idle) = mpsc::channel(OUTGOING);
        Self {
            shared: Arc::new(Shared {
                last_id: AtomicU32::new(0),
                pending: Mutex::new(Pending::new(MAX_PENDING, TIMEOUT)),
                knocks: Mutex::new(Knocks::new(MAX_PENDING, TIMEOUT)),
                outgoing: Mutex::new(Some(outgoing)),
                idle: Mutex::new(Some(idle)),
                closed: watch::Sender::new(false),
            }),
        }
    }

    /// An id that this side did not use yet, for a connection that it will [`offer`](Self::offer). The first is 1; 0 is none.
    ///
    /// Each side counts for itself, so that both may offer the same id. After 4,294,967,295 it begins again.
    #[must_use]
    pub fn next_id(&self) -> u32 {
        let next = |last: u32| last.checked_add(1).unwrap_or(1);
        let last = self
            .shared
            .last_id
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(next(last))
            })
            .unwrap_or_else(|last| last);
        next(last)
    }

    /// Tells the other side that the connection `id` is accepted at `address`, where this side must listen already.
    ///
    /// The other side keeps it for [`TIMEOUT`]. Without a stream, it is told once there is one; where many wait for that, this
    /// waits, too.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Address`] if the other side could not read it; [`BrokerError::Closed`].
    pub async fn offer(&self, id: u32, address: Address) -> Result<(), BrokerError> {
        address.check()?;
        self.say(Message::Offer { id, address }).await
    }

    async fn say(&self, message: Message) -> Result<(), BrokerError> {
        let outgoing = lock(&self.shared.outgoing).clone();
        let outgoing = outgoing.ok_or(BrokerError::Closed)?;
        tokio::select! {
            biased;
            () = self.closed() => Err(BrokerError::Closed),
            sent = outgoing.send(message.into()) => sent.map_err(|_| BrokerError::Closed),
        }
    }

    /// Where the other side accepts the connection `id`; waits [`TIMEOUT`] for its offer. An offer is found once.
    ///
    /// # Errors
    ///
    /// [`BrokerError`], but not [`Address`](BrokerError::Address) nor [`Streams`](BrokerError::Streams).
    pub async fn find(&self, id: u32) -> Result<Address, BrokerError> {
        if self.is_closed() {
            return Err(BrokerError::Closed);
        }
        let (taker, offer) = oneshot::channel();
        let wanted = self.pending().want(id, taker, Instant::now());
        let ticket = match wanted {
            Wanted::Found(address) => return Ok(address),
            Wanted::Waits(ticket) => ticket,
            Wanted::Twice => return Err(BrokerError::Twice(id)),
            Wanted::Full => return Err(BrokerError::Full),
        };
        let _waits = Waits {
            broker: self,
            id,
            ticket,
        };
        tokio::select! {
            biased;
            offer = timeout(TIMEOUT, offer) => match offer {
                Ok(Ok(address)) => Ok(address),
                Ok(Err(_)) => Err(BrokerError::Closed),
                Err(_) => Err(BrokerError::TimedOut(id)),
            },
            () = self.closed() => Err(BrokerError::Closed),
        }
    }

    /// The other side said `info`: [`run`](Self::run) and the service call this.
    ///
    /// What makes no sense is skipped, as in Go: an offer without an address, or of an id that is offered.
    pub fn received(&self, info: ConnInfo) {
        if self.is_closed() {
            return;
        }
        match Message::try_from(info) {
            Ok(Message::Offer { id, address }) => {
                let offered = self.pending().offer(id, address, Instant::now());
                if let Offered::Taken(address, taker) = offered {
                    // Who went away meanwhile needs no address.
                    drop(taker.send(address));
                }
            }
            Ok(Message::Knock { id }) => {
                if lock(&self.shared.knocks).knock(id, Instant::now()) {
                    self.answer(id);
                }
            }
            Ok(Message::Answer { id, refused }) => {
                if let Some(asker) = lock(&self.shared.knocks).answer(id) {
                    drop(asker.send(refused));
                }
            }
            Err(_) => {}
        }
    }

    /// What this side says, for a stream of one's own; [`run`](Self::run) and the service have theirs.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Streams`] while there is another; [`BrokerError::Closed`].
    pub fn outgoing(&self) -> Result<Outgoing, BrokerError> {
        if self.is_closed() {
            return Err(BrokerError::Closed);
        }
        let idle = lock(&self.shared.idle).take();
        let messages = idle.ok_or(BrokerError::Streams)?;
        Ok(Outgoing::new(self.clone(), messages))
    }

    /// Ends the stream, and whoever waits. It stays closed.
    pub fn close(&self) {
        self.shared.closed.send_replace(true);
        lock(&self.shared.outgoing).take();
        self.pending().clear();
        self.stop_all();
    }

    /// Whether it is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        *self.shared.closed.borrow()
    }

    /// Waits until it is closed.
    pub async fn closed(&self) {
        let mut closed = self.shared.closed.subscribe();
        // There is a sender for as long as there is `self`.
        drop(closed.wait_for(|closed| *closed).await);
    }

    /// Knocks for `id`: the stream that is opened next is its.
    async fn knock(&self, id: u32) -> Result<(), BrokerError> {
        let (asker, answer) = oneshot::channel();
        lock(&self.shared.knocks).ask(id, asker);
        let asked = async {
            self.say(Message::Knock { id }).await?;
            // Whoever closes the broker drops the asker.
            answer.await.map_err(|_| BrokerError::Closed)
        };
        match timeout(TIMEOUT, asked).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(why))) => Err(BrokerError::Refused { id, why }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(BrokerError::TimedOut(id)),
        }
    }

    fn accept(&self, id: u32, acceptor: mpsc::Sender<Connection>) -> Result<(), BrokerError> {
        if self.is_closed() {
            return Err(BrokerError::Closed);
        }
        let accepted = lock(&self.shared.knocks).accept(id, acceptor, Instant::now());
        let knocked = accepted.map_err(|error| match error {
            NotAccepted::Twice => BrokerError::Twice(id),
            NotAccepted::Full => BrokerError::Full,
        })?;
        if knocked {
            self.answer(id);
        }
        Ok(())
    }

    fn stop(&self, id: u32) {
        lock(&self.shared.knocks).stop(id);
    }

    fn stop_all(&self) {
        lock(&self.shared.knocks).clear();
    }

    /// A stream came: it is of who was knocked for, or else goes to `main`. Where nobody takes it, it is dropped, which resets it.
    fn route(&self, stream: Connection, main: Option<&mpsc::Sender<Connection>>) {
        let mut knocks = lock(&self.shared.knocks);
        let acceptor = match knocks.stream() {
            Some(knocked_for) => knocked_for,
            None => main,
        };
        if let Some(acceptor) = acceptor {
            drop(acceptor.try_send(stream));
        }
    }

    /// Who knocks waits for this, and no longer than [`TIMEOUT`]: where so much waits to be said, it is too late.
    fn answer(&self, id: u32) {
        let refused = None;
        if let Some(outgoing) = &*lock(&self.shared.outgoing) {
            drop(outgoing.try_send(Message::Answer { id, refused }.into()));
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending<Address, oneshot::Sender<Address>>> {
        lock(&self.shared.pending)
    }

    /// The stream has ended. What was for that peer is not for the next.
    fn take_back(&self, mut messages: mpsc::Receiver<ConnInfo>) {
        while messages.try_recv().is_ok() {}
        *lock(&self.shared.idle) = Some(messages);
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// Gives up when its taker is dropped.
struct Waits<'a> {
    broker: &'a Broker,
    id: u32,
    ticket: Ticket,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.broker.pending().give_up(self.id, self.ticket);
    }
}

/// What is locked is never left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
