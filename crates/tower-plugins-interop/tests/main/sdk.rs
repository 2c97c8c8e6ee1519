//! Plugins of our SDK under hosts in Go.

use tower_plugins_interop::{GoHost, Version};

use crate::support::{MODES, assert_seen};

/// The plugin that is written with the SDK.
const PLUGIN: &str = env!("CARGO_BIN_EXE_plugin");

/// A host of that version, and our plugin, in each mode that it has.
async fn serves(version: Version) {
    for mode in MODES.into_iter().filter(|mode| mode.is_of(version)) {
        let Some(host) = GoHost::new(version) else {
            return;
        };
        let host = host.flags(mode.flags());
        let seen = host.run(&mode.calls(version), PLUGIN).await.unwrap();
        assert_seen(&seen, version, mode);
    }
}

#[tokio::test]
async fn a_plugin_serves_a_go_host_of_1_0_1() {
    serves(Version::V1_0_1).await;
}

#[tokio::test]
async fn a_plugin_serves_a_go_host_of_1_4_10() {
    serves(Version::V1_4_10).await;
}

#[tokio::test]
async fn a_plugin_serves_a_go_host_of_1_6_3() {
    serves(Version::V1_6_3).await;
}

#[tokio::test]
async fn a_plugin_serves_a_go_host_of_1_8_0() {
    serves(Version::V1_8_0).await;
}
