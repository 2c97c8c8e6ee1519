//! `go_plugin`.

use std::path::PathBuf;

/// `go_plugin`: what a host and a plugin of HashiCorp's go-plugin agree on, of a plugin that is an executable
/// (`transport: subprocess`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GoPluginSpec {
    /// The variable by which the plugin knows that a host started it.
    pub cookie_key: String,
    /// What that variable is.
    pub cookie_value: String,
    /// The versions of the program's own protocol that may be spoken; the plugin chooses one. At least one.
    pub protocol_versions: Vec<u32>,
    /// How connections to the plugin are encrypted.
    pub tls: PluginTls,
    /// Whether all connections go over one socket.
    pub multiplex: bool,
    /// Where a directory for the plugin's sockets is made; `None` is the system's for temporary files.
    pub socket_dir: Option<PathBuf>,
    /// The group, by name or number, that may connect as well.
    pub socket_group: Option<String>,
    /// The lowest port that the plugin may listen on, where it listens on TCP.
    pub min_port: u16,
    /// The highest.
    pub max_port: u16,
}

/// How connections to a plugin of HashiCorp's go-plugin are encrypted (`go_plugin.auto_mtls` and `tls`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PluginTls {
    /// `auto_mtls: true`: each side makes a certificate for this one run, and takes no other than that of its peer.
    #[default]
    Auto,
    /// `tls`: as [`Upstream::tls`](super::Upstream::tls) says.
    Static,
    /// `auto_mtls: false` without `tls`: not at all.
    Off,
}
