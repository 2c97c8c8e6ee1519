//! TLS with certificates that both sides have from files.

use tower_plugins_interop::{Version, go};

use super::{doubled, keys, start, within};
use crate::support::certificates;

#[tokio::test]
async fn a_plugin_with_a_certificate_of_its_own_is_called() {
    let folder = certificates();
    let folder = folder.path().display().to_string();
    for version in Version::ALL {
        let Some(program) = go(version) else { return };
        let keys = keys(&program, &["-tls", &folder]);
        let tls = format!(
            "tls: {{ ca_file: '{folder}/ca.crt', cert_file: '{folder}/host.crt', key_file: '{folder}/host.key' }}"
        );
        let plugins = start(&format!("{keys}, {tls}")).await;
        assert_eq!(doubled(&plugins, 21).await.unwrap(), 42, "{version:?}");
        within(plugins.shutdown(super::BOUND)).await.unwrap();

        // One whose certificate nobody known has signed is refused.
        let other = certificates();
        let authority = other.path().join("ca.crt");
        let tls = tls.replace(&format!("{folder}/ca.crt"), authority.to_str().unwrap());
        let plugins = start(&format!("{keys}, {tls}, process: {{ max_restarts: 1 }}")).await;
        doubled(&plugins, 21).await.unwrap_err();
        within(plugins.shutdown(super::BOUND)).await.unwrap();
    }
}
