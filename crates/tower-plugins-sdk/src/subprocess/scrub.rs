//! What is between this plugin and its host is not for the programs that it starts.

use std::ffi::OsString;

use tower_plugins_proto::go_plugin::env;

/// Removes what a host told this plugin from the environment that `command` will have: its own plugins must not take it for theirs.
///
/// A plugin that starts plugins, or programs that could, uses it for each. The variables of a host of go-plugin would make them speak
/// TLS, or over one socket, with a host that expects neither.
///
/// ```
/// let mut command = std::process::Command::new("another-plugin");
/// tower_plugins_sdk::scrub(&mut command);
/// ```
pub fn scrub(command: &mut std::process::Command) -> &mut std::process::Command {
    let names = std::env::vars_os().map(|(name, _)| name);
    scrub_of(command, names)
}

fn scrub_of(
    command: &mut std::process::Command,
    names: impl Iterator<Item = OsString>,
) -> &mut std::process::Command {
    for name in names.filter(|name| name.to_str().is_some_and(env::is_reserved)) {
        command.env_remove(name);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_host_is_handed_on() {
        let mut command = std::process::Command::new("another");
        let names = [
            env::CLIENT_CERT,
            "PATH",
            env::MULTIPLEX_GRPC,
            "PLUGIN_LATER",
        ];
        scrub_of(&mut command, names.into_iter().map(OsString::from));
        let mut removed: Vec<_> = command.get_envs().collect();
        removed.sort();
        let names = [env::CLIENT_CERT, "PLUGIN_LATER", env::MULTIPLEX_GRPC];
        let mut expected: Vec<_> = names.iter().map(|name| (name.as_ref(), None)).collect();
        expected.sort();
        assert_eq!(removed, expected);
    }
}
