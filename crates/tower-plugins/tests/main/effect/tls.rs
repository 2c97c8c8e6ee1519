use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tower_plugins::config::{Config, ConfigError, FileContents, Format};
use tower_plugins::{Error, Plugins, Reason};

use crate::support::{call, causes, get};
use crate::transport::tls::expiry::Warnings;
use crate::transport::tls::server::{Ca, Certified, Setup, TlsServer};

/// The files that a config names, in a directory of their own.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes the file, and gives its path.
    fn write(&self, name: &str, contents: &FileContents) -> String {
        let path = self.path(name);
        fs::write(&path, contents.expose()).unwrap();
        private(&path);
        path.display().to_string()
    }

    /// Writes both files of `client`; gives them as keys of a block.
    fn identity(&self, client: &Certified) -> String {
        let identity = client.identity();
        let cert = self.write("client.pem", &identity.cert);
        let key = self.write("client.key", &identity.key);
        format!("cert_file: {cert}, key_file: {key}")
    }
}

#[cfg(unix)]
fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[cfg(not(unix))]
fn private(_: &Path) {}

fn parse(root: &str, host: &str, port: u16, keys: &str) -> Result<Config, ConfigError> {
    let text = format!(
        "{{ {root} plugins: {{ p: {{ transport: https, endpoint: 'https://{host}:{port}', retry: off, {keys} }} }} }}"
    );
    Config::parse(&text, Format::Yaml)
}

/// Calls the plugin at `server` by the name `host`; whom the server says it talks to.
async fn client(server: &TlsServer, root: &str, host: &str, keys: &str) -> Result<String, Error> {
    let config = parse(root, host, server.port, keys).unwrap();
    let plugins = Plugins::builder().start(config).await.unwrap();
    let response = call(&plugins.plugin("p"), get("/")).await?;
    Ok(response.headers()["x-client"].to_str().unwrap().to_owned())
}

fn is_refused(outcome: Result<String, Error>) -> bool {
    outcome.is_err_and(|error| {
        matches!(
            error.reason(),
            Some(Reason::ConnectFailed | Reason::ConnectionLost)
        )
    })
}

#[tokio::test]
async fn ca_file_is_who_vouches_for_the_endpoint() {
    let (files, ca) = (Files::new(), Ca::new());
    let server = Setup::new(&ca.certify(&["localhost"])).start().await;
    let ours = files.write("ca.pem", &ca.file());
    let other = files.write("other.pem", &Ca::new().file());
    let with = |file: &str| format!("tls: {{ ca_file: {file} }}");
    assert!(client(&server, "", "localhost", &with(&ours)).await.is_ok());
    assert!(is_refused(
        client(&server, "", "localhost", &with(&other)).await
    ));
}

#[tokio::test]
async fn pins_are_the_public_keys_of_which_the_endpoint_must_have_one() {
    let (files, ca) = (Files::new(), Ca::new());
    let (shows, next) = (ca.certify(&["localhost"]), ca.certify(&["localhost"]));
    let server = Setup::new(&shows).start().await;
    let file = files.write("ca.pem", &ca.file());
    let with = |pins: &str| format!("tls: {{ ca_file: {file}, pins: [{pins}] }}");
    for pins in [
        String::new(),
        shows.pin(),
        format!("{}, {}", next.pin(), shows.pin()),
    ] {
        let answered = client(&server, "", "localhost", &with(&pins)).await;
        assert!(answered.is_ok(), "{pins}: {answered:?}");
    }
    let error = client(&server, "", "localhost", &with(&next.pin())).await;
    let text = causes(error.as_ref().unwrap_err());
    assert!(
        text.contains(&shows.pin()) && text.contains("tls.pins"),
        "{text}"
    );
    assert!(is_refused(error));
    // A pin vouches for nobody.
    let alone = format!("tls: {{ pins: ['{}'] }}", shows.pin());
    assert!(is_refused(client(&server, "", "localhost", &alone).await));
}

#[tokio::test]
async fn server_name_is_what_the_certificate_must_have() {
    let (files, ca) = (Files::new(), Ca::new());
    let server = Setup::new(&ca.certify(&["search.internal"])).start().await;
    let ca = files.write("ca.pem", &ca.file());
    let without = format!("tls: {{ ca_file: {ca} }}");
    let with = format!("tls: {{ ca_file: {ca}, server_name: search.internal }}");
    assert!(is_refused(client(&server, "", "localhost", &without).await));
    assert!(client(&server, "", "localhost", &with).await.is_ok());
}

#[tokio::test]
async fn cert_file_is_what_the_endpoint_is_shown() {
    let (files, ca) = (Files::new(), Ca::new());
    let shows = ca.certify(&["localhost"]);
    let mut setup = Setup::new(&shows);
    setup.clients = Some(&ca);
    let server = setup.start().await;
    let trust = files.write("ca.pem", &ca.file());
    for _ in 0..2 {
        let me = ca.certify(&["me"]);
        let keys = format!("tls: {{ ca_file: {trust}, {} }}", files.identity(&me));
        let seen = client(&server, "", "localhost", &keys).await.unwrap();
        assert_eq!(seen, me.fingerprint());
    }
    let without = format!("tls: {{ ca_file: {trust} }}");
    assert!(is_refused(client(&server, "", "localhost", &without).await));
}

#[tokio::test]
async fn key_file_must_be_the_key_of_the_certificate() {
    let (files, ca) = (Files::new(), Ca::new());
    let (me, other) = (
        ca.certify(&["me"]).identity(),
        ca.certify(&["other"]).identity(),
    );
    let cert = files.write("client.pem", &me.cert);
    for (key, fits) in [(me.key, true), (other.key, false)] {
        let key = files.write("client.key", &key);
        let keys = format!("tls: {{ cert_file: {cert}, key_file: {key} }}");
        let parsed = parse("", "localhost", 1, &keys);
        assert_eq!(parsed.is_ok(), fits, "{parsed:?}");
    }
}

#[tokio::test]
async fn min_version_is_the_oldest_that_is_spoken() {
    let (files, ca) = (Files::new(), Ca::new());
    let shows = ca.certify(&["localhost"]);
    let mut setup = Setup::new(&shows);
    setup.version = &rustls::version::TLS12;
    let server = setup.start().await;
    let ca = files.write("ca.pem", &ca.file());
    for (version, fits) in [("1.2", true), ("1.3", false)] {
        let keys = format!("tls: {{ ca_file: {ca}, min_version: '{version}' }}");
        let outcome = client(&server, "", "localhost", &keys).await;
        assert_eq!(outcome.is_ok(), fits, "{version}: {outcome:?}");
    }
}

#[tokio::test]
async fn expiry_warning_is_how_long_before_a_certificate_expires_that_is_said() {
    let (files, ca) = (Files::new(), Ca::new());
    let hour = std::time::Duration::from_secs(3600);
    let shows = ca.certify_for(&["localhost"], 20 * 24 * hour);
    let server = Setup::new(&shows).start().await;
    let file = files.write("ca.pem", &ca.file());
    for (key, told) in [
        ("", 0),
        (", expiry_warning: 21d", 1),
        (", expiry_warning: 19d", 0),
        (", expiry_warning: 481h", 1),
        (", expiry_warning: off", 0),
        (", expiry_warning: 0s", 0),
    ] {
        let keys = format!("tls: {{ ca_file: {file}{key} }}");
        let warnings = Warnings::of(async {
            client(&server, "", "localhost", &keys).await.unwrap();
        })
        .await;
        assert_eq!(warnings.len(), told, "{key}: {warnings:?}");
        let named = warnings
            .iter()
            .all(|line| line.contains("plugin.name=\"p\""));
        assert!(named, "{warnings:?}");
    }
}

#[tokio::test]
async fn default_tls_holds_for_plugins_that_do_not_say_otherwise() {
    let (files, ca) = (Files::new(), Ca::new());
    let server = Setup::new(&ca.certify(&["search.internal"])).start().await;
    let ca = files.write("ca.pem", &ca.file());
    let root = format!("default_tls: {{ ca_file: {ca} }},");
    assert!(is_refused(client(&server, &root, "localhost", "").await));
    let own = "tls: { server_name: search.internal }";
    assert!(client(&server, &root, "localhost", own).await.is_ok());
}

#[tokio::test]
async fn tls_is_a_plugin_s_own_trust() {
    let (files, ca) = (Files::new(), Ca::new());
    let server = Setup::new(&ca.certify(&["localhost"])).start().await;
    let ours = files.write("ca.pem", &ca.file());
    let other = files.write("other.pem", &Ca::new().file());
    let root = format!("default_tls: {{ ca_file: {other} }},");
    assert!(is_refused(client(&server, &root, "localhost", "").await));
    let own = format!("tls: {{ ca_file: {ours} }}");
    assert!(client(&server, &root, "localhost", &own).await.is_ok());
}

/// Calls a server that asks for a certificate, with the keys of `auth`.
async fn mtls(
    trust: &Ca,
    keys: impl Fn(&Files, &Certified) -> String,
) -> (Result<String, Error>, String) {
    let (files, ca) = (Files::new(), Ca::new());
    let shows = ca.certify(&["localhost"]);
    let mut setup = Setup::new(&shows);
    setup.clients = Some(trust);
    let server = setup.start().await;
    let trusted = files.write("ca.pem", &ca.file());
    let me = trust.certify(&["me"]);
    let keys = keys(&files, &me).replace("<trusted>", &trusted);
    let auth = format!("auth: {{ method: mtls, {keys} }}");
    let outcome = client(&server, "", "localhost", &auth).await;
    (outcome, me.fingerprint())
}

#[tokio::test]
async fn cert_file_of_auth_is_what_the_endpoint_is_shown() {
    let (outcome, me) = mtls(&Ca::new(), |files, me| {
        format!("{}, ca_file: <trusted>", files.identity(me))
    })
    .await;
    assert_eq!(outcome.unwrap(), me);
}

#[tokio::test]
async fn key_file_of_auth_must_be_the_key_of_the_certificate() {
    let (files, ca) = (Files::new(), Ca::new());
    let cert = files.write("client.pem", &ca.certify(&["me"]).identity().cert);
    let key = files.write("client.key", &ca.certify(&["other"]).identity().key);
    let keys = format!("auth: {{ method: mtls, cert_file: {cert}, key_file: {key} }}");
    let error = parse("", "localhost", 1, &keys).unwrap_err();
    assert_eq!(error.problems()[0].key, "plugins.p.auth.key_file");
}

#[tokio::test]
async fn ca_file_of_auth_is_who_vouches_for_the_endpoint() {
    let (outcome, _) = mtls(&Ca::new(), |files, me| {
        let other = files.write("other.pem", &Ca::new().file());
        format!("{}, ca_file: {other}", files.identity(me))
    })
    .await;
    assert!(is_refused(outcome));
}
