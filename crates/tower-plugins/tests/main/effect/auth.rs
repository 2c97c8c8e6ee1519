use http::HeaderMap;
use tower_plugins::config::{Address, Config, CredentialsSpec, Format, PluginSpec, Secret};
use tower_plugins::{Error, Plugins};

use super::stage::Stage;

/// The headers that a plugin with this `auth` is sent.
async fn sent(auth: &str) -> HeaderMap {
    let stage = Stage::of(&format!("auth: {{ {auth} }}")).await;
    stage.call().await.unwrap();
    let seen = stage.seen();
    seen[0].request.headers().clone()
}

#[tokio::test]
async fn method_is_how_the_secret_is_sent() {
    assert_eq!(sent("method: none").await, HeaderMap::new());
    for (auth, header, value) in [
        ("method: api-key, api_key: k", "x-api-key", "k"),
        ("method: api_key, api_key: k", "x-api-key", "k"),
        ("method: bearer, token: t", "authorization", "Bearer t"),
        (
            "method: basic, username: u, password: p",
            "authorization",
            "Basic dTpw",
        ),
        ("method: custom, headers: { x-own: v }", "x-own", "v"),
    ] {
        let headers = sent(auth).await;
        assert_eq!(
            (headers.len(), headers.get(header)),
            (1, Some(&value.parse().unwrap())),
            "{auth}"
        );
    }
}

#[tokio::test]
async fn api_key_is_the_value_of_the_header() {
    for key in ["one", "two"] {
        let headers = sent(&format!("method: api-key, api_key: {key}")).await;
        assert_eq!(headers["x-api-key"], key);
    }
}

#[tokio::test]
async fn header_is_the_one_that_carries_the_api_key() {
    let headers = sent("method: api-key, api_key: k, header: X-Own-Key").await;
    assert_eq!(headers["x-own-key"], "k");
    assert!(!headers.contains_key("x-api-key"));
}

#[tokio::test]
async fn token_is_what_follows_bearer() {
    for token in ["one", "two"] {
        let headers = sent(&format!("method: bearer, token: {token}")).await;
        assert_eq!(headers["authorization"], format!("Bearer {token}"));
    }
}

#[tokio::test]
async fn username_is_the_first_half_of_basic_credentials() {
    for (username, encoded) in [("host", "aG9zdDpw"), ("guest", "Z3Vlc3Q6cA==")] {
        let headers = sent(&format!("method: basic, username: {username}, password: p")).await;
        assert_eq!(headers["authorization"], format!("Basic {encoded}"));
    }
}

#[tokio::test]
async fn password_is_the_second_half_of_basic_credentials() {
    for (password, encoded) in [("open", "dTpvcGVu"), ("a:b", "dTphOmI=")] {
        let headers = sent(&format!(
            "method: basic, username: u, password: '{password}'"
        ))
        .await;
        assert_eq!(headers["authorization"], format!("Basic {encoded}"));
    }
}

#[tokio::test]
async fn headers_are_all_sent_in_place_of_the_callers() {
    let stage = Stage::of("auth: { method: custom, headers: { X-One: a, x-two: b } }").await;
    let mut request = crate::support::get("/");
    let caller = request.headers_mut();
    caller.insert("x-one", "the caller's".parse().unwrap());
    caller.insert("x-three", "c".parse().unwrap());
    stage.send("p", request).await.unwrap();
    let seen = stage.seen();
    let headers = seen[0].request.headers();
    assert_eq!(headers.len(), 3);
    for (name, value) in [("x-one", "a"), ("x-two", "b"), ("x-three", "c")] {
        assert_eq!(headers.get_all(name).iter().collect::<Vec<_>>(), [value]);
    }
}

fn at(transport: &str, endpoints: &str, more: &str) -> Result<Config, String> {
    let auth = format!("auth: {{ method: bearer, token: hunter2 {more} }}");
    let yaml =
        format!("plugins: {{ p: {{ transport: {transport}, endpoints: [{endpoints}], {auth} }} }}");
    Config::parse(&yaml, Format::Yaml).map_err(|error| error.to_string())
}

#[test]
fn allow_plaintext_lets_a_secret_go_in_the_clear_to_another_machine() {
    for here in [
        "'http://127.0.0.1'",
        "'http://127.9.9.9:80/v1'",
        "'http://localhost'",
        "'http://LOCALHOST:8080'",
        "'http://[::1]:80'",
        "'http://[::ffff:127.0.0.1]'",
    ] {
        at("http", here, "").unwrap();
        // It is a permission: an address may be a variable's, and is this machine's only here.
        at("http", here, ", allow_plaintext: true").unwrap();
    }
    for there in [
        "'http://10.0.0.1'",
        "'http://search:80'",
        "'http://localhost.example'",
        "'http://127.0.0.1.example'",
        "'http://[fe80::1]'",
        "'http://0.0.0.0'",
        "{ url: 'http://10.0.0.1', path: /v1 }",
    ] {
        let refused = at("http", there, "").unwrap_err();
        assert!(refused.contains("plugins.p.auth"), "{refused}");
        assert!(refused.contains("would go over plaintext to endpoints[0]"));
        at("http", there, ", allow_plaintext: true").unwrap();
    }
    // One is enough, wherever it stands.
    let refused = at("http", "'http://127.0.0.1', 'http://10.0.0.1'", "").unwrap_err();
    assert!(refused.contains("endpoints[1]"), "{refused}");

    // So for gRPC without TLS.
    for here in [
        "'127.0.0.1:50051'",
        "'localhost:50051'",
        "'unix:/run/p.sock'",
    ] {
        at("grpc", here, "").unwrap();
    }
    let refused = at("grpc", "'search:50051'", "").unwrap_err();
    assert!(
        refused.contains("over plaintext to endpoints[0]"),
        "{refused}"
    );
    at("grpc", "'search:50051'", ", allow_plaintext: true").unwrap();
    at("grpc-tls", "'search:50051'", "").unwrap();

    // What a name stands for may be anywhere.
    for name in ["'dns:///search.internal:80'", "'dns:///localhost:80'"] {
        let refused = at("http", name, "").unwrap_err();
        assert!(
            refused.contains("over plaintext to endpoints[0]"),
            "{refused}"
        );
        at("http", name, ", allow_plaintext: true").unwrap();
        at("https", name, "").unwrap();
    }

    at("https", "'https://10.0.0.1'", "").unwrap();
    for (transport, endpoint) in [("unix", "/run/p.sock"), ("unix-json", "/run/p.sock")] {
        at(transport, endpoint, "").unwrap();
        let refused = at(transport, endpoint, ", allow_plaintext: true").unwrap_err();
        assert!(refused.contains("does nothing"), "{refused}");
    }
}

#[test]
fn a_proxy_on_another_machine_takes_a_loopback_address_for_its_own() {
    let through = |proxy: &str, auth: &str| {
        let yaml = format!(
            "plugins: {{ p: {{ transport: http, endpoint: 'http://127.0.0.1:8080',
            connection: {{ proxy: '{proxy}' }},
            auth: {{ method: bearer, token: hunter2 {auth} }} }} }}"
        );
        Config::parse(&yaml, Format::Yaml).map_err(|error| error.to_string())
    };
    let refused = through("http://proxy.internal:3128", "").unwrap_err();
    assert!(refused.contains("would go over plaintext"), "{refused}");
    through("http://proxy.internal:3128", ", allow_plaintext: true").unwrap();
    // The environment's are not on the way to this machine.
    for proxy in ["http://localhost:3128", "environment", "off"] {
        through(proxy, "").unwrap();
    }
}

/// The error of a start with what `change` makes of a plugin that shows a token.
async fn start(address: Address, change: impl FnOnce(&mut PluginSpec)) -> Result<Plugins, Error> {
    let mut plugin = PluginSpec::http("p", "http://127.0.0.1").unwrap();
    plugin.upstream.endpoints[0] = address.into();
    plugin.policy.credentials = CredentialsSpec::Bearer {
        token: Secret::new("hunter2".to_owned()),
    };
    change(&mut plugin);
    Plugins::builder().start(Config::new().with(plugin)).await
}

#[tokio::test]
async fn a_plugin_made_in_code_sends_no_secret_in_the_clear_either() {
    let there = || Address::http("http://10.0.0.1").unwrap();
    let refused = start(there(), |_| {}).await.unwrap_err();
    let shown = crate::support::causes(&refused);
    assert!(
        shown.contains("over plaintext to http://10.0.0.1"),
        "{shown}"
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    start(there(), |plugin| plugin.policy.allow_plaintext = true)
        .await
        .unwrap();
    start(there(), |plugin| {
        plugin.policy.credentials = CredentialsSpec::None;
    })
    .await
    .unwrap();
}

/// They are about HTTP, and its lines are not.
#[test]
fn a_header_that_no_line_carries_is_refused_with_unix_json() {
    let with = |transport: &str, header: &str| {
        let yaml = format!(
            "plugins: {{ p: {{ transport: {transport}, endpoint: /run/p.sock,
                auth: {{ method: api-key, api_key: hunter2, header: {header} }} }} }}"
        );
        Config::parse(&yaml, Format::Yaml).map_err(|error| error.to_string())
    };
    for header in [
        "accept-encoding",
        "content-encoding",
        "Content-Type",
        "proxy-authorization",
        "via",
        "x-request-id",
    ] {
        let refused = with("unix-json", header).unwrap_err();
        assert!(refused.contains("plugins.p.auth.header"), "{refused}");
        assert!(!refused.contains("hunter2"), "{refused}");
        with("unix", header).unwrap();
    }
    with("unix-json", "authorization").unwrap();
}
