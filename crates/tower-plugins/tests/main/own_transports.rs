//! Transports of the program's own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use serde::Deserialize;
use tokio::time::Instant;
use tower_plugins::config::{
    Address, Config, Environment, Format, Loader, Options, PluginSpec, ProblemKind,
};
use tower_plugins::transport::{EndpointArgs, ResponseFuture, Transport};
use tower_plugins::{Body, Builder, Change, Error, Plan, Plugins, Reason};
use tower_plugins_layers::{Refused, Unsent};

use crate::support::{call, causes, config, get, post, text};

/// Answers with the text of its endpoint, and what its options say.
struct Mirror {
    text: String,
    calls: AtomicU32,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Suffix {
    suffix: String,
}

impl Transport for Mirror {
    fn call(&self, request: Request<Body>) -> ResponseFuture<'_> {
        self.call_until(request, None)
    }

    fn call_until(&self, request: Request<Body>, deadline: Option<Instant>) -> ResponseFuture<'_> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let left = deadline.map(|at| (at - Instant::now()).as_secs());
        Box::pin(async move {
            match request.uri().path() {
                "/calls" => Ok(Response::new(calls.to_string().into())),
                "/deadline" => Ok(Response::new(format!("{left:?}").into())),
                "/panic" => panic!("it broke"),
                "/gone" if calls == 1 => {
                    Err(Unsent::new(Some(request), Refused::new(Reason::ConnectFailed)).into())
                }
                _ => Ok(Response::new(self.text.clone().into())),
            }
        })
    }
}

/// A set with the transport `mirror`.
pub(crate) fn mirrors() -> Builder {
    Plugins::builder().transport("mirror", |args: EndpointArgs<Suffix>| {
        if args.endpoint == "nowhere" {
            return Err("there is no such place");
        }
        Ok(Mirror {
            text: args.endpoint + &args.options.suffix,
            calls: AtomicU32::new(0),
        })
    })
}

fn with(keys: &str) -> String {
    format!("plugins: [{{ name: p, transport: mirror, {keys} }}]")
}

async fn start(keys: &str) -> Plugins {
    mirrors().start(config(&with(keys))).await.unwrap()
}

async fn refused(yaml: &str) -> Error {
    let config = Config::parse(yaml, Format::Yaml).unwrap();
    mirrors().start(config).await.unwrap_err()
}

#[tokio::test]
async fn a_name_that_is_not_registered_is_told_with_its_place_and_the_nearest() {
    let error = refused(
        "plugins:
  - name: p
    transport: mirrors
    endpoint: there
",
    )
    .await;
    assert_eq!(error.plugin(), Some("p"));
    let problem = &error.config().unwrap().problems()[0];
    assert_eq!(
        problem.to_string(),
        "3:5: plugins[0].transport: no transport `mirrors` is registered: did you mean `mirror`?"
    );
    assert_eq!(problem.nearest.as_deref(), Some("mirror"));
    let known =
        "exec-json, grpc, grpc-tls, http, https, in-process, mirror, subprocess, unix, unix-json";
    assert_eq!(problem.allowed.as_deref(), Some(known));

    let error = refused("plugins: { p: { type: carrier-pigeon, endpoint: roof } }").await;
    let problem = &error.config().unwrap().problems()[0];
    assert_eq!(problem.key, "plugins.p.type");
    let advice = "Plugins::builder().transport(\"carrier-pigeon\", …)";
    assert!(problem.message.contains(advice), "{problem}");
}

#[tokio::test]
async fn places_are_known_in_every_format_and_file() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text, place) in [
        (
            "a.json",
            "{ \"plugins\": { \"p\": {\n \"transport\": \"other\",\n \"endpoint\": \"s\" } } }",
            (2, 2),
        ),
        (
            "a.toml",
            "[plugins.p]\nendpoint = \"s\"\ntransport = \"other\"\n",
            (3, 1),
        ),
    ] {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        let config = Config::from_file(&file).unwrap();
        let error = mirrors().start(config).await.unwrap_err();
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
async fn what_a_transport_does_not_take_is_told_with_its_place() {
    for (keys, key, why) in [
        (
            "endpoint: there, options: { sufix: x }",
            "plugins[0].options",
            "unknown field `sufix`",
        ),
        (
            "endpoint: there, options: { suffix: 7 }",
            "plugins[0].options",
            "invalid type",
        ),
        (
            "endpoints: [there, nowhere]",
            "plugins[0].endpoints",
            "does not take \"nowhere\": there is no such place",
        ),
    ] {
        let error = refused(&with(keys)).await;
        assert!(error.is_config());
        let problem = &error.config().unwrap().problems()[0];
        assert_eq!((&*problem.key, problem.line), (key, Some(1)));
        assert!(problem.message.contains(why), "{problem}");
    }
}

#[tokio::test]
async fn a_slip_in_the_name_of_a_transport_that_everybody_has_is_told_by_the_config() {
    for (word, near) in [
        ("htpp", "http"),
        ("in_process", "in-process"),
        ("unixjson", "unix-json"),
        ("HTTPS", ""),
    ] {
        let text = format!("plugins: {{ p: {{ transport: {word}, endpoint: there }} }}");
        let outcome = Config::parse(&text, Format::Yaml);
        if near.is_empty() {
            assert!(outcome.is_ok(), "it may be one of the program's own");
            continue;
        }
        let error = outcome.unwrap_err();
        assert_eq!(
            error.problems()[0].nearest.as_deref(),
            Some(near),
            "{error}"
        );
        assert!(PluginSpec::custom("p", word, "there").is_err());
    }
    for word in ["tcp", "redis", "amqp", "quic", "my.own-1"] {
        assert!(PluginSpec::custom("p", word, "there").is_ok(), "{word}");
    }
    for word in ["", "two words", "grpc"] {
        assert!(PluginSpec::custom("p", word, "there").is_err(), "{word}");
    }
    assert!(Address::custom("redis", "").is_err());
    let error = Address::custom("redis", "redis://u:hunter2@h/1").unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_transport_goes_on_while_what_it_is_made_of_is_equal() {
    let keys = "endpoint: there, options: { suffix: '!' }";
    let plugins = start(keys).await;
    let plugin = plugins.plugin("p");
    let calls = async || text(&plugin, get("/calls")).await.unwrap();
    assert_eq!(calls().await, "1");
    for (change, expected) in [
        (with(&format!("{keys}, drain_timeout: 7s")), "2"),
        (format!("# It stands lower now.\n\n{}", with(keys)), "3"),
        (
            with(&keys.replace("endpoint: there", "endpoints: [{ url: there, weight: 7 }]")),
            "4",
        ),
        (with(&keys.replace('!', "?")), "1"),
        (
            with("endpoint: there, connection: { max_connections: 7 }"),
            "1",
        ),
        (
            with("endpoint: elsewhere, connection: { max_connections: 7 }"),
            "1",
        ),
    ] {
        plugins.reload(config(&change)).await.unwrap();
        assert_eq!(calls().await, expected, "{change}");
    }
}

#[test]
fn other_options_replace_the_plugin_and_another_line_does_not() {
    let yaml = with("endpoint: there, options: { suffix: '!' }");
    let plan = |changed: &str| {
        let plan = Plan::between(&config(&yaml), &config(changed));
        plan.changes()["p"].clone()
    };
    assert_eq!(plan(&format!("\n{yaml}")), Change::Keep);
    let Change::Replace { keys, .. } = plan(&yaml.replace('!', "?")) else {
        panic!("what it is made of is not of the policy");
    };
    assert_eq!(keys, ["options"]);
}

#[tokio::test]
async fn a_reload_that_names_a_transport_wrong_changes_nothing() {
    let plugins = start("endpoint: there").await;
    let wrong = with("endpoint: there").replace("mirror", "mirrors");
    assert!(
        plugins
            .reload(config(&wrong))
            .await
            .unwrap_err()
            .config()
            .is_some()
    );
    assert_eq!(text(&plugins.plugin("p"), get("/")).await.unwrap(), "there");
    assert_eq!(plugins.status().generation.get(), 1);
}

#[tokio::test]
async fn a_transport_is_told_when_its_call_must_be_over() {
    for (connection, left) in [("7.5s", "Some(7)"), ("off", "None")] {
        let plugins = start(&format!(
            "endpoint: there, connection: {{ request_timeout: {connection} }}"
        ))
        .await;
        assert_eq!(
            text(&plugins.plugin("p"), get("/deadline")).await.unwrap(),
            left
        );
    }
}

#[tokio::test]
async fn a_request_that_it_did_not_send_is_sent_again_whatever_its_method() {
    let plugins = start("endpoint: there, retry: { initial_interval: 1ms }").await;
    let answer = text(&plugins.plugin("p"), post("/gone", "body")).await;
    assert_eq!(answer.unwrap(), "there");
}

#[tokio::test]
async fn a_panic_in_it_is_the_calls_error() {
    let plugins = start("endpoint: there").await;
    let error = call(&plugins.plugin("p"), get("/panic")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Panicked));
    assert!(
        causes(&error).contains("mirror panicked: it broke"),
        "{}",
        causes(&error)
    );
    assert!(text(&plugins.plugin("p"), get("/")).await.is_ok());

    let breaks = |_: EndpointArgs<()>| -> Result<Mirror, Error> { panic!("at once") };
    let plugins = Plugins::builder().transport("mirror", breaks);
    let error = plugins
        .start(config(&with("endpoint: there")))
        .await
        .unwrap_err();
    assert!(causes(&error).contains("at once"), "{}", causes(&error));
}

#[tokio::test]
async fn it_has_what_the_config_says_and_its_options_have_their_variables_put_in() {
    let text = with(
        "endpoint: '${WHERE}', options: { suffix: 'a ${WHERE}' }, connection: { max_connections: 3 }",
    );
    let loaded = Loader::text(text, Format::Yaml);
    let environment = Environment::from_iter([("WHERE", "seven")]);
    let config = loaded.environment(environment).load().config.unwrap();
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let saw = Arc::clone(&seen);
    let plugins = Plugins::builder().transport("mirror", move |args: EndpointArgs<Suffix>| {
        let said = format!(
            "{} {} {} {}",
            args.plugin, args.endpoint, args.options.suffix, args.connection.max_connections
        );
        saw.lock().unwrap().push(said);
        Ok::<_, Error>(Mirror {
            text: args.endpoint,
            calls: AtomicU32::new(0),
        })
    });
    plugins.start(config).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["p seven a seven 3"]);

    let error = Loader::text(
        with("endpoint: e, options: { a: ['${NAME}'] }"),
        Format::Yaml,
    )
    .environment(Environment::empty())
    .load()
    .config
    .unwrap_err();
    assert_eq!(error.problems()[0].kind, ProblemKind::Variable);
    assert_eq!(error.problems()[0].key, "plugins[0].options.a[0]");
}

#[tokio::test]
async fn a_plugin_in_code_has_one_too() {
    let mut spec = PluginSpec::custom("p", "mirror", "there").unwrap();
    spec.upstream.options = Options::of(serde_json::json!({ "suffix": "!" })).unwrap();
    spec.policy.deadline = Some(Duration::from_secs(5));
    let plugins = mirrors()
        .start(Config::new().with(spec.clone()))
        .await
        .unwrap();
    assert_eq!(
        text(&plugins.plugin("p"), get("/")).await.unwrap(),
        "there!"
    );

    spec.upstream.options = Options::of(serde_json::json!({ "other": 1 })).unwrap();
    let error = plugins.reload(Config::new().with(spec)).await.unwrap_err();
    assert_eq!(error.config().unwrap().problems()[0].key, "options");
}
