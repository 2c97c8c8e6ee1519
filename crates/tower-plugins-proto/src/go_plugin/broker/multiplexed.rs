//! All connections on one socket.

use std::fmt;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::compat::TokioAsyncReadCompatExt;
use tonic::codegen::tokio_stream::Stream;

use super::connection::Connection;
use super::session::{Open, Session};
use super::{Broker, BrokerError, TIMEOUT};

/// Requests that wait; beyond, who asks waits.
const REQUESTS: usize = 64;

/// Streams of one connection that nobody took yet. What comes beyond is refused.
const ACCEPTED: usize = 16;

/// All connections of a host and its plugin on one socket: yamux, with go-plugin's knocks. It is cheap to clone.
///
/// The host opens the first connection with [`open`](Self::open); the plugin finds it in the [`Incoming`] that [`plugin`](Self::plugin)
/// gives. On it the [`Broker`]'s stream must run, for a stream on the socket does not say which connection it is: before it, who dials
/// knocks, and who accepts answers. So all dials of one side are made one after the other.
///
/// With certificates, TLS is spoken on each connection, not on the socket; who dials is its client.
///
/// When the last clone is dropped, all connections end with it.
///
/// ```
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use tower_plugins_proto::go_plugin::broker::{Broker, Multiplexed};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let (near, far) = tokio::io::duplex(1 << 16);
/// let (host, session) = Multiplexed::host(near, &Broker::new());
/// tokio::spawn(session);
/// let (plugin, mut incoming, session) = Multiplexed::plugin(far, &Broker::new());
/// tokio::spawn(session);
///
/// let mut connection = host.open().await?;
/// connection.write_all(b"hello").await?;
/// let mut accepted = incoming.next().await.ok_or("the socket was closed")?;
/// let mut heard = [0; 5];
/// accepted.read_exact(&mut heard).await?;
/// assert_eq!(&heard, b"hello");
/// # drop(plugin);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Multiplexed {
    broker: Broker,
    opens: mpsc::Sender<Open>,
    dials: mpsc::Sender<Dial>,
}

/// What carries the bytes of all connections: to be spawned. It ends with the socket, when it fails, or when the last
/// [`Multiplexed`] is dropped, after at most [`TIMEOUT`]. Dropping it ends all connections.
pub type Driver = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

struct Dial {
    id: u32,
    reply: oneshot::Sender<Result<Connection, BrokerError>>,
}

impl Multiplexed {
    /// The host's end of `socket`, whose other connections are asked for by `broker`.
    pub fn host<T>(socket: T, broker: &Broker) -> (Self, Driver)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::new(socket, broker, yamux::Mode::Client, None)
    }

    /// The plugin's end of `socket`, whose other connections are asked for by `broker`. What nobody knocked for is in the [`Incoming`]: the
    /// host's first connection, and those by which it replaces that.
    pub fn plugin<T>(socket: T, broker: &Broker) -> (Self, Incoming, Driver)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (main, connections) = mpsc::channel(ACCEPTED);
        let (this, driver) = Self::new(socket, broker, yamux::Mode::Server, Some(main));
        let accepted = None;
        let incoming = Incoming {
            accepted,
            connections,
        };
        (this, incoming, driver)
    }

    fn new<T>(
        socket: T,
        broker: &Broker,
        mode: yamux::Mode,
        main: Option<mpsc::Sender<Connection>>,
    ) -> (Self, Driver)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (opens, requests) = mpsc::channel(REQUESTS);
        let (dials, dialed) = mpsc::channel(REQUESTS);
        let connection = yamux::Connection::new(socket.compat(), yamux::Config::default(), mode);
        let route = {
            let broker = broker.clone();
            move |stream| broker.route(stream, main.as_ref())
        };
        let session = Session::new(connection, requests, route);
        let dialing = dial_each(dialed, broker.clone(), opens.clone());
        let ended = Ended(broker.clone());
        let driver = Box::pin(async move {
            let _ended = ended;
            drive(session, dialing).await
        });
        let broker = broker.clone();
        let this = Self {
            broker,
            opens,
            dials,
        };
        (this, driver)
    }

    pub(super) fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Opens a connection that nobody knocks for: the host's first.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Opens`] if the other side does not take it within [`TIMEOUT`]; [`BrokerError::Closed`] if the socket is.
    pub async fn open(&self) -> Result<Connection, BrokerError> {
        open(&self.opens).await
    }

    /// Connects to what the other side accepts as `id`. It knocks, and waits [`TIMEOUT`] for the answer, after those who dialed before.
    ///
    /// Whoever knocked must open a stream: if this is dropped, that is still done, and the connection is closed then.
    ///
    /// # Errors
    ///
    /// [`BrokerError::TimedOut`] if nobody accepts `id`, [`BrokerError::Refused`], [`BrokerError::Opens`], and
    /// [`BrokerError::Closed`] if the socket or the broker is.
    pub async fn dial(&self, id: u32) -> Result<Connection, BrokerError> {
        let (reply, connection) = oneshot::channel();
        let dial = Dial { id, reply };
        self.dials
            .send(dial)
            .await
            .map_err(|_| BrokerError::Closed)?;
        connection.await.map_err(|_| BrokerError::Closed)?
    }

    /// Accepts connections as `id`, as many as the other side dials, until it is dropped.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Twice`] if it is accepted already, [`BrokerError::Full`] and [`BrokerError::Closed`].
    pub fn accept(&self, id: u32) -> Result<Incoming, BrokerError> {
        if self.opens.is_closed() {
            return Err(BrokerError::Closed);
        }
        let (acceptor, connections) = mpsc::channel(ACCEPTED);
        self.broker.accept(id, acceptor)?;
        Ok(Incoming {
            accepted: Some((self.broker.clone(), id)),
            connections,
        })
    }
}

impl fmt::Debug for Multiplexed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multiplexed")
            .field("closed", &self.opens.is_closed())
            .finish_non_exhaustive()
    }
}

/// The connections that the other side opens. It ends with the socket.
#[derive(Debug)]
pub struct Incoming {
    /// As what they are dialed; none for those that nobody knocks for.
    accepted: Option<(Broker, u32)>,
    connections: mpsc::Receiver<Connection>,
}

impl Incoming {
    /// The next connection; `None` when the socket, or the broker, is closed.
    pub async fn next(&mut self) -> Option<Connection> {
        self.connections.recv().await
    }
}

impl Stream for Incoming {
    type Item = Connection;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Connection>> {
        self.connections.poll_recv(context)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some((broker, id)) = &self.accepted {
            broker.stop(*id);
        }
    }
}

/// Ends whoever accepts, with the socket.
struct Ended(Broker);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.stop_all();
    }
}

async fn drive<T, R>(
    mut session: Session<T, R>,
    dialing: impl Future<Output = ()>,
) -> io::Result<()>
where
    Session<T, R>: Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
    R: FnMut(Connection),
{
    let ended = tokio::select! {
        ended = poll_fn(|context| session.poll(context)) => ended,
        // It holds a sender of the session's requests, and lets go of it here.
        () = async { dialing.await; pending().await } => Ok(()),
    };
    ended?;
    match timeout(TIMEOUT, poll_fn(|context| session.poll_close(context))).await {
        Ok(closed) => closed,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Dials one connection after the other: a stream is known by the knock before it.
async fn dial_each(mut dials: mpsc::Receiver<Dial>, broker: Broker, opens: mpsc::Sender<Open>) {
    while let Some(Dial { id, reply }) = dials.recv().await {
        if reply.is_closed() {
            continue;
        }
        let dialed = match broker.knock(id).await {
            Ok(()) => open(&opens).await,
            Err(error) => Err(error),
        };
        // Who gave up gets no connection, which closes it.
        drop(reply.send(dialed));
    }
}

async fn open(opens: &mpsc::Sender<Open>) -> Result<Connection, BrokerError> {
    let (reply, opened) = oneshot::channel();
    let asked = opens.send(reply).await;
    asked.map_err(|_| BrokerError::Closed)?;
    match timeout(TIMEOUT, opened).await {
        Ok(opened) => opened.map_err(|_| BrokerError::Closed),
        Err(_) => Err(BrokerError::Opens),
    }
}
