//! As a process of a host, in the protocol of HashiCorp's go-plugin.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;
use tower_plugins_proto::go_plugin::broker::{
    Broker as Stream, Connection, Incoming, Link, Multiplexed,
};
use tower_plugins_proto::go_plugin::grpc::DESCRIPTOR_SET;
use tower_plugins_proto::go_plugin::grpc::grpc_broker_server::GrpcBrokerServer;
use tower_plugins_proto::go_plugin::grpc::grpc_controller_server::GrpcControllerServer;
use tower_plugins_proto::go_plugin::grpc::grpc_stdio_server::GrpcStdioServer;
use tower_plugins_proto::go_plugin::socket::{Listen, Listener, Socket};
use tower_plugins_proto::go_plugin::tls::{Identity, Tls};
use tower_plugins_proto::go_plugin::{Certificate, HandshakeLine, env};

mod broker;
mod controller;
mod parent;
mod scrub;
mod stdio;
mod test_mode;

use self::controller::Controller;
use crate::about::{Reported, add_reflection};
use crate::plugin::{Plugin, told};
use crate::server::accept::Accept;
use crate::server::{Ending, Limits, Server};
use crate::signals::Signals;
use crate::{Error, Services};

pub use broker::{Broker, BrokerError, Offer};
pub use scrub::scrub;
pub use stdio::{Printer, Stdio};
pub use test_mode::{Reattach, TestMode};

/// What a host asks after, as Go's does.
const HEALTH: &str = "plugin";

/// A host that wants all connections on one socket connects to it at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the one socket may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// What the host asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    /// To prove itself by this certificate, and that the plugin does, too.
    certificate: Option<Certificate>,
    /// It can read the line's seventh field.
    reads_seventh: bool,
    /// All connections on one socket.
    multiplexed: bool,
}

impl Asked {
    fn from_env() -> Result<Self, Error> {
        // What is no text is none of what can be asked for, and must not be taken for nothing.
        Self::from_vars(|name| Some(std::env::var_os(name)?.to_string_lossy().into_owned()))
    }

    fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let set = |name| var(name).filter(|value: &String| !value.is_empty());
        let certificate = set(env::CLIENT_CERT)
            .map(|pem| Certificate::from_pem(&pem))
            .transpose()
            .map_err(|error| Error::Host(format!("its {}: {error}", env::CLIENT_CERT)))?;
        let multiplexed = set(env::MULTIPLEX_GRPC);
        Ok(Self {
            certificate,
            reads_seventh: multiplexed.is_some(),
            // The words that Go takes for it.
            multiplexed: multiplexed
                .is_some_and(|text| matches!(&*text, "1" | "t" | "T" | "true" | "TRUE" | "True")),
        })
    }
}

/// Whether this process has begun to serve its host.
static BEGUN: AtomicBool = AtomicBool::new(false);

/// Serves the host that started this process, until it says that it is over, or is gone.
pub(crate) async fn serve(mut plugin: Plugin) -> Result<(), Error> {
    if BEGUN.swap(true, Ordering::Relaxed) {
        let said = "this process serves its host already, or did; put all services into one `Plugin`, which is served once";
        return Err(Error::Host(said.to_owned()));
    }
    let asked = Asked::from_env()?;
    // Before the host knows of it: from then on it may say that it is over.
    let signals = Signals::hosted()?;
    let (graceful, end_with_host) = (plugin.graceful.take(), plugin.end_with_host);
    let parent = parent::Parent::current();
    let (stdio, identity) = (plugin.stdio.clone(), identity(&plugin, &asked)?);
    let offered = std::env::var(env::PROTOCOL_VERSIONS).ok();
    let (version, plugin) = plugin.choose(offered.as_deref());
    let listen = Listen::from_env().map_err(|error| Error::Host(error.to_string()))?;
    let listener = listen
        .bind()
        .map_err(|error| Error::Host(error.to_string()))?;

    let mut line = HandshakeLine::new(version, listener.address().clone())
        .map_err(|error| Error::Host(error.to_string()))?;
    if let Some(identity) = &identity {
        line = line.with_certificate(identity.certificate().clone());
    }
    if asked.reads_seventh {
        line = line.with_multiplexing(true);
    }
    let tls = plugin.tls_of_host(identity.as_ref(), asked.certificate.as_ref())?;
    let _printed = stdio.begin();
    let hosted = Hosted::new(plugin, tls, listen).await?;
    write_line(&line)?;
    #[cfg(unix)]
    stdio
        .redirect()
        .map_err(Error::system("cannot take over the standard output"))?;
    let told = async {
        tokio::select! {
            () = signals.terminated() => {}
            () = told(graceful) => {}
            () = parent.gone(), if end_with_host => tracing::info!("the host is gone"),
        }
    };
    if asked.multiplexed {
        hosted.run_multiplexed(listener, told).await
    } else {
        hosted.run(listener, told).await;
        Ok(())
    }
}

/// A certificate for this run, if the host asks for one and the plugin has none of its own.
fn identity(plugin: &Plugin, asked: &Asked) -> Result<Option<Identity>, Error> {
    if plugin.tls.is_some() || asked.certificate.is_none() {
        return Ok(None);
    }
    let identity = Identity::generate().map_err(|error| Error::Tls(error.to_string()))?;
    Ok(Some(identity))
}

/// The one line that the host waits for.
fn write_line(line: &HandshakeLine) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(format!("{line}\n").as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(Error::system(
            "cannot tell the host where this plugin listens",
        ))
}

impl Plugin {
    /// How TLS is spoken with the host: by its own certificates, or by those of this run.
    fn tls_of_host(
        &self,
        identity: Option<&Identity>,
        host: Option<&Certificate>,
    ) -> Result<Option<HostTls>, Error> {
        if let Some(server) = &self.tls {
            let server = crate::server::tls::with_protocols(server, false);
            let mut of_broker = Tls::default().server(server.clone());
            if let Some(client) = &self.client_tls {
                of_broker = of_broker.client(client.clone());
            }
            return Ok(Some((server.into(), of_broker)));
        }
        let (Some(identity), Some(host)) = (identity, host) else {
            return Ok(None);
        };
        let of_broker = Tls::pinned(identity, host);
        let server = identity.server_config(host);
        let both = server.and_then(|server| Ok((server.into(), of_broker?)));
        both.map(Some)
            .map_err(|error| Error::Tls(error.to_string()))
    }
}

/// Of the main connection, and of those beside it.
type HostTls = (TlsAcceptor, Tls);

/// A plugin whose host will connect.
struct Hosted {
    server: Server,
    health: Reported,
    stream: Stream,
    listen: Listen,
    tls: Option<Tls>,
    broker: Broker,
    stdio: Stdio,
    limits: Limits,
}

impl Hosted {
    async fn new(plugin: Plugin, tls: Option<HostTls>, listen: Listen) -> Result<Self, Error> {
        let (acceptor, tls) = tls.unzip();
        let stream = Stream::new();
        let ending = Ending::default();
        let own = Services::new()
            .service(GrpcControllerServer::new(Controller(ending.clone())))
            .service(GrpcStdioServer::new(plugin.stdio.stream()))
            .service(GrpcBrokerServer::new(stream.clone()))
            .descriptors(DESCRIPTOR_SET);
        let (services, health) = Reported::add(plugin.services, plugin.health, &[HEALTH]).await;
        let services = add_reflection(services.and(own))?;
        let server = Server {
            router: services.into_router(),
            http1: false,
            tls: acceptor,
            ending,
        };
        Ok(Self {
            server,
            health,
            stream,
            listen,
            tls,
            broker: plugin.broker,
            stdio: plugin.stdio,
            limits: Limits {
                drain_timeout: plugin.drain_timeout,
                on_shutdown: plugin.on_shutdown,
            },
        })
    }

    fn set_broker(&self, mut link: Link) {
        if let Some(tls) = &self.tls {
            link = link.tls(tls.clone());
        }
        self.broker.set_hosted(link, self.server.ending.clone());
    }

    /// Each connection has a socket of its own.
    async fn run(self, listener: Listener, told: impl Future<Output = ()>) {
        self.set_broker(Link::new(self.stream.clone(), self.listen.clone()));
        self.run_on(Host(listener), told).await;
    }

    /// All connections are on the one that the host makes now, and the plugin ends with it.
    async fn run_multiplexed(
        self,
        listener: Listener,
        told: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let mut told = std::pin::pin!(told);
        let ending = self.server.ending.begin.clone();
        let socket = tokio::select! {
            () = told.as_mut() => return Ok(()),
            socket = timeout(CONNECT_TIMEOUT, listener.accept()) => socket.map_err(|_| {
                let said = format!("it asked for one socket, and did not connect within {CONNECT_TIMEOUT:?}");
                Error::Host(said)
            })?,
        };
        drop(listener);
        let (multiplexed, incoming, driver) = Multiplexed::plugin(socket, &self.stream);
        let driver = tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!("the host's socket failed: {error}");
            }
            ending.cancel();
        });
        let mut driver = AbortOnDropHandle::new(driver);
        self.set_broker(Link::multiplexed(multiplexed.clone()));
        let broker = self.broker.clone();
        self.run_on(incoming, told).await;
        // The last bytes go out with the driver's end, which waits for channels that the program still has.
        drop(multiplexed);
        broker.set_absent();
        drop(timeout(CLOSE_TIMEOUT, &mut driver).await);
        Ok(())
    }

    async fn run_on(self, source: impl Accept, told: impl Future<Output = ()>) {
        let Self {
            server,
            health,
            stream,
            stdio,
            limits,
            ..
        } = self;
        let ending = server.ending.clone();
        let stream = Closes(stream);
        let close = async {
            stdio.end().await;
            stream.0.close();
        };
        ending
            .run(server.serve(source), told, &health, limits, close)
            .await;
    }
}

/// Is closed when it is dropped, too.
struct Closes(Stream);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The plugin's own socket.
struct Host(Listener);

impl Accept for Host {
    type Stream = Socket;

    async fn accept(&mut self) -> io::Result<Option<Socket>> {
        Ok(Some(self.0.accept().await))
    }
}

impl Accept for Incoming {
    type Stream = Connection;

    async fn accept(&mut self) -> io::Result<Option<Connection>> {
        Ok(self.next().await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(said: &'static [(&str, &str)]) -> Result<Asked, Error> {
        Asked::from_vars(|name| {
            let (_, value) = said.iter().find(|(key, _)| *key == name)?;
            Some((*value).to_owned())
        })
    }

    #[test]
    fn the_seventh_field_is_for_a_host_that_says_anything_of_it() {
        assert_eq!(asked(&[]).unwrap(), Asked::default());
        assert_eq!(
            asked(&[(env::MULTIPLEX_GRPC, ""), (env::CLIENT_CERT, "")]).unwrap(),
            Asked::default()
        );
        let no = asked(&[(env::MULTIPLEX_GRPC, "false")]).unwrap();
        assert!(no.reads_seventh && !no.multiplexed);
        let yes = asked(&[(env::MULTIPLEX_GRPC, "true")]).unwrap();
        assert!(yes.reads_seventh && yes.multiplexed);
    }

    #[test]
    fn a_certificate_that_is_none_is_an_error_and_not_plain_text() {
        let error = asked(&[(env::CLIENT_CERT, "no")]).unwrap_err().to_string();
        assert!(error.contains(env::CLIENT_CERT), "{error}");
        let identity = Identity::generate().unwrap();
        let pem = identity.certificate().to_pem();
        let asked = Asked::from_vars(|name| (name == env::CLIENT_CERT).then(|| pem.clone()));
        assert_eq!(
            asked.unwrap().certificate.as_ref(),
            Some(identity.certificate())
        );
    }
}
