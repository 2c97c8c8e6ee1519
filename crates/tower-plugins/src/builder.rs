//! What a program says of a set of plugins before it starts.

#[cfg(all(feature = "subprocess", unix))]
mod process;

use std::sync::Arc;

use http::{Request, Response};
use tower::Layer;
use tower::discover::Discover;
use tower_plugins_layers::BoxError;
use tower_service::Service;

use crate::config::{Config, EndpointSpec, Place};
use crate::error::Error;
use crate::graph::{Graph, GraphCell};
use crate::node::{HealthHub, Next, OwnLayer, Recipe, Services, Source};
#[cfg(feature = "watch")]
use crate::reload::Follow;
use crate::reload::Reloader;
use crate::transport::{EndpointArgs, Factory, InProcess, Transport};
use crate::{Body, Plugins};

/// Describes a set of [`Plugins`].
#[derive(Debug, Default)]
#[must_use]
pub struct Builder {
    services: Services,
    #[cfg(feature = "watch")]
    followed: crate::reload::Followed,
}

impl Builder {
    /// Registers `service` under `name`: plugins with `transport: in-process` and
    /// `endpoint: name` are answered by clones of it.
    pub fn service<S, B>(mut self, name: &str, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.services.insert(InProcess::new(name, service));
        self
    }

    /// Registers endpoints under `name`, which come and go while plugins run: a plugin with
    /// `endpoint: { from: name }` calls those that there are.
    ///
    /// `changes` is what tower calls a [`Discover`]: a stream of
    /// [`Change`](tower::discover::Change)s. An endpoint that is inserted under a key that there is takes the place
    /// of the one before. What is there at once is one change of the set. No stack is made anew for it: calls under
    /// way stay where they are, and an endpoint that stays keeps its connections, breaker, estimates and ejections.
    ///
    /// The stream is followed by one task from the start of the set of plugins to its end, for however many plugins
    /// and whatever reloads; it is let go then. When it ends, the last endpoints stay, and what it fails with is
    /// logged. There are at most 1024 endpoints; those beyond are logged and left out, as are those that cannot be made.
    /// A call that comes before the first change waits for it, within its deadline; with no endpoint left it is
    /// refused with [`Reason::NoEndpoint`](crate::Reason::NoEndpoint).
    ///
    /// ```
    /// use futures_util::{StreamExt, stream};
    /// use http::{Request, Response};
    /// use tower::{ServiceExt, discover::Change, service_fn};
    /// use tower_plugins::{Body, Plugins, config::{Address, Config, EndpointSpec, PluginName, PluginSpec}};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let hello = service_fn(|_: Request<Body>| async {
    ///     Ok::<_, std::convert::Infallible>(Response::new(Body::from("hello")))
    /// });
    /// let first = EndpointSpec::from(Address::in_process("hello")?);
    /// let changes = stream::iter([Ok::<_, std::io::Error>(Change::Insert("first", first))]);
    /// // The program goes on telling of changes here.
    /// let changes = changes.chain(stream::pending());
    /// let spec = PluginSpec::new(PluginName::new("greeter").unwrap(), Address::source("hosts")?);
    /// let plugins = Plugins::builder()
    ///     .service("hello", hello)
    ///     .endpoints("hosts", changes)
    ///     .start(Config::new().with(spec))
    ///     .await?;
    /// let response = plugins.plugin("greeter").oneshot(Request::new(Body::empty())).await?;
    /// assert_eq!(response.status(), 200);
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn endpoints<D>(mut self, name: &str, changes: D) -> Self
    where
        D: Discover<Service = EndpointSpec, Key: Send, Error: Into<BoxError>> + Send + 'static,
    {
        self.services.add_source(name, Source::new(name, changes));
        self
    }

    /// Puts `layer` at `place` of every plugin's stack; of several the first is outermost.
    ///
    /// Each call has its own clone of the layer's service, which is driven to readiness inside the call: what
    /// calls share stands behind an `Arc`. The layer is applied anew when a plugin's config changes, so that what
    /// should outlive that is the layer's own. A panic in it is the call's error, with
    /// [`Reason::Panicked`](crate::Reason::Panicked) and `name`.
    ///
    /// At [`Place::Attempt`] a request's body can still be sent again by retry, which keeps what it needs outside; a
    /// request that was never sent goes again as far as the layer hands the error of [`Next`] on as it is.
    ///
    /// A plugin without such a layer pays a branch; one with it two boxed futures for each layer.
    ///
    /// ```
    /// use http::{HeaderValue, Request, Response};
    /// use tower::{ServiceExt, service_fn, util::MapRequestLayer};
    /// use tower_plugins::{Body, Place, Plugins, config::{Config, PluginSpec}};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let stamp = MapRequestLayer::new(|mut request: Request<Body>| {
    ///     request.headers_mut().insert("x-tenant", HeaderValue::from_static("seven"));
    ///     request
    /// });
    /// let tenant = service_fn(|request: Request<Body>| async move {
    ///     let tenant = request.headers()["x-tenant"].as_bytes().to_vec();
    ///     Ok::<_, std::convert::Infallible>(Response::new(Body::from(tenant)))
    /// });
    /// let plugins = Plugins::builder()
    ///     .service("tenant", tenant)
    ///     .layer(Place::Call, "stamp", stamp)
    ///     .start(Config::new().with(PluginSpec::in_process("greeter", "tenant")?))
    ///     .await?;
    /// let response = plugins.plugin("greeter").oneshot(Request::new(Body::empty())).await?;
    /// assert_eq!(http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes(), "seven");
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn layer<L, B>(mut self, place: Place, name: &str, layer: L) -> Self
    where
        L: Layer<Next> + Send + Sync + 'static,
        L::Service: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.services
            .add_layer(OwnLayer::new(None, place, name, layer));
        self
    }

    /// Puts `layer` at `place` of the stack of the plugin `plugin` alone, as [`layer`](Self::layer) does of all.
    pub fn layer_of<L, B>(mut self, plugin: &str, place: Place, name: &str, layer: L) -> Self
    where
        L: Layer<Next> + Send + Sync + 'static,
        L::Service: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.services
            .add_layer(OwnLayer::new(Some(plugin), place, name, layer));
        self
    }

    /// Registers `make` under `name`, for configs: a plugin with `layers: [{ name, at, options }]` has the layer that
    /// `make` makes of its options, inside of those that code puts at the same place. One that is registered under
    /// the same name before is forgotten.
    ///
    /// Options are a table of the config, read as an `O`: a type of one's own with `Deserialize`, `()` for none, or
    /// a map. What it does not take, or `make` does not, is an error of the config, with its place in the file; so is
    /// a name that is not registered. The error's text is shown: it should not repeat a secret.
    ///
    /// Each entry of a plugin's `layers` has a layer of its own. It goes on, with its state, over reloads that leave
    /// the entry equal; another place or other options make a new one. For the rest it is as with
    /// [`layer`](Self::layer).
    ///
    /// ```
    /// use http::{HeaderValue, Request, Response};
    /// use serde::Deserialize;
    /// use tower::{ServiceExt, service_fn, util::MapRequestLayer};
    /// use tower_plugins::{Body, Plugins, config::{Config, Format}};
    ///
    /// #[derive(Deserialize)]
    /// #[serde(deny_unknown_fields)]
    /// struct Stamp { tenant: String }
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let stamp = |options: Stamp| {
    ///     let tenant = HeaderValue::try_from(options.tenant)?;
    ///     Ok::<_, http::Error>(MapRequestLayer::new(move |mut request: Request<Body>| {
    ///         request.headers_mut().insert("x-tenant", tenant.clone());
    ///         request
    ///     }))
    /// };
    /// let tenant = service_fn(|request: Request<Body>| async move {
    ///     let tenant = request.headers()["x-tenant"].as_bytes().to_vec();
    ///     Ok::<_, std::convert::Infallible>(Response::new(Body::from(tenant)))
    /// });
    /// let config = Config::parse("
    ///     plugins:
    ///       greeter:
    ///         transport: in-process
    ///         endpoint: tenant
    ///         layers: [{ name: stamp, options: { tenant: seven } }]
    ///     ", Format::Yaml)?;
    /// let plugins = Plugins::builder()
    ///     .service("tenant", tenant)
    ///     .layer_named("stamp", stamp)
    ///     .start(config)
    ///     .await?;
    /// let response = plugins.plugin("greeter").oneshot(Request::new(Body::empty())).await?;
    /// assert_eq!(http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes(), "seven");
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn layer_named<O, L, B, E>(
        mut self,
        name: &str,
        make: impl Fn(O) -> Result<L, E> + Send + Sync + 'static,
    ) -> Self
    where
        O: serde::de::DeserializeOwned,
        L: Layer<Next> + Send + Sync + 'static,
        L::Service: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.services.add_recipe(name, Recipe::new(make));
        self
    }

    /// Registers `make` under `name`, for configs: a plugin with `transport: name` is reached by what `make` makes of
    /// each of its endpoints, by code as well ([`PluginSpec::custom`](crate::config::PluginSpec::custom)). One that
    /// is registered under the same name before is forgotten.
    ///
    /// A name is formed like a [`PluginName`](crate::config::PluginName) and at least two letters away from the words
    /// that `transport` takes anyway; no config can say another. `options` are read as with
    /// [`layer_named`](Self::layer_named). What the options or `make` refuse is an error of the config, with its
    /// place in the file; its text is shown, and should not repeat a secret. `make` only says how an endpoint is
    /// reached: one that is down is found by the calls.
    ///
    /// A transport goes on, with its connections, over reloads that leave the endpoint's text, `connection` and
    /// `options` equal; it is dropped with the last call on it. A panic in it is the call's error, with
    /// [`Reason::Panicked`](crate::Reason::Panicked).
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower::ServiceExt;
    /// use tower_plugins::transport::{EndpointArgs, ResponseFuture, Transport};
    /// use tower_plugins::{Body, Plugins, config::{Config, Format}};
    ///
    /// /// Answers with what it is told where it is.
    /// struct Mirror { endpoint: String }
    ///
    /// impl Transport for Mirror {
    ///     fn call(&self, _: Request<Body>) -> ResponseFuture<'_> {
    ///         Box::pin(async { Ok(Response::new(Body::from(self.endpoint.clone()))) })
    ///     }
    /// }
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let config = Config::parse("
    ///     plugins:
    ///       looking-glass: { transport: mirror, endpoint: 'on the wall' }
    ///     ", Format::Yaml)?;
    /// let plugins = Plugins::builder()
    ///     .transport("mirror", |args: EndpointArgs<()>| {
    ///         Ok::<_, std::convert::Infallible>(Mirror { endpoint: args.endpoint })
    ///     })
    ///     .start(config)
    ///     .await?;
    /// let response = plugins.plugin("looking-glass").oneshot(Request::new(Body::empty())).await?;
    /// assert_eq!(http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes(), "on the wall");
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn transport<O, T, E>(
        mut self,
        name: &str,
        make: impl Fn(EndpointArgs<O>) -> Result<T, E> + Send + Sync + 'static,
    ) -> Self
    where
        O: serde::de::DeserializeOwned,
        T: Transport,
        E: Into<BoxError>,
    {
        self.services.add_transport(name, Factory::new(name, make));
        self
    }

    /// Takes the variables of a config that is [watched](Self::watch) from `environment`, and not from
    /// the process.
    #[cfg(feature = "watch")]
    pub fn environment(mut self, environment: crate::config::Environment) -> Self {
        self.followed.environment = Some(environment);
        self
    }

    /// Keeps the files of the config that is [watched](Self::watch) in the directory `dir`, each time it has been taken:
    /// the main one and those it includes, as they are written, without what variables hold; not the secrets and certificates
    /// that they name. A start whose config is missing or refused takes what was kept in its place, with a warning, and
    /// [`Plugins::status`] says why; when the watched file is mended, it takes over.
    ///
    /// What is kept means what it meant where it was: relative paths are seen from the files' own places. All files of
    /// one config are kept together or not at all, whenever the program or the machine stops. They can be read by their
    /// owner alone (mode 0600), and so can the directory if it has to be made; it is to be this program's alone, and is not
    /// used if others can write to it. If the files cannot be kept, because the disk is full or the directory cannot be
    /// written, that is a warning, counted in `plugin_config_kept_total`, and no reload fails of it or waits for it.
    ///
    /// ```no_run
    /// use tower_plugins::Plugins;
    ///
    /// # async fn example() -> Result<(), tower_plugins::Error> {
    /// let plugins = Plugins::builder()
    ///     .keep_last_good("/var/lib/gateway/last-good")
    ///     .watch("/etc/gateway/plugins.yaml")
    ///     .await?;
    /// if let Some(error) = plugins.status().last_error {
    ///     eprintln!("running on the last good config: {error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "watch")]
    pub fn keep_last_good(mut self, dir: impl Into<std::path::PathBuf>) -> Self {
        self.followed.last_good = Some(dir.into());
        self
    }

    /// Reads the config that is [watched](Self::watch) at once when the process gets the signal SIGHUP, whether or not its
    /// files have changed: one that was refused is tried again, and secrets and the environment are seen as they are now.
    /// A burst of signals is at most ten reloads a second. Without this the signal ends the process, as is its default.
    ///
    /// ```no_run
    /// use tower_plugins::Plugins;
    ///
    /// # async fn example() -> Result<(), tower_plugins::Error> {
    /// // kill -HUP reads /etc/gateway/plugins.yaml again.
    /// let plugins = Plugins::builder()
    ///     .reload_on_hangup()
    ///     .watch("/etc/gateway/plugins.yaml")
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(all(feature = "watch", unix))]
    pub const fn reload_on_hangup(mut self) -> Self {
        self.followed.on_hangup = true;
        self
    }

    /// Starts the plugins of `config`.
    ///
    /// # Errors
    /// When a plugin cannot be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(self, config: Config) -> Result<Plugins, Error> {
        let (cell, health, reloader) = self.reloader();
        reloader.reload(config).await?;
        Ok(Plugins::new(cell, health, reloader, None))
    }

    /// Starts the plugins of the config file at `path`, and reloads it whenever it changes. A change
    /// that cannot be taken is logged and stands in [`Plugins::status`]; what runs goes on.
    ///
    /// # Errors
    /// When the file cannot be read or watched, holds a bad config, or a plugin cannot be made; unless there is one
    /// that was [kept](Self::keep_last_good).
    ///
    /// # Panics
    /// Outside a tokio runtime; with [`reload_on_hangup`](Self::reload_on_hangup) outside one with IO enabled.
    #[cfg(feature = "watch")]
    pub async fn watch(mut self, path: impl AsRef<std::path::Path>) -> Result<Plugins, Error> {
        let followed = std::mem::take(&mut self.followed);
        let mut follow = Follow::new(path.as_ref(), followed).map_err(Error::watch)?;
        let (cell, health, reloader) = self.reloader();
        follow.start(&reloader).await?;
        let watcher = tokio::spawn(follow.run(Arc::downgrade(&reloader)));
        let watcher = Some(watcher.abort_handle());
        Ok(Plugins::new(cell, health, reloader, watcher))
    }

    fn reloader(self) -> (Arc<GraphCell>, Arc<HealthHub>, Arc<Reloader>) {
        let cell = Arc::new(GraphCell::new(Graph::default()));
        let health = Arc::<HealthHub>::default();
        let reloader = Reloader::start(Arc::clone(&cell), self.services, Arc::clone(&health));
        (cell, health, Arc::new(reloader))
    }
}
