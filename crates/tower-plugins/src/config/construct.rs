//! Where a config comes from: files, text, layers, or code.

use std::path::{Path, PathBuf};

use figment::Figment;

use super::address::{parse_grpc, parse_grpc_tls};
use super::fault::Fault;
use super::own_transport::OwnOrigin;
use super::{
    Address, Config, ConfigError, ConnectionSpec, DnsSpec, EndpointSpec, Format, GoPluginSpec,
    GrpcSpec, Loader, Options, PluginName, PluginSpec, Policy, ProcessSpec, Protocol, Reattach,
    TlsSpec, Upstream,
};

impl Config {
    /// The config in the file at `path`: JSON, YAML or TOML, by its extension. It may include more
    /// files and name variables of the environment; see `docs/config.md`.
    ///
    /// This blocks while it reads the files. Warnings are logged; [`Loader`] gives them.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, is not what its format allows, or is empty. Every key that is
    /// unknown, missing, of the wrong type or out of its range, and every two values that contradict
    /// each other, all at once.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let loaded = Loader::file(path.as_ref()).load();
        loaded.log_warnings();
        loaded.config
    }

    /// The config that `text` says, with the variables of the process's environment.
    ///
    /// ```
    /// use tower_plugins::config::{Config, Format};
    ///
    /// let config = Config::parse(
    ///     "
    ///     plugins:
    ///       auth:
    ///         transport: http
    ///         endpoint: http://127.0.0.1:8080
    ///         connection: { request_timeout: 2s }
    ///     ",
    ///     Format::Yaml,
    /// )?;
    /// assert_eq!(config.plugins["auth"].policy.deadline.unwrap().as_secs(), 2);
    /// # Ok::<(), tower_plugins::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Config::from_file`].
    pub fn parse(text: &str, format: Format) -> Result<Self, ConfigError> {
        Loader::text(text, format).load().config
    }

    /// The config that the layers of `figment` say together: a program's own figment, or a table of
    /// it. `${NAME}` in its values is a variable of the environment.
    ///
    /// ```
    /// use figment::Figment;
    /// use tower_plugins::config::{Config, Format, Source};
    ///
    /// let program = Source::text(
    ///     "
    ///     listen: 0.0.0.0:80
    ///     calls:
    ///       plugins: { auth: { transport: unix, endpoint: /run/auth.sock } }
    ///     ",
    ///     Format::Yaml,
    /// )?;
    /// let config = Config::from_figment(&Figment::from(program).focus("calls"))?;
    /// assert!(config.plugins.contains_key("auth"));
    /// # Ok::<(), tower_plugins::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Config::from_file`]. A line is told where the file of a layer can be found and read again.
    pub fn from_figment(figment: &Figment) -> Result<Self, ConfigError> {
        Loader::figment(figment.clone()).load().config
    }
}

impl Config {
    /// A config without a plugin.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// This config with `plugin`, which takes the place of one of the same name.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_plugins::config::{Config, PluginSpec};
    ///
    /// let mut auth = PluginSpec::http("auth", "http://127.0.0.1:8080")?;
    /// auth.policy.deadline = Some(Duration::from_secs(2));
    /// let config = Config::new()
    ///     .with(auth)
    ///     .with(PluginSpec::unix("audit", "/run/audit.sock")?);
    /// assert_eq!(config.plugins.len(), 2);
    /// # Ok::<(), tower_plugins::config::ConfigError>(())
    /// ```
    #[must_use]
    pub fn with(mut self, plugin: PluginSpec) -> Self {
        self.insert(plugin);
        self
    }

    /// Adds `plugin`; returns the one of the same name that it takes the place of, enabled or not.
    pub fn insert(&mut self, plugin: PluginSpec) -> Option<PluginSpec> {
        let disabled = self.disabled.remove(&plugin.name);
        self.plugins
            .insert(plugin.name.clone(), plugin)
            .or(disabled)
    }
}

impl PluginSpec {
    /// The plugin `name` at `address`, all else being the default.
    #[must_use]
    pub fn new(name: PluginName, address: Address) -> Self {
        Self {
            name,
            policy: Policy::default().into(),
            upstream: Upstream {
                endpoints: vec![address.into()],
                connection: ConnectionSpec::default(),
                tls: TlsSpec::default(),
                dns: DnsSpec::default(),
                grpc: None,
                process: ProcessSpec::default(),
                go_plugin: GoPluginSpec::default(),
                options: Options::default(),
                origin: OwnOrigin::default(),
            }
            .into(),
        }
    }

    /// The plugin `name` at `url`, such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    ///
    /// If `name` cannot name a plugin ([`PluginName`]); as [`Address::http`].
    pub fn http(name: &str, url: &str) -> Result<Self, ConfigError> {
        Self::named(name, Address::http(url))
    }

    /// The plugin `name` at `url`, such as `https://search.internal`.
    ///
    /// # Errors
    ///
    /// If `name` cannot name a plugin ([`PluginName`]); as [`Address::https`].
    pub fn https(name: &str, url: &str) -> Result<Self, ConfigError> {
        Self::named(name, Address::https(url))
    }

    /// The plugin `name` behind the Unix socket at `path`.
    ///
    /// # Errors
    ///
    /// If `name` cannot name a plugin ([`PluginName`]); as [`Address::unix`].
    pub fn unix(name: &str, path: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        Self::named(name, Address::unix(path))
    }

    /// The gRPC plugin `name` at `target`: `127.0.0.1:50051`, `http://127.0.0.1:50051`,
    /// `unix:/run/search.sock` or `dns:///search.internal:50051`.
    ///
    /// ```
    /// use tower_plugins::config::{Config, PluginSpec};
    ///
    /// let mut search = PluginSpec::grpc("search", "127.0.0.1:50051")?;
    /// search.upstream.grpc.as_mut().unwrap().max_response_message = 16 << 20;
    /// let config = Config::new().with(search);
    /// # Ok::<(), tower_plugins::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If `name` cannot name a plugin ([`PluginName`]), or `target` is none of these.
    pub fn grpc(name: &str, target: &str) -> Result<Self, ConfigError> {
        Self::of_target(name, target, parse_grpc)
    }

    /// The gRPC plugin `name` at `target`, over TLS: `search.internal:443`, `https://search.internal` or
    /// `dns:///search.internal:443`.
    ///
    /// # Errors
    ///
    /// If `name` cannot name a plugin ([`PluginName`]), or `target` is none of these.
    pub fn grpc_tls(name: &str, target: &str) -> Result<Self, ConfigError> {
        Self::of_target(name, target, parse_grpc_tls)
    }

    fn of_target(
        name: &str,
        target: &str,
        parse: fn(&str) -> Result<Address, Fault>,
    ) -> Result<Self, ConfigError> {
        let address = parse(target).map_err(|fault| fault.into_problem("endpoint", target).into());
        let mut plugin = Self::named(name, address)?;
        plugin.upstream.connection.protocol = Protocol::Http2;
        plugin.upstream.grpc = Some(GrpcSpec::default());
        Ok(plugin)
    }

    /// The plugin `name` that is sent lines of JSON on the Unix socket at `path`.
    ///
    /// # Errors
    ///
    /// If `name` cannot name a plugin ([`PluginName`]); as [`Address::unix_json`].
    pub fn unix_json(name: &str, path: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        Self::named(name, Address::unix_json(path))
    }

    /// The plugin `name` that is a process of the program at `executable`, an absolute path, which is sent lines of JSON
    /// on its standard input. How it is run is [`Upstream::process`]; several endpoints are several processes.
    ///
    /// ```
    /// use tower_plugins::config::{Address, Config, PluginSpec};
    ///
    /// let mut resize = PluginSpec::exec_json("resize", "/usr/libexec/resize")?;
    /// resize.upstream.process.args = vec!["--fast".to_owned()];
    /// let second = Address::exec_json("/usr/libexec/resize", 2)?;
    /// resize.upstream.endpoints.push(second.into());
    /// let config = Config::new().with(resize);
    /// # Ok::<(), tower_plugins::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If `name` cannot name a plugin ([`PluginName`]); as [`Address::exec_json`].
    pub fn exec_json(name: &str, executable: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        Self::named(name, Address::exec_json(executable, 1))
    }

    /// The plugin `name` that is a process of the program at `executable`, an absolute path, which speaks HashiCorp's
    /// go-plugin. What is agreed on with it is [`Upstream::go_plugin`], and how it is run [`Upstream::process`]; several
    /// endpoints are several processes.
    ///
    /// ```
    /// use tower_plugins::config::{Config, PluginSpec};
    ///
    /// let mut greeter = PluginSpec::subprocess("greeter", "/usr/libexec/greeter")?;
    /// greeter.upstream.go_plugin.cookie_key = "GREETER_PLUGIN".to_owned();
    /// greeter.upstream.go_plugin.cookie_value = "hello".to_owned();
    /// greeter.upstream.go_plugin.protocol_versions = vec![5, 6];
    /// let config = Config::new().with(greeter);
    /// # Ok::<(), tower_plugins::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If `name` cannot name a plugin ([`PluginName`]); as [`Address::subprocess`].
    pub fn subprocess(name: &str, executable: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        let mut plugin = Self::named(name, Address::subprocess(executable, 1))?;
        plugin.upstream.connection = ConnectionSpec::of_process();
        plugin.upstream.grpc = Some(GrpcSpec::of_process());
        Ok(plugin)
    }

    /// The plugin `name` that runs already, and speaks HashiCorp's go-plugin: one under a debugger, for example.
    ///
    /// # Errors
    ///
    /// If `name` cannot name a plugin ([`PluginName`]).
    pub fn attached(name: &str, reattach: Reattach) -> Result<Self, ConfigError> {
        let mut plugin = Self::named(name, Ok(Address::Attached(reattach)))?;
        plugin.upstream.connection = ConnectionSpec::of_process();
        plugin.upstream.grpc = Some(GrpcSpec::of_process());
        plugin.upstream.go_plugin = GoPluginSpec::default().attached();
        Ok(plugin)
    }

    /// The plugin `name` at `endpoint`, reached by the program's own transport that is registered as
    /// `transport`. Its options are [`Upstream::options`].
    ///
    /// # Errors
    ///
    /// If `name` cannot name a plugin ([`PluginName`]); as [`Address::custom`].
    pub fn custom(name: &str, transport: &str, endpoint: &str) -> Result<Self, ConfigError> {
        Self::named(name, Address::custom(transport, endpoint))
    }

    /// The plugin `name` that is the service registered as `service`.
    ///
    /// # Errors
    ///
    /// If `name` cannot name a plugin ([`PluginName`]); as [`Address::in_process`].
    pub fn in_process(name: &str, service: &str) -> Result<Self, ConfigError> {
        Self::named(name, Address::in_process(service))
    }

    fn named(name: &str, address: Result<Address, ConfigError>) -> Result<Self, ConfigError> {
        let name = PluginName::new(name).ok_or_else(|| {
            let fault = Fault::of_value(format!("cannot name a plugin: {}", PluginName::RULE));
            ConfigError::from(fault.into_problem("name", name))
        });
        match (name, address) {
            (Ok(name), Ok(address)) => Ok(Self::new(name, address)),
            (Err(name), Err(address)) => Err(name.and(address)),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }
}

impl From<Address> for EndpointSpec {
    fn from(address: Address) -> Self {
        Self {
            address,
            weight: 1,
            priority: 0,
            zone: None,
            labels: std::collections::BTreeMap::new(),
        }
    }
}
