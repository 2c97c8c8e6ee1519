//! Plugins that are not what they should be.

use tower_plugins_interop::{Version, go};

use super::{doubled, keys, start};

/// What a call says to a plugin with these keys that cannot begin.
pub(super) async fn refused(keys: &str) -> String {
    let plugins = start(&format!("{keys}, process: {{ max_restarts: 1 }}")).await;
    causes(&doubled(&plugins, 1).await.unwrap_err())
}

pub(super) fn causes(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut next = std::error::Error::source(status);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[tokio::test]
async fn a_plugin_without_a_common_version_is_refused_with_both_sides_versions() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let keys = keys(&program, &["-versions", "4,5"]);
    let said = refused(&format!(
        "{keys}, go_plugin: {{ protocol_versions: [7, 6] }}"
    ))
    .await;
    assert!(said.contains("it speaks version 4 "), "{said}");
    assert!(said.contains("this host 6, 7"), "{said}");
}

#[tokio::test]
async fn a_plugin_of_net_rpc_is_refused_by_name() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let keys = keys(&program, &["-netrpc"]);
    let said = refused(&format!("{keys}, go_plugin: {{ auto_mtls: false }}")).await;
    assert!(said.contains("net/rpc"), "{said}");
}

#[tokio::test]
async fn a_plugin_that_cannot_multiplex_is_refused_by_that() {
    let Some(program) = go(Version::V1_4_10) else {
        return;
    };
    let keys = keys(&program, &[]);
    let said = refused(&format!("{keys}, go_plugin: {{ multiplex: true }}")).await;
    assert!(said.contains("go_plugin.multiplex"), "{said}");
}

#[tokio::test]
async fn a_plugin_with_another_cookie_says_why_it_does_not_begin() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let keys = keys(&program, &[]);
    let said = refused(&format!("{keys}, go_plugin: {{ cookie_value: other }}")).await;
    assert!(said.contains("cookie_key and cookie_value"), "{said}");
    assert!(said.contains("exited with code 1"), "{said}");
    assert!(said.contains("not meant to be executed directly"), "{said}");
}
