//! Plugins of HashiCorp's go-plugin: a process that says where it listens, and is spoken to over HTTP/2.
//!
//! | file | |
//! | --- | --- |
//! | `attached` | a plugin that runs already; `watched` tells when it has ended |
//! | `dialect` | from the start of a process to its session, and how it is asked to end |
//! | `handshake` | the first line, and all that can be wrong with it |
//! | `sockets` | the directory for the plugin's sockets; `sweep` removes what killed hosts left |
//! | `reach` | opening connections: sockets, TLS, one socket for all |
//! | `session` | what calls go through, and what runs beside them |
//! | `pinned` | one process and no other, and what it offers beside its first service |
//! | `output` | what the plugin prints, which comes over a stream of its own |
//! | `body` | a response whose process may end before it |

mod attached;
mod body;
mod dialect;
mod handshake;
mod output;
mod pinned;
mod reach;
mod session;
mod sockets;
mod sweep;
mod watched;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use tokio::time::{Instant, timeout};
use tower_plugins_layers::{BoxError, Reason, Unsent};

pub use self::attached::Attached;
use self::body::OfProcess;
use self::dialect::GoPluginDialect;
pub(crate) use self::output::Sink;
pub use self::output::{Output, OutputStream};
pub(crate) use self::pinned::{Offered, Pinned};
use self::session::Session;
use super::error::{connect_failed, lost};
use super::subprocess::{Exited, InUse, Launch, OnTerminal, Running, Supervisor};
use super::{EndFuture, FOREVER, ProbeFuture, ResponseFuture, Transport};
use crate::Body;
use crate::config::{ConnectionSpec, GoPluginSpec, ProcessSpec, Protocol, TlsSpec};

/// How long the end of a process may take to be known when its connection has ended.
const NOTICED_WITHIN: Duration = Duration::from_millis(500);

/// How long it may take then until it is known how it ended.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// How often a request may meet a process that has just ended.
const TRIES: u32 = 3;

/// One process that speaks HashiCorp's go-plugin, version 1 of its protocol, over gRPC.
///
/// # The process
///
/// It is started when a call needs it, within a tokio runtime. It is given the cookie, the versions, and what else
/// [`GoPluginSpec`] says, in its environment; its standard input is what
/// [`ProcessInput`](crate::config::ProcessInput) says. It writes one line to its standard output, which says
/// where it listens, and is connected to; all within [`start_timeout`](ProcessSpec::start_timeout). Calls wait for that no longer
/// than [`connection_timeout`](ConnectionSpec::connection_timeout). What it writes to its standard output later is logged.
///
/// With [`PluginTls::Auto`](crate::config::PluginTls::Auto) each side makes a certificate for this one run, and takes no other of its
/// peer.
///
/// When this is dropped, the plugin's `GRPCController.Shutdown` is called, and its connections are closed when it has ended, or half of
/// [`stop_timeout`](ProcessSpec::stop_timeout) is over. Then its group gets a SIGTERM, and at the end of that time a SIGKILL.
///
/// # Calls
///
/// Any request goes over HTTP/2 as it is, not only gRPC's. The response has an [`AppVersion`] in its extensions, the version of the
/// program's own protocol that both sides agreed on. Nobody sends pings: servers of gRPC take them for an attack.
///
/// # Errors
///
/// - [`Unsent`](tower_plugins_layers::Unsent) with [`Reason::ConnectFailed`] if there is no process, or it cannot be connected to. If it was
///   not started, or did not begin as it should, the error says why, and an [`Exited`](super::subprocess::Exited) in its chain has the
///   last lines of its standard error.
/// - [`Reason::ConnectionLost`] if the process ended while the call was under way, in the response's body too, with an
///   [`Exited`](super::subprocess::Exited) in the chain.
/// - The others of [`Http`](super::Http).
///
/// ```no_run
/// use http::Request;
/// use tower_plugins::Body;
/// use tower_plugins::config::{PluginSpec, Upstream};
/// use tower_plugins::transport::{GoPlugin, Transport};
///
/// # async fn example() -> Result<(), tower_plugins_layers::BoxError> {
/// let mut spec = PluginSpec::subprocess("greeter", "/usr/libexec/greeter")?;
/// spec.upstream.go_plugin.protocol_versions = vec![5];
/// let greeter = GoPlugin::new("greeter", "/usr/libexec/greeter", &spec.upstream)?;
/// let response = greeter.call(Request::post("/greet.Greeter/Hello").body(Body::empty())?).await?;
/// # Ok(()) }
/// ```
pub struct GoPlugin {
    name: Arc<str>,
    supervisor: Supervisor<GoPluginDialect>,
    /// The longest wait for a process.
    wait: Duration,
}

/// The version of the program's own protocol that a plugin chose out of
/// [`protocol_versions`](crate::config::GoPluginSpec::protocol_versions): in the extensions of each of its responses.
///
/// ```
/// use tower_plugins::transport::AppVersion;
///
/// fn tell(response: &http::Response<tower_plugins::Body>) {
///     if let Some(AppVersion(version)) = response.extensions().get() {
///         println!("it speaks version {version}");
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppVersion(pub u32);

/// Why there is no [`GoPlugin`].
#[derive(Debug, thiserror::Error)]
#[error("{plugin}: {problem}")]
pub struct InvalidGoPlugin {
    plugin: String,
    problem: String,
}

/// What a [`GoPlugin`] is made of.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) plugin: &'a str,
    pub(crate) name: &'a str,
    pub(crate) process: &'a ProcessSpec,
    pub(crate) go_plugin: &'a GoPluginSpec,
    pub(crate) connection: &'a ConnectionSpec,
    pub(crate) tls: &'a TlsSpec,
}

impl GoPlugin {
    /// A process of the program at `executable`, for `plugin`, as `upstream` says. Nothing is started yet. What it prints is logged.
    ///
    /// # Errors
    ///
    /// [`InvalidGoPlugin`] if a certificate or key of its TLS cannot be used, or the cookie cannot be in an environment.
    pub fn new(
        plugin: &str,
        executable: impl Into<PathBuf>,
        upstream: &crate::config::Upstream,
    ) -> Result<Self, InvalidGoPlugin> {
        let executable = executable.into();
        let parts = Parts {
            plugin,
            name: &format!("subprocess:{}", executable.display()),
            process: &upstream.process,
            go_plugin: &upstream.go_plugin,
            connection: &upstream.connection,
            tls: &upstream.tls,
        };
        Self::of(parts, executable, None, None)
    }

    /// The same, with a sink for what it prints, and what takes its terminal.
    pub(crate) fn of(
        parts: Parts<'_>,
        executable: PathBuf,
        sink: Option<Sink>,
        on_terminal: Option<OnTerminal>,
    ) -> Result<Self, InvalidGoPlugin> {
        let name: Arc<str> = parts.name.into();
        let launch = Launch::new(executable.clone(), parts.process).on_terminal(on_terminal);
        let dialect = GoPluginDialect::new(parts, Arc::clone(&name), executable, sink);
        let dialect = dialect.map_err(|problem| InvalidGoPlugin {
            plugin: parts.plugin.to_owned(),
            problem,
        })?;
        let (plugin, process) = (parts.plugin, parts.process);
        Ok(Self {
            supervisor: Supervisor::new(plugin, Arc::clone(&name), launch, process, dialect),
            name,
            wait: parts.connection.connection_timeout,
        })
    }

    async fn run(&self, mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let mut tries = 0;
        let only = request.extensions_mut().remove::<Pinned>();
        loop {
            let running = match &only {
                Some(pinned) => pinned.running().await?,
                None => match self.running().await {
                    Ok(running) => running,
                    Err(refused) => return Err(Unsent::new(Some(request), refused).into()),
                },
            };
            let call = running.session.http().call(request);
            let error = match while_there(call, &self.name, &running).await {
                Ok(response) => {
                    running.has_answered();
                    return Ok(respond(&self.name, response, running));
                }
                Err(error) => error,
            };
            let Some(exited) = why_ended(&error, &running).await else {
                return Err(error);
            };
            request = match Unsent::<Body>::recover(error) {
                // It had ended and that was not known: the next one gets it.
                Ok((Some(request), _)) if tries < TRIES && running.is_used() && only.is_none() => {
                    request
                }
                Ok((request, _)) if only.is_none() => {
                    let cause = connect_failed(&self.name, (*exited).clone());
                    return Err(Unsent::new(request, cause).into());
                }
                Ok(_) | Err(_) => return Err(lost(&self.name, (*exited).clone()).into()),
            };
            tries += 1;
        }
    }

    async fn running(&self) -> Result<InUse<Session>, tower_plugins_layers::Refused> {
        let until = Instant::now() + self.wait.min(FOREVER);
        self.supervisor.running(until).await
    }
}

/// `response` of the process `running`, whose endpoint is called `name`.
fn respond(name: &Arc<str>, response: Response<Body>, running: InUse<Session>) -> Response<Body> {
    let version = AppVersion(running.session.version());
    let name = Arc::clone(name);
    let mut response = response.map(|body| OfProcess::wrap(body, name, running));
    response.extensions_mut().insert(version);
    response
}

/// Connections to a process, which last as long as that, whatever else `spec` says of them.
fn lasting(spec: &ConnectionSpec) -> ConnectionSpec {
    ConnectionSpec {
        protocol: Protocol::Http2,
        keep_alive: true,
        max_age: None,
        idle_timeout: FOREVER,
        max_idle_connections: spec.max_connections,
        ..spec.clone()
    }
}

/// What `call` gives, unless its process ends first: what that has left behind may hold their connection open.
async fn while_there(
    mut call: ResponseFuture<'_>,
    name: &Arc<str>,
    running: &Running<Session>,
) -> Result<Response<Body>, BoxError> {
    tokio::select! {
        biased;
        answer = &mut call => answer,
        () = running.gone() => match timeout(NOTICED_WITHIN, call).await {
            Ok(answer) => answer,
            Err(_) => Err(lost(name, std::io::Error::from(std::io::ErrorKind::UnexpectedEof)).into()),
        },
    }
}

/// How the process of `running` ended, if that is what `error` comes of.
async fn why_ended(error: &BoxError, running: &Running<Session>) -> Option<Arc<Exited>> {
    let reason = Reason::of(&**error);
    let is_of_connection = matches!(reason, Some(Reason::ConnectionLost | Reason::ConnectFailed));
    if !is_of_connection || is_of_one_stream(error) {
        return None;
    }
    timeout(NOTICED_WITHIN, running.gone()).await.ok()?;
    running.exited(TOLD_WITHIN).await
}

/// Whether the plugin itself ended the one call, and goes on with the others.
fn is_of_one_stream(error: &BoxError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
    while let Some(error) = next {
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return h2.is_remote() && h2.is_reset();
        }
        next = error.source();
    }
    false
}

impl Transport for GoPlugin {
    fn call(&self, request: Request<Body>) -> ResponseFuture<'_> {
        Box::pin(self.run(request))
    }

    fn end(&self) -> EndFuture {
        Box::pin(self.supervisor.end())
    }

    /// Whether the process lives; it is started if need be, unless it was stopped as nobody needed it.
    fn probe(&self) -> ProbeFuture<'_> {
        Box::pin(async {
            let until = Instant::now() + self.wait.min(FOREVER);
            Ok(self.supervisor.probe(until).await?)
        })
    }

    fn revive(&self) {
        self.supervisor.revive();
    }
}

impl fmt::Debug for GoPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoPlugin")
            .field("address", &self.name)
            .finish_non_exhaustive()
    }
}
