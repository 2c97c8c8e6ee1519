//! What a config says that it should not.

use std::fs;
use std::path::Path;

use tower_plugins::config::{
    Address, Config, ConfigError, ConnectionSpec, CredentialsSpec, Environment, Format, Loader,
};
use tower_plugins::transport::{Http, Transport};
use tower_plugins::{Plugins, Reason};

use crate::alone::{allocated, alone};
use crate::support::{get, within};
use crate::transport::tls::server::Ca;

fn yaml(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Format::Yaml)
}

/// The config of the plugin `a` with further keys.
fn plugin(keys: &str) -> Result<Config, ConfigError> {
    yaml(&format!(
        "plugins: [{{ name: a, transport: http, endpoint: 'http://h', {keys} }}]"
    ))
}

#[track_caller]
fn assert_refused(config: Result<Config, ConfigError>, parts: &[&str]) {
    let error = config.unwrap_err();
    let shown = format!("{error}\n{error:?}\n{}", error.render(false));
    assert!(parts.iter().all(|part| shown.contains(part)), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn fault_06_an_unknown_key_is_refused_with_its_path_and_the_nearest_known_one() {
    let config = plugin("connection: { request_tiemout: 1s }");
    assert_refused(
        config,
        &[
            "plugins[0].connection.request_tiemout",
            "did you mean `request_timeout`?",
        ],
    );
}

#[test]
fn fault_07_a_word_is_never_taken_for_a_boolean_nor_a_version_for_a_number() {
    assert_refused(
        plugin("enabled: n"),
        &["expected true or false, found the text \"n\""],
    );
    assert_refused(
        yaml("plugins: [{ name: 1.10, transport: http, endpoint: 'http://h' }]"),
        &["expected text, found a number; put it in quotes"],
    );
    let config = yaml(
        "plugins: { n: { transport: http, endpoint: 'http://h' }, 1.10: { transport: http, endpoint: 'http://h' } }",
    );
    let config = config.unwrap();
    let names: Vec<_> = config.plugins.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["1.10", "n"]);
}

#[test]
fn fault_08_a_name_or_key_that_is_there_twice_is_refused_with_both_places() {
    let twice = "plugins:\n  - { name: a, transport: http, endpoint: 'http://h' }\n  - { name: a, transport: http, endpoint: 'http://h' }";
    assert_refused(yaml(twice), &["3:7: ", "at line 2"]);
    let key =
        "plugins:\n  - name: a\n    transport: http\n    endpoint: 'http://h'\n    transport: unix";
    assert_refused(
        yaml(key),
        &["5:5: ", "\"transport\" is there twice, first at line 3"],
    );
    let json = "{\n \"plugins\": [],\n \"allow_empty\": true,\n \"plugins\": [] }";
    let config = Config::parse(json, Format::Json);
    assert_refused(
        config,
        &["4:2: ", "\"plugins\" is there twice, first at line 2"],
    );
}

#[test]
fn fault_09_what_is_too_large_too_deep_or_a_bomb_is_refused_without_taking_memory() {
    alone(
        "faults::input::fault_09_what_is_too_large_too_deep_or_a_bomb_is_refused_without_taking_memory",
        || {
            let dir = tempfile::tempdir().unwrap();
            let large = dir.path().join("large.yaml");
            fs::File::create(&large).unwrap().set_len(50 << 20).unwrap();
            let (config, bytes) = allocated(|| Config::from_file(&large));
            assert_refused(config, &["larger than 10 MiB"]);
            assert!(bytes < 1 << 20, "{bytes} for a file that is not read");

            let deep = "[".repeat(10_000);
            let texts = [
                (deep.clone(), Format::Yaml),
                (deep.clone(), Format::Json),
                (format!("a = {deep}"), Format::Toml),
            ];
            for (text, format) in texts {
                let (config, bytes) = allocated(|| Config::parse(&text, format));
                assert_refused(config, &["not valid"]);
                assert!(bytes < 4 << 20, "{bytes} for {format} that is too deep");
            }

            let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
            for i in 1..20 {
                let list = format!("*a{}, ", i - 1).repeat(10);
                bomb += &format!("a{i}: &a{i} [{list}]\n");
            }
            let (config, bytes) = allocated(|| yaml(&bomb));
            assert_refused(config, &["its aliases stand for more than 100000 values"]);
            assert!(
                bytes < 32 << 20,
                "{bytes} for a bomb that stands for 10^21 values"
            );
        },
    );
}

#[test]
fn fault_10_numbers_and_times_out_of_their_range_are_refused_with_the_range() {
    for (keys, part) in [
        ("retry: { multiplier: .nan }", "1 to 100"),
        ("retry: { multiplier: 1e400 }", "1 to 100"),
        ("retry: { max_retries: -1 }", "0 to 100"),
        (
            "retry: { budget_ratio: 150 }",
            "150 is out of range, 0 to 1",
        ),
        (
            "circuit_breaker: { recovery_timeout: 0s }",
            "longer than zero",
        ),
        ("drain_timeout: -1s", "is not a duration"),
        (
            "drain_timeout: 10 parsecs",
            "\"10 parsecs\" is not a duration",
        ),
        ("drain_timeout: 1e400s", "is not a duration"),
        ("drain_timeout: 366d", "longer than 365d"),
    ] {
        assert_refused(plugin(keys), &[part]);
    }
}

#[tokio::test]
async fn fault_11_no_endpoint_is_refused_at_load_and_an_error_of_the_call_at_run_time() {
    assert_refused(
        yaml("plugins: { a: { transport: http, endpoints: [] } }"),
        &["a plugin needs at least one endpoint"],
    );
    // There are no weights yet, so none can be zero.
    assert_refused(
        yaml("plugins: { a: { transport: http, endpoints: [{ url: 'http://h', weight: 0 }] } }"),
        &["endpoints[0].weight"],
    );
    let mut config = plugin("").unwrap();
    let plugin = config.plugins.values_mut().next().unwrap();
    plugin.upstream.endpoints.clear();
    let plugins = Plugins::builder().start(config).await.unwrap();
    let error = crate::support::call(&plugins.plugin("a"), get("/"))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoEndpoint));
}

#[test]
fn fault_12_a_variable_or_secret_file_that_is_missing_or_empty_is_refused_by_its_name() {
    let load = |token: &str| {
        let text = format!(
            "plugins: {{ a: {{ transport: http, endpoint: 'http://localhost', auth: {{ method: bearer, token: '{token}' }} }} }}"
        );
        let environment = Environment::from_iter([("OTHER", "hunter2"), ("EMPTY", "")]);
        Loader::text(text, Format::Yaml)
            .environment(environment)
            .load()
            .config
    };
    assert_refused(load("${TOKEN}"), &["TOKEN is not set"]);
    assert_refused(load("${EMPTY}"), &["plugins.a.auth.token: is empty"]);
    assert_refused(
        load("file:/nowhere/token"),
        &["/nowhere/token cannot be read"],
    );

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let written = format!("file:{}", file.display());
    write(&file, b"");
    assert_refused(load(&written), &["token is empty"]);
    write(&file, b"hunter2\n");
    let config = load(&written).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    match &config.plugins["a"].policy.credentials {
        CredentialsSpec::Bearer { token } => assert_eq!(token.expose(), "hunter2"),
        other => panic!("{other:?}"),
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn fault_13_a_certificate_that_is_expired_unreadable_or_of_another_key_is_refused_at_load() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let good = ca.certify(&["me"]).identity();
    let other = ca.certify(&["other"]).identity();
    let expired = ca.certify_until(&["me"], 2000).identity();
    let load = |cert: &[u8], key: &[u8], ca: &[u8]| {
        let path = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            write(&path, bytes);
            path.display().to_string()
        };
        yaml(&format!(
            "plugins: {{ a: {{ transport: https, endpoint: 'https://h', tls: {{ cert_file: {}, key_file: {}, ca_file: {} }} }} }}",
            path("cert.pem", cert),
            path("key.pem", key),
            path("ca.pem", ca),
        ))
    };
    let (cert, key, ca) = (good.cert.expose(), good.key.expose(), ca.file());
    assert!(load(cert, key, ca.expose()).is_ok());
    assert_refused(
        load(expired.cert.expose(), expired.key.expose(), ca.expose()),
        &["plugins.a.tls.cert_file", "expired on 2000-01-01"],
    );
    assert_refused(
        load(cert, other.key.expose(), ca.expose()),
        &[
            "plugins.a.tls.key_file",
            "does not belong to the certificate",
        ],
    );
    assert_refused(
        load(b"hunter2", key, ca.expose()),
        &["holds no certificate"],
    );
    assert_refused(
        load(cert, b"hunter2", ca.expose()),
        &["holds no private key"],
    );
    assert_refused(
        load(cert, key, b"hunter2"),
        &["plugins.a.tls.ca_file", "holds no certificate"],
    );
    let unreadable = yaml(&format!(
        "plugins: {{ a: {{ transport: https, endpoint: 'https://h', tls: {{ ca_file: {} }} }} }}",
        dir.path().display()
    ));
    assert_refused(unreadable, &["is not a regular file"]);
}

#[test]
fn fault_53_a_header_that_could_break_a_message_is_refused_at_load() {
    for (auth, part) in [
        (
            "method: bearer, token: \"hunter2\\r\\nX-Admin: 1\"",
            "auth.token",
        ),
        (
            "method: custom, headers: { x-a: \"hunter2\\n\" }",
            "auth.headers.x-a",
        ),
        (
            "method: custom, headers: { \"x-a: hunter2\\r\\nb\": c }",
            "auth.headers",
        ),
        (
            "method: custom, headers: { Transfer-Encoding: chunked }",
            "is set by the connection",
        ),
        (
            "method: api-key, api_key: k, header: \"a\\r\\nb\"",
            "is not the name of a header",
        ),
    ] {
        let config = plugin(&format!("auth: {{ {auth} }}"));
        let error = config.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    let large = "hunter2".repeat(150_000);
    assert_refused(
        plugin(&format!("auth: {{ method: bearer, token: {large} }}")),
        &["at most 8192"],
    );

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plugins.yaml");
    fs::write(&file, b"plugins:\n  a: { auth: { token: \"\xff\xfe\" } }").unwrap();
    assert_refused(
        Config::from_file(&file),
        &["plugins.yaml:2: is not UTF-8 text"],
    );
}

#[tokio::test]
async fn fault_54_addresses_are_taken_or_refused_as_they_can_be_reached() {
    let load = |url: &str| {
        yaml(&format!(
            "plugins: {{ a: {{ transport: http, endpoint: '{url}' }} }}"
        ))
    };
    assert_refused(
        load("http://user:hunter2@h"),
        &["credentials do not belong in a URL"],
    );
    assert_refused(load("file:///etc/passwd"), &["does not begin with http://"]);
    assert_refused(load("http://h:0"), &["1 to 65535"]);
    assert_refused(load("http://h:70000"), &["1 to 65535"]);
    assert!(load("http://xn--bcher-kva.example:8080").is_ok());
    assert!(load("http://[fe80::1%25eth0]:8080").is_ok());

    // A zone is for the system alone: it is not sent.
    let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else {
        println!("SKIPPED: this machine has no IPv6");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 1024];
        let length = stream.read(&mut head).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .await
            .unwrap();
        String::from_utf8_lossy(&head[..length]).to_lowercase()
    });
    let address = Address::http(&format!("http://[::1%251]:{port}")).unwrap();
    let http = Http::new(&address, &ConnectionSpec::default()).unwrap();
    within(http.call(get("/"))).await.unwrap();
    let head = within(server).await.unwrap();
    assert!(head.contains(&format!("host: [::1]:{port}\r\n")), "{head}");
}
