use tower_plugins::Reason::{ConcurrencyLimited, DeadlineExceeded};
use tower_plugins::config::Protocol;

use super::layer::marks;
use super::stage::Answer::{Never, Status};
use super::stage::{SECOND, Stage, cancelled_after, refusals};
use crate::own_transports::mirrors;
use crate::support::{Server, Shelf, Socket, config, echo, get, post, text};
use crate::transport::unix_json::Peer;

#[tokio::test]
async fn name_is_what_calls_ask_for() {
    for name in ["a", "Search_v1.2-x"] {
        let stage = Stage::start(&format!(
            "plugins: [{{ name: {name}, transport: in-process, endpoint: one }}]"
        ))
        .await;
        assert_eq!(stage.asked_by(name, 1).await, 1);
        let error = stage.send("p", get("/")).await.unwrap_err();
        assert!(error.is_not_found());
    }
}

#[tokio::test]
async fn enabled_false_leaves_the_plugin_out() {
    let enabled = Stage::of("enabled: true").await;
    assert_eq!(enabled.asked(1).await, 1);
    let disabled = Stage::of("enabled: false").await;
    assert!(disabled.call().await.unwrap_err().is_not_found());
}

/// Calls a plugin of each transport, which is said by `key`.
async fn reach_each(key: &str) {
    let tcp = Server::start(Socket::Tcp, Protocol::Http1, echo).await;
    let unix = Server::start(Socket::Unix, Protocol::Http1, echo).await;
    let lines = Peer::start();
    let yaml = format!(
        "plugins:
           tcp: {{ {key}: http, endpoint: '{}' }}
           unix: {{ {key}: unix, endpoint: '{}' }}
           lines: {{ {key}: unix-json, endpoint: '{}' }}
           here: {{ {key}: in-process, endpoint: shelf }}
           own: {{ {key}: mirror, endpoint: there }}",
        tcp.address,
        unix.address,
        lines.path.display()
    );
    let lines = tokio::spawn(lines.echo());
    let plugins = mirrors().service("shelf", Shelf::default());
    let plugins = plugins.start(config(&yaml)).await.unwrap();
    for (name, answer) in [
        ("tcp", "7"),
        ("unix", "7"),
        ("lines", "7"),
        ("here", "hello"),
        ("own", "there"),
    ] {
        let plugin = plugins.plugin(name);
        assert_eq!(text(&plugin, post("/", "7")).await.unwrap(), answer);
    }
    lines.abort();
    assert_eq!((tcp.accepted(), unix.accepted()), (1, 1));
}

#[tokio::test]
async fn options_are_what_a_transport_of_the_programs_own_is_made_of() {
    let with = "transport: mirror, endpoint: there, options: { suffix: '!' }";
    let plugins = mirrors()
        .start(config(&format!(
            "plugins: {{ with: {{ {with} }}, without: {{ transport: mirror, endpoint: there }} }}"
        )))
        .await
        .unwrap();
    for (name, answer) in [("with", "there!"), ("without", "there")] {
        assert_eq!(text(&plugins.plugin(name), get("/")).await.unwrap(), answer);
    }
}

#[tokio::test]
async fn transport_is_how_the_endpoint_is_reached() {
    reach_each("transport").await;
}

#[tokio::test]
async fn type_is_another_word_for_transport() {
    reach_each("type").await;
}

#[tokio::test]
async fn endpoint_is_the_one_that_is_asked() {
    for service in ["one", "two"] {
        let yaml = format!("plugins: {{ p: {{ transport: in-process, endpoint: {service} }} }}");
        let stage = Stage::start(&yaml).await;
        assert_eq!(stage.asked(10).await, 10);
        stage.call().await.unwrap();
        assert_eq!(stage.seen()[0].service, service);
    }
}

#[tokio::test]
async fn endpoints_are_all_asked() {
    let stage = Stage::start(
        "plugins: { p: { transport: in-process, endpoints: [one, { url: two }], load_balancing: { strategy: round-robin } } }",
    )
    .await;
    for _ in 0..10 {
        stage.call().await.unwrap();
    }
    let seen = stage.seen();
    for service in ["one", "two"] {
        assert_eq!(
            seen.iter().filter(|seen| seen.service == service).count(),
            5
        );
    }
}

#[tokio::test(start_paused = true)]
async fn drain_timeout_is_what_a_call_has_left_when_its_plugin_goes() {
    for seconds in [0, 5, 3600] {
        let keys = format!("drain_timeout: {seconds}s,");
        assert_eq!(cancelled_after("", &keys).await, seconds * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn auth_is_sent_with_each_attempt_to_this_plugin_alone() {
    let stage = Stage::pair("", "auth: { method: bearer, token: t }").await;
    for (name, sent) in [("p", None), ("q", Some("Bearer t"))] {
        stage.next([Status(503); 2]);
        stage.send(name, get("/")).await.unwrap();
        let seen = stage.seen();
        assert_eq!(seen.len(), 3);
        for seen in seen {
            let header = seen.request.headers().get("authorization");
            assert_eq!(header.map(|value| value.to_str().unwrap()), sent);
        }
    }
}

#[tokio::test]
async fn authorize_is_asked_of_this_plugins_callers_alone() {
    let stage = Stage::pair("", "authorize: { api_keys: { a: k } }").await;
    assert_eq!((stage.asked(1).await, stage.asked_by("q", 1).await), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn fallback_is_this_plugins_alone() {
    let root = "default_connection: { request_timeout: 1s },";
    let stage = Stage::pair(root, "fallback: {}").await;
    stage.answers(Never);
    assert_eq!(stage.refusal().await, Some(DeadlineExceeded));
    assert_eq!(stage.send("q", get("/")).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn retry_is_on_and_is_this_plugins_alone() {
    let stage = Stage::pair("", "retry: { max_retries: 1 }").await;
    stage.answers(Status(503));
    assert_eq!(stage.asked(1).await, 4);
    assert_eq!(stage.asked_by("q", 1).await, 2);
}

#[tokio::test(start_paused = true)]
async fn circuit_breaker_is_on_and_is_this_plugins_alone() {
    let stage = Stage::pair("", "circuit_breaker: { failure_threshold: 2 }").await;
    stage.answers(Status(500));
    assert_eq!(stage.asked(10).await, 5);
    assert_eq!(stage.asked_by("q", 10).await, 2);
}

#[tokio::test(start_paused = true)]
async fn connection_is_this_plugins_alone() {
    let stage = Stage::pair("", "connection: { request_timeout: 2s }").await;
    stage.answers(Never);
    for (name, seconds) in [("p", 30), ("q", 2)] {
        let begun = tokio::time::Instant::now();
        let reasons = refusals(&mut stage.at_once(name, 1), 1).await;
        assert_eq!(reasons, [DeadlineExceeded]);
        assert_eq!(begun.elapsed(), seconds * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn layers_are_this_plugins_alone_and_the_first_is_outermost() {
    let stage = Stage::pair(
        "",
        "layers: [
            { name: mark, at: attempt, options: { word: c } },
            { name: mark, options: { word: a } },
            { name: mark, options: { word: b } }
        ]",
    )
    .await;
    for (name, marked) in [("p", ""), ("q", "a-0 b-0 c-0")] {
        stage.send(name, get("/")).await.unwrap();
        assert_eq!(marks(&stage.seen()), [marked]);
    }
}

#[tokio::test(start_paused = true)]
async fn rate_limit_is_off_unless_this_plugin_has_it() {
    let stage = Stage::pair("", "rate_limit: { requests_per_second: 3 }").await;
    assert_eq!(stage.asked(100).await, 100);
    assert_eq!(stage.asked_by("q", 100).await, 3);
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_off_unless_this_plugin_has_it() {
    let stage = Stage::pair("", "concurrency: { max_concurrent: 3 }").await;
    stage.answers(Never);
    for (name, reason, asked) in [("p", DeadlineExceeded, 20), ("q", ConcurrencyLimited, 3)] {
        let mut calls = stage.at_once(name, 20);
        let first = refusals(&mut calls, 17).await;
        assert_eq!(first, [reason; 17]);
        assert_eq!(stage.seen().len(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn load_balancing_is_by_latency_unless_this_plugin_says_otherwise() {
    let stage = Stage::start(
        "plugins: {
            p: { transport: in-process, endpoints: [one, slow] },
            q: { transport: in-process, endpoints: [one, slow], load_balancing: { strategy: round-robin } }
        }",
    )
    .await;
    assert!(stage.share_of_slow("p", 40).await < 10);
    assert_eq!(stage.share_of_slow("q", 40).await, 20);
}
