//! Who may connect, and what runs.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use tower_plugins_interop::peer::Number;
use tower_plugins_interop::peer::peer_client::PeerClient;
use tower_plugins_interop::{Version, go};
use tower_plugins_proto::go_plugin::Address;
use tower_plugins_proto::go_plugin::socket::Socket;
use tower_plugins_proto::go_plugin::tls::Identity;

use super::refusals::refused;
use super::{describe, doubled, keys, start, within};
use crate::sdk::trust::authority;
use crate::sdk::{secured, try_channel};
use crate::support::sha256;

/// The sockets of the plugin that runs.
async fn sockets(plugins: &tower_plugins::Plugins) -> Vec<PathBuf> {
    let said = describe(plugins).await;
    let variables = said.environment.iter();
    let mut directory = variables.filter_map(|one| one.strip_prefix("PLUGIN_UNIX_SOCKET_DIR="));
    let found = std::fs::read_dir(directory.next_back().unwrap()).unwrap();
    found.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn certificates_of_the_config_take_the_place_of_those_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    authority(folder.path());
    let own = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(folder.path().join("host.key"), own).unwrap();
    let folder = folder.path().to_str().unwrap();
    let tls = format!(
        "tls: {{ ca_file: '{folder}/ca.crt', cert_file: '{folder}/host.crt', key_file: '{folder}/host.key' }}"
    );
    for version in [Version::V1_4_10, Version::V1_8_0] {
        let Some(program) = go(version) else { return };
        let keys = keys(&program, &["-tls", folder]);
        for multiplex in [false, true] {
            if multiplex && !version.multiplexes() {
                continue;
            }
            let all = format!("{keys}, {tls}, go_plugin: {{ multiplex: {multiplex} }}");
            let plugins = start(&all).await;
            assert_eq!(doubled(&plugins, 21).await.unwrap(), 42);
        }
        // Its certificate is of nobody that this system knows.
        let said = refused(&format!("{keys}, tls: {{ server_name: localhost }}")).await;
        assert!(said.contains("certificate"), "{said}");
        let said = refused(&keys).await;
        assert!(said.contains("it has no certificate"), "{said}");
        let plain =
            format!("{keys}, go_plugin: {{ auto_mtls: false }}, process: {{ max_restarts: 1 }}");
        let plugins = start(&plain).await;
        assert!(doubled(&plugins, 21).await.is_err());
    }
}

#[tokio::test]
async fn under_auto_mtls_nobody_but_the_host_is_served() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let plugins = start(&keys(&program, &[])).await;
    let socket = sockets(&plugins).await.pop().unwrap();
    let address = Address::Unix(socket);
    // Of the same user, and without a certificate, or with one of its own.
    let plain = Socket::connect(&address).await.unwrap();
    if let Ok(channel) = try_channel(plain).await {
        let answer = within(PeerClient::new(channel).double(Number { value: 1 })).await;
        assert!(answer.is_err());
    }
    let (other, wrong) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let client = other.client_config(wrong.certificate()).unwrap();
    let tls = tower_plugins_proto::go_plugin::tls::Tls::default().client(client);
    assert!(secured(&address, &tls).await.is_err());
    assert_eq!(doubled(&plugins, 21).await.unwrap(), 42);
}

#[tokio::test]
async fn a_program_with_another_checksum_is_not_run() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let right = sha256(&std::fs::read(&program).unwrap());
    let wrong = sha256(b"another");
    let keys = keys(&program, &[]);
    let with = |sum: &str| format!("{keys}, process: {{ checksum: 'sha256:{sum}' }}");
    let plugins = start(&with(&right)).await;
    assert_eq!(doubled(&plugins, 21).await.unwrap(), 42);
    let plugins = start(&with(&wrong)).await;
    let status = doubled(&plugins, 21).await.unwrap_err();
    let said = super::refusals::causes(&status);
    assert!(said.contains("is not what `checksum` says"), "{said}");
}

#[tokio::test]
async fn a_group_may_use_the_sockets_that_it_is_given() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let own = tempfile::tempdir().unwrap().path().metadata();
    let group = own.unwrap().gid();
    let keys = keys(&program, &[]);
    let plugins = start(&format!("{keys}, go_plugin: {{ socket_group: '{group}' }}")).await;
    let socket = sockets(&plugins).await.pop().unwrap();
    let about = socket.metadata().unwrap();
    assert_eq!(
        (about.permissions().mode() & 0o777, about.gid()),
        (0o660, group)
    );
    let directory = socket.parent().unwrap().metadata().unwrap();
    assert_eq!(directory.permissions().mode() & 0o777, 0o770);
}
