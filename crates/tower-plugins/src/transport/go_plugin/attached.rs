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
use tower_plugins_proto::go_plugin::socket::{Listen, Socket};

use super::output::Pump;
use super::reach::{Encryption, Reach, Way};
use super::reattach::Reattach;
use super::session::{Channel, Parts, Session};
use super::sockets::Sockets;
use super::watched::Watched;
use super::{AppVersion, FOREVER, NOTICED_WITHIN};
use crate::Body;
use crate::config::{ConnectionSpec, GoPluginSpec, Protocol};
use crate::transport::error::{connect_failed, lost};
use crate::transport::{EndFuture, Http, ProbeFuture, ResponseFuture, Transport};

/// How long the plugin may take to be there, and to end when it is told to.
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
/// A config names it as a transport of the program's own, with the JSON as `options`:
///
/// ```
/// use tower_plugins::Plugins;
/// use tower_plugins::config::{Config, Format};
/// use tower_plugins::transport::{Attached, EndpointArgs, Reattach};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let config = Config::parse(r#"
///     plugins:
///       greeter:
///         transport: attached
///         endpoint: under a debugger
///         options: {"Protocol":"grpc","ProtocolVersion":6,"Pid":4711,"Test":true,"Addr":{"Network":"unix","String":"/tmp/plugin42"}}
///     "#, Format::Yaml)?;
/// let plugins = Plugins::builder()
///     .transport("attached", |args: EndpointArgs<Reattach>| Attached::new(&args.plugin, args.options))
///     .start(config)
///     .await?;
/// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Attached {
    plugin: Arc<str>,
    name: Arc<str>,
    reattach: Reattach,
    attachment: OnceCell<Attachment>,
    /// Closed when all has ended.
    over: watch::Sender<()>,
}

/// A plugin that was found.
struct Attachment {
    session: Arc<Session>,
    process: Option<Arc<Watched>>,
}

/// Its process is not there any more.
#[derive(Debug, thiserror::Error)]
#[error("the process {0}, which was attached to, has ended")]
struct Gone(u32);

impl Attached {
    /// The plugin at `reattach`, for `plugin`. It is attached to by the first call.
    ///
    /// # Errors
    /// If `reattach` has an id that no process can have.
    pub fn new(plugin: &str, reattach: Reattach) -> io::Result<Self> {
        let name = format!("attached:{}", reattach.address);
        if reattach.pid != 0 && pid(reattach.pid).is_none() {
            let said = format!("{} is no id of a process", reattach.pid);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, said));
        }
        Ok(Self {
            plugin: plugin.into(),
            name: name.into(),
            reattach,
            attachment: OnceCell::new(),
            over: watch::Sender::new(()),
        })
    }

    async fn attachment(&self) -> Result<&Attachment, Refused> {
        let attach = || async {
            let limit = timeout(GRACE, self.attach()).await;
            let attached = limit.unwrap_or_else(|_| Err("it did not answer in time".into()));
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
        let connection = ConnectionSpec {
            protocol: Protocol::Http2,
            max_age: None,
            idle_timeout: FOREVER,
            ..ConnectionSpec::default()
        };
        let http = Http::through(&self.name, Arc::new(reach), Scheme::HTTP, connection);
        http.connected().await?;
        let sockets = Arc::new(Sockets::create(&GoPluginSpec::default())?);
        let listen = Listen::unix().directory(sockets.directory());
        let session = Session::begin(Parts {
            channel: Channel(Arc::new(http)),
            version: self.reattach.version,
            link: Link::new(Broker::new(), listen),
            driver: None,
            broken: CancellationToken::new(),
            sockets,
            output: Pump::new(&self.plugin, &self.name, None),
        });
        let session = Arc::new(session);
        Ok(Attachment { session, process })
    }

    async fn run(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let attachment = match self.attachment().await {
            Ok(attachment) => attachment,
            Err(refused) => return Err(Unsent::new(Some(request), refused).into()),
        };
        let gone = || lost(&self.name, Gone(self.reattach.pid)).into();
        if attachment.is_gone() {
            return Err(gone());
        }
        let mut call = attachment.session.http().call(request);
        let answered = tokio::select! {
            biased;
            answer = &mut call => answer,
            // What it has left behind may hold the connection open.
            () = attachment.gone() => match timeout(NOTICED_WITHIN, call).await {
                Ok(answer) => answer,
                Err(_) => return Err(gone()),
            },
        };
        match answered {
            Ok(mut response) => {
                let version = AppVersion(attachment.session.version());
                response.extensions_mut().insert(version);
                Ok(response)
            }
            Err(error) => match &attachment.process {
                Some(process) if timeout(NOTICED_WITHIN, process.gone()).await.is_ok() => {
                    Err(gone())
                }
                _ => Err(error),
            },
        }
    }
}

impl Attachment {
    fn is_gone(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.is_gone())
    }

    /// Waits until its process has ended, if it is known.
    async fn gone(&self) {
        match &self.process {
            Some(process) => process.gone().await,
            None => std::future::pending().await,
        }
    }

    /// Has it end.
    async fn end(self) {
        drop(timeout(GRACE, self.session.shut_down()).await);
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
