//! As a server that no host started.

use tokio::net::TcpListener;

use crate::about::{Reported, add_reflection};
#[cfg(unix)]
use crate::server::accept::UnixSocket;
use crate::server::{Ending, Limits, Server};
use crate::{Error, Listen, Plugin};

/// Where connections come from: a TCP socket, or a Unix one, that listens.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    /// Its file is the program's to remove.
    #[cfg(unix)]
    Unix(tokio::net::UnixListener),
    #[cfg(unix)]
    Own(UnixSocket),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self(Kind::Tcp(listener))
    }
}

#[cfg(unix)]
impl From<tokio::net::UnixListener> for Listener {
    fn from(listener: tokio::net::UnixListener) -> Self {
        Self(Kind::Unix(listener))
    }
}

impl Listener {
    /// Listens at `listen`. The file of a Unix socket is removed with it; one that is left of a process that was killed is replaced.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`].
    pub async fn bind(listen: &Listen) -> Result<Self, Error> {
        match listen {
            Listen::Http(authority) | Listen::Https(authority) => {
                let bound = TcpListener::bind(authority).await;
                bound.map(Self::from).map_err(Error::listen(listen))
            }
            #[cfg(unix)]
            Listen::Unix(path) => {
                let bound = UnixSocket::bind(path).await;
                let own = bound.map_err(Error::listen(listen))?;
                Ok(Self(Kind::Own(own)))
            }
            #[cfg(not(unix))]
            Listen::Unix(_) => {
                let none = std::io::ErrorKind::Unsupported.into();
                Err(Error::listen(listen)(none))
            }
        }
    }

    /// Where it listens, with the port that it got.
    pub(crate) fn shown(&self, listen: &Listen) -> String {
        match (listen, &self.0) {
            (Listen::Https(_), Kind::Tcp(listener)) => match listener.local_addr() {
                Ok(address) => format!("https://{address}"),
                Err(_) => listen.to_string(),
            },
            (_, Kind::Tcp(listener)) => match listener.local_addr() {
                Ok(address) => format!("http://{address}"),
                Err(_) => listen.to_string(),
            },
            #[cfg(unix)]
            _ => listen.to_string(),
        }
    }
}

pub(crate) async fn serve(
    plugin: Plugin,
    listener: Listener,
    told: impl Future<Output = ()>,
) -> Result<(), Error> {
    let plugin = plugin.highest();
    #[cfg(feature = "subprocess")]
    plugin.broker.set_absent();
    let (services, health) = Reported::add(plugin.services, plugin.health, &[]).await;
    let services = add_reflection(services)?;
    let ending = Ending::default();
    let server = Server {
        router: services.into_router(),
        http1: true,
        #[cfg(feature = "tls")]
        tls: plugin
            .tls
            .as_ref()
            .map(|config| crate::server::tls::with_protocols(config, true).into()),
        ending: ending.clone(),
    };
    let serving = async {
        match listener.0 {
            Kind::Tcp(listener) => server.serve(listener).await,
            #[cfg(unix)]
            Kind::Unix(listener) => server.serve(listener).await,
            #[cfg(unix)]
            Kind::Own(listener) => server.serve(listener).await,
        }
    };
    let limits = Limits {
        drain_timeout: plugin.drain_timeout,
        on_shutdown: plugin.on_shutdown,
    };
    let nothing = std::future::ready(());
    ending.run(serving, told, &health, limits, nothing).await;
    Ok(())
}
