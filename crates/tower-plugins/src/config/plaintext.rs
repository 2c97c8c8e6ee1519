//! Credentials go over plaintext to this machine alone, unless the config says otherwise.

use tower_plugins_proto::go_plugin::Address as Socket;

use super::address::is_loopback;
use super::error::ProblemKind;
use super::fault::Fault;
use super::table::{Table, join};
use super::{
    Address, ConfigError, ConnectionSpec, CredentialsSpec, EndpointSpec, PluginSpec, Policy,
    ProxySpec, Reattach,
};

const WHY: &str = "where all between can read it: take a transport with TLS, or write allow_plaintext: true under auth";

/// Whether what is sent to `address` may be read on the way.
fn is_open(address: &Address, connection: &ConnectionSpec) -> bool {
    // To a proxy elsewhere this machine's address is that of its own.
    let is_far = match &connection.proxy {
        ProxySpec::At(proxy) => !is_loopback(proxy.host()),
        ProxySpec::Off | ProxySpec::Environment => false,
    };
    match address {
        Address::Attached(reattach) => is_elsewhere(reattach),
        Address::Http { authority, .. } => is_far || !is_loopback(authority.host()),
        // Whatever it stands for may be anywhere.
        Address::Dns(name) => !name.https,
        Address::Resolved { origin, at } => {
            let is_here = at.ip().to_canonical().is_loopback();
            matches!(**origin, Address::Http { .. }) && (is_far || !is_here)
        }
        // A transport of the program's own is its author's to judge.
        Address::Https { .. }
        | Address::Unix { .. }
        | Address::UnixJson { .. }
        | Address::ExecJson { .. }
        | Address::Subprocess { .. }
        | Address::InProcess { .. }
        | Address::Custom { .. }
        // The program's endpoints are looked at one by one, as they come.
        | Address::Source { .. } => false,
    }
}

/// Whether it may be another machine's.
fn is_elsewhere(reattach: &Reattach) -> bool {
    match &reattach.address {
        Socket::Tcp(address) => !address.ip().to_canonical().is_loopback(),
        Socket::Unix(_) => false,
    }
}

fn is_refused(policy: &Policy, connection: &ConnectionSpec, address: &Address) -> bool {
    policy.credentials != CredentialsSpec::None
        && !policy.allow_plaintext
        && is_open(address, connection)
}

/// Refuses `auth` that would go out in the clear, and leave to do so where nothing could.
pub(super) fn refuse(
    table: &Table<'_>,
    endpoints: &[EndpointSpec],
    connection: &ConnectionSpec,
    policy: &Policy,
) {
    let open = |end: &EndpointSpec| is_refused(policy, connection, &end.address);
    if let Some(index) = endpoints.iter().position(open) {
        let is_attached = matches!(endpoints[index].address, Address::Attached(_));
        let which = match table.has("endpoint") {
            true => "endpoint".to_owned(),
            false if is_attached => "the plugin that is attached to".to_owned(),
            false => format!("endpoints[{index}]"),
        };
        let message =
            format!("would go over plaintext to {which}, which may be another machine, {WHY}");
        table.conflict("auth", message);
    }
    let may_be_open = |end: &EndpointSpec| match &end.address {
        Address::Http { .. } => true,
        Address::Attached(reattach) => is_elsewhere(reattach),
        Address::Dns(name) => !name.https,
        Address::Source { transport, .. } => ["http", "grpc"].contains(&transport.as_str()),
        _ => false,
    };
    if !policy.allow_plaintext || endpoints.is_empty() || endpoints.iter().any(may_be_open) {
        return;
    }
    let entries = table.get("auth").and_then(|auth| auth.entries());
    let written = entries.and_then(|all| all.iter().find(|entry| entry.key == "allow_plaintext"));
    if let Some(entry) = written {
        let why = "does nothing where no endpoint is reached over TCP without TLS: remove it";
        let path = join(&table.path_of("auth"), "allow_plaintext");
        let fault = Fault::new(ProblemKind::Ineffective, why);
        table.report().add(table.doc(), entry.at, path, fault);
    }
}

impl PluginSpec {
    /// Whether this plugin's credentials may go to `address`: one that came in code, or while the plugin runs, was not
    /// read with the config.
    pub(crate) fn check_plaintext(&self, address: &Address) -> Result<(), ConfigError> {
        if !is_refused(&self.policy, &self.upstream.connection, address) {
            return Ok(());
        }
        let name = self.name.as_str();
        let to = address.shown();
        let message = format!(
            "of {name:?} would go over plaintext to {to}, which may be another machine, {WHY}"
        );
        let fault = Fault::new(ProblemKind::Conflict, message);
        Err(fault.into_problem("auth", "").into())
    }
}
