//! What a plan promises, for any two configs.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::btree_map;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tower_plugins::config::{
    Address, BalanceStrategy, ConcurrencySpec, Config, CredentialsSpec, EndpointSpec, Format,
    Number, PluginName, PluginSpec, Policy, RateLimitSpec, Upstream,
};
use tower_plugins::{Change, Plan};

/// A block of a plugin, which may be absent.
fn block(
    key: &'static str,
    values: Vec<Value>,
) -> impl Strategy<Value = Option<(&'static str, Value)>> {
    option::of(prop::sample::select(values).prop_map(move |value| (key, value)))
}

fn plugin() -> impl Strategy<Value = Value> {
    let endpoints =
        prop::sample::subsequence(vec!["http://a:1", "http://b:2/prefix", "http://c:3"], 1..=3);
    let blocks = (
        block("drain_timeout", vec![json!("1s"), json!("2s")]),
        block(
            "rate_limit",
            vec![
                json!({"requests_per_second": 1}),
                json!({"requests_per_second": 1.5, "max_wait": "1s"}),
            ],
        ),
        block(
            "concurrency",
            vec![json!({"max_concurrent": 1}), json!({"max_concurrent": 2})],
        ),
        block(
            "retry",
            vec![
                json!({"enabled": false}),
                json!({"max_retries": 7, "attempt_timeout": "3s"}),
            ],
        ),
        block(
            "circuit_breaker",
            vec![json!({"enabled": false}), json!({"failure_threshold": 9})],
        ),
        block(
            "load_balancing",
            vec![
                json!({"strategy": "round-robin"}),
                json!({"zone": "a", "subset": {"version": "2"}}),
            ],
        ),
        block(
            "connection",
            vec![
                json!({"protocol": "http2"}),
                json!({"request_timeout": "9s"}),
                json!({"max_connections": 3, "stream_idle_timeout": "4s"}),
            ],
        ),
        block(
            "auth",
            vec![
                json!({"method": "bearer", "token": "one", "allow_plaintext": true}),
                json!({"method": "bearer", "token": "two", "allow_plaintext": true}),
            ],
        ),
    );
    (endpoints, blocks).prop_map(|(endpoints, (a, b, c, d, e, f, g, h))| {
        let mut plugin = Map::new();
        plugin.insert("transport".to_owned(), json!("http"));
        plugin.insert("endpoints".to_owned(), json!(endpoints));
        for (key, value) in [a, b, c, d, e, f, g, h].into_iter().flatten() {
            plugin.insert(key.to_owned(), value);
        }
        Value::Object(plugin)
    })
}

/// Few names and few values, so that any two configs have much in common.
fn any_config() -> impl Strategy<Value = Config> {
    btree_map("[a-d]", plugin(), 0..4).prop_map(|plugins: BTreeMap<String, Value>| {
        let text = json!({"allow_empty": true, "plugins": plugins}).to_string();
        Config::parse(&text, Format::Json).unwrap()
    })
}

/// Whether how endpoints are reached is equal, and one of them is in both.
fn stays(a: &Upstream, b: &Upstream) -> bool {
    let in_both = |end: &EndpointSpec| b.endpoints.contains(end);
    (&a.connection, &a.tls) == (&b.connection, &b.tls) && a.endpoints.iter().any(in_both)
}

proptest! {
    #[test]
    fn between_a_config_and_itself_nothing_is_to_be_done(a in any_config()) {
        let plan = Plan::between(&a, &a.clone());
        prop_assert!(plan.is_empty());
        prop_assert!(plan.changes().values().all(|change| *change == Change::Keep));
        prop_assert_eq!(plan.changes().len(), a.plugins.len());
        prop_assert_eq!(plan.to_string(), "nothing to do");
    }

    #[test]
    fn every_name_is_in_the_one_class_that_is_its_own(a in any_config(), b in any_config()) {
        let plan = Plan::between(&a, &b);
        let names: std::collections::BTreeSet<_> = a.plugins.keys().chain(b.plugins.keys()).collect();
        prop_assert!(plan.changes().keys().eq(names.iter().copied()));
        for name in names {
            let change = &plan.changes()[name];
            let class = match (a.plugins.get(name), b.plugins.get(name)) {
                (Some(a), Some(b)) if a == b => "keep",
                (Some(a), Some(b)) if stays(&a.upstream, &b.upstream) => "restack",
                (Some(_), Some(_)) => "replace",
                (None, Some(_)) => "add",
                _ => "remove",
            };
            prop_assert_eq!(change.as_str(), class);
            let differs = matches!(class, "restack" | "replace");
            prop_assert_eq!(!change.keys().is_empty(), differs);
            if class != "keep" {
                let said = format!("{class} {name}");
                prop_assert!(plan.to_string().contains(&said));
            }
        }
        prop_assert_eq!(plan.is_empty(), a == b);
    }

    #[test]
    fn a_plan_makes_the_new_config_of_the_old(a in any_config(), b in any_config()) {
        prop_assert_eq!(Plan::between(&a, &b).apply(&a), b);
    }

    #[test]
    fn the_way_back_undoes_the_way_there(a in any_config(), b in any_config()) {
        let there = Plan::between(&a, &b);
        let back = Plan::between(&b, &a);
        prop_assert_eq!(back.apply(&there.apply(&a)), a);
        for (name, change) in there.changes() {
            prop_assert_eq!(change.keys(), back.changes()[name].keys());
        }
    }
}

#[test]
fn the_key_that_differs_is_named() {
    type Edit = fn(&mut PluginSpec);
    let edits: [(&str, &str, Edit); 13] = [
        ("restack", "drain_timeout", |p| {
            p.policy.drain_timeout = Duration::ZERO;
        }),
        ("restack", "connection.request_timeout", |p| {
            p.policy.deadline = None;
        }),
        ("restack", "connection.stream_idle_timeout", |p| {
            p.policy.stream_idle_timeout = Some(Duration::from_secs(1));
        }),
        ("restack", "retry.attempt_timeout", |p| {
            p.policy.attempt_timeout = Some(Duration::from_secs(1));
        }),
        ("restack", "rate_limit", |p| {
            let rate = Number::new(1.0).unwrap();
            p.policy.rate_limit = Some(RateLimitSpec::new(rate));
        }),
        ("restack", "concurrency", |p| {
            p.policy.concurrency = Some(ConcurrencySpec::new(1));
        }),
        ("restack", "retry", |p| p.policy.retry = None),
        ("restack", "circuit_breaker", |p| p.policy.breaker = None),
        ("restack", "load_balancing", |p| {
            p.policy.balance.strategy = BalanceStrategy::RoundRobin;
        }),
        ("restack", "auth", |p| {
            p.policy.credentials = CredentialsSpec::Custom { headers: vec![] };
        }),
        ("replace", "endpoints", |p| p.upstream.endpoints.clear()),
        ("replace", "connection", |p| {
            p.upstream.connection.keep_alive = false;
        }),
        ("restack", "endpoints", |p| {
            let more = Address::http("http://b:2").unwrap();
            p.upstream.endpoints.push(more.into());
        }),
    ];
    let name = PluginName::new("p").unwrap();
    let old = Config::new().with(PluginSpec::http("p", "http://a:1").unwrap());
    for (class, key, edit) in edits {
        let mut new = old.clone();
        edit(new.plugins.get_mut(&name).unwrap());
        let plan = Plan::between(&old, &new);
        let change = &plan.changes()[&name];
        assert_eq!((change.as_str(), change.keys()), (class, &[key][..]));
    }
    assert_eq!(old.plugins[&name].policy, Policy::default());
}

#[test]
fn a_policy_change_beside_an_upstream_change_names_both() {
    let old = Config::new().with(PluginSpec::http("p", "http://a:1").unwrap());
    let mut new = Config::new().with(PluginSpec::http("p", "http://b:1").unwrap());
    new.plugins.values_mut().next().unwrap().policy.retry = None;
    let plan = Plan::between(&old, &new);
    assert_eq!(plan.to_string(), "replace p (retry, endpoints)");
}
