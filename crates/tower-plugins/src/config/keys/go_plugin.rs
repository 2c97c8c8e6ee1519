use super::{Block, Kind, key};

pub(in super::super) static GO_PLUGIN: Block = Block {
    name: "go_plugin",
    about: "For `transport: subprocess`: what this program, as the host, and the plugin agree on, in the terms of HashiCorp's \
            go-plugin. See [subprocess.md](subprocess.md#hashicorps-go-plugin).",
    keys: &[
        key(
            "cookie_key",
            Kind::Text,
            "TOWER_PLUGINS_COOKIE",
            r#""GREETER_PLUGIN""#,
            "the variable by which a plugin knows that a host started it, `MagicCookieKey` in Go; with `cookie_value`. It is no secret. What plugins of `tower-plugins-sdk` take where nobody says another",
        ),
        key(
            "cookie_value",
            Kind::Text,
            "tower-plugins-1",
            r#""hello""#,
            "what it is, `MagicCookieValue` in Go",
        ),
        key(
            "protocol_versions",
            Kind::Integers(0, u32::MAX),
            "[1]",
            "[5, 6]",
            "the versions of the program's own protocol that may be spoken; the plugin takes the highest that it has too, and is not run if it has none of them",
        ),
        key(
            "auto_mtls",
            Kind::Bool,
            "true",
            "false",
            "whether both sides make a certificate for this one run, and speak TLS with no other: no other process, of whatever user, can connect to the plugin, or answer for it. A plugin that does not take part is not run. `false`: plaintext, for a plugin that knows no TLS. Not with `tls`, which takes its place",
        ),
        key(
            "multiplex",
            Kind::Bool,
            "false",
            "true",
            "whether all connections go over one socket, those that the plugin's broker makes too; a plugin that cannot is not run. Go's can from go-plugin 1.6 on",
        ),
        key(
            "socket_dir",
            Kind::File,
            "the system's for temporary files",
            r#""/run/search""#,
            "where a directory is made for the plugin's sockets, for each start one, and removed after it; absolute, or relative to this file. A short one: the path of a socket has at most 107 bytes",
        ),
        key(
            "socket_group",
            Kind::Text,
            "none",
            r#""plugins""#,
            "a group, by name or number, whose members may use the plugin's sockets; for a plugin that gives up its user. Without one they are its owner's alone",
        ),
        key(
            "min_port",
            Kind::Integer(0, 65_535),
            "10000",
            "20000",
            "the lowest port that a plugin may take which listens on TCP, as Go's do on Windows; 0 with `max_port: 0` for any",
        ),
        key(
            "max_port",
            Kind::Integer(0, 65_535),
            "25000",
            "30000",
            "the highest; not below `min_port`",
        ),
        key(
            "reattach",
            Kind::Text,
            "none",
            r#""{\"Protocol\":\"grpc\",\"ProtocolVersion\":6,\"Pid\":4711,\"Test\":true,\"Addr\":{\"Network\":\"unix\",\"String\":\"/tmp/plugin42\"}}""#,
            "where a plugin runs that somebody else started, a debugger for example, in the JSON of Go's tools: it is [attached to](subprocess.md#one-that-runs-already), and none started. In the place of `executable` and what belongs to that, and of the other keys of this block but `socket_dir` and `socket_group`; not with `tls`",
        ),
    ],
    gone: &[
        (
            "protocol_version",
            "is a list here, `protocol_versions`: write that",
        ),
        ("magic_cookie_key", "is `cookie_key` here: rename it"),
        ("magic_cookie_value", "is `cookie_value` here: rename it"),
    ],
};
