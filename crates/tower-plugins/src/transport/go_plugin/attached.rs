//! A plugin that somebody else started.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::http::uri::Scheme;
use ::http::{Request, Response};
use rustix::process::{Pid, Signal};
use tokio::sync::{OnceCell, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower_plugins_layers::{BoxError, Refused, Unsent};
use tower_plugins_proto::go_plugin::broker::{Broker, Link};
use tower_plugins_proto::go_plugin::socket::Socket;

use super::output::{Pump, Sink};
use super::pinned::Pinned;
use super::reach::{Encryption, Reach, Way};
use super::session::{self, Channel, Session};
use super::sockets::Sockets;
use super::watched::Watched;
use super::{FOREVER, Parts, lasting, respond, while_there, why_ended};
use crate::Body;
use crate::config::{ConnectionSpec, GoPluginSpec, ProcessSpec, Reattach, TlsSpec};
use crate::transport::error::{connect_failed, lost};
use crate::transport::subprocess::{Exited, InUse, Running};
use crate::transport::task::Task;
use crate::transport::{EndFuture, Http, ProbeFuture, ResponseFuture, Transport};

/// How long the plugin may take to end when it is told to.
const GRACE: Duration = Duration::from_secs(5);

/// A plugin of go-plugin that runs already: one under a debugger, or one that outlived the host that started it.
///
/// It is attached to by the first call: its process must be there, and take a connection, which is closed at once. There is no TLS,
/// and a socket for each connection, as nobody has said what else was agreed on. When its process ends, as is noticed at once where the
/// system can tell (Linux) and else within a second, calls fail, and no other is attached to.
///
/// When this is dropped the plugin is told to shut down, and its process killed after 5 seconds; with [`Reattach::test`] it is left alone.
///
/// # Errors
///
/// - [`Unsent`] with [`Reason::ConnectFailed`](tower_plugins_layers::Reason::ConnectFailed) if there is no such process, or nobody listens. The next call tries again.
/// - [`Reason::ConnectionLost`](tower_plugins_layers::Reason::ConnectionLost) if the process has ended.
/// - The others of [`Http`].
///
/// In a config it is `go_plugin.reattach`, or the variable `TOWER_PLUGINS_REATTACH`; in code:
///
/// ```
/// use tower_plugins::Plugins;
/// use tower_plugins::config::{Config, PluginSpec, Reattach};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let said = r#"{"Protocol":"grpc","ProtocolVersion":6,"Pid":4711,"Test":true,"Addr":{"Network":"unix","String":"/tmp/plugin42"}}"#;
/// let reattach: Reattach = serde_json::from_str(said)?;
/// let config = Config::new().with(PluginSpec::attached("greeter", reattach)?);
/// let plugins = Plugins::builder().start(config).await?;
/// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Attached {
    plugin: Arc<str>,
    name: Arc<str>,
    reattach: Reattach,
    spec: GoPluginSpec,
    connection: ConnectionSpec,
    sink: Option<Sink>,
    attachment: OnceCell<Attachment>,
    /// Closed when all has ended.
    over: watch::Sender<()>,
}

/// A plugin that was found.
struct Attachment {
    running: InUse<Session>,
    process: Option<Arc<Watched>>,
    /// Tells of its end.
    _ends: Task,
}

/// Its process is not there any more.
#[derive(Debug, thiserror::Error)]
#[error("the process {0}, which was attached to, has ended")]
struct Gone(u32);

impl Attached {
    /// The plugin at `reattach`, for `plugin`. It is attached to by the first call. What it prints is logged.
    ///
    /// # Errors
    /// If `reattach` has an id that no process can have.
    pub fn new(plugin: &str, reattach: Reattach) -> io::Result<Self> {
        let parts = Parts {
            plugin,
            name: &format!("attached:{}", reattach.address),
            process: &ProcessSpec::default(),
            go_plugin: &GoPluginSpec::default(),
            connection: &ConnectionSpec::default(),
            tls: &TlsSpec::default(),
        };
        Self::of(parts, reattach, None)
    }

    /// The same, with a sink for what it prints.
    pub(crate) fn of(parts: Parts<'_>, reattach: Reattach, sink: Option<Sink>) -> io::Result<Self> {
        if reattach.pid != 0 && pid(reattach.pid).is_none() {
            let said = format!("{} is no id of a process", reattach.pid);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, said));
        }
        Ok(Self {
            plugin: parts.plugin.into(),
            name: parts.name.into(),
            reattach,
            spec: parts.go_plugin.clone(),
            connection: lasting(parts.connection),
            sink,
            attachment: OnceCell::new(),
            over: watch::Sender::new(()),
        })
    }

    async fn attachment(&self) -> Result<&Attachment, Refused> {
        let attach = || async {
            let within = self.connection.connection_timeout.min(FOREVER);
            let limit = timeout(within, self.attach()).await;
            let attached = limit
                .unwrap_or_else(|_| Err("it did not answer within the connection_timeout".into()));
            attached.map_err(|error| connect_failed(&self.name, error))
        };
        self.attachment.get_or_try_init(attach).await
    }

    async fn attach(&self) -> Result<Attachment, BoxError> {
        let Reattach { address, .. } = &self.reattach;
        let process = match pid(self.reattach.pid) {
            Some(pid) => Some(Arc::new(Watched::new(pid).map_err(|error| {
                let pid = self.reattach.pid;
                format!("there is no process {pid} to attach to: {error}")
            })?)),
            None => None,
        };
        // Whether somebody listens is else known by the first call alone.
        drop(Socket::connect(address).await?);
        let reach = Reach {
            way: Way::Sockets(address.clone()),
            encryption: Encryption::None,
        };
        let http = Http::through(
            &self.name,
            Arc::new(reach),
            Scheme::HTTP,
            self.connection.clone(),
        );
        http.connected().await?;
        let sockets = Arc::new(Sockets::create(&self.spec)?);
        let listen = sockets.listen(&self.spec);
        let session = Session::begin(session::Parts {
            channel: Channel(Arc::new(http)),
            version: self.reattach.version,
            link: Link::new(Broker::new(), listen),
            driver: None,
            broken: CancellationToken::new(),
            sockets,
            output: Pump::new(&self.plugin, &self.name, self.sink.clone()),
        });
        tracing::info!(
            plugin.name = &*self.plugin,
            server.address = &*self.name,
            pid = self.reattach.pid,
            "attached to a plugin that runs already"
        );
        Ok(Attachment::new(session, process))
    }

    /// The one process.
    pub(crate) async fn pinned(&self) -> Result<Pinned, Refused> {
        let attachment = self.attachment().await?;
        match attachment.is_gone() {
            true => Err(self.gone()),
            false => Ok(Pinned::to(&self.name, &attachment.running)),
        }
    }

    fn gone(&self) -> Refused {
        lost(&self.name, Gone(self.reattach.pid))
    }

    async fn run(&self, mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let running = match request.extensions_mut().remove::<Pinned>() {
            Some(pinned) => pinned.running().await?,
            None => match self.attachment().await {
                Ok(attachment) if attachment.is_gone() => return Err(self.gone().into()),
                Ok(attachment) => attachment.running.clone(),
                Err(refused) => return Err(Unsent::new(Some(request), refused).into()),
            },
        };
        let call = running.session.http().call(request);
        match while_there(call, &self.name, &running).await {
            Ok(response) => Ok(respond(&self.name, response, running)),
            Err(error) => match why_ended(&error, &running).await {
                Some(_) => Err(self.gone().into()),
                None => Err(error),
            },
        }
    }
}

impl Attachment {
    fn new(session: Session, process: Option<Arc<Watched>>) -> Self {
        let (tell, exited) = watch::channel(None);
        let (watched, broker) = (process.clone(), session.link().broker().clone());
        let ends = Task::spawn(async move {
            match watched {
                Some(process) => process.gone().await,
                None => std::future::pending().await,
            }
            tell.send_replace(Some(Arc::new(Exited::unknown())));
            broker.close();
        });
        Self {
            running: InUse::of(Running::elsewhere(session, exited)),
            process,
            _ends: ends,
        }
    }

    fn is_gone(&self) -> bool {
        self.running.is_over()
    }

    /// Has it end.
    async fn end(self) {
        drop(timeout(GRACE, self.running.session.shut_down()).await);
        if let Some(process) = &self.process
            && timeout(GRACE, process.gone()).await.is_err()
        {
            process.signal(Signal::KILL);
            drop(timeout(GRACE, process.gone()).await);
        }
    }
}

fn pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

impl Drop for Attached {
    fn drop(&mut self) {
        let Some(attachment) = self.attachment.take() else {
            return;
        };
        if self.reattach.test {
            return;
        }
        let over = self.over.clone();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                attachment.end().await;
                drop(over);
            })),
            // Nobody is left to wait.
            Err(_) => {
                if let Some(process) = &attachment.process {
                    process.signal(Signal::KILL);
                }
            }
        }
    }
}

impl Transport for Attached {
    fn call(&self, request: Request<Body>) -> ResponseFuture<'_> {
        Box::pin(self.run(request))
    }

    fn end(&self) -> EndFuture {
        let mut over = self.over.subscribe();
        Box::pin(async move { while over.changed().await.is_ok() {} })
    }

    /// Whether its process is there, and takes a connection.
    fn probe(&self) -> ProbeFuture<'_> {
        Box::pin(async {
            let attachment = self.attachment().await?;
            match attachment.is_gone() {
                true => Err(Gone(self.reattach.pid).into()),
                false => Ok(()),
            }
        })
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached")
            .field("address", &self.name)
            .finish_non_exhaustive()
    }
}
