//! A config as text, every key written out.

mod access;
mod attempts;
mod balance;
mod breaker;
mod connection;
mod elsewhere;
mod grpc;
mod health;
mod layers;
mod limits;
mod process;
mod reload;
mod values;

use self::access::{fallback, filter};
use self::attempts::{hedge, retry};
use self::balance::balance;
use self::breaker::{breaker, outlier};
use self::connection::{dns, tls};
use self::grpc::grpc;
use self::health::health;
use self::limits::concurrency;
use self::reload::reload;
use self::values::{bool, duration, integer, list, named, off, table, text};
use super::format::Format;
use super::secret::{self, HIDDEN};
use super::tree::Node;
use super::{Address, Config, EndpointSpec, PluginSpec, PluginTls, Secret};

/// Whether secrets are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Secrets {
    /// As `***`, which is refused when it is read.
    Hidden,
    /// As they are; those from files as the file they are from.
    Shown,
}

impl Config {
    /// This config as text. Every key is written out, those with their default as well: read again,
    /// with secrets shown and while the files it names are the same, it is an equal config.
    ///
    /// What a file cannot say is left out, and then missed when it is read: paths that are no UTF-8, and
    /// endpoints of different kinds in one plugin.
    ///
    /// ```
    /// use tower_plugins::config::{Config, Format, PluginSpec, Secrets};
    ///
    /// let config = Config::new().with(PluginSpec::http("search", "http://10.0.0.1:8080")?);
    /// let text = config.to_text(Format::Toml, Secrets::Shown);
    /// assert_eq!(Config::parse(&text, Format::Toml)?, config);
    /// # Ok::<(), tower_plugins::config::ConfigError>(())
    /// ```
    #[must_use]
    pub fn to_text(&self, format: Format, secrets: Secrets) -> String {
        let writer = Writer { secrets };
        let enabled = self.plugins.values();
        let enabled = enabled.map(|plugin| writer.plugin(plugin, true));
        let disabled = self.disabled.values();
        let disabled = disabled.map(|plugin| writer.plugin(plugin, false));
        let is_empty = self.plugins.is_empty() && self.disabled.is_empty();
        let root = table([
            ("allow_empty", bool(is_empty)),
            ("reload", Some(reload(&self.reload))),
            ("plugins", Some(list(enabled.chain(disabled).collect()))),
        ]);
        // None of them fails for values like these; what came of it is read back by tests.
        match format {
            Format::Json => serde_json::to_string_pretty(&root).unwrap_or_default(),
            Format::Yaml => serde_saphyr::to_string(&root).unwrap_or_default(),
            Format::Toml => toml::to_string(&root).unwrap_or_default(),
        }
    }
}

struct Writer {
    secrets: Secrets,
}

impl Writer {
    fn plugin(&self, plugin: &PluginSpec, is_enabled: bool) -> Node<'static> {
        let PluginSpec {
            name,
            policy,
            upstream,
        } = plugin;
        let transport = match upstream.endpoints.first().map(|endpoint| &endpoint.address) {
            Some(
                address @ (Address::Http { .. }
                | Address::Https { .. }
                | Address::Unix { .. }
                | Address::Dns(_)),
            ) if upstream.grpc.is_some() => {
                if address.is_https() {
                    "grpc-tls"
                } else {
                    "grpc"
                }
            }
            Some(Address::Unix { .. }) => "unix",
            Some(Address::UnixJson { .. }) => "unix-json",
            Some(Address::ExecJson { .. }) => "exec-json",
            Some(Address::Subprocess { .. } | Address::Attached(_)) => "subprocess",
            Some(Address::InProcess { .. }) => "in-process",
            Some(Address::Custom { transport, .. } | Address::Source { transport, .. }) => {
                transport
            }
            Some(address) if address.is_https() => "https",
            Some(_) | None => "http",
        };
        let endpoints = upstream.endpoints.iter();
        let endpoints = endpoints.filter_map(|one| endpoint(one, upstream.grpc.is_some()));
        let endpoints = endpoints.collect();
        let process = self.process(upstream);
        let is_process = process.executable.is_some() || process.go_plugin.is_some();
        let is_tls = match transport {
            "https" | "grpc-tls" => true,
            "subprocess" => upstream.go_plugin.tls == PluginTls::Static,
            _ => false,
        };
        table([
            ("name", text(name.as_str())),
            ("enabled", bool(is_enabled)),
            ("transport", text(transport)),
            ("endpoints", Some(list(endpoints)).filter(|_| !is_process)),
            ("executable", process.executable),
            ("args", process.args),
            ("env", process.env),
            ("work_dir", process.work_dir),
            ("process", process.process),
            ("go_plugin", process.go_plugin),
            ("drain_timeout", duration(policy.drain_timeout)),
            ("start", policy.ready_within.and_then(|_| text("ready"))),
            ("start_timeout", policy.ready_within.and_then(duration)),
            ("exclusive", bool(policy.exclusive)),
            ("auth", Some(self.auth(policy))),
            (
                "authorize",
                policy.authorize.as_ref().map(|spec| self.authorize(spec)),
            ),
            ("filter", policy.filter.as_ref().map(filter)),
            ("fallback", policy.fallback.as_ref().map(fallback)),
            ("split", policy.split.as_ref().map(elsewhere::split)),
            ("shadow", policy.shadow.as_ref().map(elsewhere::shadow)),
            ("layers", self.layers(&policy.layers)),
            ("retry", retry(policy)),
            ("hedge", policy.hedge.as_ref().map_or_else(off, hedge)),
            (
                "circuit_breaker",
                policy.breaker.as_ref().map_or_else(off, breaker),
            ),
            (
                "outlier_detection",
                policy.outlier.as_ref().map_or_else(off, outlier),
            ),
            (
                "health_check",
                policy.health.as_ref().map_or_else(off, health),
            ),
            (
                "connection",
                Some(self.connection(policy, upstream, transport)),
            ),
            (
                "rate_limit",
                policy
                    .rate_limit
                    .as_ref()
                    .map_or_else(off, |spec| Some(self.rate_limit(spec))),
            ),
            (
                "concurrency",
                policy.concurrency.as_ref().map_or_else(off, concurrency),
            ),
            ("load_balancing", Some(balance(&policy.balance))),
            ("tls", is_tls.then(|| tls(&upstream.tls))),
            ("dns", dns(upstream)),
            ("grpc", upstream.grpc.as_ref().map(grpc)),
            ("options", self.options_of(&upstream.options)),
        ])
    }

    fn secret(&self, secret: &Secret) -> Node<'static> {
        Node::text(match self.secrets {
            Secrets::Hidden => HIDDEN.to_owned(),
            Secrets::Shown => secret::write(secret),
        })
    }
}

fn endpoint(endpoint: &EndpointSpec, is_grpc: bool) -> Option<Node<'static>> {
    let (url, path) = match &endpoint.address {
        Address::Http { authority, prefix } => (format!("http://{authority}"), Some(prefix)),
        Address::Https { authority, prefix } => (format!("https://{authority}"), Some(prefix)),
        Address::Unix { path, prefix } => {
            let path = path.to_str()?;
            // A target of gRPC has to say that it is a socket.
            let scheme = if is_grpc { "unix://" } else { "" };
            (format!("{scheme}{path}"), Some(prefix))
        }
        Address::UnixJson { path } => (path.to_str()?.to_owned(), None),
        // It is said by `executable`.
        Address::ExecJson { .. } | Address::Subprocess { .. } => return None,
        // By `go_plugin.reattach`.
        Address::Attached(_) => return None,
        Address::InProcess { service } => (service.clone(), None),
        Address::Custom { endpoint, .. } => (endpoint.clone(), None),
        Address::Dns(name) => (name.to_string(), Some(&name.prefix)),
        // It is found by a name, which is what a file says.
        Address::Resolved { .. } => return None,
        Address::Source { name, .. } => return Some(table([("from", text(name))])),
    };
    let path = path.filter(|path| !path.is_empty());
    Some(table([
        ("url", text(&url)),
        ("path", path.and_then(|path| text(path))),
        ("weight", integer(endpoint.weight)),
        ("priority", integer(endpoint.priority)),
        ("zone", endpoint.zone.as_deref().and_then(text)),
        ("labels", named(&endpoint.labels, |value| text(value))),
    ]))
}
