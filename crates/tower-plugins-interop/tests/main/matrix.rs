//! The peers among themselves: what fails with ours is ours.

use tower_plugins_interop::{GoHost, Version, go};

use crate::support::{MODES, assert_seen};

/// A host and a plugin of one version, in each mode that it has.
async fn understand_each_other(version: Version) {
    let Some(plugin) = go(version) else { return };
    for mode in MODES.into_iter().filter(|mode| mode.is_of(version)) {
        let host = GoHost::new(version).unwrap().flags(mode.flags());
        let host = host.arguments(["plugin"]);
        let seen = host.run(&mode.calls(version), &plugin).await.unwrap();
        assert_seen(&seen, version, mode);
    }
}

#[tokio::test]
async fn a_go_host_and_a_go_plugin_of_1_0_1_understand_each_other() {
    understand_each_other(Version::V1_0_1).await;
}

#[tokio::test]
async fn a_go_host_and_a_go_plugin_of_1_4_10_understand_each_other() {
    understand_each_other(Version::V1_4_10).await;
}

#[tokio::test]
async fn a_go_host_and_a_go_plugin_of_1_6_3_understand_each_other() {
    understand_each_other(Version::V1_6_3).await;
}

#[tokio::test]
async fn a_go_host_and_a_go_plugin_of_1_8_0_understand_each_other() {
    understand_each_other(Version::V1_8_0).await;
}
