//! From the start of a process to its session.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use ::http::uri::Scheme;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;
use tower_plugins_layers::BoxError;
use tower_plugins_proto::go_plugin::broker::{Broker, Link, Multiplexed};
use tower_plugins_proto::go_plugin::tls::{self, Identity};
use tower_plugins_proto::go_plugin::{Handshake, HandshakeLine, env, offer_versions};

use super::Parts;
use super::output::{Pump, Sink};
use super::reach::{Encryption, Reach, Way, connect};
use super::session::{self, Channel, Session};
use super::sockets::Sockets;
use super::{handshake, lasting};
use crate::config::{ConnectionSpec, GoPluginSpec, PluginTls, Protocol};
use crate::transport::Http;
use crate::transport::http::Names;
use crate::transport::http::tls::Tls;
use crate::transport::subprocess::{Dialect, Logs, Start, Stdin, Streams, Tail, Unfit, drain};
use crate::transport::task::Task;

/// HashiCorp's go-plugin, from the side of the host.
pub(super) struct GoPluginDialect {
    plugin: Arc<str>,
    name: Arc<str>,
    executable: PathBuf,
    spec: GoPluginSpec,
    handshake: Handshake,
    connection: ConnectionSpec,
    /// There with [`PluginTls::Static`]: of the connections to the plugin, and of those that either side offers.
    tls: Option<(Arc<Tls>, tls::Tls)>,
    sink: Option<Sink>,
}

/// What is there until the process has ended.
struct Kept {
    _sockets: Arc<Sockets>,
    /// Reads what it writes to its standard output.
    stdout: OnceLock<Task>,
}

impl Kept {
    fn reads(&self, stdout: Task) {
        let _ = self.stdout.set(stdout);
    }
}

/// What one start needs when the process is there.
pub(super) struct Prepared {
    sockets: Arc<Sockets>,
    kept: Arc<Kept>,
    /// There with [`PluginTls::Auto`].
    identity: Option<Identity>,
}

impl GoPluginDialect {
    pub(super) fn new(
        parts: Parts<'_>,
        name: Arc<str>,
        executable: PathBuf,
        sink: Option<Sink>,
    ) -> Result<Self, String> {
        let spec = parts.go_plugin;
        let handshake = Handshake::new(&*spec.cookie_key, &*spec.cookie_value);
        let handshake = handshake.map_err(|error| error.to_string())?;
        let tls = match spec.tls {
            PluginTls::Static => {
                let names = Names {
                    plugin: Some(parts.plugin),
                    endpoint: &name,
                };
                let tls = Tls::new(parts.tls, Protocol::Http2, "localhost", names)?;
                let of_link = tls.of_link(parts.tls)?;
                Some((Arc::new(tls), of_link))
            }
            PluginTls::Auto | PluginTls::Off => None,
        };
        Ok(Self {
            plugin: parts.plugin.into(),
            name,
            executable,
            spec: spec.clone(),
            handshake,
            connection: lasting(parts.connection),
            tls,
            sink,
        })
    }

    fn environment(&self, prepared: &Prepared) -> Vec<(OsString, OsString)> {
        let spec = &self.spec;
        let versions = offer_versions(spec.protocol_versions.iter().copied());
        let mut all: Vec<(OsString, OsString)> = vec![
            (
                self.handshake.cookie_key().into(),
                self.handshake.cookie_value().into(),
            ),
            (env::PROTOCOL_VERSIONS.into(), versions.into()),
            (env::MIN_PORT.into(), spec.min_port.to_string().into()),
            (env::MAX_PORT.into(), spec.max_port.to_string().into()),
            (
                env::UNIX_SOCKET_DIR.into(),
                prepared.sockets.directory().into(),
            ),
        ];
        if let Some(identity) = &prepared.identity {
            let certificate = identity.certificate().to_pem();
            all.push((env::CLIENT_CERT.into(), certificate.into()));
        }
        if spec.multiplex {
            all.push((env::MULTIPLEX_GRPC.into(), "true".into()));
        }
        if let Some(group) = &spec.socket_group {
            all.push((env::UNIX_SOCKET_GROUP.into(), group.into()));
        }
        all
    }

    /// Has the rest of what it writes to its standard output read: nobody else does, and it would wait for that, while it ends, too.
    fn drain(&self, begun: Vec<u8>, stdout: tokio::net::unix::pipe::Receiver) -> Task {
        let logs = Logs::new(Arc::clone(&self.plugin), Arc::clone(&self.name));
        let rest = io::Cursor::new(begun).chain(stdout);
        Task::spawn(drain(rest, Tail::default(), logs))
    }

    fn encryption(
        &self,
        line: &HandshakeLine,
        identity: Option<Identity>,
    ) -> Result<(Encryption, Option<tls::Tls>), BoxError> {
        if let Some((tls, of_link)) = &self.tls {
            return Ok((Encryption::Static(Arc::clone(tls)), Some(of_link.clone())));
        }
        let Some((host, plugin)) = identity.zip(line.certificate()) else {
            return Ok((Encryption::None, None));
        };
        let tls = tls::Tls::pinned(&host, plugin)?;
        Ok((Encryption::Exact(tls.clone()), Some(tls)))
    }
}

impl Dialect for GoPluginDialect {
    type Session = Session;
    type Prepared = Prepared;

    fn prepare(&self) -> Result<(Start, Prepared), BoxError> {
        let identity = match self.spec.tls {
            PluginTls::Auto => Some(Identity::generate()?),
            PluginTls::Static | PluginTls::Off => None,
        };
        let sockets = Arc::new(Sockets::create(&self.spec)?);
        let kept = Arc::new(Kept {
            _sockets: Arc::clone(&sockets),
            stdout: OnceLock::new(),
        });
        let prepared = Prepared {
            sockets,
            kept: Arc::clone(&kept),
            identity,
        };
        let start = Start {
            env: self.environment(&prepared),
            stdin: Stdin::Null,
            keep: Some(Box::new(kept)),
        };
        Ok((start, prepared))
    }

    async fn begin(&self, prepared: Prepared, streams: Streams) -> Result<Session, BoxError> {
        let mut stdout = streams.stdout;
        let (line, rest) = handshake::read(&mut stdout, &self.executable).await?;
        prepared.kept.reads(self.drain(rest, stdout));
        handshake::check(&line, &self.spec).map_err(|problem| Unfit(problem.into()))?;
        if let Some(path) = line.address().path() {
            prepared.sockets.is_at(path);
        }
        let (encryption, tls) = self.encryption(&line, prepared.identity)?;
        let broker = Broker::new();
        let broken = CancellationToken::new();
        let (way, link, driver) = if self.spec.multiplex {
            // It is given five seconds for that, and no second socket.
            let socket = connect(line.address()).await?;
            let (multiplexed, driver) = Multiplexed::host(socket, &broker);
            let is_broken = broken.clone();
            let driver = Task::spawn(async move {
                if let Err(error) = driver.await {
                    tracing::debug!(%error, "the one socket of a plugin ended");
                }
                is_broken.cancel();
            });
            let way = Way::Multiplexed(multiplexed.clone());
            (way, Link::multiplexed(multiplexed), Some(driver))
        } else {
            let way = Way::Sockets(line.address().clone());
            let link = Link::new(broker, prepared.sockets.listen(&self.spec));
            (way, link, None)
        };
        let link = match tls {
            Some(tls) => link.tls(tls),
            None => link,
        };
        let scheme = match encryption {
            Encryption::None => Scheme::HTTP,
            Encryption::Exact(_) | Encryption::Static(_) => Scheme::HTTPS,
        };
        let reach = Arc::new(Reach { way, encryption });
        let http = Http::through(&self.name, reach, scheme, self.connection.clone());
        http.connected().await?;
        Ok(Session::begin(session::Parts {
            channel: Channel(Arc::new(http)),
            version: line.version(),
            link,
            driver,
            broken,
            sockets: prepared.sockets,
            output: Pump::new(&self.plugin, &self.name, self.sink.clone()),
        }))
    }

    async fn broken(&self, session: &Session) -> &'static str {
        session.broken().await;
        "its one socket for all connections ended, and it goes on without"
    }

    async fn end(&self, session: &Session) -> bool {
        session.shut_down().await
    }
}
