//! Layers that a config names.

use std::time::Duration;

use serde::Deserialize;
use tower::layer::util::Identity;
use tower_plugins::config::{
    Config, Environment, Format, LayerSpec, Loader, Options, PluginSpec, ProblemKind,
};
use tower_plugins::{Builder, Change, Error, Place, Plan, Reason};
use tower_plugins_layers::RateLimitLayer;

use super::marks;
use crate::support::{call, causes, config, get, text};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Burst {
    burst: u32,
}

/// A layer `limit`, which lets `burst` calls through, and then hardly any; and others.
fn registered() -> Builder {
    marks()
        .layer_named("limit", |Burst { burst }: Burst| match burst {
            13 => Err("13 is unlucky"),
            burst => Ok(RateLimitLayer::new(0.001, burst)),
        })
        .layer_named("nothing", |(): ()| Ok::<_, Error>(Identity::new()))
        .layer_named("anything", |_: serde_json::Value| {
            Ok::<_, Error>(Identity::new())
        })
}

fn with(layers: &str) -> String {
    format!("plugins: [{{ name: p, transport: in-process, endpoint: s, layers: [{layers}] }}]")
}

async fn refused(yaml: &str) -> Error {
    let config = Config::parse(yaml, Format::Yaml).unwrap();
    registered().start(config).await.unwrap_err()
}

#[tokio::test]
async fn a_name_that_is_not_registered_is_told_with_its_place_and_the_nearest() {
    let error = refused(
        "plugins:
  - name: p
    transport: in-process
    endpoint: s
    layers:
      - name: limits
",
    )
    .await;
    assert_eq!(error.plugin(), Some("p"));
    let problem = &error.config().unwrap().problems()[0];
    assert_eq!(
        problem.to_string(),
        "6:9: plugins[0].layers[0].name: no layer `limits` is registered: did you mean `limit`?"
    );
    assert_eq!(problem.kind, ProblemKind::BadValue);
    assert_eq!(problem.nearest.as_deref(), Some("limit"));
    assert_eq!(problem.allowed.as_deref(), Some("anything, limit, nothing"));
    assert!(causes(&error).contains("`limits`"), "{}", causes(&error));

    let error = refused(&with("{ name: audit }")).await;
    let message = &error.config().unwrap().problems()[0].message;
    assert!(message.contains("layer_named(\"audit\", …)"), "{message}");
}

#[tokio::test]
async fn options_that_are_refused_are_told_with_their_place_and_why() {
    for (layer, why) in [
        ("{ name: limit }", "missing field `burst`"),
        ("{ name: limit, options: { burst: many } }", "invalid type"),
        (
            "{ name: limit, options: { burst: 1, more: 2 } }",
            "unknown field `more`",
        ),
        ("{ name: limit, options: { burst: 13 } }", "13 is unlucky"),
        ("{ name: nothing, options: { a: 1 } }", "expected unit"),
    ] {
        let error = refused(&with(layer)).await;
        let problem = &error.config().unwrap().problems()[0];
        assert_eq!(problem.key, "plugins[0].layers[0].options");
        assert_eq!(problem.line, Some(1));
        assert!(problem.message.contains(why), "{problem}");
    }
    let two = with("{ name: limit }, { name: nothing }, { name: other }");
    let error = refused(&two).await;
    let problems = error.config().unwrap().problems();
    let keys: Vec<_> = problems.iter().map(|problem| &*problem.key).collect();
    assert_eq!(
        keys,
        ["plugins[0].layers[0].options", "plugins[0].layers[2].name"]
    );
}

#[tokio::test]
async fn places_are_known_in_every_format_and_file() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text, place) in [
        (
            "a.json",
            "{ \"plugins\": { \"p\": {\n \"transport\": \"in-process\", \"endpoint\": \"s\",\n \"layers\": [\n{ \"name\": \"x\" }] } } }",
            (4, 1),
        ),
        (
            "a.toml",
            "[plugins.p]\ntransport = \"in-process\"\nendpoint = \"s\"\nlayers = [{ name = \"x\" }]\n",
            (4, 11),
        ),
    ] {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        let config = Config::from_file(&file).unwrap();
        let error = registered().start(config).await.unwrap_err();
        let problem = &error.config().unwrap().problems()[0];
        assert_eq!(problem.file.as_ref(), Some(&file));
        assert_eq!(
            (problem.line, problem.column),
            (Some(place.0), Some(place.1)),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn a_layer_keeps_its_state_while_its_entry_is_equal() {
    let yaml = with("{ name: limit, options: { burst: 1 } }");
    let plugins = registered().start(config(&yaml)).await.unwrap();
    let plugin = plugins.plugin("p");
    let limited = async || {
        let outcome = call(&plugin, get("/")).await;
        outcome.err().and_then(|error| error.reason()) == Some(Reason::RateLimited)
    };
    assert!(!limited().await);
    assert!(limited().await);
    for (change, starts_anew) in [
        (
            yaml.replace("endpoint: s", "endpoint: s, drain_timeout: 7s"),
            false,
        ),
        (format!("# It stands lower now.\n\n{yaml}"), false),
        (
            yaml.replace("layers: [", "layers: [{ name: nothing },"),
            false,
        ),
        (yaml.replace("burst: 1", "burst: 2"), true),
    ] {
        plugins.reload(config(&change)).await.unwrap();
        assert_eq!(limited().await, !starts_anew, "{change}");
    }
}

#[test]
fn other_options_restack_the_plugin_and_another_line_does_not() {
    let yaml = with("{ name: limit, options: { burst: 1 } }");
    let plan = |changed: &str| {
        let plan = Plan::between(&config(&yaml), &config(changed));
        plan.changes()["p"].clone()
    };
    assert_eq!(plan(&format!("\n{yaml}")), Change::Keep);
    let Change::Restack { keys, .. } = plan(&yaml.replace("burst: 1", "burst: 2")) else {
        panic!("a layer is no reason to connect anew");
    };
    assert_eq!(keys, ["layers"]);
}

#[tokio::test]
async fn two_entries_are_two_layers() {
    let entry = "{ name: limit, options: { burst: 1 } }";
    let yaml = format!(
        "plugins:
          - {{ name: p, transport: in-process, endpoint: s, layers: [{entry}, {entry}] }}
          - {{ name: q, transport: in-process, endpoint: s, layers: [{entry}] }}"
    );
    let plugins = registered().start(config(&yaml)).await.unwrap();
    for name in ["p", "q"] {
        let plugin = plugins.plugin(name);
        // A layer that stood twice would take both of its tokens for one call.
        assert!(call(&plugin, get("/")).await.is_ok(), "{name}");
        assert!(call(&plugin, get("/")).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_reload_that_names_a_layer_wrong_changes_nothing() {
    let yaml = with("{ name: nothing }");
    let plugins = registered().start(config(&yaml)).await.unwrap();
    let error = plugins.reload(config(&with("{ name: nothin }"))).await;
    assert!(error.unwrap_err().config().is_some());
    assert!(call(&plugins.plugin("p"), get("/")).await.is_ok());
    assert_eq!(plugins.status().generation.get(), 1);
}

#[tokio::test]
async fn layers_by_code_are_outside_of_those_by_config() {
    let count = super::Count::default();
    let plugins = marks()
        .layer_named("mark", move |(): ()| {
            Ok::<_, Error>(super::mark("config", &count))
        })
        .layer(
            Place::Call,
            "code",
            super::mark("code", &super::Count::default()),
        )
        .start(config(&with("{ name: mark }")))
        .await
        .unwrap();
    let said = text(&plugins.plugin("p"), get("/")).await.unwrap();
    assert_eq!(said, "code config");
}

#[tokio::test]
async fn options_have_their_variables_put_in() {
    let loaded = Loader::text(
        with(
            "{ name: limit, options: { burst: 1, names: ['${NAME}', { deep: 'a ${NAME:-b}' }] } }",
        ),
        Format::Yaml,
    );
    let environment = Environment::from_iter([("NAME", "seven")]);
    let config = loaded.environment(environment).load().config.unwrap();
    let options = &config.plugins["p"].policy.layers[0].options;
    assert_eq!(
        options.read::<serde_json::Value>().unwrap(),
        serde_json::json!({ "burst": 1, "names": ["seven", { "deep": "a seven" }] })
    );

    let error = Loader::text(
        with("{ name: l, options: { a: ['${NAME}'] } }"),
        Format::Yaml,
    )
    .environment(Environment::empty())
    .load()
    .config
    .unwrap_err();
    assert_eq!(error.problems()[0].kind, ProblemKind::Variable);
    assert_eq!(error.problems()[0].key, "plugins[0].layers[0].options.a[0]");
}

#[tokio::test]
async fn layers_are_named_in_code_too() {
    let mut spec = PluginSpec::in_process("p", "s").unwrap();
    let mut limit = LayerSpec::new("limit");
    limit.options = Options::of(serde_json::json!({ "burst": 1 })).unwrap();
    spec.policy.layers.push(limit);
    let config = Config::new().with(spec);
    let plugins = registered().start(config).await.unwrap();
    assert!(call(&plugins.plugin("p"), get("/")).await.is_ok());
    let error = call(&plugins.plugin("p"), get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::RateLimited));
    assert!(Options::of(Duration::ZERO).is_ok());
    assert!(Options::of(7).is_err());

    let mut spec = PluginSpec::in_process("p", "s").unwrap();
    spec.policy.layers.push(LayerSpec::new("limit"));
    let error = registered().start(Config::new().with(spec)).await;
    let error = error.unwrap_err();
    assert_eq!(error.config().unwrap().problems()[0].key, "layers.options");
}
