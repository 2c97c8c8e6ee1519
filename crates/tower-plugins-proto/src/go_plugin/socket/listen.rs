//! Who listens, and how.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpListener;

use super::super::{Address, AddressError, env};
use super::Socket;
#[cfg(unix)]
use super::unix::{Private, bind};

/// The pause after the system could not give a connection, for one: too many descriptors are open.
const PAUSE: Duration = Duration::from_millis(50);

/// How to listen: on a Unix socket in a folder, or on a port of 127.0.0.1.
///
/// The default is a Unix socket in the system's folder for temporary files, or, where there are none, any port from
/// [`env::DEFAULT_MIN_PORT`] to [`env::DEFAULT_MAX_PORT`].
///
/// ```
/// use tower_plugins_proto::go_plugin::socket::Listen;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # let _guard = runtime.enter();
/// let listener = Listen::tcp(10_000..=25_000).bind()?;
/// assert!(listener.address().to_string().starts_with("127.0.0.1:"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen(How);

#[derive(Debug, Clone, PartialEq, Eq)]
enum How {
    #[cfg(unix)]
    Unix {
        directory: Option<PathBuf>,
        group: Option<String>,
    },
    Tcp(RangeInclusive<u16>),
}

/// Why nobody listens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The path would be longer than the system takes.
    #[error(
        "a socket in {directory:?} would have a path of {length} bytes, and the system takes {limit}; choose a folder with a shorter \
         name"
    )]
    TooLong {
        /// Where it should be.
        directory: PathBuf,
        /// Of the whole path, in bytes.
        length: usize,
        /// The most, in bytes.
        limit: usize,
    },
    /// The path could not be told to the other side.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The system made no socket.
    #[error("cannot make a socket in {directory:?}: {source}")]
    Unix {
        /// Where it should be.
        directory: PathBuf,
        /// The system's.
        source: io::Error,
    },
    /// There is no such group, or the socket cannot be given to it.
    #[error(
        "cannot give the socket to the group {group:?}: {source}; it must be a number, or a name in /etc/group, and one of this \
         process's groups"
    )]
    Group {
        /// As it was said.
        group: String,
        /// The system's.
        source: io::Error,
    },
    /// What should be a port is none.
    #[error("the variable {name} is {value:?}, and must be a port: a number from 0 to 65535")]
    Port {
        /// [`env::MIN_PORT`] or [`env::MAX_PORT`].
        name: &'static str,
        /// What it is.
        value: String,
    },
    /// No port of those is free.
    #[error("cannot listen on 127.0.0.1 on a port from {min} to {max}: {source}")]
    Tcp {
        /// The lowest.
        min: u16,
        /// The highest.
        max: u16,
        /// Of the last that was tried.
        source: io::Error,
    },
}

impl Listen {
    /// On a Unix socket in the system's folder for temporary files.
    #[cfg(unix)]
    #[must_use]
    pub fn unix() -> Self {
        Self(How::Unix {
            directory: None,
            group: None,
        })
    }

    /// In `directory`, which must be there. No effect on TCP.
    #[cfg(unix)]
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        if let How::Unix { directory: own, .. } = &mut self.0 {
            *own = Some(directory.into());
        }
        self
    }

    /// For the members of `group`, too: a number, or a name in `/etc/group`. Default: for this user alone. No effect on TCP.
    #[cfg(unix)]
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        if let How::Unix { group: own, .. } = &mut self.0 {
            *own = Some(group.into());
        }
        self
    }

    /// On the first free one of `ports` of 127.0.0.1; from 0 to 0 is any.
    ///
    /// Every user of the machine can connect to it: without TLS nobody is kept out.
    #[must_use]
    pub fn tcp(ports: RangeInclusive<u16>) -> Self {
        Self(How::Tcp(ports))
    }

    /// As the host of this plugin asks for by [`env::UNIX_SOCKET_DIR`] and [`env::UNIX_SOCKET_GROUP`], or, where there are no Unix sockets, by
    /// [`env::MIN_PORT`] and [`env::MAX_PORT`].
    ///
    /// # Errors
    ///
    /// [`ListenError::Port`].
    pub fn from_env() -> Result<Self, ListenError> {
        Self::from_vars(|name| std::env::var_os(name))
    }

    #[cfg(unix)]
    fn from_vars(var: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<Self, ListenError> {
        let set = |name| var(name).filter(|value| !value.is_empty());
        Ok(Self(How::Unix {
            directory: set(env::UNIX_SOCKET_DIR).map(PathBuf::from),
            group: set(env::UNIX_SOCKET_GROUP).map(|group| group.to_string_lossy().into_owned()),
        }))
    }

    #[cfg(not(unix))]
    fn from_vars(var: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<Self, ListenError> {
        let port = |name: &'static str| {
            let value = var(name).unwrap_or_default();
            let value = value.to_string_lossy();
            match &*value {
                "" => Ok(0),
                text => text.parse().map_err(|_| ListenError::Port {
                    name,
                    value: text.to_owned(),
                }),
            }
        };
        Ok(Self::tcp(port(env::MIN_PORT)?..=port(env::MAX_PORT)?))
    }

    /// Listens, at once. A Unix socket has a name that nobody can foretell, and is never there for others, not even for a moment.
    ///
    /// # Errors
    ///
    /// [`ListenError`], but not [`Port`](ListenError::Port).
    ///
    /// # Panics
    ///
    /// Outside a runtime of tokio that drives sockets.
    pub fn bind(&self) -> Result<Listener, ListenError> {
        match &self.0 {
            #[cfg(unix)]
            How::Unix { directory, group } => {
                let directory = directory.clone().unwrap_or_else(std::env::temp_dir);
                let private = bind(&directory, group.as_deref())?;
                Ok(Listener {
                    address: Address::Unix(private.path().to_owned()),
                    kind: Kind::Unix(private),
                })
            }
            How::Tcp(ports) => {
                let (min, max) = (*ports.start(), *ports.end());
                let failed = |source| ListenError::Tcp { min, max, source };
                let listener = first_free(ports.clone()).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                Ok(Listener {
                    address: Address::Tcp(address),
                    kind: Kind::Tcp(listener),
                })
            }
        }
    }
}

impl Default for Listen {
    #[cfg(unix)]
    fn default() -> Self {
        Self::unix()
    }

    #[cfg(not(unix))]
    fn default() -> Self {
        Self::tcp(env::DEFAULT_MIN_PORT..=env::DEFAULT_MAX_PORT)
    }
}

fn first_free(ports: RangeInclusive<u16>) -> io::Result<TcpListener> {
    let mut last = io::ErrorKind::InvalidInput.into();
    for port in ports {
        match StdListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                return TcpListener::from_std(listener);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Accepts connections at an [`Address`], until it is dropped, which removes the socket's file.
pub struct Listener {
    address: Address,
    kind: Kind,
}

enum Kind {
    #[cfg(unix)]
    Unix(Private),
    Tcp(TcpListener),
}

impl Listener {
    /// What the other side has to be told.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The next connection.
    ///
    /// While the system gives none, as with too many open descriptors, it tries again every 50 ms. Dropping the future loses
    /// no connection.
    pub async fn accept(&self) -> Socket {
        loop {
            match poll_fn(|context| self.poll_accept(context)).await {
                Ok(socket) => return socket,
                // It went away before it was taken.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// The next connection, or why the system gives none now; another may be asked for.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Socket>> {
        match &self.kind {
            #[cfg(unix)]
            Kind::Unix(listener) => listener.poll_accept(context),
            Kind::Tcp(listener) => listener
                .poll_accept(context)
                .map_ok(|(stream, _)| stream.into()),
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.address).finish()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_variables_say_where() {
        let said = |said: &'static [(&str, &str)]| {
            let var = |name: &str| {
                let (_, value) = said.iter().find(|(key, _)| *key == name)?;
                Some((*value).into())
            };
            Listen::from_vars(var).unwrap()
        };
        assert_eq!(said(&[]), Listen::unix());
        let empty = [(env::UNIX_SOCKET_DIR, ""), (env::UNIX_SOCKET_GROUP, "")];
        assert_eq!(
            Listen::from_vars(|name| empty
                .iter()
                .find(|(key, _)| *key == name)
                .map(|_| "".into()))
            .unwrap(),
            Listen::unix()
        );
        assert_eq!(
            said(&[
                (env::UNIX_SOCKET_DIR, "/run/a"),
                (env::UNIX_SOCKET_GROUP, "staff")
            ]),
            Listen::unix().directory("/run/a").group("staff")
        );
    }
}
