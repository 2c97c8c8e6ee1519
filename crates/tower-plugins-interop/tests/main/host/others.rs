//! Plugins that are not written in Go, and what health says.

use std::path::Path;

use tower_plugins::{HealthReport, HealthStatus};
use tower_plugins_interop::peer::Number;
use tower_plugins_interop::{Version, go, python};

use super::{doubled, keys, peer, start, within};
use crate::sdk::PLUGIN;
use crate::support::MODES;

#[tokio::test]
async fn a_plugin_in_python_is_called_over_either_kind_of_socket() {
    let Some(python) = python() else { return };
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/plugin.py");
    for address in ["unix", "tcp"] {
        for auto_mtls in [false, true] {
            let keys = format!(
                "transport: subprocess, executable: '{}', args: ['{}'], env: {{ PEER_ADDRESS: {address} }}, retry: off,
                 go_plugin: {{ auto_mtls: {auto_mtls} }}, health_check: {{}}, start: ready",
                std::path::absolute(which(&python)).unwrap().display(),
                plugin.display()
            );
            let plugins = start(&keys).await;
            assert_eq!(doubled(&plugins, 21).await.unwrap(), 42, "{address}");
            within(plugins.shutdown(super::BOUND)).await.unwrap();
        }
    }
}

/// Where a program is that is named without a path.
fn which(program: &Path) -> std::path::PathBuf {
    if program.components().count() > 1 {
        return program.to_owned();
    }
    let path = std::env::var_os("PATH").unwrap();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join(program));
    found.find(|path| path.exists()).unwrap()
}

#[tokio::test]
async fn a_plugin_of_our_sdk_is_called_in_each_mode() {
    for mode in MODES {
        let keys = format!(
            "transport: subprocess, executable: '{PLUGIN}', retry: off, {}",
            mode.key()
        );
        let plugins = start(&keys).await;
        assert_eq!(doubled(&plugins, 21).await.unwrap(), 42, "{mode:?}");
        within(plugins.shutdown(super::BOUND)).await.unwrap();
    }
}

#[tokio::test]
async fn what_health_says_of_a_plugin_in_go_is_heard() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let keys = keys(&program, &[]);
    let plugins = start(&format!(
        "{keys}, health_check: {{ interval: 20ms, failure_limit: 1 }}"
    ))
    .await;
    let mut health = plugins.subscribe_health();
    for (says, status) in [
        (1, HealthStatus::Healthy),
        (0, HealthStatus::Unhealthy),
        (1, HealthStatus::Healthy),
    ] {
        within(peer(&plugins).set_health(Number { value: says }))
            .await
            .unwrap();
        let is_it = |report: &HealthReport| {
            report
                .plugin("p")
                .is_some_and(|plugin| plugin.status == status)
        };
        within(health.wait_for(is_it)).await.unwrap();
    }
}
