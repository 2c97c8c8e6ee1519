//! The variables that a host of HashiCorp's go-plugin gives its plugins.
//!
//! A host gives the cookie, too, under the program's own name: [`Handshake`](super::Handshake). A plugin that starts plugins
//! of its own must not hand these on: use [`is_reserved`].
//!
//! ```
//! use tower_plugins_proto::go_plugin::env;
//!
//! let scrubbed: Vec<_> = ["PATH", "PLUGIN_CLIENT_CERT", "LANG"]
//!     .into_iter()
//!     .filter(|name| !env::is_reserved(name))
//!     .collect();
//! assert_eq!(scrubbed, ["PATH", "LANG"]);
//! ```

/// The versions of the program's own protocol that the host can speak: numbers with commas between, in no order.
///
/// Written by [`offer_versions`](super::offer_versions), answered by [`choose_version`](super::choose_version). Always set.
pub const PROTOCOL_VERSIONS: &str = "PLUGIN_PROTOCOL_VERSIONS";

/// The lowest port that a plugin may listen on, where it listens on TCP. Always set; absent is 0.
pub const MIN_PORT: &str = "PLUGIN_MIN_PORT";

/// The highest port that a plugin may listen on, where it listens on TCP. Always set; absent is 0, and 0 to 0 is any port.
pub const MAX_PORT: &str = "PLUGIN_MAX_PORT";

/// What [`MIN_PORT`] is unless the host was told otherwise.
pub const DEFAULT_MIN_PORT: u16 = 10_000;

/// What [`MAX_PORT`] is unless the host was told otherwise.
pub const DEFAULT_MAX_PORT: u16 = 25_000;

/// The host's certificate as PEM, many lines. Set if both sides shall prove who they are; absent means no TLS, unless the
/// plugin has a certificate of its own.
pub const CLIENT_CERT: &str = "PLUGIN_CLIENT_CERT";

/// `true` if the host asks for one socket that carries all connections. Not empty means that it can read the line's seventh
/// field, which must not be sent otherwise.
pub const MULTIPLEX_GRPC: &str = "PLUGIN_MULTIPLEX_GRPC";

/// The folder for the plugin's sockets. Absent is the system's folder for temporary files.
pub const UNIX_SOCKET_DIR: &str = "PLUGIN_UNIX_SOCKET_DIR";

/// The group, by number or name, that the plugin's sockets are given to, with mode 0660. Absent leaves them to their owner.
pub const UNIX_SOCKET_GROUP: &str = "PLUGIN_UNIX_SOCKET_GROUP";

/// All of them.
pub const ALL: [&str; 7] = [
    PROTOCOL_VERSIONS,
    MIN_PORT,
    MAX_PORT,
    CLIENT_CERT,
    MULTIPLEX_GRPC,
    UNIX_SOCKET_DIR,
    UNIX_SOCKET_GROUP,
];

/// Whether `name` belongs to the protocol, now or later: it begins with `PLUGIN_`.
///
/// A host removes such variables from what a plugin inherits: one that it did not set itself would make the plugin speak
/// TLS, or over one socket, with a host that expects neither.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("PLUGIN_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_of_the_protocol_is_reserved() {
        assert!(ALL.into_iter().all(is_reserved));
        assert!(!is_reserved("MY_PLUGIN_DIR"));
    }
}
