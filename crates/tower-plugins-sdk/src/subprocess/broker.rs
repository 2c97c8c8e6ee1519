//! Calls to the host, and what the host calls.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tower_plugins_proto::go_plugin::broker::{Accepted, Io, Link, LinkError, TIMEOUT};

use crate::Services;
use crate::server::accept::Accept;
use crate::server::{Ending, Server};

/// How long an offer for one connection waits for that. A host looks for it as long as 5 s.
const ONCE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections to the host beside its own: go-plugin's `GRPCBroker`. It is cheap to clone, and all clones are the same.
///
/// The side that offers a connection tells its id to the other in a message of the program's own. It is had from
/// [`Plugin::broker`](crate::Plugin::broker) before the plugin serves, for its services to keep.
///
/// ```
/// use tower_plugins_sdk::{Broker, BrokerError};
/// use tower_plugins_sdk::tonic::transport::Channel;
///
/// /// A handler that was told an id asks the host.
/// async fn host(broker: &Broker, id: u32) -> Result<Channel, BrokerError> {
///     broker.connect(id).await
///     // CounterClient::new(channel)
/// }
/// # let _ = host;
/// ```
#[derive(Clone)]
pub struct Broker {
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Default)]
enum State {
    /// It does not serve yet.
    #[default]
    Early,
    /// Nobody is there to call.
    Absent,
    Hosted(Hosted),
}

#[derive(Clone)]
struct Hosted {
    link: Link,
    ending: Ending,
}

/// Why there is no connection to the host, or none from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// There is no host.
    #[error(
        "there is no host to connect to: this plugin listens for whoever comes, or does not serve yet"
    )]
    NoHost,
    /// The connection could not be made, or offered.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// What is there does not speak HTTP/2.
    #[error("the host's connection {id} does not speak gRPC: {source}")]
    Channel {
        /// Names the connection.
        id: u32,
        /// Why.
        source: tonic::transport::Error,
    },
}

impl Broker {
    /// Connects to what the host accepts as `id`: a channel for any client that tonic makes. It waits 5 s for the host to offer it.
    ///
    /// A channel whose connection was lost connects anew where all connections are on one socket; else each offer is for one.
    ///
    /// # Errors
    ///
    /// [`BrokerError`].
    pub async fn connect(&self, id: u32) -> Result<Channel, BrokerError> {
        let Hosted { link, .. } = self.hosted().await?;
        // The first is made here, so that its error is not lost in that of a channel.
        let mut first = Some(TokioIo::new(link.connect(id).await?));
        let connector = tower::service_fn(move |_| {
            let (first, link) = (first.take(), link.clone());
            async move {
                match first {
                    Some(io) => Ok(io),
                    None => link
                        .connect(id)
                        .await
                        .map(TokioIo::new)
                        .map_err(io::Error::other),
                }
            }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let connected = endpoint.connect_with_connector(connector).await;
        connected.map_err(|source| BrokerError::Channel { id, source })
    }

    /// Serves `services` to the host, under an id that is chosen, until the [`Offer`] is dropped or the plugin ends.
    ///
    /// A host takes an offer within 5 s of it, so it is to be told the id at once.
    ///
    /// ```
    /// use tower_plugins_sdk::{Broker, BrokerError, Services};
    ///
    /// async fn offer(broker: &Broker, services: Services) -> Result<(), BrokerError> {
    ///     let offer = broker.serve(services).await?;
    ///     // host.add(Add { server: offer.id(), … }).await
    ///     # let _ = offer.id();
    ///     Ok(())
    /// }
    /// # let _ = offer;
    /// ```
    ///
    /// # Errors
    ///
    /// [`BrokerError`].
    pub async fn serve(&self, services: Services) -> Result<Offer, BrokerError> {
        let hosted = self.hosted().await?;
        let accepted = hosted.link.accept().await?;
        Ok(hosted.serve(accepted, services))
    }

    /// As [`serve`](Self::serve), under an id that the program's protocol has fixed.
    ///
    /// # Errors
    ///
    /// [`BrokerError`].
    pub async fn serve_as(&self, id: u32, services: Services) -> Result<Offer, BrokerError> {
        let hosted = self.hosted().await?;
        let accepted = hosted.link.accept_as(id).await?;
        Ok(hosted.serve(accepted, services))
    }

    async fn hosted(&self) -> Result<Hosted, BrokerError> {
        let mut state = self.state.subscribe();
        let served = state.wait_for(|state| !matches!(state, State::Early));
        match timeout(TIMEOUT, served).await {
            Ok(Ok(state)) => match &*state {
                State::Hosted(hosted) => Ok(hosted.clone()),
                State::Early | State::Absent => Err(BrokerError::NoHost),
            },
            _ => Err(BrokerError::NoHost),
        }
    }

    pub(crate) fn set_absent(&self) {
        self.state.send_replace(State::Absent);
    }

    pub(super) fn set_hosted(&self, link: Link, ending: Ending) {
        self.state
            .send_replace(State::Hosted(Hosted { link, ending }));
    }
}

impl Hosted {
    fn serve(self, accepted: Accepted, services: Services) -> Offer {
        let id = accepted.id();
        // Ends before the plugin does, or with it.
        let dropped = self.ending.begin.child_token();
        let mut ending = self.ending;
        ending.begin = dropped.clone();
        let server = Server {
            router: services.into_router(),
            http1: false,
            tls: None,
            ending,
        };
        let (once, told) = watch::channel(false);
        tokio::spawn(server.serve(Offered {
            accepted,
            once: told,
            taken: false,
        }));
        Offer {
            id,
            dropped: Some(dropped),
            once,
        }
    }
}

impl Default for Broker {
    fn default() -> Self {
        let state = Arc::new(watch::Sender::default());
        Self { state }
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}

/// Services that the host can connect to by their [`id`](Self::id), until it is dropped: then calls under way are finished, and there
/// are no more.
///
/// A handler that tells the id in its answer has no place for it: [`once`](Self::once) and [`until_the_end`](Self::until_the_end) are for that.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Offer {
    id: u32,
    dropped: Option<CancellationToken>,
    once: watch::Sender<bool>,
}

impl Offer {
    /// What the host has to be told.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Serves one connection of the host's, as long as that is there; if there is none within 10 s, none.
    #[must_use]
    pub fn once(mut self) -> u32 {
        self.once.send_replace(true);
        self.dropped = None;
        self.id
    }

    /// Serves on until the plugin ends. There can be 1,024 of these; each has a socket, unless all connections are on one.
    #[must_use]
    pub fn until_the_end(mut self) -> u32 {
        self.dropped = None;
        self.id
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Some(dropped) = &self.dropped {
            dropped.cancel();
        }
    }
}

/// The connections to an offer.
struct Offered {
    accepted: Accepted,
    /// Whether there is to be one.
    once: watch::Receiver<bool>,
    /// Whether there was one.
    taken: bool,
}

impl Offered {
    async fn next(&mut self) -> Option<Io> {
        while !*self.once.borrow_and_update() {
            tokio::select! {
                io = self.accepted.next() => return io,
                // An offer that is gone says nothing any more.
                changed = self.once.changed() => if changed.is_err() { break },
            }
        }
        if !*self.once.borrow() {
            return self.accepted.next().await;
        }
        if self.taken {
            return None;
        }
        timeout(ONCE_TIMEOUT, self.accepted.next())
            .await
            .ok()
            .flatten()
    }
}

impl Accept for Offered {
    type Stream = Io;

    async fn accept(&mut self) -> io::Result<Option<Io>> {
        let io = self.next().await;
        self.taken |= io.is_some();
        Ok(io)
    }
}
