//! `transport`, and the endpoints that are reached by it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::error::ProblemKind;
use super::fault::Fault;
use super::given::Given;
use super::keys::ENDPOINT;
use super::nearest::distance;
use super::table::Table;
use super::tree::Value;
use super::{Address, DnsName, EndpointSpec, PluginName, address, balance, dns};

#[derive(Clone, PartialEq)]
pub(super) enum Transport {
    Http,
    Https,
    Unix,
    UnixJson,
    ExecJson,
    Subprocess,
    Grpc,
    GrpcTls,
    InProcess,
    /// One of the program's own, by its name.
    Custom(String),
}

impl Transport {
    pub(super) const fn is_grpc(&self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcTls)
    }

    /// Whether it runs an executable.
    pub(super) const fn is_process(&self) -> bool {
        matches!(self, Self::ExecJson | Self::Subprocess)
    }

    pub(super) const fn is_tls(&self) -> bool {
        matches!(self, Self::Https | Self::GrpcTls)
    }
}

pub(super) const TRANSPORTS: [(&str, Transport); 9] = [
    ("http", Transport::Http),
    ("https", Transport::Https),
    ("unix", Transport::Unix),
    ("unix-json", Transport::UnixJson),
    ("exec-json", Transport::ExecJson),
    ("subprocess", Transport::Subprocess),
    ("grpc", Transport::Grpc),
    ("grpc-tls", Transport::GrpcTls),
    ("in-process", Transport::InProcess),
];

/// Whether each of `endpoints` is a Unix socket over which HTTP is spoken, and there is one.
pub(super) fn are_sockets(endpoints: &[EndpointSpec]) -> bool {
    let is_socket = |endpoint: &EndpointSpec| matches!(endpoint.address, Address::Unix { .. });
    !endpoints.is_empty() && endpoints.iter().all(is_socket)
}

pub(super) fn read_transport(table: &mut Table<'_>) -> Option<Transport> {
    let (has_transport, has_type) = (table.has("transport"), table.has("type"));
    if has_transport && has_type {
        let message =
            "named a factory in go-plugins, and is another word for `transport` here: remove it";
        table.conflict("type", message);
    }
    let key = if has_type && !has_transport {
        "type"
    } else {
        "transport"
    };
    table.pass(&["transport", "type"]);
    table.require(key);
    table.read(key, |given, _| {
        let word = given.text()?;
        let meaning = TRANSPORTS.iter().find(|(name, _)| *name == word);
        match meaning {
            Some((_, transport)) => Ok(transport.clone()),
            None => own_name(word).map(|()| Transport::Custom(word.to_owned())),
        }
    })
}

/// Whether a transport of the program's own may be called `word`. Whether it has one of that name is found when
/// the plugin is started; what is one letter away from a name that everybody has is a slip, and told at once.
pub(super) fn own_name(word: &str) -> Result<(), Fault> {
    let known = TRANSPORTS.iter().map(|(name, _)| *name);
    let is_near = |name: &str| distance(word, name) <= 1;
    if word == "exec" {
        let message = "is `exec-json` here, for a program that is sent lines of JSON, as go-plugins sends them, or \
                       `subprocess`, for a plugin of HashiCorp's go-plugin: write one of them, and the program as `executable`";
        return Err(Fault {
            nearest: Some("exec-json".to_owned()),
            ..Fault::of_value(message).kind(ProblemKind::Unavailable)
        });
    }
    if !PluginName::is_valid(word) || known.clone().chain(["exec"]).any(is_near) {
        return Err(Fault::unknown_word(word, known));
    }
    Ok(())
}

pub(super) fn read_endpoints(
    table: &mut Table<'_>,
    transport: Option<&Transport>,
) -> Vec<EndpointSpec> {
    let (has_one, has_many) = (table.has("endpoint"), table.has("endpoints"));
    match (has_one, has_many) {
        // What `path` is here is said of it.
        (false, false) if table.has("path") || table.has("executable") => {}
        (false, false) => table.require("endpoint"),
        (true, true) => table.conflict("endpoints", "is there beside endpoint: keep one of them"),
        _ => {}
    }
    let path = table.path_of("endpoint");
    let one = table.read("endpoint", |given, _| Ok(given.clone()));
    let many = table.list("endpoints");
    table.pass(&["endpoints"]);
    if many.as_ref().is_some_and(Vec::is_empty) {
        let fault = Fault::of_secret("is empty: a plugin needs at least one endpoint");
        table.problem("endpoints", fault);
    }
    let one = one.map(|given| (path, given));
    let many = many
        .into_iter()
        .flatten()
        .map(|item| (item.path, item.given));
    let mut endpoints = Vec::new();
    let mut paths = HashMap::new();
    for (path, given) in one.into_iter().chain(many) {
        let place = given.node.at;
        let Some(endpoint) = read_endpoint(table, &path, &given, transport) else {
            continue;
        };
        match paths.entry(endpoint.address.clone()) {
            Entry::Occupied(first) => {
                let message = format!("is the same endpoint as {}", first.get());
                let fault = Fault::new(ProblemKind::Conflict, message);
                table.report().add(table.doc(), place, path, fault);
            }
            Entry::Vacant(new) => {
                new.insert(path);
                endpoints.push(endpoint);
            }
        }
    }
    endpoints
}

/// An endpoint: its address as text, or a table of `url` and what else there is to say of it.
fn read_endpoint<'t>(
    plugin: &Table<'t>,
    path: &str,
    given: &Given<'t>,
    transport: Option<&Transport>,
) -> Option<EndpointSpec> {
    let parse = |given: &Given<'_>| {
        let text = given.text()?;
        if let Some(transport @ (Transport::Http | Transport::Https)) = transport
            && dns::is_dns(text)
        {
            let name = dns::parse(text, transport.is_tls());
            return name.map(Address::Dns).map(Some);
        }
        match transport {
            Some(Transport::Http) => address::parse_http(text).map(Some),
            Some(Transport::Https) => address::parse_https(text).map(Some),
            Some(Transport::Unix) => address::parse_unix(text).map(Some),
            Some(Transport::UnixJson) => address::parse_unix_json(text).map(Some),
            Some(Transport::Grpc) => address::parse_grpc(text).map(Some),
            Some(Transport::GrpcTls) => address::parse_grpc_tls(text).map(Some),
            Some(Transport::InProcess) => address::parse_in_process(text).map(Some),
            Some(Transport::Custom(name)) => address::parse_custom(name, text).map(Some),
            // It has none; and what is wrong with a transport has been said.
            Some(Transport::ExecJson | Transport::Subprocess) | None => Ok(None),
        }
    };
    let (report, doc, at) = (plugin.report(), plugin.doc(), given.node.at);
    if !matches!(given.node.value, Value::Table(_)) {
        return parse(given)
            .map_err(|fault| report.add_given(doc, at, path.to_owned(), fault, given))
            .ok()?
            .map(EndpointSpec::from);
    }
    let mut table = report.table(doc, &ENDPOINT, path.to_owned(), at, given.node)?;
    if table.has("from") {
        return from(table, transport?);
    }
    table.pass(&["from"]);
    table.require("url");
    let address = table.read("url", |given, _| parse(given)).flatten();
    let prefix = table.read("path", |given, _| address::parse_prefix(given.text()?));
    let address = match (address, prefix) {
        (Some(mut address), Some(own)) => {
            match &mut address {
                Address::Http { prefix, .. }
                | Address::Https { prefix, .. }
                | Address::Unix { prefix, .. }
                | Address::Dns(DnsName { prefix, .. }) => {
                    if !prefix.is_empty() {
                        table.conflict("path", "is there beside a path in url: keep one of them");
                    }
                    *prefix = own;
                }
                // The last two, and a process, are never read of a `url`.
                Address::UnixJson { .. }
                | Address::ExecJson { .. }
                | Address::Subprocess { .. }
                | Address::Attached(_)
                | Address::InProcess { .. }
                | Address::Custom { .. }
                | Address::Resolved { .. }
                | Address::Source { .. } => {
                    let why = match &address {
                        Address::UnixJson { .. } => {
                            "does nothing with unix-json, which has no paths"
                        }
                        Address::InProcess { .. } => "does nothing for an in-process plugin",
                        _ => "is not read by a transport of the program's own: put it into url",
                    };
                    table.problem("path", Fault::new(ProblemKind::Ineffective, why));
                }
            }
            Some(address)
        }
        (address, _) => address,
    };
    let weight = table.integer("weight");
    let priority = table.integer("priority");
    let zone = balance::zone(&mut table);
    let labels = balance::labels(&mut table);
    table.finish();
    Some(EndpointSpec {
        weight: weight.unwrap_or(1),
        priority: priority.unwrap_or(0),
        zone,
        labels,
        ..EndpointSpec::from(address?)
    })
}

/// Endpoints of the program, which says all there is to say of them.
fn from(mut table: Table<'_>, transport: &Transport) -> Option<EndpointSpec> {
    let name = table.read("from", |given, _| address::parse_source(given.text()?));
    for key in ["url", "path", "weight", "priority", "zone", "labels"] {
        table.pass(&[key]);
        if table.has(key) {
            table.conflict(
                key,
                "is said of each endpoint by the program, with from: remove it",
            );
        }
    }
    table.finish();
    let known = TRANSPORTS.iter().find(|(_, known)| known == transport);
    let transport = match transport {
        Transport::Custom(own) => own.clone(),
        _ => known?.0.to_owned(),
    };
    Some(
        Address::Source {
            name: name?,
            transport,
        }
        .into(),
    )
}
