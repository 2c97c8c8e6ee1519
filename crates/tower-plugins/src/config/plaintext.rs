//! Credentials go over plaintext to this machine alone, unless the config says otherwise.

use super::address::is_loopback;
use super::error::ProblemKind;
use super::fault::Fault;
use super::table::{Table, join};
use super::{Address, ConfigError, CredentialsSpec, EndpointSpec, PluginSpec, Policy};

const WHY: &str = "where all between can read it: take a transport with TLS, or write allow_plaintext: true under auth";

/// Whether what is sent to `address` may be read on the way.
fn is_open(address: &Address) -> bool {
    match address {
        Address::Http { authority, .. } => !is_loopback(authority.host()),
        // Whatever it stands for may be anywhere.
        Address::Dns(name) => !name.https,
        Address::Resolved { origin, at } => {
            matches!(**origin, Address::Http { .. }) && !at.ip().to_canonical().is_loopback()
        }
        // A transport of the program's own is its author's to judge.
        Address::Https { .. }
        | Address::Unix { .. }
        | Address::UnixJson { .. }
        | Address::InProcess { .. }
        | Address::Custom { .. }
        // The program's endpoints are looked at one by one, as they come.
        | Address::Source { .. } => false,
    }
}

fn is_refused(policy: &Policy, address: &Address) -> bool {
    policy.credentials != CredentialsSpec::None && !policy.allow_plaintext && is_open(address)
}

/// Refuses `auth` that would go out in the clear, and leave to do so where nothing could.
pub(super) fn refuse(table: &Table<'_>, endpoints: &[EndpointSpec], policy: &Policy) {
    let open = |end: &EndpointSpec| is_refused(policy, &end.address);
    if let Some(index) = endpoints.iter().position(open) {
        let which = match table.has("endpoint") {
            true => "endpoint".to_owned(),
            false => format!("endpoints[{index}]"),
        };
        let message =
            format!("would go over plaintext to {which}, which may be another machine, {WHY}");
        table.conflict("auth", message);
    }
    let may_be_open = |end: &EndpointSpec| match &end.address {
        Address::Http { .. } => true,
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
        if !is_refused(&self.policy, address) {
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
