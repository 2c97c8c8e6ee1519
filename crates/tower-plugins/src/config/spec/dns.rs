//! `dns`, and addresses that are names to be looked up.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

#[cfg(feature = "dns")]
use http::uri::Authority;

#[cfg(feature = "dns")]
use super::Address;

/// A name that is looked up again and again, whose answers are endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct DnsName {
    /// The name. Of a service it begins with the service and its protocol: `_http._tcp.search.internal`.
    pub name: String,
    /// The port of its addresses; `None` for a service, whose records (SRV) have ports, priorities and weights.
    pub port: Option<u16>,
    /// Who is asked; `None` for the name servers of this system.
    pub server: Option<SocketAddr>,
    /// Whether the endpoints are reached over TLS.
    pub https: bool,
    /// The path prefix, without a trailing slash; often empty.
    pub prefix: String,
}

impl DnsName {
    /// What the endpoints are called, to them and in their certificates: the name, without those of service and
    /// protocol (RFC 6125), as answers of name servers prove nothing.
    #[must_use]
    pub fn host(&self) -> &str {
        let mut host = self.name.trim_end_matches('.');
        if self.port.is_none() {
            while let Some((_, rest)) = host.split_once('.').filter(|_| host.starts_with('_')) {
                host = rest;
            }
        }
        host
    }

    /// One of the endpoints.
    #[cfg(feature = "dns")]
    pub(crate) fn found(&self, port: u16, at: SocketAddr) -> Address {
        let host = self.host();
        let authority = match (self.https, port) {
            (false, 80) | (true, 443) => host.parse(),
            _ => format!("{host}:{port}").parse(),
        };
        // Both are fine: who made this name has looked.
        let authority = authority.unwrap_or_else(|_| Authority::from_static("localhost"));
        let prefix = self.prefix.clone();
        let origin = if self.https {
            Address::Https { authority, prefix }
        } else {
            Address::Http { authority, prefix }
        };
        Address::Resolved {
            origin: Box::new(origin),
            at,
        }
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.port {
            Some(_) => "dns://",
            None => "dns+srv://",
        })?;
        if let Some(server) = self.server {
            write!(f, "{server}")?;
        }
        write!(f, "/{}", self.name)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        Ok(())
    }
}

/// `dns`: how names of endpoints are looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct DnsSpec {
    /// The shortest time between two lookups, however soon an answer is out of date.
    pub min_ttl: Duration,
    /// The longest time between two lookups, however long an answer is valid.
    pub max_ttl: Duration,
    /// How long a lookup may take.
    pub timeout: Duration,
    /// How many endpoints of an answer are taken; of a longer one the first in order.
    pub max_endpoints: u32,
    /// Addresses of which kind.
    pub family: DnsFamily,
}

impl Default for DnsSpec {
    fn default() -> Self {
        Self {
            min_ttl: Duration::from_secs(5),
            max_ttl: Duration::from_secs(300),
            timeout: Duration::from_secs(5),
            max_endpoints: 128,
            family: DnsFamily::Any,
        }
    }
}

/// `dns.family`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DnsFamily {
    /// `any`: both, whichever there are.
    #[default]
    Any,
    /// `ipv4`.
    Ipv4,
    /// `ipv6`.
    Ipv6,
}
