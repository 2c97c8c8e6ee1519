//! Text to [`Address`].

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use http::Uri;
use http::uri::{Authority, PathAndQuery};

use super::dns;
use super::endpoints;
use super::fault::Fault;
use super::tls;
use super::{Address, ConfigError, PluginName};

/// What the kernel takes as the path of a socket, less the closing zero.
const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

impl Address {
    /// As metrics and events show it: one that was made in code may have credentials, which they must not.
    pub(crate) fn shown(&self) -> String {
        let whole = self.to_string();
        let text = match self {
            Self::Http { authority, .. } | Self::Https { authority, .. } => authority.as_str(),
            Self::Custom { endpoint, .. } => after_scheme(endpoint),
            Self::Resolved { origin, at } => return format!("{} at {at}", origin.shown()),
            Self::Unix { .. }
            | Self::UnixJson { .. }
            | Self::ExecJson { .. }
            | Self::Subprocess { .. }
            | Self::Attached(_)
            | Self::InProcess { .. }
            | Self::Dns(_)
            | Self::Source { .. } => return whole,
        };
        match text.rsplit_once('@') {
            Some((credentials, _)) => whole.replacen(&format!("{credentials}@"), "", 1),
            None => whole,
        }
    }

    /// The address of `url`, such as `http://127.0.0.1:8080` or `http://auth.internal:8080/v1`.
    ///
    /// Without a port it is port 80.
    ///
    /// # Errors
    ///
    /// If `url` is not an `http` URL, or has credentials, a query or a fragment.
    pub fn http(url: &str) -> Result<Self, ConfigError> {
        parse_http(url).map_err(|fault| fault.into_problem("endpoint", url).into())
    }

    /// The address of `url`, such as `https://search.internal/v1`.
    ///
    /// Without a port it is port 443.
    ///
    /// # Errors
    ///
    /// If `url` is not an `https` URL, or has credentials, a query or a fragment.
    pub fn https(url: &str) -> Result<Self, ConfigError> {
        parse_https(url).map_err(|fault| fault.into_problem("endpoint", url).into())
    }

    /// The Unix socket at `path`, which is absolute.
    ///
    /// # Errors
    ///
    /// If `path` is relative, or longer than the system takes (107 bytes on Linux).
    pub fn unix(path: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        let path = at_socket(path.into())?;
        let prefix = String::new();
        Ok(Self::Unix { path, prefix })
    }

    /// The Unix socket at `path`, which is absolute, for lines of JSON.
    ///
    /// # Errors
    ///
    /// As [`unix`](Self::unix).
    pub fn unix_json(path: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        let path = at_socket(path.into())?;
        Ok(Self::UnixJson { path })
    }

    /// The process `instance`, from 1, of the program at `executable`, for lines of JSON on its standard streams.
    ///
    /// # Errors
    ///
    /// If `executable` is not absolute.
    pub fn exec_json(executable: impl Into<PathBuf>, instance: u32) -> Result<Self, ConfigError> {
        Ok(Self::ExecJson {
            executable: program(executable.into())?,
            instance,
        })
    }

    /// The process `instance`, from 1, of the program at `executable`, which speaks HashiCorp's go-plugin.
    ///
    /// # Errors
    ///
    /// If `executable` is not absolute.
    pub fn subprocess(executable: impl Into<PathBuf>, instance: u32) -> Result<Self, ConfigError> {
        Ok(Self::Subprocess {
            executable: program(executable.into())?,
            instance,
        })
    }

    /// What the program's own transport `transport` reaches at `endpoint`.
    ///
    /// # Errors
    ///
    /// If `transport` cannot name one: it is formed like a [`PluginName`], and at least two letters away from the
    /// names of the others, or if `endpoint` is empty.
    pub fn custom(transport: &str, endpoint: &str) -> Result<Self, ConfigError> {
        if let Err(fault) = endpoints::own_name(transport) {
            return Err(fault.into_problem("transport", transport).into());
        }
        parse_custom(transport, endpoint)
            .map_err(|fault| fault.into_problem("endpoint", endpoint).into())
    }

    /// The endpoints that name servers tell of, at `name`: `dns:///search.internal:8080`, or
    /// `dns+srv:///_http._tcp.search.internal` for a service; `https` if they are reached over TLS.
    ///
    /// # Errors
    ///
    /// If `name` is none of these.
    pub fn dns(name: &str, https: bool) -> Result<Self, ConfigError> {
        if !dns::is_dns(name) {
            let fault = Fault::of_value("does not begin with dns: or dns+srv:");
            return Err(fault.into_problem("endpoint", name).into());
        }
        let parsed = dns::parse(name, https);
        parsed
            .map(Self::Dns)
            .map_err(|fault| fault.into_problem("endpoint", name).into())
    }

    /// The endpoints that the program registers as `name`, with
    /// [`Builder::endpoints`](crate::Builder::endpoints).
    ///
    /// # Errors
    ///
    /// If `name` is not formed like a [`PluginName`].
    pub fn source(name: &str) -> Result<Self, ConfigError> {
        let name = parse_source(name).map_err(|fault| fault.into_problem("from", name))?;
        let transport = "http".to_owned();
        Ok(Self::Source { name, transport })
    }

    /// Whether it is reached over TLS.
    pub(crate) fn is_https(&self) -> bool {
        match self {
            Self::Https { .. } => true,
            Self::Resolved { origin, .. } => origin.is_https(),
            Self::Dns(name) => name.https,
            _ => false,
        }
    }

    /// Whether it is not that of one endpoint, but where endpoints are found.
    pub(crate) const fn stands_for_many(&self) -> bool {
        matches!(self, Self::Source { .. } | Self::Dns(_))
    }

    /// The service that the program registers as `service`.
    ///
    /// # Errors
    ///
    /// If `service` is not formed like a [`PluginName`].
    pub fn in_process(service: &str) -> Result<Self, ConfigError> {
        parse_in_process(service).map_err(|fault| fault.into_problem("endpoint", service).into())
    }
}

/// Whether `host`, of a URL, is this machine: `localhost`, which no resolver may send elsewhere (RFC 6761,
/// section 6.3), or a loopback address.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bare.unwrap_or(host).parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// The authority of a URL; nothing of another text.
fn after_scheme(text: &str) -> &str {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// `executable` as given in code.
fn program(executable: PathBuf) -> Result<PathBuf, ConfigError> {
    if is_plain(&executable) {
        return Ok(executable);
    }
    let shown = executable.display().to_string();
    let fault =
        Fault::of_value("is not the path of a program: write an absolute one, without `..`");
    Err(fault.into_problem("executable", &shown).into())
}

/// `path` as given in code.
fn at_socket(path: PathBuf) -> Result<PathBuf, ConfigError> {
    let shown = path.display().to_string();
    socket(path).map_err(|fault| fault.into_problem("endpoint", &shown).into())
}

pub(super) fn parse_http(url: &str) -> Result<Address, Fault> {
    let (authority, prefix) = parse_url(url, "http")?;
    Ok(Address::Http { authority, prefix })
}

pub(super) fn parse_https(url: &str) -> Result<Address, Fault> {
    let (authority, prefix) = parse_url(url, "https")?;
    https(authority, prefix)
}

/// `host:port`, a URL of either scheme of HTTP, `unix:/path`, or a name that is looked up.
pub(super) fn parse_grpc(text: &str) -> Result<Address, Fault> {
    if text.starts_with("unix:") {
        return parse_unix(text);
    }
    if dns::is_dns(text) {
        return dns::parse(text, false).map(Address::Dns);
    }
    let (authority, prefix) = parse_target(text, "http", "grpc-tls")?;
    Ok(Address::Http { authority, prefix })
}

/// `host:port`, an `https` URL, or a name that is looked up.
pub(super) fn parse_grpc_tls(text: &str) -> Result<Address, Fault> {
    if dns::is_dns(text) {
        return dns::parse(text, true).map(Address::Dns);
    }
    let (authority, prefix) = parse_target(text, "https", "grpc")?;
    https(authority, prefix)
}

/// `other` is the transport of what is addressed otherwise.
fn parse_target(text: &str, scheme: &str, other: &str) -> Result<(Authority, String), Fault> {
    // What may have a secret in it is refused without being repeated.
    let is_safe = !text.contains(['@', '?']);
    match text.split_once(':') {
        Some((found @ ("http" | "https" | "unix"), _)) if found != scheme && is_safe => {
            Err(Fault::of_value(format!("takes transport: {other}")))
        }
        Some((found, _)) if found == scheme || text.contains("://") => parse_url(text, scheme),
        _ => {
            let url = format!("{scheme}://{text}");
            let (authority, prefix) = parse_url(&url, scheme)?;
            if authority.port().is_none() {
                let message = "has no port: write a target such as \"127.0.0.1:50051\"";
                return Err(Fault::of_value(message));
            }
            Ok((authority, prefix))
        }
    }
}

fn https(authority: Authority, prefix: String) -> Result<Address, Fault> {
    // A certificate must be able to have it as a name.
    let host = authority.host();
    if !host.starts_with('[') && tls::check_name(host).is_err() {
        return Err(Fault::of_value(
            "has a host that is no name, and no address",
        ));
    }
    Ok(Address::Https { authority, prefix })
}

/// Where a proxy is.
pub(super) fn parse_proxy(url: &str) -> Result<Authority, Fault> {
    if url.contains('@') {
        return Err("credentials do not belong in a URL: write them as `proxy_auth`".into());
    }
    let (authority, path) = parse_url(url, "http").map_err(|fault| Fault {
        message: "is neither `off`, `environment` nor a URL such as \"http://proxy:3128\"".into(),
        ..fault
    })?;
    if !path.is_empty() {
        return Err(Fault::of_value(
            "has a path, and a proxy has none: remove it",
        ));
    }
    Ok(authority)
}

fn parse_url(url: &str, scheme: &str) -> Result<(Authority, String), Fault> {
    // Nothing of a URL with credentials is repeated.
    if url.contains('@') {
        return Err("credentials do not belong in a URL: write them under `auth`".into());
    }
    // Nor of a query, which is where some keys are written.
    if url.contains('?') {
        return Err("has a query: only a path may follow the host".into());
    }
    let form = || {
        Fault::of_value(match scheme {
            "https" => "is not a URL such as \"https://127.0.0.1:8443\"",
            _ => "is not a URL such as \"http://127.0.0.1:8080\"",
        })
    };
    // `Uri` drops a fragment without a word.
    if url.contains('#') {
        return Err(Fault::of_value(
            "has a fragment, which is never sent: remove it",
        ));
    }
    match url.split_once("://") {
        Some((found, _)) if found == scheme => {}
        Some((found @ ("http" | "https"), _)) => {
            return Err(Fault::of_value(format!("takes transport: {found}")));
        }
        Some(("unix", _)) => return Err(Fault::of_value("takes transport: unix")),
        Some(_) => return Err(Fault::of_value(format!("does not begin with {scheme}://"))),
        None => return Err(form()),
    }
    let uri: Uri = url.parse().map_err(|_| form())?;
    let authority = uri.authority().ok_or_else(form)?;
    let host = authority.host();
    if host.is_empty() {
        return Err(Fault::of_value("has no host"));
    }
    let port = authority.as_str().get(host.len()..).unwrap_or_default();
    if !port.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(Fault {
            allowed: Some("1 to 65535".to_owned()),
            ..Fault::of_value("has a port out of range, 1 to 65535")
        });
    }
    let prefix = uri.path().trim_end_matches('/').to_owned();
    Ok((authority.clone(), prefix))
}

pub(super) fn parse_unix(text: &str) -> Result<Address, Fault> {
    Ok(Address::Unix {
        path: parse_socket(text)?,
        prefix: String::new(),
    })
}

pub(super) fn parse_unix_json(text: &str) -> Result<Address, Fault> {
    let path = parse_socket(text.strip_prefix("unix-json:").unwrap_or(text))?;
    Ok(Address::UnixJson { path })
}

fn parse_socket(text: &str) -> Result<PathBuf, Fault> {
    let path = match text.strip_prefix("unix:") {
        Some(path) => path.strip_prefix("//").unwrap_or(path),
        None => text,
    };
    socket(PathBuf::from(path))
}

pub(super) fn parse_custom(transport: &str, endpoint: &str) -> Result<Address, Fault> {
    if endpoint.is_empty() {
        return Err(Fault::of_secret("is empty: say where the endpoint is"));
    }
    // Logs and metrics show it.
    if after_scheme(endpoint).contains('@') {
        return Err("credentials do not belong in an endpoint: write them under `options`".into());
    }
    Ok(Address::Custom {
        transport: transport.to_owned(),
        endpoint: endpoint.to_owned(),
    })
}

pub(super) fn parse_in_process(service: &str) -> Result<Address, Fault> {
    if !PluginName::is_valid(service) {
        return Err(Fault::of_value(format!(
            "cannot name a service: {}",
            PluginName::RULE
        )));
    }
    Ok(Address::InProcess {
        service: service.to_owned(),
    })
}

/// The name of endpoints that the program registers.
pub(super) fn parse_source(name: &str) -> Result<String, Fault> {
    if !PluginName::is_valid(name) {
        return Err(Fault::of_value(format!(
            "cannot name endpoints: {}",
            PluginName::RULE
        )));
    }
    Ok(name.to_owned())
}

fn socket(path: PathBuf) -> Result<PathBuf, Fault> {
    if !is_plain(&path) {
        return Err(Fault::of_value(
            "is not the path of a socket: write an absolute one, without `..`",
        ));
    }
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        return Err(Fault::of_secret(format!(
            "a socket path of {length} bytes is too long, at most {MAX_SOCKET_PATH}"
        )));
    }
    Ok(path)
}

/// Whether `path` is absolute, names a file, and means the same whoever reads it.
fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path.file_name().is_some()
        && !path.components().any(|part| part == Component::ParentDir)
        && !path.as_os_str().as_encoded_bytes().contains(&0)
}

/// The prefix that the endpoint's `path` stands for.
pub(super) fn parse_prefix(path: &str) -> Result<String, Fault> {
    let wrong = || Fault::of_value("is not a path such as \"/v1\"");
    let parsed: PathAndQuery = path.parse().map_err(|_| wrong())?;
    if !path.starts_with('/') || path.contains('#') || parsed.query().is_some() {
        return Err(wrong());
    }
    Ok(path.trim_end_matches('/').to_owned())
}
