//! TLS: from what a spec says to a connection whose peer has proved who it is.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
#[cfg(all(feature = "subprocess", unix))]
use rustls::ServerConfig;
use rustls::client::{ClientConfig, Resumption};
use rustls::pki_types::ServerName;
#[cfg(all(feature = "subprocess", unix))]
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::{ProtocolVersion, RootCertStore, SupportedProtocolVersion, version};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Names;
use super::connect::Notes;
use super::expiry::{Expiry, Shown};
use super::tls_error::Told;
#[cfg(all(feature = "subprocess", unix))]
use crate::config::Identity;
use crate::config::pem::{certificates, certified_key, provider};
use crate::config::{FileContents, Protocol, TlsSpec, TlsVersion};

/// What is encrypted as one, of which a part is of no use to a peer (RFC 8446, section 5.1).
pub(super) const RECORD: usize = 16 << 10;

/// How TLS is begun with one endpoint.
///
/// Sessions are resumed within one of these, and so never under another spec or with another endpoint.
pub(in crate::transport) struct Tls {
    config: Arc<ClientConfig>,
    shared: Arc<Shared>,
    name: ServerName<'static>,
    told: Arc<Told>,
    expiry: Expiry,
}

/// What is made of a spec.
struct Shared {
    config: ClientConfig,
    /// What this side shows.
    shown: Option<Shown>,
}

impl Tls {
    /// As `spec` says, with the peer at `host`, which is a name or an address without brackets.
    pub(in crate::transport) fn new(
        spec: &TlsSpec,
        protocol: Protocol,
        host: &str,
        names: Names<'_>,
    ) -> Result<Self, String> {
        let name = match &spec.server_name {
            Some(name) => ServerName::try_from(name.clone()).map_err(|_| {
                format!("tls.server_name, {name:?}, is neither a host name nor an IP address")
            }),
            None => ServerName::try_from(host.to_owned()).map_err(|_| {
                "no certificate can have its host as a name: set tls.server_name".into()
            }),
        }?;
        let shared = shared(spec)?;
        Ok(Self {
            config: Arc::new(config(&shared.config, protocol)),
            shared,
            name,
            told: Arc::new(Told::new(spec, protocol)),
            expiry: Expiry::new(spec, names),
        })
    }

    /// The handshake, over a connection that was just opened.
    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        notes: &Arc<Notes>,
    ) -> io::Result<Secured> {
        Ok(Secured {
            io: TokioIo::new(self.over(stream).await?),
            told: Arc::clone(&self.told),
            notes: Arc::clone(notes),
            heard: false,
        })
    }

    /// The handshake, over any stream.
    pub(in crate::transport) async fn over<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if let Some(shown) = &self.shared.shown {
            self.expiry.shows(shown);
        }
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(self.name.clone(), stream).await;
        let stream = stream.map_err(|error| {
            self.expiry.failed(&error);
            self.told.handshake(error)
        })?;
        let session = stream.get_ref().1;
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        if let Some(certificate) = certificate {
            self.expiry.seen(certificate);
        }
        self.told
            .pinned(certificate.map(|certificate| &**certificate))?;
        self.told.negotiated(session.alpn_protocol())?;
        Ok(stream)
    }
}

/// For a plugin that is a process.
#[cfg(all(feature = "subprocess", unix))]
impl Tls {
    /// The same for connections that either side offers the other: who accepts is the server, and shows what this side shows as a client.
    ///
    /// Where keys are pinned this side does not connect, as nothing would look at them.
    pub(in crate::transport) fn of_link(
        &self,
        spec: &TlsSpec,
    ) -> Result<tower_plugins_proto::go_plugin::tls::Tls, String> {
        let tls = tower_plugins_proto::go_plugin::tls::Tls::default().name(self.name.clone());
        let tls = match spec.pins.is_empty() {
            true => tls.client(Arc::clone(&self.config)),
            false => tls,
        };
        Ok(match &spec.identity {
            Some(identity) => tls.server(Arc::new(server(spec, identity)?)),
            None => tls,
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The config for one endpoint: a copy of the one for its spec, with sessions of its own.
fn config(shared: &ClientConfig, protocol: Protocol) -> ClientConfig {
    let mut config = ClientConfig::clone(shared);
    config.alpn_protocols = vec![alpn(protocol).to_vec()];
    config.resumption = Resumption::default();
    config
}

/// What is made of `spec`, once however many endpoints have it: a bundle of roots takes milliseconds to
/// read. It is kept for as long as one of them is there.
fn shared(spec: &TlsSpec) -> Result<Arc<Shared>, String> {
    static MADE: LazyLock<Mutex<HashMap<TlsSpec, Weak<Shared>>>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = made.get(spec).and_then(Weak::upgrade) {
        return Ok(shared);
    }
    let shared = Arc::new(Shared {
        config: make(spec)?,
        shown: spec.identity.as_ref().and_then(Shown::new),
    });
    made.retain(|_, shared| shared.strong_count() > 0);
    made.insert(spec.clone(), Arc::downgrade(&shared));
    Ok(shared)
}

fn versions(spec: &TlsSpec) -> &'static [&'static SupportedProtocolVersion] {
    const TLS12: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
    const TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];
    match spec.min_version {
        TlsVersion::Tls12 => TLS12,
        TlsVersion::Tls13 => TLS13,
    }
}

fn make(spec: &TlsSpec) -> Result<ClientConfig, String> {
    let roots = match &spec.ca {
        Some(file) => Arc::new(roots(file)?),
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(spec))
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    Ok(match &spec.identity {
        Some(identity) => {
            let key = SingleCertAndKey::from(certified_key(identity)?);
            builder.with_client_cert_resolver(Arc::new(key))
        }
        None => builder.with_no_client_auth(),
    })
}

/// This side as a server, whose clients `spec.ca` vouches for, if there is one.
#[cfg(all(feature = "subprocess", unix))]
fn server(spec: &TlsSpec, identity: &Identity) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(spec))
        .map_err(|error| error.to_string())?;
    let builder = match &spec.ca {
        Some(file) => {
            let roots = Arc::new(roots(file)?);
            let clients = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let clients = clients.build().map_err(|error| error.to_string())?;
            builder.with_client_cert_verifier(clients)
        }
        None => builder.with_no_client_auth(),
    };
    let key = SingleCertAndKey::from(certified_key(identity)?);
    let mut config = builder.with_cert_resolver(Arc::new(key));
    config.alpn_protocols = vec![alpn(Protocol::Http2).to_vec()];
    Ok(config)
}

/// What HTTP is called in the handshake.
pub(super) const fn alpn(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Http1 => b"http/1.1",
        Protocol::Http2 => b"h2",
    }
}

fn roots(file: &FileContents) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(file)?);
    if added == 0 {
        let path = file.path();
        return Err(format!("no certificate in {path:?} can vouch for another"));
    }
    Ok(roots)
}

/// The roots of this machine, which are read once: a program lives as long with those it began with.
fn system_roots() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.iter().map(|error| format!(": {error}"));
        let why = why.collect::<String>();
        return Err(format!(
            "this system has no root certificates{why}; set tls.ca_file to those of the issuer"
        ));
    }
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(roots))))
}

/// A connection within which everything is encrypted.
pub(super) struct Secured {
    io: TokioIo<TlsStream<TcpStream>>,
    told: Arc<Told>,
    notes: Arc<Notes>,
    /// Whether anything of HTTP has come.
    heard: bool,
}

impl Secured {
    /// Takes in what the socket has, whatever the runtime knows of it: the next read finds it.
    pub(super) fn take_in(&mut self) -> io::Result<()> {
        let (stream, session) = self.io.inner_mut().get_mut();
        let socket = SockRef::from(&*stream);
        while session.wants_read() {
            match session.read_tls(&mut &*socket) {
                Ok(0) => break,
                Ok(_) => {
                    let taken = session.process_new_packets();
                    taken.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// `error`, in words that help; and a note of it if it is that this side was turned away.
    ///
    /// Over TLS 1.3 this side's part of the handshake is over before the peer has seen its certificate.
    fn explain(&self, error: io::Error) -> io::Error {
        let (error, turned_away) = self.told.later(error);
        let version = self.io.inner().get_ref().1.protocol_version();
        // Over TLS 1.2 it was accepted within the handshake, and may have read a request since.
        let is_late = version == Some(ProtocolVersion::TLSv1_3);
        if is_late && !self.heard {
            if turned_away {
                self.notes.turned_away(error.to_string());
            } else if let Some(hint) = self.told.why_closed(&error) {
                self.notes.closed_unheard(hint);
            }
        }
        error
    }

    /// `error` of a write; or why the peer closed, which it may have said before.
    fn explain_write(&mut self, error: io::Error) -> io::Error {
        match self.take_in() {
            Err(said) if said.kind() == io::ErrorKind::InvalidData => self.explain(said),
            _ => self.explain(error),
        }
    }
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured")
            .field("socket", self.io.inner().get_ref().0)
            .finish_non_exhaustive()
    }
}

impl Read for Secured {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.notes.is_to_ask()
            && let Err(error) = this.take_in()
        {
            return Poll::Ready(Err(this.explain(error)));
        }
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        match read {
            Poll::Ready(Ok(())) => this.heard = true,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(this.explain(error))),
            Poll::Pending => {}
        }
        read
    }
}

impl Write for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        written.map_err(|error| self.explain_write(error))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        flushed.map_err(|error| self.explain_write(error))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        written.map_err(|error| self.explain_write(error))
    }
}
