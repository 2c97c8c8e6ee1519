//! The peers among themselves: what fails with ours is ours.

use std::path::Path;

use tower_plugins_interop::{GoHost, Version, go, pattern, python};

use crate::support::{MODES, assert_seen, sha256};

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

#[tokio::test]
async fn a_go_host_and_a_plugin_in_python_understand_each_other() {
    let (Some(python), Some(host)) = (python(), GoHost::new(Version::V1_8_0)) else {
        return;
    };
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/plugin.py");
    let host = host.arguments([plugin.to_str().unwrap()]);
    let calls = "double,doubles=100,ping,health=plugin,stdout=1000000,stderr=1000000,raw-stdout=1000000,echo=5000000,kill";
    for address in ["unix", "tcp"] {
        let host = host.clone().env("PEER_ADDRESS", address);
        let seen = host.run(calls, &python).await.unwrap();
        assert_eq!(seen.failure(), None, "{address}");
        assert_eq!(seen.step("start")["network"], address);
        assert_eq!(seen.step("double")["value"], 42);
        for printed in ["stdout", "stderr"] {
            let expected = sha256(&pattern(1_000_000));
            assert_eq!(seen.step(printed)["sha256"], expected, "{printed}");
        }
        assert_eq!(seen.step("kill")["forced"], false);
    }
}
