//! What lines of JSON have no place for.

use http::HeaderName;

use super::{ConnectionSpec, CredentialsSpec, Policy};

/// Headers that are about HTTP: its connections, its bodies and who is meant by it. None stands in a line.
pub(crate) const OF_HTTP: [&str; 17] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    REQUEST_ID,
];

/// The id of a call, which has a place of its own.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// What is HTTP's, and not that of connections for lines.
pub(super) const INERT: [&str; 6] = [
    "protocol",
    "max_streams",
    "max_age",
    "proxy",
    "disable_compression",
    "max_response_head",
];

/// Refuses `keys` of `connection`, because of `why`, and what else would do nothing with the transport `wire`.
pub(super) fn refuse_inert(
    wire: &str,
    keys: &[&str],
    why: &str,
    connection: &ConnectionSpec,
    policy: &Policy,
    refuse: impl Fn(&str, &str, &str),
) {
    for key in keys {
        refuse(
            "connection",
            key,
            &format!("does nothing with {wire}, {why}"),
        );
    }
    let why = format!("does nothing with {wire}, where no answer is a stream: remove it");
    refuse("connection", "stream_idle_timeout", &why);
    if connection.max_response_body.is_none() {
        let why = format!(
            "cannot be off with {wire}, which holds an answer in memory: give a size, or remove it, which is 16MiB"
        );
        refuse("connection", "max_response_body", &why);
    }
    let key = match &policy.credentials {
        CredentialsSpec::Custom { .. } => "headers",
        _ => "header",
    };
    let is_set = |name: &&'static str| policy.credentials.sets(&HeaderName::from_static(name));
    if let Some(name) = OF_HTTP.into_iter().find(is_set) {
        let why = format!(
            "with {wire} no line has {name}, and the secret would not be sent: take another header"
        );
        refuse("auth", key, &why);
    }
}
