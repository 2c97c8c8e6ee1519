//! What lines of JSON have no place for.

use super::ConnectionSpec;

/// Refuses what would do nothing with `unix-json`.
pub(super) fn refuse_inert(connection: &ConnectionSpec, refuse: impl Fn(&str, &str, &str)) {
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
}
