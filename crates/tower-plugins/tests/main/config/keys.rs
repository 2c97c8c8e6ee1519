use std::fs;
use std::time::Duration;

use figment::Figment;

use tower_plugins::config::{Config, CredentialsSpec, Format, Loader, Problem, Source};

use super::{assert_problem, plugin, problem, spec, yaml};

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
fn streams_are_counted_over_http2_alone_and_only_what_is_kept_has_an_age() {
    for (block, key, why) in [
        (
            "max_streams: 5",
            "max_streams",
            "does nothing with protocol: http1",
        ),
        (
            "keep_alive: false, max_age: 5m",
            "max_age",
            "does nothing with keep_alive: false",
        ),
    ] {
        assert_problem(
            &format!("connection: {{ {block} }}"),
            &format!("connection.{key}"),
            why,
        );
    }
    let both =
        spec("connection: { protocol: http2, max_streams: 5, max_connections: 2, max_age: 5m }");
    let connection = &both.upstream.connection;
    assert_eq!((connection.max_streams, connection.max_connections), (5, 2));
    assert_eq!(connection.max_age, Some(Duration::from_secs(300)));
}

#[test]
fn connections_that_are_not_kept_take_no_keys_about_keeping_them() {
    for (block, key) in [
        ("keep_alive: false, idle_timeout: 5s", "idle_timeout"),
        (
            "keep_alive: false, max_idle_connections: 5",
            "max_idle_connections",
        ),
        ("max_idle_connections: 0, idle_timeout: 5s", "idle_timeout"),
        (
            "protocol: http2, keep_alive: false, idle_timeout: 5s",
            "idle_timeout",
        ),
    ] {
        assert_problem(
            &format!("connection: {{ {block} }}"),
            &format!("connection.{key}"),
            "does nothing",
        );
    }
    spec("connection: { max_idle_connections: 0 }");
    spec("connection: { protocol: http2, idle_timeout: 5s }");
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
        "expected true or false, found the text",
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
        .into_inner()
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
            "retry: { max_replay_bytes: 2GiB }",
            "retry.max_replay_bytes",
            "0B to 1GiB",
        ),
        (
            "retry: { max_replay_bytes: -1 }",
            "retry.max_replay_bytes",
            "-1 is not a size",
        ),
        ("authorize: {}", "authorize.api_keys", "names nobody"),
        (
            "authorize: { api_keys: {} }",
            "authorize.api_keys",
            "names nobody",
        ),
        (
            "authorize: { api_keys: { a: k, b: k } }",
            "authorize.api_keys.b",
            "that of \"a\" as well",
        ),
        (
            "authorize: { api_keys: { '': k } }",
            "authorize.api_keys[\"\"]",
            "cannot name a caller",
        ),
        (
            "authorize: { bearer_tokens: { a: t }, api_key_header: x-own }",
            "authorize.api_key_header",
            "does nothing without api_keys",
        ),
        ("authorize: off", "authorize", "a table"),
        (
            "authorize: { api_keys: { a: k }, bearer_tokens: { b: t }, api_key_header: authorization }",
            "authorize.api_key_header",
            "is where bearer tokens are looked for",
        ),
        (
            "authorize: { jwt: {} }",
            "authorize.jwt.secret",
            "one of secret, key_file and jwks_file",
        ),
        (
            "authorize: { jwt: { secret: a secret of more than thirty-two bytes } }",
            "authorize.jwt.algorithms",
            "is missing",
        ),
        (
            "authorize: { jwt: { secret: short, algorithms: [HS256] } }",
            "authorize.jwt.secret",
            "32 bytes for HS256",
        ),
        (
            "authorize: { jwt: { secret: a secret of more than thirty-two bytes, algorithms: [RS256] } }",
            "authorize.jwt.algorithms",
            "RS256 takes key_file, a public key, and there is secret",
        ),
        (
            "authorize: { jwt: { secret: a secret of more than thirty-two bytes, algorithms: [none] } }",
            "authorize.jwt.algorithms[0]",
            "is unknown",
        ),
        (
            "authorize: { jwt: { secret: a secret of more than thirty-two bytes, algorithms: [] } }",
            "authorize.jwt.algorithms",
            "every token would be refused",
        ),
        (
            "authorize: { jwt: { secret: a secret of more than thirty-two bytes, algorithms: [HS256], required_scopes: [a b] } }",
            "authorize.jwt.required_scopes[0]",
            "more than one scope",
        ),
        (
            "authorize: { jwt: { secret: a secret of more than thirty-two bytes, algorithms: [HS256] } }, concurrency: { max_concurrent: 1, priority_header: authorization }",
            "concurrency.priority_header",
            "takes off the request",
        ),
        (
            "authorize: { api_keys: { a: k } }, rate_limit: { requests_per_second: 1, key_header: x-api-key }",
            "rate_limit.key_header",
            "takes off the request",
        ),
        (
            "authorize: { bearer_tokens: { a: t } }, concurrency: { max_concurrent: 1, priority_header: authorization }",
            "concurrency.priority_header",
            "takes off the request",
        ),
        (
            "authorize: { api_keys: { a: k } }, load_balancing: { strategy: maglev, hash_on: 'header:x-api-key' }",
            "load_balancing.hash_on",
            "takes off the request",
        ),
        // They would be taken off on the way, and the secret with them.
        (
            "auth: { method: api-key, api_key: k, header: Keep-Alive }",
            "auth.header",
            "is set by the connection",
        ),
        (
            "auth: { method: custom, headers: { proxy-connection: k } }",
            "auth.headers.proxy-connection",
            "is set by the connection",
        ),
        ("filter: {}", "filter.service", "is missing"),
        (
            "filter: { service: 'a b' }",
            "filter.service",
            "cannot name a service",
        ),
        (
            "filter: { service: s, headers: [x y] }",
            "filter.headers[0]",
            "is not the name of a header",
        ),
        (
            "filter: { service: s, copy_headers: [content-length] }",
            "filter.copy_headers[0]",
            "is set by the connection",
        ),
        (
            "filter: { service: s, timeout: 0 }",
            "filter.timeout",
            "longer than zero",
        ),
        (
            "fallback: { service: s, body: b }",
            "fallback.body",
            "remove one of them",
        ),
        ("fallback: { on: [] }", "fallback.on", "holds no reason"),
        (
            "fallback: { on: [request_broken] }",
            "fallback.on[0]",
            "rate_limited",
        ),
        (
            "fallback: { status: 101 }",
            "fallback.status",
            "out of range",
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
            "rate_limit: { requests_per_second: 0.000001, burst_size: 1000 }",
            "rate_limit.burst_size",
            "at most 144",
        ),
        (
            "rate_limit: { requests_per_second: 1, key_header: a b }",
            "rate_limit.key_header",
            "is not the name of a header, nor `off`",
        ),
        (
            "rate_limit: { requests_per_second: 1, redis: {} }",
            "rate_limit.redis.url",
            "is missing",
        ),
        (
            "rate_limit: { requests_per_second: 1, redis: { url: 'rediss://h' } }",
            "rate_limit.redis.url",
            "no TLS",
        ),
        (
            "rate_limit: { requests_per_second: 1, key_header: x-a, max_keys: 5, redis: { url: 'redis://h' } }",
            "rate_limit.max_keys",
            "does nothing with redis",
        ),
        (
            "authorize: { api_keys: { a: k } }, rate_limit: { requests_per_second: 1, cost_header: x-api-key }",
            "rate_limit.cost_header",
            "takes off the request",
        ),
        (
            "outlier_detection: { interval: 25h }",
            "outlier_detection.interval",
            "longer than a day",
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
            "set failure_rate or slow_call_duration",
        ),
        (
            "circuit_breaker: { window: 5s }",
            "circuit_breaker.window",
            "nothing without failure_rate or slow_call_duration",
        ),
        (
            "circuit_breaker: { window_calls: 5 }",
            "circuit_breaker.window_calls",
            "nothing without failure_rate or slow_call_duration",
        ),
        (
            "circuit_breaker: { failure_rate: 1, window_calls: 5, window: 5s }",
            "circuit_breaker.window_calls",
            "two kinds of window",
        ),
        (
            "circuit_breaker: { failure_rate: 1, window_calls: 65537 }",
            "circuit_breaker.window_calls",
            "out of range, 0 to 65536",
        ),
        (
            "circuit_breaker: { slow_call_rate: 0.5 }",
            "circuit_breaker.slow_call_rate",
            "nothing without slow_call_duration",
        ),
        (
            "circuit_breaker: { slow_call_duration: 1s, slow_call_rate: 0 }",
            "circuit_breaker.slow_call_rate",
            "always reached",
        ),
        (
            "circuit_breaker: { recovery_timeout: 10s, max_recovery_timeout: 9s }",
            "circuit_breaker.max_recovery_timeout",
            "is shorter than recovery_timeout, 10s",
        ),
        (
            "circuit_breaker: { failure_statuses: [500, 200] }",
            "circuit_breaker.failure_statuses[1]",
            "no status from 400 to 655",
        ),
        (
            "circuit_breaker: { failure_statuses: ['504-502'] }",
            "circuit_breaker.failure_statuses[0]",
            "such as \"502-504\"",
        ),
        (
            "circuit_breaker: { failure_statuses: [5xx] }",
            "circuit_breaker.failure_statuses[0]",
            "no status from 400 to 655",
        ),
        (
            "circuit_breaker: { failure_grpc_codes: [unavailable, gone] }",
            "circuit_breaker.failure_grpc_codes[1]",
            "is no gRPC code",
        ),
        (
            "circuit_breaker: { recovery_jitter: 2 }",
            "circuit_breaker.recovery_jitter",
            "out of range, 0 to 1",
        ),
        (
            "connection: { max_idle_connections: 101 }",
            "connection.max_idle_connections",
            "more than max_connections, 100",
        ),
        (
            "connection: { timeout_header: 'a b' }",
            "connection.timeout_header",
            "is not the name of a header",
        ),
        (
            "connection: { timeout_header: content-length }",
            "connection.timeout_header",
            "",
        ),
        (
            "connection: { timeout_header: grpc-timeout }",
            "connection.timeout_header",
            "for gRPC always",
        ),
        (
            "connection: { timeout_header: x-key }, auth: { method: api-key, api_key: k, header: x-key }",
            "connection",
            "is where auth puts a secret",
        ),
        (
            "connection: { timeout_header: Authorization }, auth: { method: bearer, token: t }",
            "connection",
            "is where auth puts a secret",
        ),
        (
            "connection: { max_response_head: 1KiB }",
            "connection.max_response_head",
            "1KiB is out of range, 8KiB to 16MiB",
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
        (
            "load_balancing: { strategy: priority }",
            "load_balancing.strategy",
            "`priority` of the endpoints counts with each",
        ),
        (
            "load_balancing: { strategy: maglev }",
            "load_balancing.strategy",
            "needs hash_on",
        ),
        (
            "load_balancing: { hash_on: 'header:x' }",
            "load_balancing.hash_on",
            "does nothing without strategy: ring-hash or maglev",
        ),
        (
            "load_balancing: { strategy: random, load_factor: 2 }",
            "load_balancing.load_factor",
            "does nothing without strategy",
        ),
        (
            "load_balancing: { least_request_bias: 2 }",
            "load_balancing.least_request_bias",
            "does nothing without strategy: least-request",
        ),
        (
            "load_balancing: { subset_fallback: none }",
            "load_balancing.subset_fallback",
            "does nothing without subset",
        ),
        (
            "load_balancing: { strategy: maglev, hash_on: 'header:x', load_factor: 0.5 }",
            "load_balancing.load_factor",
            "is below 1",
        ),
        (
            "load_balancing: { strategy: maglev, hash_on: x-user }",
            "load_balancing.hash_on",
            "neither `header:NAME` nor `cookie:NAME`",
        ),
        (
            "load_balancing: { strategy: maglev, hash_on: 'cookie:a b' }",
            "load_balancing.hash_on",
            "no name of a cookie",
        ),
        (
            "load_balancing: { subset_on: { version: x-version } }",
            "load_balancing.subset_on.version",
            "neither `header:NAME` nor `cookie:NAME`",
        ),
        (
            "load_balancing: { subset: { version: '' } }",
            "load_balancing.subset.version",
            "is empty",
        ),
        (
            "load_balancing: { panic_threshold: 50 }",
            "load_balancing.panic_threshold",
            "out of range",
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
fn the_kind_of_window_that_is_written_nearest_is_that_of_the_breaker() {
    for (inherited, own, window, calls) in [
        ("window_calls: 30", "window: 7s", 7, None),
        ("window: 7s", "window_calls: 30", 10, Some(30)),
        ("window_calls: 30", "", 10, Some(30)),
        ("window_calls: 30", "window_calls: 0", 10, None),
        ("window: 7s", "window_calls: 0", 7, None),
    ] {
        let text = format!(
            "{{ default_circuit_breaker: {{ failure_rate: 0.5, {inherited} }},
                plugins: {{ p: {{ transport: http, endpoint: 'http://h', circuit_breaker: {{ {own} }} }} }} }}"
        );
        let config = Config::parse(&text, Format::Yaml).unwrap();
        let breaker = config.plugins["p"].policy.breaker.clone().unwrap();
        assert_eq!(breaker.window, Duration::from_secs(window), "{text}");
        assert_eq!(breaker.window_calls, calls, "{text}");
    }
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
        ("labels: {}", "labels", "is not read"),
        ("'a.b': 1", "[\"a.b\"]", "unknown key"),
    ] {
        let error = plugin(extra).unwrap_err();
        let problem = &error.problems()[0];
        let path = format!("plugins[0].{key}").replace("].[", "][");
        assert_eq!(problem.key, path, "{error}");
        assert!(problem.message.contains(part), "{error}");
    }
    let error = yaml("{ plugin: [], allow_empty: true }")
        .map_err(|error| super::only(&error))
        .unwrap_err();
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
          - { name: a b, transport: exec, endpoint: 'x' }
          - { transport: http, endpoint: 'https://h', retry: { multiplier: no, window: 1s } }
        ",
    )
    .unwrap_err();
    let keys: Vec<&str> = error.problems().iter().map(|p| p.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "defualt_retry",
            "default_retry.max_retries",
            "plugins[0].name",
            "plugins[0].transport",
            "plugins[1].name",
            "plugins[1].endpoint",
            "plugins[1].retry.multiplier",
            "plugins[1].retry.window",
        ],
        "{error}"
    );
    assert!(
        error
            .to_string()
            .starts_with("8 problems in the config:\n  - 2:9: defualt_retry: ")
    );
}

#[test]
fn what_can_hardly_be_meant_is_warned_of_and_taken() {
    let load = |root: &str, extra: &str| {
        let text = format!(
            "{{ {root} plugins: [{{ name: a, transport: http, endpoint: 'http://h', {extra} }}] }}"
        );
        let loaded = Loader::text(text, Format::Yaml).load();
        assert!(loaded.config.is_ok(), "{:?}", loaded.config);
        let line = |warning: &Problem| {
            assert!(warning.line.is_some());
            format!("{}: {}", warning.key, warning.message)
        };
        loaded.warnings.iter().map(line).collect::<Vec<_>>()
    };
    for (extra, warning) in [
        (
            "retry: { attempt_timeout: 31s }",
            "plugins[0].retry: attempt_timeout, 31s, is never reached: connection.request_timeout, 30s, is over first",
        ),
        (
            "retry: { budget_ratio: 0, budget_min_per_second: 0 }",
            "plugins[0].retry: is on and its budget is nothing: no attempt is ever repeated",
        ),
        (
            "retry: { initial_interval: 4s, random_jitter: false }, connection: { request_timeout: 4s }",
            "plugins[0].retry: initial_interval, 4s, is never reached: connection.request_timeout, 4s, is over first",
        ),
        (
            "rate_limit: { requests_per_second: 1, max_wait: 1m }",
            "plugins[0].rate_limit: max_wait, 1m, is never reached: connection.request_timeout, 30s, is over first",
        ),
        (
            "concurrency: { max_concurrent: 1, max_queued: 1, max_wait: 1m }",
            "plugins[0].concurrency: max_wait, 1m, is never reached: connection.request_timeout, 30s, is over first",
        ),
        (
            "connection: { connection_timeout: 3s, request_timeout: 2s }",
            "plugins[0].connection: connection_timeout, 3s, is never reached: connection.request_timeout, 2s, is over first",
        ),
    ] {
        assert_eq!(load("", extra), [warning]);
    }
    let inherited = load(
        "default_retry: { attempt_timeout: 5s },",
        "connection: { request_timeout: 1s }",
    );
    assert_eq!(inherited.len(), 1, "{inherited:?}");
    for fine in [
        "",
        "connection: { request_timeout: 1s }",
        "retry: off",
        "connection: { request_timeout: off }",
    ] {
        assert_eq!(load("", fine), [""; 0], "{fine}");
    }
}

#[test]
fn a_plugin_goes_back_to_the_defaults_of_the_library() {
    let root = "default_retry: { max_retries: 9 }, default_circuit_breaker: off,
        default_connection: { request_timeout: 1s }, default_rate_limit: { requests_per_second: 1 },
        default_load_balancing: { strategy: round-robin },";
    let extra =
        "retry: default, circuit_breaker: default, connection: default, rate_limit: default,
        load_balancing: default";
    let back = super::plugin_over(root, extra).unwrap();
    assert_eq!(back, plugin("").unwrap());
    let off = super::plugin_over(root, "retry: off, rate_limit: off").unwrap();
    let policy = &off.plugins["a"].policy;
    assert_eq!(
        (&policy.retry, &policy.rate_limit, &policy.breaker),
        (&None, &None, &None)
    );
}

#[test]
fn a_table_of_a_program_s_own_config_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program.toml");
    let text = "listen = '0.0.0.0:80'\n[calls.plugins.a]\ntransport = 'http'\nendpoint = 'http://h'\nretyr = 1\n";
    fs::write(&path, text.replace("retyr = 1\n", "")).unwrap();
    let config = |focus: &str| {
        let program = Figment::from(Source::file(&path).unwrap());
        Config::from_figment(&if focus.is_empty() {
            program
        } else {
            program.focus(focus)
        })
    };
    assert_eq!(
        config("calls").unwrap(),
        plugin("")
            .map(|_| {
                Config::parse(
                    "plugins: { a: { transport: http, endpoint: 'http://h' } }",
                    Format::Yaml,
                )
                .unwrap()
            })
            .unwrap()
    );
    let whole = config("").unwrap_err();
    assert_eq!(whole.problems()[0].file.as_deref(), Some(&*path));
    assert_eq!(whole.problems()[0].line, Some(1), "{whole}");
    assert_eq!(whole.problems()[0].column, Some(1), "{whole}");

    // Layers of which each is a file of its own: the line is that of the layer.
    let over = dir.path().join("over.yaml");
    fs::write(
        &path,
        text[text.find("[calls").unwrap()..].replace("calls.", ""),
    )
    .unwrap();
    fs::write(&over, "\nplugins:\n  a: { drain_timeout: 3 }\n").unwrap();
    let layers = Figment::from(Source::file(&path).unwrap()).merge(Source::file(&over).unwrap());
    let error = Config::from_figment(&layers).unwrap_err();
    let shown = error
        .to_string()
        .replace(&dir.path().display().to_string(), "");
    assert_eq!(
        shown,
        "2 problems in the config:
  - /over.yaml:3:23: plugins.a.drain_timeout: a duration is text with its unit: write \"3s\"; at most 365d
  - /program.toml:4:1: plugins.a.retyr: unknown key, did you mean `retry`?"
    );
}
