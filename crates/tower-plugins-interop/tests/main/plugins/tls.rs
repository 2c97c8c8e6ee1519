//! TLS with certificates that both sides have from files.

use std::path::Path;

use tower_plugins_interop::Version;

use super::pairs;
use crate::support::certificates;

fn flag(folder: &Path) -> String {
    format!("-tls={}", folder.display())
}

#[tokio::test]
async fn both_speak_tls_with_certificates_of_their_own() {
    let folder = certificates();
    let flag = flag(folder.path());
    for pair in pairs([Version::V1_4_10, Version::V1_6_3, Version::V1_8_0]) {
        let pair = pair.flags([&*flag]).arguments([&*flag]);
        let seen = pair.run("double,doubles=10,broker=2,kill").await;
        assert_eq!(seen.failure(), None, "{}", pair.name);
        assert_eq!(seen.step("double")["value"], 42, "{}", pair.name);
        assert_eq!(seen.step("kill")["forced"], false, "{}", pair.name);
    }
}

#[tokio::test]
async fn a_host_without_tls_is_not_answered_by_a_plugin_with() {
    let folder = certificates();
    let flag = flag(folder.path());
    for pair in pairs([Version::V1_4_10, Version::V1_8_0]) {
        let pair = pair.arguments([&*flag]);
        let seen = pair.run("double").await;
        assert!(seen.failure().is_some(), "{}", pair.name);
    }
}
