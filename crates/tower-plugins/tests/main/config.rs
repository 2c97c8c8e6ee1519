mod corpus;
mod docs;
mod environment;
mod files;
mod included;
mod keys;
mod refused;
mod reload;
mod seed;
mod text;
mod upstream;

use std::fs;
use std::path::Path;
use std::time::Duration;

use tower_plugins::config::{BalanceStrategy, Config, ConfigError, Format, PluginSpec};

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

/// Every sample of a config that is checked in, by its name.
fn samples() -> Vec<(String, String)> {
    let mut samples = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/main/samples")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if Format::of(&path).is_some() {
                let text = fs::read_to_string(&path).unwrap();
                samples.push((path.display().to_string(), text));
            }
        }
    }
    samples.sort();
    samples
}

fn spec(extra: &str) -> PluginSpec {
    plugin(extra).unwrap().plugins["a"].clone()
}

/// The one problem of a plugin with the keys `extra`, as `key: message`.
fn problem(extra: &str) -> String {
    only(&plugin(extra).unwrap_err())
}

/// The one problem of `error`, as `key: message`.
#[track_caller]
fn only(error: &ConfigError) -> String {
    let [problem] = error.problems() else {
        panic!("not one problem: {error}");
    };
    format!("{}: {}", problem.key, problem.message)
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

#[test]
fn a_config_in_code_has_the_defaults_of_a_file() {
    let code = Config::new().with(PluginSpec::http("a", "http://127.0.0.1:8080").unwrap());
    assert_eq!(code, plugin("").unwrap());

    let error = PluginSpec::unix("no good", "relative.sock").unwrap_err();
    assert_eq!(error.problems().len(), 2);
    assert!(PluginSpec::in_process("a", "echo").is_ok());
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
            .into_inner()
    };

    let inherited = of("");
    assert_eq!(inherited.retry.as_ref().unwrap().max_retries, 5);
    assert_eq!(inherited.rate_limit.as_ref().unwrap().burst_size, 8);
    assert_eq!(inherited.deadline, Some(Duration::from_secs(9)));
    assert_eq!(inherited.drain_timeout, Duration::from_secs(7));
    assert_eq!(inherited.balance.strategy, BalanceStrategy::RoundRobin);

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

    // An inherited value need not suit every plugin.
    let short = plugin_over(
        "default_retry: { attempt_timeout: 5s },",
        "connection: { request_timeout: 1s }",
    );
    assert!(short.is_ok());

    // A block that is there is on, whatever the default says.
    let back_on = plugin_over(
        "default_retry: { enabled: false },",
        "retry: { max_retries: 1 }",
    );
    assert!(back_on.unwrap().plugins["a"].policy.retry.is_some());
}

/// So that a change of it changes no plugin that it says nothing about.
#[test]
fn what_is_inherited_and_does_nothing_is_as_if_it_were_not_there() {
    let root = "default_connection: { protocol: http2, max_streams: 9 },
        default_circuit_breaker: { failure_rate: 0.5, window: 3s, min_request_threshold: 9 },";
    for extra in [
        "connection: { protocol: http1, idle_timeout: 7s }, circuit_breaker: { failure_rate: 0 }",
        "enabled: true }, { name: b, transport: in-process, endpoint: b,
            circuit_breaker: { failure_rate: 0 }",
    ] {
        let over = plugin_over(root, extra).unwrap();
        let alone = plugin(extra).unwrap();
        let last = |config: &Config| config.plugins.values().last().cloned();
        assert_eq!(last(&over), last(&alone));
    }
    let root = "default_connection: { max_idle_connections: 3, idle_timeout: 7s, max_age: 9s },";
    let extra = "connection: { keep_alive: false }";
    assert_eq!(plugin_over(root, extra).unwrap(), plugin(extra).unwrap());
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
            "default_load_balancing: { strategy: fastest },",
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
        let error = only(&yaml(text).unwrap_err());
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
        "4:16: plugins[2].name: a is the name of plugins[0] already, at line 2"
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
        assert!(error.contains("not valid"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
