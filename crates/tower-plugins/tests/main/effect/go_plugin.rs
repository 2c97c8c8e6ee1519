#![cfg(unix)]

use std::os::unix::fs::PermissionsExt;

use tower_plugins::Plugins;
use tower_plugins::config::{Environment, Format, Loaded, Loader};

use crate::subprocess::fake::{self, Fake, called};
use crate::support::{causes, within};

/// A plugin in plaintext with these keys of `go_plugin`, and what it found in its environment.
async fn found(keys: &str, name: &str) -> Option<String> {
    let fake = Fake::new();
    let keys = format!("go_plugin: {{ auto_mtls: false, {keys} }}");
    let plugins = fake.start(&keys).await;
    assert_eq!(within(called(&plugins)).await.unwrap(), "/hello");
    fake.environment().get(name).cloned()
}

/// What a call fails with, of a plugin with these keys that says the line of one without any.
async fn refused(keys: &str) -> String {
    let fake = Fake::new();
    let keys = format!("go_plugin: {{ {keys} }}, process: {{ max_restarts: 1 }}");
    let plugins = fake.start(&keys).await;
    causes(&within(called(&plugins)).await.unwrap_err())
}

#[tokio::test]
async fn go_plugin_is_this_plugins_alone() {
    let fake = Fake::new();
    let plain = "go_plugin: { auto_mtls: false }";
    let yaml = format!(
        "plugins: {{ p: {{ {0}, {plain} }}, q: {{ {0}, process: {{ max_restarts: 1 }} }} }}",
        fake.keys("say; stay")
    );
    let plugins = tower_plugins::Plugins::builder();
    let plugins = plugins.start(crate::support::config(&yaml)).await.unwrap();
    assert_eq!(within(called(&plugins)).await.unwrap(), "/hello");
    let q = plugins.plugin("q");
    let error = crate::support::text(&q, crate::support::get("/hello"));
    assert!(causes(&within(error).await.unwrap_err()).contains("auto_mtls"));
}

#[tokio::test]
async fn cookie_key_is_the_variable_that_a_plugin_is_known_by() {
    let usual = found("", "TOWER_PLUGINS_COOKIE").await;
    assert_eq!(usual.as_deref(), Some("tower-plugins-1"));
    let own = found("cookie_key: PLUGIN_MAGIC", "PLUGIN_MAGIC").await;
    assert_eq!(own.as_deref(), Some("tower-plugins-1"));
}

#[tokio::test]
async fn cookie_value_is_what_it_is() {
    let own = found("cookie_value: 'a b'", "TOWER_PLUGINS_COOKIE").await;
    assert_eq!(own.as_deref(), Some("a b"));
}

#[tokio::test]
async fn protocol_versions_are_offered_and_no_other_is_taken() {
    let name = "PLUGIN_PROTOCOL_VERSIONS";
    assert_eq!(found("", name).await.as_deref(), Some("1"));
    let both = found("protocol_versions: [4, 1]", name).await.unwrap();
    assert_eq!(both, "1,4");
    let text = refused("auto_mtls: false, protocol_versions: [4, 5]").await;
    assert!(
        text.contains("it speaks version 1 ") && text.contains("4, 5"),
        "{text}"
    );
}

#[tokio::test]
async fn auto_mtls_asks_for_certificates_and_takes_no_plaintext() {
    assert_eq!(found("", "PLUGIN_CLIENT_CERT").await, None);
    let fake = Fake::new();
    let plugins = fake.start("process: { max_restarts: 1 }").await;
    let text = causes(&within(called(&plugins)).await.unwrap_err());
    assert!(text.contains("it has no certificate"), "{text}");
    let certificate = &fake.environment()["PLUGIN_CLIENT_CERT"];
    assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----\n"));
}

#[tokio::test]
async fn multiplex_asks_for_one_socket_and_takes_no_other_plugin() {
    assert_eq!(found("", "PLUGIN_MULTIPLEX_GRPC").await, None);
    let fake = Fake::new();
    let keys = "go_plugin: { auto_mtls: false, multiplex: true }, process: { max_restarts: 1 }";
    let plugins = fake.start(keys).await;
    let text = causes(&within(called(&plugins)).await.unwrap_err());
    assert!(text.contains("go_plugin.multiplex"), "{text}");
    assert_eq!(fake.environment()["PLUGIN_MULTIPLEX_GRPC"], "true");
}

#[tokio::test]
async fn socket_dir_is_where_the_directory_for_sockets_is_made_and_goes() {
    let base = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    let keys = format!(
        "go_plugin: {{ auto_mtls: false, socket_dir: '{}' }}",
        base.path().display()
    );
    let plugins = fake.start(&keys).await;
    within(called(&plugins)).await.unwrap();
    let directory = fake.environment()["PLUGIN_UNIX_SOCKET_DIR"].clone();
    let directory = std::path::Path::new(&directory);
    assert_eq!(directory.parent(), Some(base.path()));
    let mode = directory.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    within(plugins.shutdown(std::time::Duration::from_secs(30)))
        .await
        .unwrap();
    assert!(!directory.exists() && !fake.socket().exists());
}

#[tokio::test]
async fn socket_group_is_given_the_directory_and_said_to_the_plugin() {
    let fake = Fake::new();
    let group = std::os::unix::fs::MetadataExt::gid(&fake.folder().metadata().unwrap());
    let keys = format!("go_plugin: {{ auto_mtls: false, socket_group: '{group}' }}");
    let plugins = fake.start(&keys).await;
    within(called(&plugins)).await.unwrap();
    let environment = fake.environment();
    assert_eq!(environment["PLUGIN_UNIX_SOCKET_GROUP"], group.to_string());
    let directory = std::path::Path::new(&environment["PLUGIN_UNIX_SOCKET_DIR"]);
    let mode = directory.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o770);
    let text = refused("auto_mtls: false, socket_group: no-such-group").await;
    assert!(text.contains("go_plugin.socket_group"), "{text}");
}

#[tokio::test]
async fn min_port_is_the_lowest_that_the_plugin_is_told() {
    let usual = found("", "PLUGIN_MIN_PORT").await;
    assert_eq!(usual.as_deref(), Some("10000"));
    let own = found("min_port: 20000", "PLUGIN_MIN_PORT").await;
    assert_eq!(own.as_deref(), Some("20000"));
}

#[tokio::test]
async fn max_port_is_the_highest_that_the_plugin_is_told() {
    let usual = found("", "PLUGIN_MAX_PORT").await;
    assert_eq!(usual.as_deref(), Some("25000"));
    let own = found("max_port: 30000", "PLUGIN_MAX_PORT").await;
    assert_eq!(own.as_deref(), Some("30000"));
}

/// Where `fake` runs, in this process.
fn reattach(fake: &Fake) -> String {
    let (pid, socket) = (std::process::id(), fake.socket());
    let socket = socket.display();
    format!(
        r#"{{"Protocol":"grpc","ProtocolVersion":6,"Pid":{pid},"Test":true,"Addr":{{"Network":"unix","String":"{socket}"}}}}"#
    )
}

#[tokio::test]
async fn reattach_is_where_a_plugin_runs_that_is_not_started() {
    let fake = Fake::new();
    let reattach = reattach(&fake);
    let plugins = fake::start(&format!(
        "transport: subprocess, retry: off, go_plugin: {{ reattach: '{reattach}' }}"
    ))
    .await;
    assert_eq!(within(called(&plugins)).await.unwrap(), "/hello");
    assert!(fake.asked().contains(&"/hello".to_owned()));
}

/// The plugin `p`, which says the line of `fake`, and what `variable` makes of it.
fn loaded(fake: &Fake, variable: &str) -> Loaded {
    loaded_with(fake, "instances: 2", variable)
}

fn loaded_with(fake: &Fake, process: &str, variable: &str) -> Loaded {
    let keys = fake.keys("say; stay");
    let text = format!("plugins: {{ p: {{ {keys}, process: {{ {process} }} }} }}");
    Loader::text(&text, Format::Yaml)
        .environment(Environment::from_iter([(
            "TOWER_PLUGINS_REATTACH",
            variable,
        )]))
        .load()
}

#[tokio::test]
async fn a_variable_takes_the_place_of_the_executable_of_the_plugins_that_it_names() {
    let fake = Fake::new();
    let said = reattach(&fake);
    let loaded = loaded(&fake, &format!(r#"{{"p":{said},"q":{said}}}"#));
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    let [over, in_vain] = &*warnings else {
        panic!("{warnings:?}");
    };
    assert!(
        over.contains("executable") && over.contains("TOWER_PLUGINS_REATTACH"),
        "{over}"
    );
    assert!(in_vain.contains(r#""q""#), "{in_vain}");
    let plugins = Plugins::builder().start(loaded.config.unwrap()).await;
    let plugins = plugins.unwrap();
    assert_eq!(within(called(&plugins)).await.unwrap(), "/hello");
    assert!(!fake.folder().join("environment").exists());
}

#[tokio::test]
async fn a_variable_does_not_take_the_place_of_an_executable_with_a_checksum() {
    let fake = Fake::new();
    let checksum = format!("checksum: \"sha256:{}\"", "0".repeat(64));
    assert!(loaded_with(&fake, &checksum, "").config.is_ok());
    let variable = format!(r#"{{"p":{}}}"#, reattach(&fake));
    let loaded = loaded_with(&fake, &checksum, &variable);
    let said = loaded.config.unwrap_err().to_string();
    assert!(said.contains("TOWER_PLUGINS_REATTACH"), "{said}");
    assert!(said.contains("checksum"), "{said}");
}

#[tokio::test]
async fn a_variable_that_does_not_say_where_plugins_run_is_refused_by_its_name() {
    let fake = Fake::new();
    assert!(loaded(&fake, "").config.is_ok());
    for wrong in ["{", r#"{"p":{}}"#, "[]"] {
        let said = loaded(&fake, wrong).config.unwrap_err().to_string();
        assert!(said.contains("TOWER_PLUGINS_REATTACH"), "{said}");
    }
}
