use tower_plugins::config::Format;

/// A config that is refused.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) yaml: &'static str,
    /// Where it is not what the YAML says.
    pub(super) json: Option<&'static str>,
    pub(super) toml: Option<&'static str>,
}

const fn case(name: &'static str, yaml: &'static str) -> Case {
    Case {
        name,
        yaml,
        json: None,
        toml: None,
    }
}

pub(super) const CASES: &[Case] = &[
    case(
        "unknown_key_at_root",
        r#"plugns: []
allow_empty: true
"#,
    ),
    case(
        "unknown_key_of_plugin",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    conection: { request_timeout: 2s }
"#,
    ),
    case(
        "reload_in_other_words",
        r#"reload:
  reload_strategy: rolling
  strategy: recreate
  drain_timeout: 10s
  graceful_timeout: 60
  canary_steps: [1, 5, 100]
  stick_to: x tenant
  max_latency_factor: 0.5
plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
"#,
    ),
    case(
        "reload_steps_that_fall",
        r#"reload: { strategy: canary, canary_steps: [25, 5, 1] }
plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
"#,
    ),
    case(
        "unknown_key_of_block",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    connection:
      request_tiemout: 2s
"#,
    ),
    case(
        "process_in_other_words",
        r#"plugins:
  - name: bare
    transport: exec-json
    executable: plugin
    endpoint: ./plugin
    args: [a, 1]
    env: [A=1, B, A=2]
    process:
      instances: 0
      checksum: md5:0
      umask: "8"
      restart: sometimes
      work_dir: /tmp
  - name: vain
    transport: exec-json
    executable: /usr/bin/plugin
    env: { A: 1, "B=C": secret }
    process: { restart: never, max_restarts: 3 }
    connection: { max_connections: 4, max_response_body: off }
    health_check: { kind: http }
  - name: elsewhere
    transport: http
    endpoint: http://10.0.0.1:8080
    executable: /usr/bin/plugin
    process: { umask: "077" }
  - name: go
    transport: exec
    executable: /usr/bin/plugin
  - name: none
    transport: exec-json
"#,
    ),
    case(
        "limits_of_a_process_out_of_range",
        r#"plugins:
  - name: bounded
    transport: exec-json
    executable: /usr/bin/plugin
    process:
      watch: true
      stdin: inherit
      limits: { memory: 1KiB, cpu: 0, pids: 0, cgroup: "", swap: 1GiB }
      rlimits: { nofile: 3, as: 1GiB, cpu: 1s }
"#,
    ),
    case(
        "unknown_key_near_none",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    colour: blue
"#,
    ),
    case(
        "unknown_key_in_auth_may_be_a_secret",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: bearer, tokn: hunter2 }
"#,
    ),
    case(
        "unknown_key_that_is_no_word",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    'a.b': 1
"#,
    ),
    case(
        "missing_name",
        r#"plugins:
  - transport: http
    endpoint: http://h
"#,
    ),
    case(
        "missing_transport",
        r#"plugins:
  - name: search
    endpoint: http://10.0.0.1:8080
"#,
    ),
    case(
        "missing_endpoint",
        r#"plugins:
  - name: search
    transport: http
"#,
    ),
    case(
        "endpoint_and_endpoints",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    endpoints: [http://10.0.0.2:8080]
"#,
    ),
    case(
        "transport_and_type",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    type: http
"#,
    ),
    case(
        "no_endpoints",
        r#"plugins:
  - name: search
    transport: http
    endpoints: []
"#,
    ),
    case(
        "endpoint_twice",
        r#"plugins:
  - name: search
    transport: http
    endpoints: [http://10.0.0.1:8080, http://10.0.0.1:8080/]
"#,
    ),
    case(
        "name_twice",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
  - name: audit
    transport: unix
    endpoint: /run/audit.sock
  - name: search
    transport: unix
    endpoint: /run/search.sock
"#,
    ),
    case(
        "name_with_a_blank",
        r#"plugins:
  - name: search eu
    transport: http
    endpoint: http://10.0.0.1:8080
"#,
    ),
    case(
        "name_is_a_number",
        r#"plugins:
  - name: 1.10
    transport: http
    endpoint: http://10.0.0.1:8080
"#,
    ),
    case(
        "name_in_a_table",
        r#"plugins:
  search:
    name: search
    transport: http
    endpoint: http://h
"#,
    ),
    case(
        "transport_misspelt",
        r#"plugins:
  - name: search
    transport: htpp
    endpoint: http://h
"#,
    ),
    case(
        "transport_that_no_name_can_be",
        r#"plugins:
  - name: search
    transport: my own
    endpoint: there
"#,
    ),
    case(
        "options_of_a_transport_that_has_none",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://h
    options: { database: 3 }
"#,
    ),
    case(
        "endpoint_of_an_own_transport_with_credentials",
        r#"plugins:
  - name: search
    transport: redis
    endpoint: redis://user:hunter2@10.0.0.1/3
"#,
    ),
    case(
        "endpoint_of_an_own_transport_that_is_empty",
        r#"plugins:
  - name: search
    transport: redis
    endpoints: [{ url: '', path: /v1 }]
"#,
    ),
    case(
        "unix_json_is_not_http",
        r#"plugins:
  - name: files
    transport: unix-json
    endpoints: [{ url: /run/files.sock, path: /v1 }]
    connection: { protocol: http2, max_response_head: 64KiB, max_response_body: off, stream_idle_timeout: 5s }
    tls: { ca_file: /etc/ca.pem }
"#,
    ),
    case(
        "unix_json_sends_no_header_about_http",
        r#"plugins:
  - name: files
    transport: unix-json
    endpoint: /run/files.sock
    auth: { method: custom, headers: { proxy-authorization: hunter2, x-key: hunter2 } }
  - name: mail
    transport: unix-json
    endpoint: /run/mail.sock
    auth: { method: api-key, api_key: hunter2, header: X-Request-Id }
"#,
    ),
    case(
        "go_plugin_in_other_words",
        r#"plugins:
  - name: words
    transport: subprocess
    executable: /usr/bin/plugin
    endpoint: /usr/bin/plugin
    go_plugin:
      cookie_key: PLUGIN_MIN_PORT
      cookie_value: ""
      protocol_versions: [1, -1, one]
      min_port: 2000
      max_port: 1000
      socket_group: "a:b"
      protocol_version: 5
      magic_cookie_key: A
  - name: twice
    transport: subprocess
    executable: /usr/bin/plugin
    tls: { server_name: plugin }
    go_plugin: { auto_mtls: true, protocol_versions: [] }
  - name: kept
    transport: subprocess
    executable: /usr/bin/plugin
    connection: { proxy: off, protocol: http2, idle_timeout: 1s, max_age: 1m, keep_alive: true, disable_compression: true }
  - name: lines
    transport: exec-json
    executable: /usr/bin/plugin
    go_plugin: { multiplex: true }
    process: { start_timeout: 1s, stdin: terminal }
  - name: typed
    transport: subprocess
    executable: /usr/bin/plugin
    process: { stdin: tty }
  - name: elsewhere
    transport: http
    endpoint: http://10.0.0.1:8080
    go_plugin: { multiplex: true }
"#,
    ),
    case(
        "go_plugin_that_runs_already",
        r#"plugins:
  - name: started
    transport: subprocess
    executable: /usr/bin/plugin
    args: [a]
    env: { A: "literal:b" }
    work_dir: /tmp
    process: { checksum: "sha256:0000000000000000000000000000000000000000000000000000000000000000" }
    go_plugin:
      reattach: '{"Protocol":"grpc","ProtocolVersion":6,"Pid":4711,"Test":true,"Addr":{"Network":"unix","String":"/tmp/plugin42"}}'
      auto_mtls: true
      multiplex: true
      cookie_key: A
      protocol_versions: [6]
      max_port: 12000
  - name: secured
    transport: subprocess
    tls: { server_name: plugin }
    go_plugin: { reattach: '{"Protocol":"grpc","ProtocolVersion":6,"Pid":4711,"Test":true,"Addr":{"Network":"unix","String":"/tmp/plugin42"}}' }
  - name: netrpc
    transport: subprocess
    go_plugin: { reattach: '{"ProtocolVersion":5,"Pid":7,"Test":true,"Addr":{"Network":"unix","String":"/s"}}' }
  - name: table
    transport: subprocess
    go_plugin: { reattach: { Protocol: grpc } }
  - name: far
    transport: subprocess
    auth: { method: bearer, token: "literal:hunter2" }
    go_plugin: { reattach: '{"Protocol":"grpc","Pid":7,"Addr":{"Network":"tcp","String":"10.0.0.1:1"}}' }
"#,
    ),
    case(
        "http_with_https_url",
        r#"plugins:
  - name: search
    transport: http
    endpoint: https://search.internal
"#,
    ),
    case(
        "https_with_http_url",
        r#"plugins:
  - name: search
    transport: https
    endpoint: http://search.internal
"#,
    ),
    case(
        "url_with_credentials",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://user:hunter2@search.internal
"#,
    ),
    case(
        "url_with_query",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://search.internal/?key=hunter2
"#,
    ),
    case(
        "url_with_fragment",
        r#"plugins:
  - name: search
    transport: http
    endpoint: 'http://search.internal/#top'
"#,
    ),
    case(
        "url_with_port_0",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://search.internal:0
"#,
    ),
    case(
        "url_with_port_70000",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://search.internal:70000
"#,
    ),
    case(
        "url_without_scheme",
        r#"plugins:
  - name: search
    transport: http
    endpoint: 10.0.0.1:8080
"#,
    ),
    case(
        "url_of_a_file",
        r#"plugins:
  - name: search
    transport: http
    endpoint: file:///etc/passwd
"#,
    ),
    case(
        "url_with_a_blank",
        r#"plugins:
  - name: search
    transport: http
    endpoint: 'http://search.internal/a b'
"#,
    ),
    case(
        "url_is_a_number",
        r#"plugins:
  - name: search
    transport: http
    endpoint: 8080
"#,
    ),
    case(
        "socket_relative",
        r#"plugins:
  - name: search
    transport: unix
    endpoint: run/search.sock
"#,
    ),
    case(
        "socket_too_long",
        r#"plugins:
  - name: search
    transport: unix
    endpoint: /run/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
"#,
    ),
    case(
        "socket_with_parent",
        r#"plugins:
  - name: search
    transport: unix
    endpoint: /run/../etc/search.sock
"#,
    ),
    case(
        "service_misnamed",
        r#"plugins:
  - name: search
    transport: in-process
    endpoint: 'a b'
"#,
    ),
    case(
        "endpoint_with_two_paths",
        r#"plugins:
  - name: search
    transport: http
    endpoint: { url: http://h/v1, path: /v2 }
"#,
    ),
    case(
        "endpoint_with_weight",
        r#"plugins:
  - name: search
    transport: http
    endpoints:
      - { url: http://h, weight: 0 }
"#,
    ),
    case(
        "endpoint_without_url",
        r#"plugins:
  - name: search
    transport: http
    endpoint: { path: /v2 }
"#,
    ),
    case(
        "duration_is_an_integer",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    drain_timeout: 30
"#,
    ),
    case(
        "duration_is_nanoseconds",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { initial_interval: 100000000 }
"#,
    ),
    case(
        "duration_is_a_fraction",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    drain_timeout: 1.5
"#,
    ),
    case(
        "duration_without_unit",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    drain_timeout: '30'
"#,
    ),
    case(
        "duration_of_unknown_unit",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    drain_timeout: 10 parsecs
"#,
    ),
    case(
        "duration_negative",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    drain_timeout: -1s
"#,
    ),
    case(
        "duration_too_long",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    drain_timeout: 366d
"#,
    ),
    case(
        "duration_zero",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    circuit_breaker: { recovery_timeout: 0s }
"#,
    ),
    case(
        "integer_out_of_range",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { max_retries: 101 }
"#,
    ),
    case(
        "integer_negative",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { max_retries: -1 }
"#,
    ),
    case(
        "integer_is_a_fraction",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { max_retries: 2.5 }
"#,
    ),
    case(
        "integer_is_text",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { max_retries: '3' }
"#,
    ),
    Case {
        name: "integer_is_huge",
        yaml: r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { max_retries: 99999999999999999999 }
"#,
        json: None,
        toml: Some(
            r#"[[plugins]]
name = "search"
transport = "http"
endpoint = "http://10.0.0.1:8080"
retry = { max_retries = 99999999999999999999 }
"#,
        ),
    },
    case(
        "number_is_a_percentage",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { budget_ratio: 150 }
"#,
    ),
    Case {
        name: "number_is_not_one",
        yaml: r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { multiplier: .nan }
"#,
        json: Some(
            r#"{ "plugins": [{ "name": "search", "transport": "http", "endpoint": "http://h",
  "retry": { "multiplier": NaN } }] }
"#,
        ),
        toml: Some(
            r#"[[plugins]]
name = "search"
transport = "http"
endpoint = "http://10.0.0.1:8080"
retry = { multiplier = nan }
"#,
        ),
    },
    Case {
        name: "number_is_infinite",
        yaml: r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { multiplier: 1e400 }
"#,
        json: Some(
            r#"{ "plugins": [{ "name": "search", "transport": "http", "endpoint": "http://h",
  "retry": { "multiplier": 1e400 } }] }
"#,
        ),
        toml: Some(
            r#"[[plugins]]
name = "search"
transport = "http"
endpoint = "http://10.0.0.1:8080"
retry = { multiplier = 1e400 }
"#,
        ),
    },
    case(
        "boolean_is_yes",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    enabled: yes
"#,
    ),
    case(
        "word_unknown",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    connection: { protocol: http3 }
"#,
    ),
    case(
        "word_near_none",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    load_balancing: { strategy: astrology }
"#,
    ),
    case(
        "size_negative",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { max_replay_bytes: -1 }
"#,
    ),
    case(
        "size_out_of_range",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { max_replay_bytes: 2GiB }
"#,
    ),
    case(
        "size_of_unknown_unit",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { max_replay_bytes: 64kib }
"#,
    ),
    case(
        "block_is_a_word",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: of
"#,
    ),
    case(
        "block_is_a_number",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: 3
"#,
    ),
    case(
        "block_that_cannot_be_off",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    connection: off
"#,
    ),
    case(
        "list_is_a_text",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { idempotent: /check }
"#,
    ),
    case(
        "plugins_is_a_number",
        r#"plugins: 3
"#,
    ),
    case(
        "plugin_is_a_text",
        r#"plugins:
  - search
"#,
    ),
    case(
        "path_of_no_path",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { idempotent: [/ok, check] }
"#,
    ),
    case(
        "path_with_a_star_inside",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { idempotent: ['/a/*/b'] }
"#,
    ),
    case(
        "breaker_that_nothing_opens",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    circuit_breaker: { failure_threshold: 0 }
"#,
    ),
    case(
        "breaker_window_without_rate",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    circuit_breaker: { window: 5s }
"#,
    ),
    case(
        "idle_beyond_open",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    connection: { max_connections: 4, max_idle_connections: 5 }
"#,
    ),
    case(
        "proxy_with_credentials_in_its_url",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    connection: { proxy: "http://user:hunter2@proxy:3128" }
"#,
    ),
    case(
        "proxy_of_another_kind",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    connection: { proxy: "socks5://proxy:1080" }
"#,
    ),
    case(
        "compression_that_is_not_of_http",
        r#"plugins:
  - name: search
    transport: grpc
    endpoint: 10.0.0.1:50051
    connection: { disable_compression: true }
  - name: audit
    transport: unix
    endpoint: /run/audit.sock
    connection: { disable_compression: false }
"#,
    ),
    case(
        "proxy_to_a_socket",
        r#"plugins:
  - name: search
    transport: grpc
    endpoint: unix:/run/search.sock
    connection: { proxy: "http://proxy:3128" }
  - name: audit
    transport: unix
    endpoint: /run/audit.sock
    connection: { proxy: environment }
  - name: either
    transport: grpc
    endpoints: ["unix:/run/search.sock", "10.0.0.1:50051"]
    connection: { proxy: "http://proxy:3128" }
"#,
    ),
    case(
        "proxy_auth_without_proxy",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    connection: { proxy_auth: "user:hunter2" }
"#,
    ),
    case(
        "pin_of_another_form",
        r#"plugins:
  - name: search
    transport: https
    endpoint: https://10.0.0.1:8443
    tls: { pins: ["sha256/47DEQpj8HBSa"] }
"#,
    ),
    case(
        "streams_over_http1",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    connection: { max_streams: 5 }
"#,
    ),
    case(
        "idle_without_keep_alive",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    connection: { keep_alive: false, idle_timeout: 5s }
"#,
    ),
    case(
        "in_process_with_a_connection",
        r#"plugins:
  - name: search
    transport: in-process
    endpoint: search
    connection: { protocol: http2, keep_alive: false }
"#,
    ),
    case(
        "backoff_upside_down",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { initial_interval: 9s }
"#,
    ),
    case(
        "hedge_without_retry",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: off
    hedge: { delay: 50ms }
"#,
    ),
    case(
        "hedge_with_samples_of_no_quantile",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    hedge: { delay: 50ms, min_samples: 10 }
"#,
    ),
    case(
        "outliers_by_nothing",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    outlier_detection: { consecutive_failures: 0, success_rate_stdev_factor: 0 }
"#,
    ),
    case(
        "outlier_rates_of_nothing",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    outlier_detection: { success_rate_stdev_factor: 0, min_requests: 10 }
"#,
    ),
    case(
        "outlier_times_upside_down",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    outlier_detection: { base_ejection_time: 10m, max_ejection_time: 5m }
"#,
    ),
    case(
        "outliers_of_whom_none_may_be_out",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    outlier_detection: { max_ejection_percent: 0, always_eject_one_host: false }
"#,
    ),
    case(
        "health_checks_that_overlap",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    health_check: { interval: 5s, timeout: 10s, degraded_after: 20s }
"#,
    ),
    case(
        "a_health_check_at_a_url",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    health_check: { endpoint: "http://10.0.0.1:8080/health", statuses: [] }
"#,
    ),
    case(
        "health_checks_of_nothing",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    health_check: { kind: tcp, endpoint: /health, statuses: [200], service: search }
  - name: orders
    transport: http
    endpoint: http://10.0.0.1:8080
    health_check: { kind: grpc }
  - name: local
    transport: in-process
    endpoint: local
    health_check: { kind: tcp }
  - name: worker
    transport: unix
    endpoint: /run/worker.sock
    health_check: { kind: process }
"#,
    ),
    case(
        "health_checks_in_other_words",
        r#"health_check: { interval: 10s }
plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    health_check: { path: /health, method: GET, success_codes: [200], unhealthy_threshold: 3, statuses: [100] }
"#,
    ),
    case(
        "slow_start_without_a_window",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    load_balancing: { slow_start_min_weight: 0.2 }
"#,
    ),
    case(
        "slow_start_of_hashes",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    load_balancing: { strategy: maglev, hash_on: 'header:x', slow_start_window: 30s }
"#,
    ),
    case(
        "budget_of_another_kind",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { budget: tokens, budget_ratio: 0.5 }
"#,
    ),
    case(
        "retry_on_nothing_that_fails",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { on: [5xx, sometimes, '200'] }
"#,
    ),
    case(
        "jitter_of_no_jitter",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { random_jitter: false, jitter: decorrelated }
"#,
    ),
    case(
        "rate_limit_without_rate",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    rate_limit: { burst_size: 5 }
"#,
    ),
    case(
        "rate_limit_burst_of_ages",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    rate_limit: { requests_per_second: 0.000001, burst_size: 1000 }
"#,
    ),
    case(
        "jwt_claim_of_a_list",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    authorize:
      jwt:
        secret: a secret of more than thirty-two bytes
        algorithms: [HS256]
        required_claims: { groups: [admins], email_verified: true }
"#,
    ),
    case(
        "redis_url_of_another_kind",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    rate_limit: { requests_per_second: 5, redis: { url: "rediss://u:hunter2@redis" } }
"#,
    ),
    case(
        "jwt_with_two_keys",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    authorize:
      jwt: { secret: hunter2, jwks_file: /nowhere/issuer.json, algorithms: [HS256] }
"#,
    ),
    case(
        "jwt_secret_too_short",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    authorize:
      jwt: { secret: hunter2, algorithms: [HS512] }
"#,
    ),
    case(
        "queue_without_time",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    concurrency: { max_concurrent: 1, max_queued: 1 }
"#,
    ),
    case(
        "auth_without_method",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { token: hunter2 }
"#,
    ),
    case(
        "auth_of_unknown_method",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: digest, password: hunter2 }
"#,
    ),
    case(
        "auth_with_key_of_another",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: bearer, token: hunter2, api_key: hunter2 }
"#,
    ),
    case(
        "auth_token_missing",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: bearer }
"#,
    ),
    case(
        "auth_token_empty",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: bearer, token: '' }
"#,
    ),
    case(
        "auth_token_with_a_line_break",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: bearer, token: "hunter2\r\nX-Admin: yes" }
"#,
    ),
    case(
        "auth_token_is_a_number",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: bearer, token: 1234 }
"#,
    ),
    case(
        "auth_header_reserved",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: custom, headers: { Content-Length: hunter2 } }
"#,
    ),
    case(
        "auth_header_twice",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: custom, headers: { x-a: hunter2, X-A: hunter2 } }
"#,
    ),
    case(
        "auth_user_with_a_colon",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: basic, username: 'a:b', password: hunter2 }
"#,
    ),
    case(
        "auth_secret_not_shown",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: bearer, token: '***' }
"#,
    ),
    case(
        "auth_secret_file_missing",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: bearer, token: 'file:/nowhere/token' }
"#,
    ),
    case(
        "auth_secret_file_relative",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: bearer, token: 'file:token' }
"#,
    ),
    case(
        "auth_over_plaintext",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: bearer, token: hunter2 }
"#,
    ),
    case(
        "auth_over_plaintext_to_one_of_many",
        r#"plugins:
  - name: search
    transport: http
    endpoints:
      - http://127.0.0.1:8080
      - { url: "http://10.0.0.1:8080" }
    auth: { method: api-key, api_key: hunter2 }
"#,
    ),
    case(
        "auth_plaintext_over_tls",
        r#"plugins:
  - name: search
    transport: https
    endpoint: https://10.0.0.1:8080
    auth: { method: bearer, token: hunter2, allow_plaintext: true }
"#,
    ),
    case(
        "oauth2_without_a_client",
        r#"plugins:
  - name: search
    transport: https
    endpoint: https://10.0.0.1:8080
    auth: { method: oauth2, token_url: "https://issuer.example/token" }
"#,
    ),
    case(
        "oauth2_in_the_clear",
        r#"plugins:
  - name: search
    transport: https
    endpoint: https://10.0.0.1:8080
    auth: { method: oauth2, token_url: "http://issuer.example/token", client_id: me, client_secret: hunter2 }
"#,
    ),
    case(
        "oauth2_that_waits_too_long",
        r#"plugins:
  - name: search
    transport: https
    endpoint: https://10.0.0.1:8080
    auth:
      method: oauth2
      token_url: https://issuer.example/token
      client_id: me
      client_secret: hunter2
      scopes: ["one two"]
      auth_style: query
      timeout: 1m
"#,
    ),
    case(
        "auth_mtls_over_http",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: mtls, cert_file: /nowhere/c.pem, key_file: /nowhere/k.pem }
"#,
    ),
    case(
        "tls_over_http",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    tls: { server_name: search.internal }
"#,
    ),
    case(
        "grpc_over_http",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    grpc: { compression: gzip }
"#,
    ),
    case(
        "grpc_over_http1",
        r#"plugins:
  - name: search
    transport: grpc
    endpoint: 10.0.0.1:50051
    connection: { protocol: http1 }
"#,
    ),
    case(
        "grpc_target_without_port",
        r#"plugins:
  - name: search
    transport: grpc
    endpoint: search.internal
"#,
    ),
    case(
        "grpc_message_of_five_gigabytes",
        r#"plugins:
  - name: search
    transport: grpc
    endpoint: 10.0.0.1:50051
    grpc: { max_response_message: 5GiB }
"#,
    ),
    case(
        "tls_name_of_no_host",
        r#"plugins:
  - name: search
    transport: https
    endpoint: https://h
    tls: { server_name: 'https://h' }
"#,
    ),
    case(
        "tls_cert_without_key",
        r#"plugins:
  - name: search
    transport: https
    endpoint: https://h
    tls: { cert_file: /nowhere/client.pem }
"#,
    ),
    case(
        "tls_expiry_warning_without_a_unit",
        r#"plugins:
  - name: search
    transport: https
    endpoint: https://h
    tls: { expiry_warning: 14 }
"#,
    ),
    case(
        "tls_version_is_a_number",
        r#"plugins:
  - name: search
    transport: https
    endpoint: https://h
    tls: { min_version: 1.2 }
"#,
    ),
    case(
        "variable_not_set",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: bearer, token: '${UNSET}' }
"#,
    ),
    case(
        "variable_with_a_colon",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: bearer, token: '${UNSET:hunter2}' }
"#,
    ),
    case(
        "variable_not_closed",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    auth: { method: bearer, token: '${UNSET' }
"#,
    ),
    case(
        "variable_that_does_not_fit",
        r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry: { max_retries: '${SET}' }
"#,
    ),
    case(
        "no_plugins",
        r#"plugins: []
"#,
    ),
    case(
        "manifest",
        r#"name: search
version: 1.0.0
transport: http
endpoint: http://h
"#,
    ),
    case(
        "include_in_a_text",
        r#"include: [conf.d]
allow_empty: true
"#,
    ),
    Case {
        name: "value_missing",
        yaml: r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    retry:
"#,
        json: Some(
            r#"{ "plugins": [{ "name": "search", "transport": "http", "endpoint": "http://h",
  "retry": null }] }
"#,
        ),
        toml: Some(
            r#"[[plugins]]
name = "search"
retry =
"#,
        ),
    },
    Case {
        name: "comment_beside_it",
        yaml: r#"plugins:
  - name: search
    transport: http
    endpoint: http://10.0.0.1:8080
    drain_timeout: 30 # hunter2 was the token
"#,
        json: Some(
            r#"{ "plugins": [] }
"#,
        ),
        toml: Some(
            r#"[[plugins]]
name = "search"
transport = "http"
endpoint = "http://10.0.0.1:8080"
drain_timeout = 30 # hunter2 was the token
"#,
        ),
    },
    case(
        "five_at_once",
        r#"default_retry: { max_retries: -1 }
plugins:
  - name: search
    transport: http
    endpoint: https://h
    retry: { window: 1s, multiplier: fast }
  - transport: unix
    endpoint: /run/a.sock
"#,
    ),
    case(
        "dns_names_that_are_none",
        r#"plugins:
  - name: a
    transport: http
    endpoints: ["dns:///10.0.0.1:80", "dns:///a..b:80", "dns:///a:0", "dns+srv:///_http._tcp.a:80", "dns://server/a:80"]
  - name: b
    transport: unix
    endpoint: dns:///a:80
"#,
    ),
    case(
        "default_dns_that_cannot_be",
        r#"default_dns: { min_ttl: 1m, max_endpoints: 0 }
plugins:
  - name: search
    transport: http
    endpoint: dns:///search.internal:8080
    dns: { max_ttl: 30s }
  - name: audit
    transport: http
    endpoint: dns:///audit.internal:8080
    dns: off
"#,
    ),
    case(
        "dns_without_a_name",
        r#"plugins:
  - name: a
    transport: http
    endpoint: http://a
    dns: { min_ttl: 1s }
  - name: b
    transport: http
    endpoint: dns:///b:80
    dns: { min_ttl: 2m, max_ttl: 1m, max_endpoints: 0, family: ipv5 }
"#,
    ),
    case(
        "from_with_more_to_say",
        r#"plugins:
  - name: a
    transport: http
    endpoint: { from: hosts, url: "http://a", weight: 3 }
  - name: b
    transport: http
    endpoint: { from: "not a name" }
"#,
    ),
    case(
        "split_and_shadow_to_nobody",
        r#"plugins:
  - name: a
    transport: http
    endpoint: http://a
    split: { to: a }
    shadow: { percent: 101, max_concurrent: 0, hash_on: "header:x" }
"#,
    ),
    case(
        "split_of_several",
        r#"plugins:
  - name: a
    transport: http
    endpoint: http://a
    split:
      to: b
      targets: [{ plugin: b, percent: 60 }, { plugin: c, percent: 40.5 }]
  - name: b
    transport: http
    endpoint: http://a
    split: { targets: [{ plugin: b, percent: 1 }, { plugin: c, weight: 2 }, { plugin: d, percent: 1 }, { plugin: d, percent: 1 }] }
  - name: c
    transport: http
    endpoint: http://a
    split: { targets: [] }
"#,
    ),
];

/// Its name, and how it is made.
type Text = (&'static str, Format, fn() -> String);

/// Texts that are not of their format.
pub(super) const SYNTAX: &[Text] = &[
    ("syntax_json_truncated", Format::Json, || {
        r#"{ "plugins": [ { "name": "a", "auth": { "token": "hunter2"#.to_owned()
    }),
    ("syntax_json_key_twice", Format::Json, || {
        r#"{
  "allow_empty": true,
  "plugins": [],
  "allow_empty": false
}
"#
        .to_owned()
    }),
    ("syntax_json_comma", Format::Json, || {
        r#"{
  "allow_empty": true,
}
"#
        .to_owned()
    }),
    ("syntax_json_comment", Format::Json, || {
        r#"// hunter2
{ "allow_empty": true }
"#
        .to_owned()
    }),
    ("syntax_json_list", Format::Json, || {
        r#"[]
"#
        .to_owned()
    }),
    ("syntax_yaml_truncated", Format::Yaml, || {
        r#"plugins:
  - name: a
    auth: { method: bearer, token: "hunter2"#
            .to_owned()
    }),
    ("syntax_yaml_key_twice", Format::Yaml, || {
        r#"plugins:
  - name: a
    transport: http
    endpoint: http://h
    transport: unix
"#
        .to_owned()
    }),
    ("syntax_yaml_tab", Format::Yaml, || {
        r#"plugins:
	- name: a
"#
        .to_owned()
    }),
    ("syntax_yaml_indentation", Format::Yaml, || {
        r#"plugins:
  - name: a
   transport: http
"#
        .to_owned()
    }),
    ("syntax_yaml_tag", Format::Yaml, || {
        r#"plugins:
  - name: a
    auth: { method: bearer, token: !hunter2 }
"#
        .to_owned()
    }),
    ("syntax_yaml_unknown_alias", Format::Yaml, || {
        r#"plugins: *nobody
"#
        .to_owned()
    }),
    ("syntax_yaml_two_documents", Format::Yaml, || {
        r#"allow_empty: true
---
allow_empty: true
"#
        .to_owned()
    }),
    ("syntax_yaml_list", Format::Yaml, || {
        r#"- name: a
"#
        .to_owned()
    }),
    ("syntax_yaml_null", Format::Yaml, || {
        r#"# nothing but a comment
"#
        .to_owned()
    }),
    ("syntax_empty", Format::Yaml, || r#""#.to_owned()),
    ("syntax_toml_truncated", Format::Toml, || {
        r#"[[plugins]]
name = "a"
auth = { method = "bearer", token = "hunter2
"#
        .to_owned()
    }),
    ("syntax_toml_key_twice", Format::Toml, || {
        r#"[[plugins]]
name = "a"
transport = "http"
name = "b"
"#
        .to_owned()
    }),
    ("syntax_toml_bare_value", Format::Toml, || {
        r#"[[plugins]]
name = a
"#
        .to_owned()
    }),
    ("syntax_toml_date", Format::Toml, || {
        r#"allow_empty = 2026-11-24
"#
        .to_owned()
    }),
    ("syntax_json_too_deep", Format::Json, || "[".repeat(10_000)),
    ("syntax_yaml_too_deep", Format::Yaml, || "[".repeat(10_000)),
    ("syntax_toml_too_deep", Format::Toml, || {
        format!("a = {}", "[".repeat(10_000))
    }),
    ("syntax_yaml_alias_bomb", Format::Yaml, || {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let list = format!("*a{}, ", i - 1).repeat(10);
            bomb += &format!("a{i}: &a{i} [{list}]\n");
        }
        bomb
    }),
    ("auth_token_of_a_megabyte", Format::Yaml, || {
        let token = "hunter2".repeat(150_000);
        format!(
            "plugins:\n  - name: a\n    transport: http\n    endpoint: http://h\n    auth: {{ method: bearer, token: {token} }}\n"
        )
    }),
];
