//! Transports of the program's own: `options`, and what can be wrong when one is made.

use std::error::Error;
use std::fmt;

use super::endpoints::{TRANSPORTS, Transport};
use super::options::{self, Options, Origin};
use super::table::Table;
use super::{ConfigError, Upstream};

/// Where `transport`, `endpoint` or `endpoints`, and `options` are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OwnOrigin {
    transport: Origin,
    endpoint: Origin,
    options: Origin,
}

/// `options`, for a transport of the program's own, and where it stands.
pub(super) fn read(table: &mut Table<'_>, transport: Option<&Transport>) -> (Options, OwnOrigin) {
    if !matches!(transport, Some(Transport::Custom(_)) | None) {
        let why = "is for a transport of the program's own: what a plugin needs goes with the call; \
                   remove the block";
        table.refuse("options", why);
        return (Options::default(), OwnOrigin::default());
    }
    let origin = |key| {
        let (at, path) = (table.place_of(key), table.path_of(key));
        Origin::at(table.report().place_of(table.doc(), at, &path))
    };
    let written = |key, other| if table.has(key) { key } else { other };
    let origin = OwnOrigin {
        transport: origin(written("transport", "type")),
        endpoint: origin(written("endpoint", "endpoints")),
        options: origin("options"),
    };
    (options::read(table).unwrap_or_default(), origin)
}

impl Upstream {
    /// That no transport `name` is among `known`.
    pub(crate) fn unknown_transport<'a>(
        &self,
        name: &str,
        known: impl Iterator<Item = &'a str>,
    ) -> ConfigError {
        let known = known.chain(TRANSPORTS.iter().map(|(name, _)| *name));
        let origin = &self.origin.transport;
        let problem = origin.unregistered("transport", ("transport", "transport"), name, known);
        problem.into()
    }

    /// That the transport does not take its options, as `why` says.
    pub(crate) fn refused_options(&self, transport: &str, why: &dyn fmt::Display) -> ConfigError {
        let message = format!("the transport `{transport}` does not take these: {why}");
        self.origin.options.problem("options", message).into()
    }

    /// That the transport cannot be made for `endpoint`, as `why` says with its causes.
    pub(crate) fn unreachable(
        &self,
        transport: &str,
        endpoint: &str,
        why: &(dyn Error + 'static),
    ) -> ConfigError {
        let mut message = format!("the transport `{transport}` does not take {endpoint:?}");
        let mut next = Some(why);
        while let Some(cause) = next {
            message += &format!(": {cause}");
            next = cause.source();
        }
        self.origin.endpoint.problem("endpoint", message).into()
    }
}
