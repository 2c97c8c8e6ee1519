//! Where one side listens for the other.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::shown::Shown;

/// Where one side listens for the other: the plugin for its host, and either side for a brokered connection.
///
/// On the wire it is two texts, [`network`](Self::network) and what [`Display`](fmt::Display) writes, which
/// [`parse`](Self::parse) reads back.
///
/// ```
/// use tower_plugins_proto::go_plugin::Address;
///
/// let address = Address::parse("unix", "/tmp/plugin42")?;
/// assert_eq!(address, Address::Unix("/tmp/plugin42".into()));
/// assert_eq!((address.network(), &*address.to_string()), ("unix", "/tmp/plugin42"));
///
/// let address = Address::parse("tcp", "127.0.0.1:1234")?;
/// assert_eq!(address, Address::Tcp(([127, 0, 0, 1], 1234).into()));
///
/// let error = Address::parse("udp", "127.0.0.1:1234").unwrap_err();
/// assert_eq!(error.to_string(), r#"the network is "udp"; it must be "unix" or "tcp""#);
/// # Ok::<(), tower_plugins_proto::go_plugin::AddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP socket.
    Tcp(SocketAddr),
}

/// What is no [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It is neither `unix` nor `tcp`.
    #[error("the network is {}; it must be \"unix\" or \"tcp\"", Shown(.0))]
    Network(String),
    /// There is no path, or a control character is in it.
    #[error("the address is {}; with the network \"unix\" it must be the path of a socket, without control characters", Shown(.0))]
    Unix(String),
    /// It is not `ip:port`, or the port is 0.
    #[error(
        "the address is {}; with the network \"tcp\" it must be ip:port, such as 127.0.0.1:1234",
        Shown(.0)
    )]
    Tcp(String),
    /// A path that no line can carry: it is not UTF-8, or has `|` or a control character in it.
    #[error(
        "the socket's path {0:?} cannot be said to the other side, as it is not UTF-8, or has `|` or a control character in it; \
         choose another folder"
    )]
    Unspeakable(PathBuf),
}

impl Address {
    /// Reads what is on the wire. For `tcp`, `localhost` and no host at all are 127.0.0.1; other names are not looked up.
    ///
    /// # Errors
    ///
    /// [`AddressError`]; never [`AddressError::Unspeakable`].
    pub fn parse(network: &str, address: &str) -> Result<Self, AddressError> {
        match network {
            "unix" if address.is_empty() || address.contains(char::is_control) => {
                Err(AddressError::Unix(address.to_owned()))
            }
            "unix" => Ok(Self::Unix(address.into())),
            "tcp" => tcp(address)
                .map(Self::Tcp)
                .ok_or_else(|| AddressError::Tcp(address.to_owned())),
            _ => Err(AddressError::Network(network.to_owned())),
        }
    }

    /// `unix` or `tcp`.
    #[must_use]
    pub fn network(&self) -> &'static str {
        match self {
            Self::Unix(_) => "unix",
            Self::Tcp(_) => "tcp",
        }
    }

    /// Whether it is the same once the handshake line has carried it.
    ///
    /// # Errors
    ///
    /// [`AddressError`] if not: no path, one that no line can carry, or port 0.
    pub fn check(&self) -> Result<(), AddressError> {
        match self {
            Self::Unix(path) => match path.to_str() {
                Some("") => Err(AddressError::Unix(String::new())),
                Some(text) if is_speakable(text) => Ok(()),
                _ => Err(AddressError::Unspeakable(path.clone())),
            },
            Self::Tcp(address) if address.port() == 0 => {
                Err(AddressError::Tcp(address.to_string()))
            }
            Self::Tcp(_) => Ok(()),
        }
    }

    /// The path, if it is a Unix socket.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp(_) => None,
        }
    }
}

/// As the wire has it, without the network.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

fn is_speakable(text: &str) -> bool {
    !text.contains(|c: char| c == '|' || c.is_control())
}

fn tcp(text: &str) -> Option<SocketAddr> {
    let address = match text.rsplit_once(':') {
        Some(("" | "localhost", port)) => {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?)
        }
        _ => text.parse().ok()?,
    };
    (address.port() != 0).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_tcp_are_ip_and_port() {
        let parse = |text| Address::parse("tcp", text);
        let local = |port| Ok(Address::Tcp(([127, 0, 0, 1], port).into()));
        for text in ["127.0.0.1:10", "localhost:10", ":10"] {
            assert_eq!(parse(text), local(10), "{text}");
        }
        assert_eq!(parse("[::1]:10").unwrap().to_string(), "[::1]:10");
        for text in [
            "",
            "127.0.0.1",
            "127.0.0.1:0",
            ":",
            "::1:x",
            "a.example:1",
            ":70000",
        ] {
            assert_eq!(parse(text), Err(AddressError::Tcp(text.to_owned())));
        }
    }

    #[test]
    fn a_path_that_would_not_come_over_is_refused() {
        for text in ["/tmp/a|b", "/tmp/a\nb"] {
            let address = Address::Unix(text.into());
            assert_eq!(address.check(), Err(AddressError::Unspeakable(text.into())));
        }
        assert!(Address::Unix("".into()).check().is_err());
        assert!(Address::Tcp(([127, 0, 0, 1], 0).into()).check().is_err());
        assert_eq!(Address::Unix(" /tmp/a b/ü ".into()).check(), Ok(()));
        assert!(Address::parse("unix", "").is_err());
        assert!(Address::parse("unix", "/a\0").is_err());
    }
}
