use std::fs;
use std::time::Duration;

use tower_plugins::config::{
    Address, BalanceStrategy, Config, ConfigError, CredentialsSpec, Format, PluginSpec, Protocol,
};

fn yaml(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Format::Yaml)
}

/// The config of one plugin, `a`, with the keys `extra`.
fn plugin(extra: &str) -> Result<Config, ConfigError> {
    plugin_over("", extra)
}

/// As [`plugin`], with the keys `root` at the root.
fn plugin_over(root: &str, extra: &str) -> Result<Config, ConfigError> {
    yaml(&format!(
        "{{ {root} plugins: [{{ name: a, transport: http, endpoint: 'http://127.0.0.1:8080', {extra} }}] }}"
    ))
}

fn spec(extra: &str) -> PluginSpec {
    plugin(extra).unwrap().plugins["a"].clone()
}

/// The one problem of a plugin with the keys `extra`, as `key: message`.
fn problem(extra: &str) -> String {
    plugin(extra).unwrap_err().to_string()
}

#[track_caller]
fn assert_problem(extra: &str, key: &str, part: &str) {
    let error = plugin(extra).unwrap_err();
    let [problem] = error.problems() else {
        panic!("{extra}: not one problem: {error}");
    };
    assert_eq!(problem.key, format!("plugins[0].{key}"), "{error}");
    assert!(problem.message.contains(part), "{error}");
}

const ALL_YAML: &str = include_str!("samples/all.yaml");
const ALL_JSON: &str = include_str!("samples/all.json");
const ALL_TOML: &str = include_str!("samples/all.toml");

#[test]
fn the_three_formats_say_the_same() {
    let yaml = Config::parse(ALL_YAML, Format::Yaml).unwrap();
    assert_eq!(yaml, Config::parse(ALL_JSON, Format::Json).unwrap());
    assert_eq!(yaml, Config::parse(ALL_TOML, Format::Toml).unwrap());
    assert_eq!(yaml.plugins.len(), 3);

    let auth = &yaml.plugins["auth"];
    assert_eq!(auth.policy.drain_timeout, Duration::from_secs(10));
    assert_eq!(auth.policy.deadline, Some(Duration::from_millis(1500)));
    assert_eq!(
        auth.policy.attempt_timeout,
        Some(Duration::from_millis(500))
    );
    assert_eq!(auth.policy.balance, BalanceStrategy::RoundRobin);
    assert_eq!(auth.upstream.connection.protocol, Protocol::Http2);
    assert_eq!(auth.upstream.connection.max_response_body, Some(1 << 20));
    assert_eq!(
        auth.upstream.endpoints[1].address.to_string(),
        "http://10.0.0.2:8080/v1"
    );
    let retry = auth.policy.retry.as_ref().unwrap();
    assert_eq!((retry.max_retries, retry.max_replay_bytes), (2, 1 << 20));
    assert_eq!(retry.idempotent, ["/check", "/read/*"]);
    let CredentialsSpec::Custom { headers } = &auth.policy.credentials else {
        panic!("{:?}", auth.policy.credentials);
    };
    assert_eq!(headers[0].0.as_str(), "x-a");
    assert_eq!(headers[1].1.expose(), "two");

    let audit = &yaml.plugins["audit"];
    assert_eq!(audit.policy.retry, None);
    assert_eq!(
        audit.upstream.endpoints[0].address,
        Address::unix("/run/audit.sock").unwrap()
    );
    assert_eq!(audit.policy.rate_limit.as_ref().unwrap().burst_size, 3);
}

#[test]
fn a_config_in_code_has_the_defaults_of_a_file() {
    let code = Config::new().with(PluginSpec::http("a", "http://127.0.0.1:8080").unwrap());
    assert_eq!(code, plugin("").unwrap());

    let error = PluginSpec::unix("no good", "relative.sock").unwrap_err();
    assert_eq!(error.problems().len(), 2);
    assert!(PluginSpec::in_process("a", "echo").is_ok());
}

#[test]
fn an_unknown_key_is_refused_with_its_path_and_the_nearest_known_one() {
    for (extra, key, part) in [
        ("conection: {}", "conection", "did you mean `connection`?"),
        (
            "retry: { max_retrys: 1 }",
            "retry.max_retrys",
            "did you mean `max_retries`?",
        ),
        (
            "connection: { request_tiemout: 1s }",
            "connection.request_tiemout",
            "`request_timeout`?",
        ),
        (
            "auth: { method: none, x: 1 }",
            "auth.x",
            "known here: method",
        ),
        ("labels: {}", "labels", "known here: name"),
        ("'a.b': 1", "[\"a.b\"]", "unknown key"),
    ] {
        let error = plugin(extra).unwrap_err();
        let problem = &error.problems()[0];
        let path = format!("plugins[0].{key}").replace("].[", "][");
        assert_eq!(problem.key, path, "{error}");
        assert!(problem.message.contains(part), "{error}");
    }
    let error = yaml("{ plugin: [], allow_empty: true }")
        .unwrap_err()
        .to_string();
    assert_eq!(error, "plugin: unknown key, did you mean `plugins`?");
    let error = yaml("{ plugins: { a.b: { transport: http, endpoint: 'http://h', x: 1 } } }");
    assert_eq!(error.unwrap_err().problems()[0].key, "plugins[\"a.b\"].x");
}

#[test]
fn all_problems_are_said_at_once() {
    let error = yaml(
        "
        defualt_retry: {}
        default_retry: { max_retries: -1 }
        plugins:
          - { name: a b, transport: grpc, endpoint: 'x' }
          - { transport: http, endpoint: 'https://h', retry: { multiplier: no, window: 1s } }
        ",
    )
    .unwrap_err();
    let keys: Vec<&str> = error.problems().iter().map(|p| p.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "default_retry.max_retries",
            "plugins[0].name",
            "plugins[0].transport",
            "plugins[1].name",
            "plugins[1].retry.multiplier",
            "plugins[1].retry.window",
            "plugins[1].endpoint",
            "defualt_retry",
        ],
        "{error}"
    );
    assert!(
        error
            .to_string()
            .starts_with("8 problems in the config:\n  - default_retry.max_")
    );
}

#[test]
fn a_duration_is_text_and_an_integer_is_told_what_to_write() {
    assert_eq!(
        problem("drain_timeout: 30"),
        "plugins[0].drain_timeout: a duration is text with its unit: write \"30s\"; at most 365d"
    );
    assert_problem("drain_timeout: 1.5", "drain_timeout", "write \"1.5s\"");
    assert_problem("drain_timeout: -1", "drain_timeout", "write \"30s\"");
    for wrong in ["10 parsecs", "-1s", "NaN", "30", "366d", "1e400s"] {
        let error = problem(&format!("drain_timeout: '{wrong}'"));
        assert!(error.contains(wrong), "{error}");
    }
    assert_problem(
        "circuit_breaker: { recovery_timeout: 0s }",
        "circuit_breaker.recovery_timeout",
        "longer than zero",
    );
    let off = spec("connection: { request_timeout: off, stream_idle_timeout: 1m }");
    assert_eq!(off.policy.deadline, None);
    assert_eq!(
        off.policy.stream_idle_timeout,
        Some(Duration::from_secs(60))
    );
    assert_eq!(
        spec("connection: { request_timeout: 0s }").policy.deadline,
        None
    );
}

#[test]
fn yaml_does_not_guess_at_types() {
    let config = yaml("plugins: { n: { transport: http, endpoint: 'http://h' } }").unwrap();
    assert!(config.plugins.contains_key("n"));
    let config = yaml("plugins: { 1.10: { transport: http, endpoint: 'http://h' } }").unwrap();
    assert!(config.plugins.contains_key("1.10"));
    assert_eq!(
        spec("auth: { method: basic, username: no, password: n }")
            .policy
            .credentials,
        spec("auth: { method: basic, username: 'no', password: 'n' }")
            .policy
            .credentials
    );
    assert_problem(
        "enabled: yes",
        "enabled",
        "expected true or false, found text",
    );
    for secret in ["1.10", "true", "{ a: hunter2 }"] {
        let error = problem(&format!("auth: {{ method: bearer, token: {secret} }}"));
        assert!(
            error.starts_with("plugins[0].auth.token: expected text, found"),
            "{error}"
        );
        assert!(
            !error.contains("1.1") && !error.contains("hunter2"),
            "{error}"
        );
    }
    assert_problem(
        "retry: { max_retries: 3.0 }",
        "retry.max_retries",
        "whole number",
    );
    let CredentialsSpec::Bearer { token } = spec("auth: { method: bearer, token: 007 }")
        .policy
        .credentials
    else {
        panic!("not a bearer");
    };
    assert_eq!(token.expose(), "007");
    assert_problem("retry: ", "retry", "has no value");
    assert_problem(
        "retry: { max_retries: !!float 3 }",
        "retry.max_retries",
        "whole number",
    );
    assert!(plugin("retry: !mine {}").is_err());
}

#[test]
fn numbers_are_held_to_their_range() {
    for (extra, key, part) in [
        (
            "retry: { max_retries: 101 }",
            "retry.max_retries",
            "101 is out of range, 0 to 100",
        ),
        (
            "retry: { max_retries: 99999999999999999999 }",
            "retry.max_retries",
            "0 to 100",
        ),
        (
            "retry: { budget_ratio: 150 }",
            "retry.budget_ratio",
            "150 is out of range, 0 to 1",
        ),
        (
            "retry: { multiplier: 0.5 }",
            "retry.multiplier",
            "0.5 is out of range, 1 to 100",
        ),
        (
            "retry: { initial_interval: 9s }",
            "retry.initial_interval",
            "longer than max_interval, 5s",
        ),
        (
            "retry: { idempotent: ['/a/*/b'] }",
            "retry.idempotent[0]",
            "`*` is allowed at its end",
        ),
        (
            "retry: { attempt_timeout: 31s }",
            "retry.attempt_timeout",
            "longer than connection.request_timeout, 30s",
        ),
        (
            "retry: { max_replay_bytes: 2GiB }",
            "retry.max_replay_bytes",
            "0 to 1073741824 bytes",
        ),
        (
            "retry: { max_replay_bytes: -1 }",
            "retry.max_replay_bytes",
            "-1 is not a size",
        ),
        (
            "rate_limit: {}",
            "rate_limit.requests_per_second",
            "is missing",
        ),
        (
            "rate_limit: { requests_per_second: 0 }",
            "rate_limit.requests_per_second",
            "out of range",
        ),
        (
            "concurrency: { max_wait: 1s }",
            "concurrency.max_concurrent",
            "is missing",
        ),
        (
            "concurrency: { max_concurrent: 1, max_queued: 1 }",
            "concurrency.max_wait",
            "contradict",
        ),
        (
            "concurrency: { max_concurrent: 1, max_wait: 1s }",
            "concurrency.max_wait",
            "contradict",
        ),
        (
            "circuit_breaker: { failure_threshold: 0 }",
            "circuit_breaker.failure_threshold",
            "set failure_rate",
        ),
        (
            "circuit_breaker: { window: 5s }",
            "circuit_breaker.window",
            "nothing without failure_rate",
        ),
        (
            "connection: { max_idle_connections: 101 }",
            "connection.max_idle_connections",
            "more than max_connections, 100",
        ),
        (
            "connection: { max_response_head: 1KiB }",
            "connection.max_response_head",
            "8192 to 16777216 bytes",
        ),
        (
            "connection: { protocol: http3 }",
            "connection.protocol",
            "did you mean \"http1\"?",
        ),
        (
            "load_balancing: {}",
            "load_balancing.strategy",
            "is missing",
        ),
    ] {
        assert_problem(extra, key, part);
    }
    for text in ["1e400", ".nan", ".inf"] {
        assert!(
            plugin(&format!("retry: {{ multiplier: {text} }}")).is_err(),
            "{text}"
        );
    }
    let toml = "plugins.a = { transport = 'http', endpoint = 'http://h', retry.multiplier = nan }";
    let error = Config::parse(toml, Format::Toml).unwrap_err();
    assert_eq!(error.problems()[0].key, "plugins.a.retry.multiplier");
    assert_eq!(
        spec("connection: { max_connections: 4 }")
            .upstream
            .connection
            .max_idle_connections,
        4
    );
}

#[test]
fn a_plugin_is_laid_over_the_defaults_field_by_field() {
    let root = "default_retry: { max_retries: 5, multiplier: 3 },
        default_rate_limit: { requests_per_second: 7.5, max_wait: 1s },
        default_connection: { request_timeout: 9s }, drain_timeout: 7s,
        default_load_balancing: { strategy: round-robin },";
    let of = |extra: &str| {
        plugin_over(root, extra).unwrap().plugins["a"]
            .policy
            .clone()
    };

    let inherited = of("");
    assert_eq!(inherited.retry.as_ref().unwrap().max_retries, 5);
    assert_eq!(inherited.rate_limit.as_ref().unwrap().burst_size, 8);
    assert_eq!(inherited.deadline, Some(Duration::from_secs(9)));
    assert_eq!(inherited.drain_timeout, Duration::from_secs(7));
    assert_eq!(inherited.balance, BalanceStrategy::RoundRobin);

    let laid_over = of(
        "retry: { max_retries: 1 }, rate_limit: { burst_size: 2 }, connection: { request_timeout: off }",
    );
    let retry = laid_over.retry.as_ref().unwrap();
    assert_eq!((retry.max_retries, retry.multiplier.get()), (1, 3.0));
    let limit = laid_over.rate_limit.as_ref().unwrap();
    assert_eq!(
        (limit.burst_size, limit.max_wait),
        (2, Duration::from_secs(1))
    );
    assert_eq!(laid_over.deadline, None);

    let off = of(
        "retry: { enabled: false }, rate_limit: { enabled: false }, circuit_breaker: { enabled: false }",
    );
    assert_eq!((off.retry, off.rate_limit, off.breaker), (None, None, None));
    assert_eq!(of("retry: { max_retries: 0 }").retry, None);

    // A block that is there is on, whatever the default says.
    let back_on = plugin_over(
        "default_retry: { enabled: false },",
        "retry: { max_retries: 1 }",
    );
    assert!(back_on.unwrap().plugins["a"].policy.retry.is_some());
}

#[test]
fn defaults_are_checked_even_if_no_plugin_uses_them() {
    for (root, key) in [
        (
            "default_retry: { multiplier: 0 },",
            "default_retry.multiplier",
        ),
        (
            "default_rate_limit: {},",
            "default_rate_limit.requests_per_second",
        ),
        (
            "default_circuit_breaker: { failure_threshold: 0 },",
            "default_circuit_breaker.failure_threshold",
        ),
        (
            "default_concurrency: { max_concurrent: 0 },",
            "default_concurrency.max_concurrent",
        ),
        (
            "default_load_balancing: { strategy: random },",
            "default_load_balancing.strategy",
        ),
        (
            "default_connection: { retry: 1 },",
            "default_connection.retry",
        ),
    ] {
        let error = yaml(&format!("{{ {root} allow_empty: true }}")).unwrap_err();
        assert_eq!(error.problems()[0].key, key);
        assert_eq!(error.problems().len(), 1, "{error}");
    }
}

#[test]
fn a_disabled_plugin_is_checked_and_left_out() {
    assert!(plugin("enabled: false").unwrap().plugins.is_empty());
    assert_problem(
        "enabled: false, retry: 3",
        "retry",
        "expected a table, found a number",
    );
}

#[test]
fn no_plugins_must_be_meant() {
    for text in ["plugins: []", "plugins: {}", "default_retry: {}"] {
        let error = yaml(text).unwrap_err().to_string();
        assert_eq!(
            error,
            "plugins: no plugins; set allow_empty: true if that is meant"
        );
        assert!(
            yaml(&format!("{text}\nallow_empty: true"))
                .unwrap()
                .plugins
                .is_empty()
        );
    }
    for text in ["", "  \n", "\u{feff}", "# nothing\n", "---\n", "null"] {
        let error = yaml(text).unwrap_err().to_string();
        assert!(error.contains("is empty"), "{text:?}: {error}");
    }
    assert!(yaml("[]").is_err());
    assert!(yaml("text").is_err());
}

#[test]
fn a_name_is_used_once() {
    let error = yaml(
        "plugins:
           - { name: a, transport: http, endpoint: 'http://h' }
           - { name: b, transport: http, endpoint: 'http://h' }
           - { name: a, transport: http, endpoint: 'http://h', enabled: false }",
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "plugins[2].name: a is the name of plugins[0] already"
    );
    for (text, format) in [
        (
            r#"{ "allow_empty": true, "a": 1, "allow_empty": true }"#,
            Format::Json,
        ),
        ("allow_empty: true\nallow_empty: true", Format::Yaml),
        ("allow_empty = true\nallow_empty = true", Format::Toml),
    ] {
        let error = Config::parse(text, format).unwrap_err().to_string();
        assert!(
            error.contains("not valid") && error.contains("line"),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn only_what_can_be_reached_is_an_endpoint() {
    for (endpoint, part) in [
        ("https://h", "is not available in this version"),
        ("file:///etc/passwd", "only http:// is"),
        ("127.0.0.1:8080", "is not a URL"),
        ("http://", "is not a URL"),
        ("http://:80", "has no host"),
        ("http://h:0", "port out of range"),
        ("http://h:70000", "port"),
        ("http://h/p?q=1", "has a query"),
        ("http://h/p#f", "has a fragment"),
        ("http://b\u{fc}cher", "is not a URL"),
        ("http://h:80/a b", "is not a URL"),
    ] {
        let text = format!("plugins: {{ a: {{ transport: http, endpoint: '{endpoint}' }} }}");
        let error = yaml(&text).unwrap_err().to_string();
        assert!(error.starts_with("plugins.a.endpoint: "), "{error}");
        assert!(error.contains(part), "{error}");
    }
    let error = Address::http("http://user:hunter2@h")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("credentials") && !error.contains("hunter2"),
        "{error}"
    );
    for (url, shown) in [
        ("http://h", "http://h"),
        ("http://h:65535/", "http://h:65535"),
        ("http://h/v1/", "http://h/v1"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("http://xn--bcher-kva:80", "http://xn--bcher-kva:80"),
    ] {
        assert_eq!(Address::http(url).unwrap().to_string(), shown);
    }
    for path in [
        "",
        "relative",
        "/",
        "/a/../b",
        &format!("/{}", "x".repeat(120)),
        "/a\0b",
    ] {
        assert!(Address::unix(path).is_err(), "{path:?}");
    }
}

#[test]
fn endpoints_are_one_or_many_and_differ() {
    let with = |keys: &str| yaml(&format!("plugins: {{ a: {{ {keys} }} }}"));
    for (keys, key) in [
        ("transport: http", "endpoint"),
        (
            "transport: http, endpoint: 'http://h', endpoints: ['http://i']",
            "endpoints",
        ),
        ("transport: http, endpoints: []", "endpoints"),
        (
            "transport: http, endpoints: ['http://h', 'http://H/']",
            "endpoints[1]",
        ),
        (
            "transport: http, endpoints: ['http://h', 7]",
            "endpoints[1]",
        ),
        (
            "transport: http, endpoints: [{ path: /v1 }]",
            "endpoints[0].url",
        ),
        (
            "transport: http, endpoint: { url: 'http://h/v1', path: /v1 }",
            "endpoint.path",
        ),
        (
            "transport: http, endpoint: { url: 'http://h', path: v1 }",
            "endpoint.path",
        ),
        (
            "transport: in-process, endpoint: { url: echo, path: /v1 }",
            "endpoint.path",
        ),
        (
            "transport: in-process, endpoint: echo, connection: { protocol: http2 }",
            "connection.protocol",
        ),
        ("transport: subprocess, endpoint: /bin/x", "transport"),
        ("endpoint: 'http://h'", "transport"),
        ("transport: http, type: http, endpoint: 'http://h'", "type"),
        ("transport: http, name: a, endpoint: 'http://h'", "name"),
    ] {
        let error = with(keys).unwrap_err();
        assert_eq!(error.problems().len(), 1, "{error}");
        assert_eq!(
            error.problems()[0].key,
            format!("plugins.a.{key}"),
            "{error}"
        );
    }
    let config = with(
        "type: unix, endpoints: [/run/a, 'unix:/run/b', { url: 'unix:///run/c', path: /v1/ }]",
    );
    let endpoints = config.unwrap().plugins["a"].upstream.endpoints.clone();
    let shown: Vec<String> = endpoints.iter().map(|e| e.address.to_string()).collect();
    assert_eq!(shown, ["unix:/run/a", "unix:/run/b", "unix:/run/c/v1"]);
}

#[test]
fn credentials_are_whole_and_can_be_sent() {
    for (auth, key) in [
        ("token: hunter2", "auth.method"),
        ("method: mtls", "auth.method"),
        ("method: digest, token: hunter2", "auth.method"),
        ("method: bearer", "auth.token"),
        ("method: bearer, token: ''", "auth.token"),
        ("method: bearer, token: \"hunter2\\r\\nX: y\"", "auth.token"),
        ("method: bearer, token: 'hunter2 '", "auth.token"),
        (
            "method: bearer, token: hunter2, api_key: hunter2",
            "auth.api_key",
        ),
        ("method: none, token: hunter2", "auth.token"),
        (
            "method: basic, username: 'a:b', password: hunter2",
            "auth.username",
        ),
        ("method: basic, username: a", "auth.password"),
        (
            "method: api-key, api_key: hunter2, header: 'a b'",
            "auth.header",
        ),
        ("method: custom, headers: {}", "auth.headers"),
        (
            "method: custom, headers: { Content-Length: hunter2 }",
            "auth.headers.Content-Length",
        ),
        (
            "method: custom, headers: { a: hunter2, A: hunter2 }",
            "auth.headers.a",
        ),
        (
            "method: custom, headers: { a: \"hunter2\\n\" }",
            "auth.headers.a",
        ),
    ] {
        let error = plugin(&format!("auth: {{ {auth} }}")).unwrap_err();
        assert_eq!(error.problems().len(), 1, "{error}");
        assert_eq!(
            error.problems()[0].key,
            format!("plugins[0].{key}"),
            "{error}"
        );
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    let big = "x".repeat(1 << 20);
    let error = problem(&format!("auth: {{ method: bearer, token: {big} }}"));
    assert!(error.len() < 200, "{error}");
    let seed = spec("auth: { method: api_key, api_key: hunter2 }");
    assert_eq!(
        seed,
        spec("auth: { method: api-key, api_key: hunter2, header: X-API-Key }")
    );
    assert!(!format!("{seed:?}").contains("hunter2"));
}

#[test]
fn a_parse_error_repeats_no_line_of_the_file() {
    for (text, format) in [
        ("token = \"hunter2\nx = 1", Format::Toml),
        ("token: \"hunter2\nx: [", Format::Yaml),
        ("{ \"token\": \"hunter2\n\" }", Format::Json),
    ] {
        let error = Config::parse(text, format).unwrap_err().to_string();
        assert!(
            error.contains("not valid") && error.contains("line"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn depth_and_aliases_are_bounded() {
    let deep = "[".repeat(10_000);
    for format in [Format::Json, Format::Yaml] {
        assert!(Config::parse(&deep, format).is_err());
    }
    assert!(Config::parse(&format!("a = {deep}"), Format::Toml).is_err());
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let list = format!("*a{}, ", i - 1).repeat(10);
        bomb.push_str(&format!("a{i}: &a{i} [{list}]\n"));
    }
    assert!(yaml(&bomb).is_err());
    assert!(yaml("allow_empty: true\n---\nallow_empty: true").is_err());
}

#[test]
fn a_file_is_read_by_its_extension_and_named_in_its_problems() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for (name, text) in [
        ("a.yaml", ALL_YAML),
        ("a.yml", ALL_YAML),
        ("a.json", ALL_JSON),
        ("A.TOML", ALL_TOML),
    ] {
        fs::write(path(name), text).unwrap();
        assert_eq!(Config::from_file(path(name)), yaml(ALL_YAML), "{name}");
    }
    fs::write(path("bad.yaml"), "plugins: []\nplugns: []").unwrap();
    let error = Config::from_file(path("bad.yaml")).unwrap_err();
    assert_eq!(error.problems().len(), 2);
    assert!(
        error
            .problems()
            .iter()
            .all(|p| p.file.as_deref() == Some(&path("bad.yaml")))
    );

    fs::write(path("a.conf"), ALL_YAML).unwrap();
    fs::write(path("latin.yaml"), b"a: \xe9").unwrap();
    fs::write(path("empty.yaml"), "").unwrap();
    fs::File::create(path("big.yaml"))
        .unwrap()
        .set_len(50 << 20)
        .unwrap();
    fs::create_dir(path("dir.yaml")).unwrap();
    for (name, part) in [
        ("a.conf", "unknown kind of file"),
        ("latin.yaml", "not UTF-8"),
        ("empty.yaml", "is empty"),
        ("big.yaml", "larger than 10 MiB"),
        ("dir.yaml", "not a regular file"),
        ("missing.yaml", "cannot be read"),
    ] {
        let error = Config::from_file(path(name)).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(name), "{error}");
    }
}

#[test]
fn the_samples_of_the_docs_are_accepted() {
    let docs = include_str!("../../../../docs/config.md");
    let mut configs = Vec::new();
    for (fence, format) in [
        ("```yaml\n", Format::Yaml),
        ("```json\n", Format::Json),
        ("```toml\n", Format::Toml),
    ] {
        for sample in docs.split(fence).skip(1) {
            let sample = sample.split("```").next().unwrap();
            configs.push(Config::parse(sample, format).unwrap_or_else(|e| panic!("{e}\n{sample}")));
        }
    }
    assert!(configs.len() >= 3);
    // The first sample is given in each of the formats.
    let first = &configs[0];
    assert!(configs.iter().filter(|config| *config == first).count() >= 3);
}

/// A key that the docs do not name, or name and the parser does not know, is a lie.
#[test]
fn the_docs_name_every_key_that_is_known() {
    let docs = include_str!("../../../../docs/config.md");
    let known_at = |text: &str| -> Vec<String> {
        let error = yaml(text).unwrap_err();
        let messages = error.problems().iter().map(|p| p.message.as_str());
        let known = messages.filter_map(|m| m.split_once("known here: ")).last();
        let known = known.unwrap_or_else(|| panic!("{error}")).1;
        known.split(", ").map(str::to_owned).collect()
    };
    let plugin = |extra: &str| {
        format!("plugins: [{{ name: a, transport: http, endpoint: 'http://h', {extra} }}]")
    };
    let mut keys = known_at("{ plugins: [], zzzzzzzzz: 1 }");
    keys.extend(known_at(&plugin("zzzzzzzzz: 1")));
    for block in [
        "retry",
        "circuit_breaker",
        "connection",
        "rate_limit",
        "concurrency",
        "load_balancing",
        "auth",
    ] {
        keys.extend(known_at(&plugin(&format!("{block}: {{ zzzzzzzzz: 1 }}"))));
    }
    for key in keys {
        assert!(
            docs.contains(&format!("| `{key}` |")),
            "docs/config.md does not name `{key}`"
        );
    }
}
