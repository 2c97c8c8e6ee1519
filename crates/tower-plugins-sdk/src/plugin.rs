//! A plugin: what it serves, and how.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::Route;
use tonic::body::Body;
use tonic::server::NamedService;
use tower_layer::Layer;
use tower_service::Service;

use crate::listen::{LISTEN, Task, help, refusal};
use crate::signals::Signals;
#[cfg(feature = "subprocess")]
use crate::{
    Broker, Stdio, subprocess,
    wire::{Handshake, choose_version},
};
use crate::{Error, Health, Listen, Listener, Services};

/// How long calls under way may take to end, when the plugin ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What the version is of a plugin that has one.
#[cfg(feature = "subprocess")]
const ONLY_VERSION: u32 = 1;

pub(crate) type Signal = Pin<Box<dyn Future<Output = ()> + Send>>;
type OfVersion = Box<dyn FnOnce(Services) -> Services + Send>;

/// A plugin: what it serves, and how.
///
/// ```no_run
/// use tower_plugins_sdk::axum::{Router, routing::get};
/// use tower_plugins_sdk::{Error, Plugin};
///
/// #[tokio::main]
/// async fn main() -> Result<(), Error> {
///     Plugin::new("greeter", env!("CARGO_PKG_VERSION"))
///         // .service(GreeterServer::new(MyGreeter))
///         .router(Router::new().route("/hello", get(|| async { "hello" })))
///         .serve()
///         .await
/// }
/// ```
#[must_use = "it does nothing until it serves"]
pub struct Plugin {
    name: String,
    version: String,
    pub(crate) services: Services,
    versions: BTreeMap<u32, OfVersion>,
    pub(crate) drain_timeout: Duration,
    pub(crate) graceful: Option<Signal>,
    pub(crate) on_shutdown: Option<Signal>,
    pub(crate) health: Health,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<std::sync::Arc<rustls::ServerConfig>>,
    #[cfg(feature = "subprocess")]
    pub(crate) client_tls: Option<std::sync::Arc<rustls::ClientConfig>>,
    #[cfg(feature = "subprocess")]
    pub(crate) handshake: Handshake,
    #[cfg(feature = "subprocess")]
    pub(crate) end_with_host: bool,
    #[cfg(feature = "subprocess")]
    pub(crate) broker: Broker,
    #[cfg(feature = "subprocess")]
    pub(crate) stdio: Stdio,
}

impl Plugin {
    /// A plugin that serves nothing yet. `name` and `version` are for people: `--help` and `--version` say them.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            services: Services::new(),
            versions: BTreeMap::new(),
            drain_timeout: DRAIN_TIMEOUT,
            graceful: None,
            on_shutdown: None,
            health: Health::default(),
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "subprocess")]
            client_tls: None,
            #[cfg(feature = "subprocess")]
            handshake: Handshake::default(),
            #[cfg(feature = "subprocess")]
            end_with_host: false,
            #[cfg(feature = "subprocess")]
            broker: Broker::default(),
            #[cfg(feature = "subprocess")]
            stdio: Stdio::default(),
        }
    }

    /// With the gRPC service `service`, as tonic makes it: `GreeterServer::new(…)`.
    ///
    /// A message that it receives may have 4 MiB, which is tonic's limit; `max_decoding_message_size` of `GreeterServer` raises it.
    ///
    /// # Panics
    ///
    /// If there is a service of its name already.
    pub fn service<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.services = self.services.service(service);
        self
    }

    /// With the paths of `router`: typed handlers ([`router::Router`](crate::router::Router)), an axum `Router`, or [`Services`]. A fallback of it answers what nobody else does.
    ///
    /// # Panics
    ///
    /// If there is one of its paths already, or if both have a fallback.
    pub fn router(mut self, router: impl Into<Services>) -> Self {
        self.services = self.services.router(router);
        self
    }

    /// With `layer` around each of the services and paths that are here so far, as of [`Services::layer`].
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Error: Into<Infallible> + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        self.services = self.services.layer(layer);
        self
    }

    /// With what describes its services, for reflection: as of [`Services::descriptors`].
    pub fn descriptors(mut self, set: &'static [u8]) -> Self {
        self.services = self.services.descriptors(set);
        self
    }

    /// With the version `version` of the program's own protocol, which has `services` beside those that all versions have. The version
    /// is chosen with the host: the highest that both have, or, if they have none in common, the lowest, of which the host then says that
    /// it is too old. Without a host it is the highest.
    ///
    /// Default: only version 1.
    ///
    /// ```
    /// use tower_plugins_sdk::Plugin;
    /// use tower_plugins_sdk::axum::{Router, routing::get};
    ///
    /// let plugin = Plugin::new("greeter", "1.0.0")
    ///     .protocol_version(4, |services| services.router(Router::new().route("/greet", get("hello"))))
    ///     .protocol_version(5, |services| services.router(Router::new().route("/greet", get("good day"))));
    /// # drop(plugin);
    /// ```
    pub fn protocol_version(
        mut self,
        version: u32,
        services: impl FnOnce(Services) -> Services + Send + 'static,
    ) -> Self {
        self.versions.insert(version, Box::new(services));
        self
    }

    /// How long the calls under way may take when the plugin ends; those that take longer are cut. Default: 10 s.
    ///
    /// A host that tells the plugin to end has its answer after them. Go's waits for that, and kills the plugin 2 s later.
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.drain_timeout = limit;
        self
    }

    /// Ends when `signal` does, too, as by a signal of the system: calls under way are finished.
    pub fn with_graceful_shutdown(
        mut self,
        signal: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        self.graceful = Some(Box::pin(signal));
        self
    }

    /// Runs `hook` when the plugin is told to end, before the calls under way are waited for, and within the same time. A host that says
    /// that it is over has its answer after both, and Go's waits for that as long as it takes.
    pub fn on_shutdown(mut self, hook: impl Future<Output = ()> + Send + 'static) -> Self {
        self.on_shutdown = Some(Box::pin(hook));
        self
    }

    /// What the health service says, for the services to change.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Speaks TLS with `config`, but where `--listen` says `http` or `unix`; to hosts as well: theirs must know of it, as it is not announced.
    /// Without ALPN in it, HTTP/2 is offered, and HTTP/1.1 to others than hosts.
    ///
    /// Default: with a host, certificates that both make for this run, if it asks for that; else by the files that `--tls-cert` and `--tls-key`
    /// name.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, config: impl Into<std::sync::Arc<rustls::ServerConfig>>) -> Self {
        self.tls = Some(config.into());
        self
    }

    /// Connects to what the host offers by the [`Broker`] with `config`, where the plugin has a certificate of its own by
    /// [`tls`](Self::tls). It expects the name `localhost`.
    #[cfg(feature = "subprocess")]
    pub fn client_tls(mut self, config: impl Into<std::sync::Arc<rustls::ClientConfig>>) -> Self {
        self.client_tls = Some(config.into());
        self
    }

    /// With the cookie by which the plugin knows its host. Default: [`Handshake::default`], as of our own hosts.
    #[cfg(feature = "subprocess")]
    pub fn handshake(mut self, handshake: Handshake) -> Self {
        self.handshake = handshake;
        self
    }

    /// Whether the plugin ends when the process that started it has. Default: no.
    ///
    /// A host of ours on Linux has the kernel end its plugins with it, whatever is said here. For others it is to be turned on, where
    /// whoever starts the plugin is its host, not a script that ends before it; and where no other host is to attach to it afterwards. It
    /// is noticed within 250 ms, on Unix.
    #[cfg(feature = "subprocess")]
    pub fn end_with_host(mut self, end: bool) -> Self {
        self.end_with_host = end;
        self
    }

    /// Connections to the host, for the services to keep.
    #[cfg(feature = "subprocess")]
    #[must_use]
    pub fn broker(&self) -> Broker {
        self.broker.clone()
    }

    /// What is printed for the host, for the services to keep.
    #[cfg(feature = "subprocess")]
    #[must_use]
    pub fn stdio(&self) -> Stdio {
        self.stdio.clone()
    }

    /// Serves, until it is told to end: as a process of a host, or where the command line or the environment says.
    ///
    /// | how it is started | what it does |
    /// | --- | --- |
    /// | with `--listen ADDRESS` | serves there: HTTP/1.1, HTTP/2 and gRPC |
    /// | by a host, with the cookie of [`handshake`](Self::handshake) | serves that, in the protocol of HashiCorp's go-plugin |
    /// | with the variable `TOWER_PLUGINS_LISTEN` | serves there |
    /// | with `--help` or `--version` | says so, and ends |
    /// | otherwise | [`Error::ByHand`] |
    ///
    /// `ADDRESS` is as of [`Listen`]. Other arguments are the plugin's own, and all are with a cookie but `--listen`.
    ///
    /// It ends when it gets a SIGTERM, or a SIGINT without a host, or when its host says so: it takes no new connections, finishes the
    /// calls under way for [`drain_timeout`](Self::drain_timeout), and returns. A second signal, without a host, has it return at once. What `main` does then is the plugin's own end.
    ///
    /// With a host, the first line of the standard output is the protocol's: nothing may be printed before. The protocol's variables stay
    /// in the environment, as a program cannot change that safely while it runs; see [`scrub`](crate::scrub). A process serves its host once. Dropping
    /// the future cuts all calls.
    ///
    /// # Errors
    ///
    /// [`Error`]. A `main` that returns it exits with the code 1 and its text on stderr.
    pub async fn serve(self) -> Result<(), Error> {
        #[cfg(feature = "subprocess")]
        let is_hosted = {
            let cookie = std::env::var_os(self.handshake.cookie_key());
            self.handshake.is_met(cookie.as_deref())
        };
        #[cfg(not(feature = "subprocess"))]
        let is_hosted = false;
        let variable = std::env::var_os(LISTEN);
        let arguments = std::env::args_os().skip(1);
        match Task::choose(arguments, is_hosted, variable.as_deref())? {
            #[cfg(feature = "subprocess")]
            Task::Host => subprocess::serve(self).await,
            Task::Listen(listen, files) => {
                let listener = Listener::bind(&listen).await?;
                // For people, and for who starts it on any free port.
                eprintln!("{} listens on {}", self.name, listener.shown(&listen));
                self.with_files(&files, &listen)?.serve_on(listener).await
            }
            Task::Help => {
                print!("{}", help(&self.name, &self.version));
                Ok(())
            }
            Task::Version => {
                println!("{} {}", self.name, self.version);
                Ok(())
            }
            Task::Refuse => Err(Error::ByHand(refusal(&self.name))),
        }
    }

    /// Serves who connects to `listener`: HTTP/1.1, HTTP/2 and gRPC, with TLS if there is a [`tls`](Self::tls) config. It ends as
    /// [`serve`](Self::serve) does.
    ///
    /// # Errors
    ///
    /// [`Error::Descriptors`], and [`Error::System`] if it cannot be told by signals.
    pub async fn serve_on(mut self, listener: impl Into<Listener>) -> Result<(), Error> {
        let graceful = self.graceful.take();
        let signals = Signals::own()?;
        let insisted = Signals::own()?.insisted();
        let told = async {
            tokio::select! {
                () = told(graceful) => {}
                () = signals.terminated() => {}
            }
        };
        tokio::select! {
            served = crate::direct::serve(self, listener.into(), told) => served,
            () = insisted => Ok(()),
        }
    }

    /// With the highest version's services, for who has not chosen.
    pub(crate) fn highest(mut self) -> Self {
        if let Some((_, of_version)) = self.versions.pop_last() {
            self.services = of_version(self.services);
        }
        self
    }

    /// The version for a host that offered some, and the plugin with its services.
    #[cfg(feature = "subprocess")]
    pub(crate) fn choose(mut self, offered: Option<&str>) -> (u32, Self) {
        let own = self.versions.keys().copied();
        let Some(version) = choose_version(own, offered) else {
            return (ONLY_VERSION, self);
        };
        if let Some(of_version) = self.versions.remove(&version) {
            self.services = of_version(self.services);
        }
        (version, self)
    }

    #[cfg(feature = "tls")]
    fn with_files(mut self, files: &crate::listen::Files, listen: &Listen) -> Result<Self, Error> {
        if !matches!(listen, Listen::Https(_)) {
            self.tls = None;
            return Ok(self);
        }
        self.tls = match (&files.certificate, &files.key) {
            (Some(certificate), Some(key)) => {
                Some(crate::server::tls::from_files(certificate, key)?)
            }
            (None, None) if self.tls.is_some() => self.tls,
            _ => {
                let said = format!("{listen} takes both --tls-cert and --tls-key");
                return Err(Error::Usage(said));
            }
        };
        Ok(self)
    }

    #[cfg(not(feature = "tls"))]
    fn with_files(self, _: &crate::listen::Files, listen: &Listen) -> Result<Self, Error> {
        match listen {
            Listen::Https(_) => {
                let said = format!(
                    "{listen} takes the feature `tls`, which this plugin was built without"
                );
                Err(Error::Usage(said))
            }
            Listen::Http(_) | Listen::Unix(_) => Ok(self),
        }
    }
}

/// Waits for what the program says, if it does.
pub(crate) async fn told(graceful: Option<Signal>) {
    match graceful {
        Some(graceful) => graceful.await,
        None => std::future::pending().await,
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("services", &self.services)
            .field("versions", &self.versions.keys())
            .finish_non_exhaustive()
    }
}
