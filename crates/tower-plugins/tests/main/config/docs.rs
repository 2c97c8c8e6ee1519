//! Holds `docs/config.md` and `docs/config.schema.json` to the table of keys.
//!
//! `UPDATE_GENERATED=1 cargo test -p tower-plugins --test main config::docs` writes both anew.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::Value;
use tower_plugins::config::{Config, Format, Source};

use crate::effect::EFFECTS;

const BLOCKS: [&str; 30] = [
    "root",
    "reload",
    "plugin",
    "endpoint",
    "auth",
    "authorize",
    "jwt",
    "filter",
    "fallback",
    "split",
    "target",
    "shadow",
    "layer",
    "retry",
    "hedge",
    "circuit_breaker",
    "outlier_detection",
    "health_check",
    "connection",
    "rate_limit",
    "redis",
    "concurrency",
    "load_balancing",
    "tls",
    "dns",
    "process",
    "go_plugin",
    "limits",
    "rlimits",
    "grpc",
];

fn schema() -> Value {
    schemars::schema_for!(Config).to_value()
}

pub(super) fn validator() -> &'static jsonschema::Validator {
    static VALIDATOR: OnceLock<jsonschema::Validator> = OnceLock::new();
    VALIDATOR.get_or_init(|| jsonschema::validator_for(&schema()).unwrap())
}

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../docs", name]
        .iter()
        .collect()
}

fn assert_current(name: &str, wanted: &str) {
    let path = path(name);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    assert!(
        found == wanted,
        "docs/{name} is not what the table of keys says: run\n\
         UPDATE_GENERATED=1 cargo test -p tower-plugins --test main config::docs"
    );
}

fn block<'s>(schema: &'s Value, name: &str) -> &'s Value {
    if name == "root" {
        schema
    } else {
        &schema["$defs"][name]
    }
}

/// The keys of a block, without `$schema`, in their order in the table of keys.
fn keys<'s>(schema: &'s Value, name: &str) -> impl Iterator<Item = (&'s String, &'s Value)> {
    let properties = block(schema, name)["properties"].as_object().unwrap();
    let mut keys: Vec<_> = properties
        .iter()
        .filter(|(key, _)| *key != "$schema")
        .collect();
    keys.sort_by_key(|(_, schema)| schema["x-order"].as_u64());
    keys.into_iter()
}

fn table(schema: &Value, name: &str) -> String {
    let mut text = String::new();
    let about = block(schema, name)["description"].as_str().unwrap();
    if name != "root" && name != "plugin" && name != "endpoint" {
        writeln!(text, "{about}\n").unwrap();
    }
    text += "| key | takes | default | what it does, and why |\n| --- | --- | --- | --- |\n";
    for (key, schema) in keys(schema, name) {
        let default = match (&schema["default"], schema["x-default"].as_str()) {
            (Value::Null, Some(words)) if key == "header" => format!("`{words}`"),
            (Value::Null, words) => words.unwrap_or_default().to_owned(),
            (_, words) => format!("`{}`", words.unwrap_or_default()),
        };
        let takes = schema["x-takes"].as_str().unwrap();
        let about = schema["description"].as_str().unwrap();
        writeln!(text, "| `{key}` | {takes} | {default} | {about} |").unwrap();
    }
    text
}

fn tests() -> String {
    let mut text = "| key | test |\n| --- | --- |\n".to_owned();
    for (key, test) in EFFECTS {
        writeln!(text, "| `{key}` | `{test}` |").unwrap();
    }
    text
}

/// `docs` with `text` between the comment `begin` and the next `<!-- end -->`.
fn put(docs: &str, begin: &str, text: &str) -> String {
    let (before, after) = docs.split_once(begin).expect(begin);
    let (_, after) = after.split_once("<!-- end -->").expect(begin);
    format!("{before}{begin}\n{text}<!-- end -->{after}")
}

#[test]
fn the_page_has_every_key_as_the_table_of_keys_has_it() {
    let schema = schema();
    let mut docs = fs::read_to_string(path("config.md")).unwrap();
    for name in BLOCKS {
        let begin = format!("<!-- keys: {name} -->");
        docs = put(&docs, &begin, &table(&schema, name));
    }
    docs = put(&docs, "<!-- tests -->", &tests());
    assert_current("config.md", &docs);
}

#[test]
fn the_published_schema_is_current() {
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(Config)).unwrap();
    assert_current("config.schema.json", &format!("{schema}\n"));
}

#[test]
fn every_key_has_a_test_of_its_effect() {
    let schema = schema();
    let mut wanted = Vec::new();
    for name in BLOCKS {
        for (key, _) in keys(&schema, name) {
            wanted.push(match name {
                "root" => key.clone(),
                "plugin" => format!("plugins[].{key}"),
                name => format!("{name}.{key}"),
            });
        }
    }
    wanted.sort();
    let mut found: Vec<_> = EFFECTS.iter().map(|(key, _)| (*key).to_owned()).collect();
    found.sort();
    assert_eq!(wanted, found);
}

#[test]
fn the_schema_takes_what_is_taken() {
    let validator = validator();
    for (name, text) in super::samples() {
        let Some(format) = Format::of(&name) else {
            continue;
        };
        if Config::parse(&text, format).is_ok() {
            let value = as_json(&text, format);
            let errors: Vec<_> = validator.iter_errors(&value).collect();
            assert!(errors.is_empty(), "{name}: {errors:?}");
        }
    }
}

/// `text` as it is written, without its variables put in.
fn as_json(text: &str, format: Format) -> Value {
    let source = Source::text(text, format).unwrap();
    figment::Figment::from(source).extract().unwrap()
}

#[test]
fn the_schema_refuses_what_is_refused_for_its_form() {
    let validator = validator();
    let good = serde_json::json!({ "plugins": [{
        "name": "a", "transport": "http", "endpoint": "http://h", "retry": { "max_retries": 2 },
    }] });
    assert!(validator.is_valid(&good));
    for (pointer, value) in [
        ("/plugins/0/retry/max_retries", serde_json::json!(101)),
        ("/plugins/0/retry/max_retries", serde_json::json!("3")),
        ("/plugins/0/retry", serde_json::json!({ "max_retrys": 1 })),
        ("/plugins/0/retry", serde_json::json!("on")),
        ("/plugins/0/transport", serde_json::json!("carrier pigeon")),
        ("/plugins/0/name", serde_json::json!(1.10)),
        (
            "/plugins/0",
            serde_json::json!({ "name": "a", "transport": "http" }),
        ),
        (
            "/plugins/0",
            serde_json::json!({ "transport": "http", "endpoint": "http://h" }),
        ),
        ("/plugins", serde_json::json!(3)),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        assert!(!validator.is_valid(&bad), "{bad}");
    }
    let mut variable = good.clone();
    variable["plugins"][0]["retry"]["max_retries"] = "${RETRIES:-3}".into();
    assert!(validator.is_valid(&variable));
    let mut duration = good;
    for (text, valid) in [
        ("1h30m", true),
        ("0", true),
        ("30", false),
        ("10 parsecs", false),
    ] {
        duration["plugins"][0]["drain_timeout"] = text.into();
        assert_eq!(validator.is_valid(&duration), valid, "{text}");
    }
}

/// To write a default out changes nothing.
#[test]
fn the_defaults_of_the_page_are_those_of_the_code() {
    let schema = schema();
    let config = |block: &str, key: &str, keys: &str| {
        let needed = match block {
            "retry" if key == "budget_min_in_flight" => "budget: in_flight, ",
            "retry" if key.contains("token") => "budget: tokens, ",
            "rate_limit" => "requests_per_second: 7, key_header: x-tenant, ",
            "concurrency" => "max_concurrent: 7, ",
            "circuit_breaker" => match key {
                "slow_call_rate" => "slow_call_duration: 1s, ",
                "failure_rate" => "",
                _ => "failure_rate: 0.5, ",
            },
            "connection" if key == "max_streams" => "protocol: http2, ",
            "connection" if key == "proxy_auth" => "proxy: 'http://h', ",
            "filter" => "service: s, ",
            "split" => "to: b, percent: 5, ",
            "shadow" => "to: b, ",
            "auth" => match key {
                "scopes" | "auth_style" | "refresh_before" | "timeout" => {
                    "method: oauth2, token_url: 'https://i', client_id: c, client_secret: s, "
                }
                _ => "method: api-key, api_key: k, ",
            },
            "authorize" => "api_keys: { a: k }, ",
            "load_balancing" => match key {
                "load_factor" => "strategy: maglev, hash_on: 'header:x', ",
                "least_request_bias" => "strategy: least-request, ",
                "subset_fallback" => "subset: { a: b }, ",
                "slow_start_min_weight" | "slow_start_aggression" => "slow_start_window: 30s, ",
                _ => "",
            },
            "plugin" if key == "start_timeout" => "start: ready, ",
            _ => "",
        };
        let text = match block {
            "root" => format!(
                "{{ plugins: {{ a: {{ transport: http, endpoint: 'http://h' }} }}, {keys} }}"
            ),
            "plugin" => {
                format!(
                    "plugins: {{ a: {{ transport: http, endpoint: 'http://h', {needed} {keys} }} }}"
                )
            }
            "tls" => format!(
                "plugins: {{ a: {{ transport: https, endpoint: 'https://h', tls: {{ {keys} }} }} }}"
            ),
            "grpc" => format!(
                "plugins: {{ a: {{ transport: grpc, endpoint: 'h:1', grpc: {{ {keys} }} }} }}"
            ),
            // Without any key it says nothing.
            "load_balancing" if needed.is_empty() && keys.is_empty() => {
                "plugins: { a: { transport: http, endpoint: 'http://localhost' } }".to_owned()
            }
            "reload" => format!(
                "{{ plugins: {{ a: {{ transport: http, endpoint: 'http://h' }} }}, reload: {{ {keys} }} }}"
            ),
            "jwt" => format!(
                "plugins: {{ a: {{ transport: http, endpoint: 'http://h', authorize: {{ jwt: {{
                    secret: a secret of more than thirty-two bytes, algorithms: [HS256], {keys} }} }} }} }}"
            ),
            "process" => format!(
                "plugins: {{ a: {{ transport: subprocess, executable: /a, process: {{ {keys} }} }} }}"
            ),
            "go_plugin" => format!(
                "plugins: {{ a: {{ transport: subprocess, executable: /a, go_plugin: {{ {keys} }} }} }}"
            ),
            "dns" => format!(
                "plugins: {{ a: {{ transport: http, endpoint: 'dns:///h', dns: {{ {keys} }} }} }}"
            ),
            "redis" => format!(
                "plugins: {{ a: {{ transport: http, endpoint: 'http://h', rate_limit: {{
                    requests_per_second: 7, redis: {{ url: 'redis://h', {keys} }} }} }} }}"
            ),
            "layer" => format!(
                "plugins: {{ a: {{ transport: http, endpoint: 'http://h', layers: [{{ name: l, {keys} }}] }} }}"
            ),
            "endpoint" => format!(
                "plugins: {{ a: {{ transport: http, endpoint: {{ url: 'http://h', {keys} }} }} }}"
            ),
            _ => format!(
                "plugins: {{ a: {{ transport: http, endpoint: 'http://localhost', {block}: {{ {needed} {keys} }} }} }}"
            ),
        };
        Config::parse(&text, Format::Yaml).unwrap_or_else(|error| panic!("{text}: {error}"))
    };
    let mut compared = 0;
    for name in BLOCKS {
        for (key, schema) in keys(&schema, name) {
            let default = &schema["default"];
            // An include of nothing is only read in a file.
            if default.is_null() || key == "include" {
                continue;
            }
            assert_eq!(
                config(name, key, &format!("{key}: {default}")),
                config(name, key, ""),
                "{name}.{key}"
            );
            compared += 1;
        }
    }
    assert!(compared > 35, "{compared}");
}
