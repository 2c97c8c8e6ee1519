//! Connections beside the first, in either mode, with TLS or without.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::io::Io;
use super::{Broker, BrokerError, Incoming, MAX_PENDING, Multiplexed, TIMEOUT, lock};
use crate::go_plugin::Address;
use crate::go_plugin::socket::{Listen, ListenError, Listener, Socket};
#[cfg(feature = "tls")]
use crate::go_plugin::tls::Tls;

/// Connections of one id that agree on TLS at once; those beyond wait.
const HANDSHAKES: usize = 64;

/// The connections beside the first between a host and its plugin, from one side's end: it connects to what the other side offers, and
/// offers its own. It is cheap to clone.
///
/// It hides whether each has a socket of its own or all have one, and TLS, whose server is who accepts. The [`Broker`]'s stream must run.
///
/// ```
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use tower_plugins_proto::go_plugin::broker::{Broker, Link};
/// use tower_plugins_proto::go_plugin::grpc::grpc_broker_client::GrpcBrokerClient;
/// use tower_plugins_proto::go_plugin::grpc::grpc_broker_server::GrpcBrokerServer;
/// use tower_plugins_proto::go_plugin::socket::Listen;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let (host, plugin) = (Broker::new(), Broker::new());
/// # let server = GrpcBrokerServer::new(plugin.clone());
/// # let stream = host.clone();
/// # tokio::spawn(async move { stream.run(GrpcBrokerClient::new(server)).await });
/// let (host, plugin) = (Link::new(host, Listen::default()), Link::new(plugin, Listen::default()));
///
/// let mut offered = plugin.accept().await?;
/// // The plugin tells `offered.id()` in a message of the program's own.
/// let (near, far) = tokio::join!(host.connect(offered.id()), offered.next());
/// let (mut near, mut far) = (near?, far.ok_or("the broker was closed")?);
/// near.write_all(b"hello").await?;
/// let mut heard = [0; 5];
/// far.read_exact(&mut heard).await?;
/// assert_eq!(&heard, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Link {
    broker: Broker,
    mode: Mode,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    /// What this side accepts.
    ids: Arc<Mutex<HashSet<u32>>>,
}

#[derive(Debug, Clone)]
enum Mode {
    Normal(Listen),
    Multiplexed(Multiplexed),
}

/// Why there is no connection, or none is accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The broker's.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// This side cannot listen.
    #[error("the connection {id} cannot be offered: {source}")]
    Listen {
        /// Names the connection.
        id: u32,
        /// Why.
        source: ListenError,
    },
    /// Nobody is where the other side said.
    #[error(
        "the connection {id} was offered, and is not there: {source}; did the other side stop accepting it?"
    )]
    Connect {
        /// Names the connection.
        id: u32,
        /// The system's.
        source: io::Error,
    },
    /// The other side does not prove to be who it should be, or does not speak TLS.
    #[error("the connection {id} cannot agree on TLS: {source}")]
    Tls {
        /// Names the connection.
        id: u32,
        /// As of [`Tls::connect`](crate::go_plugin::tls::Tls::connect).
        source: io::Error,
    },
}

impl Link {
    /// Normal mode: each connection that this side offers has a socket of its own, made as `listen` says.
    #[must_use]
    pub fn new(broker: Broker, listen: Listen) -> Self {
        Self::of(broker, Mode::Normal(listen))
    }

    /// Multiplexed mode: all connections are on the one socket of `multiplexed`, which does not end before this is dropped.
    #[must_use]
    pub fn multiplexed(multiplexed: Multiplexed) -> Self {
        let broker = multiplexed.broker().clone();
        Self::of(broker, Mode::Multiplexed(multiplexed))
    }

    fn of(broker: Broker, mode: Mode) -> Self {
        Self {
            broker,
            mode,
            #[cfg(feature = "tls")]
            tls: None,
            ids: Arc::default(),
        }
    }

    /// With TLS on each connection. Default: without.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The broker by which connections are found.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Connects to what the other side accepts as `id`, and waits [`TIMEOUT`] for its offer. Dropping the future gives up.
    ///
    /// In normal mode an offer is found once: who wants more than one connection takes a [`dialer`](Self::dialer).
    ///
    /// # Errors
    ///
    /// [`LinkError`], but not [`Listen`](LinkError::Listen).
    pub async fn connect(&self, id: u32) -> Result<Io, LinkError> {
        self.dialer(id).connect().await
    }

    /// Connects to what the other side accepts as `id`, as often as it is asked to.
    #[must_use]
    pub fn dialer(&self, id: u32) -> Dialer {
        Dialer {
            link: self.clone(),
            id,
            address: OnceCell::new(),
        }
    }

    /// The client's role in TLS.
    #[cfg(feature = "tls")]
    async fn shaken(&self, id: u32, io: Io) -> Result<Io, LinkError> {
        match &self.tls {
            Some(tls) => tls
                .connect(io)
                .await
                .map_err(|source| LinkError::Tls { id, source }),
            None => Ok(io),
        }
    }

    #[cfg(not(feature = "tls"))]
    async fn shaken(&self, _: u32, io: Io) -> Result<Io, LinkError> {
        Ok(io)
    }

    /// Accepts connections under an id that is chosen: [`Accepted::id`], which the other side has to be told.
    ///
    /// # Errors
    ///
    /// As of [`accept_as`](Self::accept_as).
    pub async fn accept(&self) -> Result<Accepted, LinkError> {
        loop {
            match self.accept_as(self.broker.next_id()).await {
                // Somebody gave it, without asking for the next.
                Err(LinkError::Broker(BrokerError::Twice(_))) => {}
                accepted => return accepted,
            }
        }
    }

    /// Accepts connections as `id`, until the [`Accepted`] is dropped.
    ///
    /// The other side hears of it by the broker's stream; in normal mode that keeps the offer for [`TIMEOUT`], for one connection.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Twice`] if it is accepted here already, [`BrokerError::Full`] beyond [`MAX_PENDING`], [`BrokerError::Closed`],
    /// [`LinkError::Listen`], and [`LinkError::Tls`] where there is no TLS config for a server.
    pub async fn accept_as(&self, id: u32) -> Result<Accepted, LinkError> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            tls.accepts()
                .map_err(|source| LinkError::Tls { id, source })?;
        }
        let held = Held::new(id, &self.ids)?;
        let source = match &self.mode {
            Mode::Normal(listen) => {
                let listener = listen
                    .bind()
                    .map_err(|source| LinkError::Listen { id, source })?;
                self.broker.offer(id, listener.address().clone()).await?;
                Source::Normal(self.broker.clone(), listener)
            }
            Mode::Multiplexed(multiplexed) => Source::Multiplexed(multiplexed.accept(id)?),
        };
        Ok(Accepted {
            held,
            source,
            shaking: JoinSet::new(),
            #[cfg(feature = "tls")]
            tls: self.tls.clone(),
        })
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("broker", &self.broker)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// Connects to what the other side accepts under one id: by [`Link::dialer`].
#[derive(Debug)]
pub struct Dialer {
    link: Link,
    id: u32,
    /// In normal mode where it is, once that is found.
    address: OnceCell<Address>,
}

impl Dialer {
    /// What it connects to.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Makes a connection; the first waits [`TIMEOUT`] for the offer. Dropping the future gives up.
    ///
    /// # Errors
    ///
    /// As of [`Link::connect`].
    pub async fn connect(&self) -> Result<Io, LinkError> {
        let (link, id) = (&self.link, self.id);
        let Mode::Multiplexed(multiplexed) = &link.mode else {
            let found = self
                .address
                .get_or_try_init(|| link.broker.find(id))
                .await?;
            let socket = match timeout(TIMEOUT, Socket::connect(found)).await {
                Ok(connected) => connected,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            let socket = socket.map_err(|source| LinkError::Connect { id, source })?;
            return link.shaken(id, Io::new(socket)).await;
        };
        let connection = multiplexed.dial(id).await?;
        link.shaken(id, Io::new(connection)).await
    }
}

/// An id that nobody else accepts, until it is dropped.
#[derive(Debug)]
struct Held {
    id: u32,
    ids: Arc<Mutex<HashSet<u32>>>,
}

impl Held {
    fn new(id: u32, ids: &Arc<Mutex<HashSet<u32>>>) -> Result<Self, BrokerError> {
        let mut held = lock(ids);
        if held.contains(&id) {
            return Err(BrokerError::Twice(id));
        }
        if held.len() >= MAX_PENDING {
            return Err(BrokerError::Full);
        }
        held.insert(id);
        let ids = ids.clone();
        Ok(Self { id, ids })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.ids).remove(&self.id);
    }
}

/// The connections that the other side makes under one id. Dropping it stops accepting, and removes the socket; connections that
/// were made go on.
pub struct Accepted {
    held: Held,
    source: Source,
    /// Those that agree on TLS.
    shaking: JoinSet<Option<Io>>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

#[derive(Debug)]
enum Source {
    Normal(Broker, Listener),
    Multiplexed(Incoming),
}

impl Accepted {
    /// What the other side connects to.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.held.id
    }

    /// The next connection; `None` when the broker, or the one socket, is closed. Dropping the future loses no connection.
    ///
    /// One that does not agree on TLS, within 10 seconds, is closed, and holds up no other. At most 64 do so at once.
    pub async fn next(&mut self) -> Option<Io> {
        loop {
            tokio::select! {
                Some(shaken) = self.shaking.join_next() => {
                    if let Ok(Some(io)) = shaken {
                        return Some(io);
                    }
                }
                came = self.source.next(), if self.shaking.len() < HANDSHAKES => {
                    if let Some(io) = self.shake(came?) {
                        return Some(io);
                    }
                }
            }
        }
    }

    /// The server's role in TLS, beside others; without TLS it is the connection already.
    fn shake(&mut self, io: Io) -> Option<Io> {
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls.clone() {
            self.shaking.spawn(async move { tls.accept(io).await.ok() });
            return None;
        }
        Some(io)
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted")
            .field("id", &self.held.id)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Source {
    async fn next(&mut self) -> Option<Io> {
        match self {
            Self::Normal(broker, listener) => tokio::select! {
                biased;
                () = broker.closed() => None,
                socket = listener.accept() => Some(Io::new(socket)),
            },
            Self::Multiplexed(incoming) => incoming.next().await.map(Io::new),
        }
    }
}
