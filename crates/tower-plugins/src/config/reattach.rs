//! Where a plugin is that runs already, as Go's tools say it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tower_plugins_proto::go_plugin::{Address, AddressError};

use super::env::Environment;
use super::table::Table;
use super::{Config, Problem, ProblemKind};

/// The variable with plugins that run already.
pub(super) const VARIABLE: &str = "TOWER_PLUGINS_REATTACH";

/// Where a plugin is that somebody else started: a debugger, a test, or a host before this one. In JSON it is what tools in Go write
/// and read, as in `TF_REATTACH_PROVIDERS`.
///
/// ```
/// use tower_plugins::config::Reattach;
///
/// let said = r#"{"Protocol":"grpc","ProtocolVersion":6,"Pid":4711,"Test":true,"Addr":{"Network":"unix","String":"/tmp/plugin42"}}"#;
/// let reattach: Reattach = serde_json::from_str(said)?;
/// assert_eq!((reattach.version, reattach.pid, reattach.test), (6, 4711, true));
/// assert_eq!(serde_json::to_string(&reattach)?, said);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Reattach {
    /// Where it listens.
    pub address: Address,
    /// Its process; 0 if that is not known.
    pub pid: u32,
    /// The version of the program's own protocol.
    pub version: u32,
    /// Whether it is not this host's to end.
    pub test: bool,
}

impl Reattach {
    /// The plugins in `json`, an object with a plugin's name as each key.
    ///
    /// ```
    /// use tower_plugins::config::Reattach;
    ///
    /// let said = r#"{"acme/greeter":{"Protocol":"grpc","ProtocolVersion":6,"Pid":4711,"Test":true,"Addr":{"Network":"unix","String":"/tmp/plugin42"}}}"#;
    /// assert_eq!(Reattach::all(said)?["acme/greeter"].version, 6);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    ///
    /// # Errors
    /// If it is no such JSON, with where it is not.
    pub fn all(json: &str) -> serde_json::Result<BTreeMap<String, Self>> {
        serde_json::from_str(json)
    }
}

/// Those of `TOWER_PLUGINS_REATTACH`, by the names of the plugins that they take the place of, and what is wrong with it.
pub(super) fn of_environment(
    environment: &Environment,
) -> (BTreeMap<String, Reattach>, Option<Problem>) {
    let why = match environment.get(VARIABLE) {
        None | Some(Ok("")) => return (BTreeMap::new(), None),
        Some(Ok(json)) => match Reattach::all(json) {
            Ok(all) => return (all, None),
            Err(error) => error.to_string(),
        },
        Some(Err(())) => "it is not UTF-8".to_owned(),
    };
    let message = format!(
        "is no JSON that says for the name of each plugin where it runs: {why}; correct it, or unset it"
    );
    let problem = of_variable(ProblemKind::Variable, message);
    (BTreeMap::new(), Some(problem))
}

/// Says that `reattach`, of the variable, has come over what `table` says of a plugin. It may not, if that `is_checked`.
pub(super) fn warn(table: &Table<'_>, reattach: &Reattach, is_checked: bool) {
    if is_checked {
        let message = format!(
            "has a `checksum`, and {VARIABLE} would have a process answer whose program nobody has checked: unset the variable, or \
             take the checksum out"
        );
        table.conflict("process", message);
        return;
    }
    let Reattach { address, pid, .. } = reattach;
    let key = match table.has("executable") {
        true => "executable",
        false => "go_plugin",
    };
    let message = format!(
        "is not used as long as {VARIABLE} says that this plugin runs at {address}, with process {pid}: it is attached to, \
         and what is said of its executable, process, TLS and reattachment has no effect"
    );
    table.warn(key, message);
}

/// What is said in vain: of `all` those that `config` has no plugin for.
pub(super) fn in_vain(all: &BTreeMap<String, Reattach>, config: &Config) -> Vec<Problem> {
    let is_attached = |name: &str| {
        let endpoints = config.plugins.get(name).map(|it| &it.upstream.endpoints);
        let first = endpoints.and_then(|endpoints| endpoints.first());
        first.is_some_and(|one| matches!(one.address, super::Address::Attached(_)))
    };
    let names = all.keys().filter(|name| !is_attached(name));
    let message = |name| {
        format!(
            "nothing is attached to for {name:?}, which is no plugin here that is enabled and has transport: subprocess"
        )
    };
    names
        .map(|name| of_variable(ProblemKind::Ineffective, message(name)))
        .collect()
}

fn of_variable(kind: ProblemKind, message: String) -> Problem {
    Problem {
        variable: Some(VARIABLE.to_owned()),
        ..Problem::new(kind, "", message)
    }
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Written {
    /// Go leaves it out for net/rpc.
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    protocol_version: u32,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    test: bool,
    addr: Addr,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Addr {
    network: String,
    string: String,
}

/// What is written, and names nothing that can be attached to.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("the plugin speaks {0:?}, and only \"grpc\" is spoken here")]
    Protocol(String),
    #[error("{0} is no id of a process")]
    Pid(u32),
    #[error(transparent)]
    Address(#[from] AddressError),
}

impl TryFrom<Written> for Reattach {
    type Error = Unfit;

    fn try_from(written: Written) -> Result<Self, Unfit> {
        match &*written.protocol {
            "grpc" => {}
            "" => return Err(Unfit::Protocol("netrpc".to_owned())),
            _ => return Err(Unfit::Protocol(written.protocol)),
        }
        if i32::try_from(written.pid).is_err() {
            return Err(Unfit::Pid(written.pid));
        }
        Ok(Self {
            address: Address::parse(&written.addr.network, &written.addr.string)?,
            pid: written.pid,
            version: written.protocol_version,
            test: written.test,
        })
    }
}

impl From<Reattach> for Written {
    fn from(reattach: Reattach) -> Self {
        Self {
            protocol: "grpc".to_owned(),
            protocol_version: reattach.version,
            pid: reattach.pid,
            test: reattach.test,
            addr: Addr {
                network: reattach.address.network().to_owned(),
                string: reattach.address.to_string(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_attached_to_is_refused_by_what_it_is() {
        let refused = |protocol: &str, network: &str| {
            let said = format!(
                r#"{{{protocol}"ProtocolVersion":5,"Pid":7,"Test":true,"Addr":{{"Network":"{network}","String":"/s"}}}}"#
            );
            serde_json::from_str::<Reattach>(&said)
                .unwrap_err()
                .to_string()
        };
        assert!(refused("", "unix").contains("netrpc"));
        assert!(refused(r#""Protocol":"netrpc","#, "unix").contains("netrpc"));
        assert!(refused(r#""Protocol":"grpc","#, "pipe").contains("pipe"));
    }
}
