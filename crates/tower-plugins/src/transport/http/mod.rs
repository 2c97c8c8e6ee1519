//! HTTP/1.1 and HTTP/2, over TCP, over TLS and over Unix sockets.

mod body;
mod connect;
mod cut;
mod dial;
pub(super) mod error;
mod exchange;
#[cfg(feature = "tls")]
mod expiry;
mod gunzip;
mod h1;
mod h2;
mod h2_connect;
mod h2_task;
mod head;
#[cfg(all(feature = "subprocess", unix))]
pub(super) mod open;
mod pool;
mod proxy;
#[cfg(feature = "tls")]
pub(super) mod tls;
#[cfg(feature = "tls")]
mod tls_error;
mod upload;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::header::HeaderValue;
use ::http::uri::{Authority, PathAndQuery, Scheme};
use ::http::{Request, Response};
use tower_plugins_layers::BoxError;
use tower_service::Service;

#[cfg(unix)]
use self::connect::{Target, bare_host};
use self::head::Origin;
use self::pool::Endpoint;
use self::proxy::Proxy;
use super::{ProbeFuture, ResponseFuture, Transport};
use crate::Body;
use crate::config::{Address, ConnectionSpec, Protocol, TlsSpec};

/// One endpoint over HTTP, with its connections.
///
/// Connections are opened when a call needs one, within a tokio runtime, and close when the
/// endpoint is dropped and the last response body with it.
///
/// # Connections
///
/// Over HTTP/1.1 a call has a connection to itself, the one that came back last or a new one. At
/// most [`max_connections`](ConnectionSpec::max_connections) are open, those being opened
/// included; calls beyond wait their turn, first come, first served, for at most
/// [`connection_timeout`](ConnectionSpec::connection_timeout). A connection comes back when the
/// response's body has been read to its end. Dropping the call or the body before closes it.
///
/// Over HTTP/2 calls share connections: each takes as many at a time as the peer says, and at most
/// [`max_streams`](ConnectionSpec::max_streams). The first with room gets the next call. When all are full
/// another is opened, one at a time, until there are `max_connections`; calls beyond wait as above. One that
/// closes, or whose peer says that it is going away, gets no further call and counts no more. Dropping the
/// call or the response's body resets the stream, and ends a request body that is still being sent.
///
/// A connection without a call is closed after [`idle_timeout`](ConnectionSpec::idle_timeout), or
/// at once without [`keep_alive`](ConnectionSpec::keep_alive) and beyond
/// [`max_idle_connections`](ConnectionSpec::max_idle_connections). One that is older than
/// [`max_age`](ConnectionSpec::max_age), or up to a tenth less, gets no further call and closes when those on
/// it are over.
///
/// # TLS
///
/// At an `https` address, with the feature `tls`. The endpoint proves with a certificate that it is
/// [`server_name`](TlsSpec::server_name), or else the host of the address, a name or an IP address;
/// [`ca`](TlsSpec::ca) vouches for it, or else the roots of this system, which are read once in the
/// life of the program. An [`identity`](TlsSpec::identity) is shown if the endpoint asks for one. The
/// protocol is the one of [`ConnectionSpec::protocol`], agreed on by ALPN: an endpoint that does not
/// agree to HTTP/2 is an error, and one that names no protocol speaks HTTP/1.1. The handshake is
/// within `connection_timeout`. The cryptography is aws-lc-rs's, whatever provider the program has
/// installed, and sessions are resumed within one `Http` only.
///
/// # Requests and responses
///
/// The endpoint's authority, `localhost` for a Unix socket, takes the place of the request's, in
/// the URI and in `host`; its prefix is put before the request's path. Headers that are about one connection are removed, from
/// requests and from responses. No redirect is followed.
///
/// A request over TCP that says nothing of an `accept-encoding`, a `range` or gRPC asks for gzip, unless
/// [`disable_compression`](ConnectionSpec::disable_compression); what comes of that is decompressed as it is
/// read, without `content-encoding` and `content-length`.
///
/// # Errors
///
/// - [`Unsent`](tower_plugins_layers::Unsent) with [`Reason::ConnectFailed`] if no connection
///   could be opened, TLS included, with [`Reason::PoolExhausted`] if none was free in time, and with
///   [`Reason::ConnectionLost`] if every connection closed before anything of the request was sent. The
///   request is in it, but not if more than 64 KiB of its body had been read, or if a peer refused this side's
///   certificate, or its absence, when the request was on its way. Also if an HTTP/2 peer had it and turned it away: it is in it if no more than 64 KiB
///   of its body had been read.
/// - [`Reason::ConnectionLost`] if the connection or stream broke later, in the body too.
/// - [`Reason::ResponseTooLarge`] if the head or body is larger than allowed, in the body too. A
///   head that is too large over HTTP/2 is told as a broken stream, however.
/// - [`Reason::RequestBroken`] if the request's own body failed, in the response's body too.
///
/// A request that could not be sent because an idle connection had just been closed is sent again
/// on another, and in the end on a new one. So is one that an HTTP/2 peer did not take because it is going
/// away. For that its extensions stay here: hyper does not see them.
///
/// [`Reason::ConnectFailed`]: tower_plugins_layers::Reason::ConnectFailed
/// [`Reason::PoolExhausted`]: tower_plugins_layers::Reason::PoolExhausted
/// [`Reason::ConnectionLost`]: tower_plugins_layers::Reason::ConnectionLost
/// [`Reason::ResponseTooLarge`]: tower_plugins_layers::Reason::ResponseTooLarge
/// [`Reason::RequestBroken`]: tower_plugins_layers::Reason::RequestBroken
///
/// ```no_run
/// use http::Request;
/// use tower_plugins::Body;
/// use tower_plugins::config::{Address, ConnectionSpec};
/// use tower_plugins::transport::{Http, Transport};
///
/// # async fn example() -> Result<(), tower_plugins_layers::BoxError> {
/// let address = Address::Http { authority: "127.0.0.1:8080".parse()?, prefix: String::new() };
/// let http = Http::new(&address, &ConnectionSpec::default())?;
/// let response = http.call(Request::get("/status").body(Body::empty())?).await?;
/// # Ok(()) }
/// ```
pub struct Http(Connections);

enum Connections {
    H1(Arc<h1::Connections>),
    H2(Arc<h2::Connections>),
}

/// An address that HTTP cannot reach.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be reached over HTTP: {problem}")]
pub struct InvalidAddress {
    address: String,
    problem: Cow<'static, str>,
}

impl Http {
    /// The endpoint at `address`, with the default TLS if it is an `https` one. No connection is
    /// opened yet.
    ///
    /// # Errors
    /// As [`with_tls`](Self::with_tls).
    pub fn new(address: &Address, connection: &ConnectionSpec) -> Result<Self, InvalidAddress> {
        Self::with_tls(address, connection, &TlsSpec::default())
    }

    /// The endpoint at `address`, with `tls` if it is an `https` one. No connection is opened yet.
    ///
    /// The first one that needs the roots of this system reads them, which blocks for some
    /// milliseconds.
    ///
    /// # Errors
    /// [`InvalidAddress`] if `address` is in-process, or its prefix is not a path; at an `https`
    /// address also if the feature `tls` is off, if a certificate or key in `tls` cannot be used, if
    /// the system has no roots and `tls` none of its own, or if a name is not one.
    ///
    /// ```no_run
    /// use tower_plugins::config::{Address, ConnectionSpec, FileContents, TlsSpec};
    /// use tower_plugins::transport::Http;
    ///
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut tls = TlsSpec::default();
    /// tls.ca = Some(FileContents::read("/etc/search/ca.pem")?);
    /// let address = Address::https("https://search.internal")?;
    /// let http = Http::with_tls(&address, &ConnectionSpec::default(), &tls)?;
    /// # Ok(()) }
    /// ```
    pub fn with_tls(
        address: &Address,
        connection: &ConnectionSpec,
        tls: &TlsSpec,
    ) -> Result<Self, InvalidAddress> {
        Self::of(None, address, connection, tls)
    }

    /// The same, of the plugin of this name, which stands in what is measured.
    pub(crate) fn of(
        plugin: Option<&str>,
        address: &Address,
        connection: &ConnectionSpec,
        tls: &TlsSpec,
    ) -> Result<Self, InvalidAddress> {
        let invalid = |problem: Cow<'static, str>| InvalidAddress {
            address: address.shown(),
            problem,
        };
        let names = Names {
            plugin,
            endpoint: &address.shown(),
        };
        let (target, origin) = find(address, connection, tls, names).map_err(invalid)?;
        let endpoint = Endpoint {
            name: address.shown().into(),
            target,
            origin,
            spec: connection.clone(),
        };
        Ok(Self(match connection.protocol {
            Protocol::Http1 => Connections::H1(Arc::new(h1::Connections::new(endpoint))),
            Protocol::Http2 => Connections::H2(Arc::new(h2::Connections::new(endpoint))),
        }))
    }

    fn endpoint(&self) -> &Endpoint {
        match &self.0 {
            Connections::H1(pool) => pool::Pool::endpoint(&**pool),
            Connections::H2(pool) => pool::Pool::endpoint(&**pool),
        }
    }
}

/// Whose connections they are, for what is told of them.
#[cfg_attr(not(feature = "tls"), expect(dead_code))]
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) plugin: Option<&'a str>,
    pub(super) endpoint: &'a str,
}

/// Where `address` is, and how requests to it are addressed.
#[cfg_attr(not(feature = "tls"), allow(clippy::only_used_in_recursion))]
fn find(
    address: &Address,
    connection: &ConnectionSpec,
    tls: &TlsSpec,
    names: Names<'_>,
) -> Result<(Target, Origin), Cow<'static, str>> {
    let proxy = |scheme: &Scheme, authority: &Authority| {
        let variable = |name: &str| std::env::var(name).ok();
        Proxy::on_the_way(connection, scheme, authority, variable)
    };
    let (target, scheme, authority, prefix) = match address {
        Address::Http { authority, prefix } => {
            let target = Target::tcp(authority, proxy(&Scheme::HTTP, authority)?);
            (target, Scheme::HTTP, without_zone(authority)?, prefix)
        }
        #[cfg(feature = "tls")]
        Address::Https { authority, prefix } => {
            let plain = without_zone(authority)?;
            let tls = tls::Tls::new(tls, connection.protocol, bare_host(&plain), names)?;
            let target = Target::tls(authority, proxy(&Scheme::HTTPS, authority)?, tls);
            (target, Scheme::HTTPS, plain, prefix)
        }
        #[cfg(not(feature = "tls"))]
        Address::Https { .. } => {
            let _ = tls;
            return Err("it needs the feature `tls` of tower-plugins, which is off".into());
        }
        #[cfg(unix)]
        Address::Unix { path, prefix } => {
            let localhost = Authority::from_static("localhost");
            let target = Target::Unix(path.clone());
            (target, Scheme::HTTP, localhost, prefix)
        }
        #[cfg(not(unix))]
        Address::Unix { .. } => return Err("this system has no Unix sockets".into()),
        Address::Resolved { origin, at } => {
            let (target, origin) = find(origin, connection, tls, names)?;
            return Ok((target.at(*at), origin));
        }
        Address::UnixJson { .. } => return Err("it takes lines of JSON".into()),
        Address::ExecJson { .. } | Address::Subprocess { .. } | Address::Attached(_) => {
            return Err("it is a process".into());
        }
        Address::InProcess { .. } => return Err("it is a service of this program".into()),
        Address::Custom { .. } => return Err("it has a transport of the program's own".into()),
        Address::Dns(_) | Address::Source { .. } => {
            return Err("it is not the address of one endpoint".into());
        }
    };
    let prefix = prefix.trim_end_matches('/');
    let is_path = prefix.starts_with('/') && PathAndQuery::try_from(prefix).is_ok();
    if !(prefix.is_empty() || is_path) || prefix.contains(['?', '#']) {
        return Err("its prefix is not a path, such as /v1".into());
    }
    let authority = without_credentials(authority)?;
    let host = HeaderValue::try_from(authority.as_str()).map_err(|_| "its host is not a header")?;
    let origin = Origin {
        scheme,
        authority,
        host,
        prefix: prefix.to_owned(),
        protocol: connection.protocol,
        keep_alive: connection.keep_alive,
        gzip: !(connection.disable_compression || target.is_local()),
    };
    Ok((target, origin))
}

/// `authority` without credentials, which are no part of `host` (RFC 9110, section 7.2), nor of `:authority`
/// (RFC 9113, section 8.3.1).
fn without_credentials(authority: Authority) -> Result<Authority, Cow<'static, str>> {
    match authority.as_str().rsplit_once('@') {
        Some((_, plain)) => plain.parse().map_err(|_| "its host is not a host".into()),
        None => Ok(authority),
    }
}

/// `authority` without the zone of its IPv6 address, which means something on this machine only
/// (RFC 6874).
fn without_zone(authority: &Authority) -> Result<Authority, Cow<'static, str>> {
    let host = bare_host(authority);
    let Some((address, zone)) = host.split_once("%25") else {
        return Ok(authority.clone());
    };
    if address.is_empty() || zone.is_empty() {
        return Err("its host is not an address with a zone, such as [fe80::1%25eth0]".into());
    }
    let plain = authority.as_str().replacen(host, address, 1);
    plain
        .parse()
        .map_err(|_| "its host is not an address".into())
}

impl Transport for Http {
    fn call(&self, request: Request<Body>) -> ResponseFuture<'_> {
        match &self.0 {
            Connections::H1(pool) => exchange::call(pool, request),
            Connections::H2(pool) => exchange::call(pool, request),
        }
    }

    /// Opens a connection beside those of the calls, TLS included, and closes it.
    fn probe(&self) -> ProbeFuture<'_> {
        let endpoint = self.endpoint();
        Box::pin(async {
            let opened = endpoint.target.connect(endpoint.spec.connection_timeout);
            match opened.await {
                Ok(_) => Ok(()),
                Err(error) => Err(error::connect_failed(&endpoint.name, error).into()),
            }
        })
    }
}

impl<'a> Service<Request<Body>> for &'a Http {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = ResponseFuture<'a>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture<'a> {
        Transport::call(*self, request)
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = self.endpoint();
        f.debug_struct("Http")
            .field("address", &endpoint.name)
            .field("protocol", &endpoint.origin.protocol)
            .finish_non_exhaustive()
    }
}
