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

/// Refuses what would do nothing with `unix-json`.
pub(super) fn refuse_inert(
    connection: &ConnectionSpec,
    policy: &Policy,
    refuse: impl Fn(&str, &str, &str),
) {
    for key in [
        "protocol",
        "max_streams",
        "max_age",
        "proxy",
        "disable_compression",
        "max_response_head",
    ] {
        let why = "does nothing with unix-json, which is not HTTP";
        refuse("connection", key, why);
    }
    let why = "does nothing with unix-json, where no answer is a stream: remove it";
    refuse("connection", "stream_idle_timeout", why);
    if connection.max_response_body.is_none() {
        let why = "cannot be off with unix-json, which holds an answer in memory: give a size, or \
                   remove it, which is 16MiB";
        refuse("connection", "max_response_body", why);
    }
    let key = match &policy.credentials {
        CredentialsSpec::Custom { .. } => "headers",
        _ => "header",
    };
    let is_set = |name: &&'static str| policy.credentials.sets(&HeaderName::from_static(name));
    if let Some(name) = OF_HTTP.into_iter().find(is_set) {
        let why = format!(
            "with unix-json no line has {name}, and the secret would not be sent: take another header"
        );
        refuse("auth", key, &why);
    }
}
