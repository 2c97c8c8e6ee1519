//! The block `dns`, and text to names that are looked up.

use std::net::{IpAddr, SocketAddr};

use super::Address;
use super::blocks::Overlay;
use super::error::ProblemKind;
use super::fault::Fault;
use super::table::Table;
use super::tls;
use super::{DnsFamily, DnsName, DnsSpec, EndpointSpec};

pub(super) const FAMILIES: [(&str, DnsFamily); 3] = [
    ("any", DnsFamily::Any),
    ("ipv4", DnsFamily::Ipv4),
    ("ipv6", DnsFamily::Ipv6),
];

/// Whether `text` is to be read as a name that is looked up.
pub(super) fn is_dns(text: &str) -> bool {
    text.starts_with("dns:") || text.starts_with("dns+srv:")
}

/// `dns:///name:port`, `dns://server/name:port` or `dns:name:port`, as gRPC has it; `dns+srv:` for a service.
pub(super) fn parse(text: &str, https: bool) -> Result<DnsName, Fault> {
    // Nothing of a text with credentials is repeated.
    if text.contains(['@', '?', '#']) {
        return Err("has more than a server, a name and a port: remove the rest".into());
    }
    let is_service = text.starts_with("dns+srv:");
    let form = || {
        Fault::of_value(if is_service {
            "is no service such as \"dns+srv:///_http._tcp.search.internal\""
        } else {
            "is no name such as \"dns:///search.internal:8080\""
        })
    };
    let (_, rest) = text.split_once(':').ok_or_else(form)?;
    let (server, rest) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_once('/').ok_or_else(form)?,
        None => ("", rest),
    };
    let (name, port) = match rest.split_once(':') {
        Some(_) if is_service => {
            return Err(Fault::of_value(
                "has a port, which a service's records have: remove it",
            ));
        }
        Some((name, port)) => {
            let port = port.parse().ok().filter(|port| *port > 0);
            (
                name,
                Some(port.ok_or_else(|| Fault {
                    allowed: Some("1 to 65535".to_owned()),
                    ..Fault::of_value("has a port out of range, 1 to 65535")
                })?),
            )
        }
        None if is_service => (rest, None),
        None => (rest, Some(if https { 443 } else { 80 })),
    };
    if name.parse::<IpAddr>().is_ok() {
        return Err(Fault::of_value(
            "is an address, which is not looked up: write it as a URL",
        ));
    }
    let name = DnsName {
        name: name.to_owned(),
        port,
        server: (!server.is_empty())
            .then(|| parse_server(server))
            .transpose()?,
        https,
        prefix: String::new(),
    };
    if !is_name(&name.name) || (https && tls::check_name(name.host()).is_err()) {
        return Err(form());
    }
    Ok(name)
}

fn parse_server(text: &str) -> Result<SocketAddr, Fault> {
    let with_port = |ip: IpAddr| SocketAddr::new(ip, 53);
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    text.parse()
        .or_else(|_| bare.parse().map(with_port))
        .map_err(|_| Fault::of_value("names a server that is no address, such as 10.0.0.2:53"))
}

fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(plain)
    };
    name.len() <= 253
        && name
            .strip_suffix('.')
            .unwrap_or(name)
            .split('.')
            .all(is_label)
}

impl Overlay for DnsSpec {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let spec = Self {
            min_ttl: table.duration("min_ttl").unwrap_or(self.min_ttl),
            max_ttl: table.duration("max_ttl").unwrap_or(self.max_ttl),
            timeout: table.duration("timeout").unwrap_or(self.timeout),
            max_endpoints: table.integer("max_endpoints").unwrap_or(self.max_endpoints),
            family: table.word("family", &FAMILIES).unwrap_or(self.family),
        };
        if spec.min_ttl > spec.max_ttl {
            if table.has("min_ttl") {
                table.conflict("min_ttl", "is more than max_ttl");
            } else {
                table.conflict("max_ttl", "is less than min_ttl");
            }
        }
        spec
    }
}

/// What `spec` says of a plugin at `endpoints`: without a name among them nothing, as if nobody had said it.
pub(super) fn of(plugin: &Table<'_>, endpoints: &[EndpointSpec], spec: &DnsSpec) -> DnsSpec {
    let is_name = |endpoint: &EndpointSpec| matches!(endpoint.address, Address::Dns(_));
    if endpoints.iter().any(is_name) {
        return spec.clone();
    }
    if !endpoints.is_empty() && plugin.has("dns") {
        let why = "does nothing without an endpoint such as dns:///search.internal:8080";
        plugin.problem("dns", Fault::new(ProblemKind::Ineffective, why));
    }
    DnsSpec::default()
}
