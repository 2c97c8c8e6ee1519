use super::{Block, ENABLED, Kind, gone, key};

pub(in super::super) static AUTH: Block = Block {
    name: "auth",
    about: "What is sent with each attempt. Keys of another method than the one given are refused. \
            What is sent must fit a header: no line break, at most 8 KiB.",
    keys: &[
        key(
            "method",
            Kind::Word(&[
                "none", "api-key", "api_key", "bearer", "basic", "mtls", "custom",
            ]),
            "required",
            r#""bearer""#,
            "`none`, `api-key` (or `api_key`), `bearer`, `basic`, `custom`, or `mtls`, which shows the endpoint a certificate and takes `transport: https` or `grpc-tls`",
        ),
        key(
            "api_key",
            Kind::Secret,
            "required for `api-key`",
            r#""file:/run/secrets/key""#,
            "the key",
        ),
        key(
            "header",
            Kind::Text,
            "x-api-key",
            r#""x-search-key""#,
            "for `api-key`: the header that carries it",
        ),
        key(
            "token",
            Kind::Secret,
            "required for `bearer`",
            r#""${SEARCH_TOKEN}""#,
            "the token",
        ),
        key(
            "username",
            Kind::Text,
            "required for `basic`",
            r#""reader""#,
            "the user, without a colon (RFC 7617)",
        ),
        key(
            "password",
            Kind::Secret,
            "required for `basic`",
            r#""file:/run/secrets/password""#,
            "the password",
        ),
        key(
            "headers",
            Kind::Headers,
            "required for `custom`",
            r#"{ "x-tenant": "blue" }"#,
            "a table from header to value. Headers that frame a message (`content-length`, `transfer-encoding`, `host`, …) are refused",
        ),
        key(
            "cert_file",
            Kind::File,
            "required for `mtls`",
            r#""/etc/plugins/client.pem""#,
            "for `mtls`: as `tls.cert_file`",
        ),
        key(
            "key_file",
            Kind::File,
            "required for `mtls`",
            r#""/etc/plugins/client.key""#,
            "for `mtls`: as `tls.key_file`",
        ),
        key(
            "ca_file",
            Kind::File,
            "the system's roots",
            r#""/etc/plugins/ca.pem""#,
            "for `mtls`: as `tls.ca_file`",
        ),
    ],
    gone: gone::AUTH,
};

pub(in super::super) static AUTHORIZE: Block = Block {
    name: "authorize",
    about: "Who may call. A call that shows none of these is refused as `unauthenticated`; what was shown \
            is taken off the request before it goes on, so that a caller's secret never reaches the plugin. \
            A header that is there twice is refused.",
    keys: &[
        key(
            "api_keys",
            Kind::Headers,
            "none",
            r#"{ "billing": "file:/run/secrets/billing" }"#,
            "a table from a caller's name to its key. At least one caller must be named, here or in `bearer_tokens`: a block that names nobody is refused",
        ),
        key(
            "api_key_header",
            Kind::Text,
            "x-api-key",
            r#""x-caller-key""#,
            "the header in which keys are looked for",
        ),
        key(
            "bearer_tokens",
            Kind::Headers,
            "none",
            r#"{ "ci": "${CI_TOKEN}" }"#,
            "a table from a caller's name to the token that it shows as `authorization: Bearer`",
        ),
    ],
    gone: &[],
};

pub(in super::super) static FILTER: Block = Block {
    name: "filter",
    about: "A service of the program that is asked about each call, after the caller was let in and before a \
            limit counts the call. It gets the method, the path and `headers`, and no body. A 2xx lets the call \
            go on; a 5xx is a failure of the filter; another status is the call's answer. What it takes counts \
            toward the call's time.",
    keys: &[
        key(
            "service",
            Kind::Text,
            "required",
            r#""gatekeeper""#,
            "the name under which the program registered it (`Plugins::builder().service(name, …)`)",
        ),
        key(
            "headers",
            Kind::Texts,
            "[]",
            r#"["cookie"]"#,
            "the headers of the request that it sees",
        ),
        key(
            "copy_headers",
            Kind::Texts,
            "[]",
            r#"["x-user"]"#,
            "the headers of its answer that go on with the request; the caller's own of these names are taken off",
        ),
        key(
            "timeout",
            Kind::Timeout,
            "1s",
            r#""200ms""#,
            "how long it has to the head of its answer",
        ),
        key(
            "fail_open",
            Kind::Bool,
            "false",
            "true",
            "whether a call goes on when the filter fails or is too slow; without it the call is refused as `filter_failed`",
        ),
    ],
    gone: &[],
};

pub(in super::super) static FALLBACK: Block = Block {
    name: "fallback",
    about: "A fixed answer, or another service's, where a call ends for one of some reasons. It has the header `x-fallback` with the \
            reason, and is counted. Once the head of a response came there is none, nor for a caller that \
            went away.",
    keys: &[
        key(
            "on",
            Kind::Texts,
            "see `docs/layers.md`",
            r#"["breaker_open", "deadline_exceeded"]"#,
            "the reasons that call for it. By default those that say that the plugin cannot answer now: `concurrency_limited`, `breaker_open`, `no_endpoint`, `deadline_exceeded`, `attempt_timeout`, `connect_failed`, `pool_exhausted`, `connection_lost`, `panicked` and `shed`",
        ),
        key(
            "service",
            Kind::Text,
            "none",
            r#""cache""#,
            "the name under which the program registered a service that is asked instead of a fixed answer; it has a second to the head of its response, and if it fails the call ends as it would have. It gets the request's head, and its body if that is no larger than `retry.max_replay_bytes` (64 KiB where retry is off)",
        ),
        key(
            "status",
            Kind::Integer(200, 599),
            "200",
            "503",
            "the status of the answer",
        ),
        key(
            "body",
            Kind::Text,
            "",
            r#""[]""#,
            "its body, at most 64 KiB; empty unless it is given",
        ),
        key(
            "content_type",
            Kind::Text,
            "text/plain; charset=utf-8",
            r#""application/json""#,
            "its `content-type`",
        ),
    ],
    gone: &[],
};

pub(in super::super) static CIRCUIT_BREAKER: Block = Block {
    name: "circuit_breaker",
    about: "One per endpoint. On by default.",
    keys: &[
        ENABLED,
        key(
            "failure_threshold",
            Kind::Integer(0, 1_000_000),
            "5",
            "10",
            "consecutive failures that open it; `0` is off, and then `failure_rate` or `slow_call_duration` must be set",
        ),
        key(
            "failure_rate",
            Kind::Number(0.0, 1.0),
            "0",
            "0.5",
            "the share of failures within `window` that opens it; `0` is off",
        ),
        key(
            "failure_statuses",
            Kind::Statuses(400, 655),
            "",
            r#"[500, "502-504"]"#,
            "the statuses that are failures, from 400 to 655: numbers, and ranges as text. By default 500 to 599 but 501 and 505, which are about the request. A 5xx that is not among them is a success",
        ),
        key(
            "failure_grpc_codes",
            Kind::Texts,
            "",
            r#"["unavailable", "internal"]"#,
            "the gRPC codes that are failures. By default `unknown`, `deadline-exceeded`, `internal`, `unavailable` and `data-loss`",
        ),
        key(
            "slow_call_duration",
            Kind::TimeoutOrOff,
            "off",
            r#""2s""#,
            "a call that takes longer is slow, whatever comes of it: to the end of its body, and of a stream to its head",
        ),
        key(
            "slow_call_rate",
            Kind::Number(0.0, 1.0),
            "1.0",
            "0.5",
            "the share of slow calls within `window` that opens it, above 0; refused without `slow_call_duration`",
        ),
        key(
            "window",
            Kind::Timeout,
            "10s",
            r#""30s""#,
            "the time over which `failure_rate` and `slow_call_rate` are taken; refused without `failure_rate` and `slow_call_duration`",
        ),
        key(
            "window_calls",
            Kind::Integer(0, 65_536),
            "0",
            "100",
            "in place of `window`, and refused beside it: the rates are those of so many calls that ended last, whenever that was; `0` is off",
        ),
        key(
            "min_request_threshold",
            Kind::Integer(1, 1_000_000),
            "20",
            "50",
            "calls within the window before a rate is judged, or a window of fewer calls is full: one failure of two calls is no rate; refused without `failure_rate` and `slow_call_duration`",
        ),
        key(
            "recovery_timeout",
            Kind::Timeout,
            "30s",
            r#""5s""#,
            "how long it stays open before it lets probes through",
        ),
        key(
            "max_recovery_timeout",
            Kind::Timeout,
            "`recovery_timeout`",
            r#""2m""#,
            "the open time doubles with each failed probe up to this; by default it stays the same",
        ),
        key(
            "recovery_jitter",
            Kind::Number(0.0, 1.0),
            "0",
            "0.5",
            "up to this share of the open time is added at random, so that many programs do not probe at one moment",
        ),
        key(
            "success_threshold",
            Kind::Integer(1, 1_000),
            "2",
            "1",
            "successes that close it, and the probes admitted at once meanwhile",
        ),
    ],
    gone: gone::CIRCUIT_BREAKER,
};

pub(in super::super) static CONNECTION: Block = Block {
    name: "connection",
    about: "For an `in-process` plugin only `request_timeout`, `timeout_header` and `stream_idle_timeout` \
            mean something; the others are refused.",
    keys: &[
        key(
            "protocol",
            Kind::Word(&["http1", "http2"]),
            "http1",
            r#""http2""#,
            "`http1`, or `http2`: over TLS each is what is asked for by ALPN, without TLS there is no negotiation. gRPC is `http2` always",
        ),
        key(
            "max_connections",
            Kind::Integer(1, 100_000),
            "100",
            "10",
            "open at once to an endpoint; refused with `protocol: http2`, which keeps one connection per endpoint",
        ),
        key(
            "max_idle_connections",
            Kind::Integer(0, 100_000),
            "32",
            "4",
            "kept open without a call; no more than `max_connections`, to which the default gives way; refused with `protocol: http2`, and with `keep_alive: false`",
        ),
        key(
            "idle_timeout",
            Kind::Timeout,
            "30s",
            r#""10s""#,
            "how long they are kept; below the 60 s and more after which servers and firewalls drop them; refused where none is kept",
        ),
        key(
            "connection_timeout",
            Kind::Timeout,
            "10s",
            r#""1s""#,
            "how long connecting may take, with TLS its handshake; and how long a call may wait for one of `max_connections`",
        ),
        key(
            "request_timeout",
            Kind::TimeoutOrOff,
            "30s",
            r#""2s""#,
            "the time of a whole call, waits and retries included; `off` or `0s` is no limit",
        ),
        key(
            "timeout_header",
            Kind::Text,
            "`off`",
            r#""x-request-timeout""#,
            "a header in which callers say how long they wait, which can shorten `request_timeout`, and in which each attempt tells the endpoint what is left: `250ms`, `1.5s`, or a number of seconds, or of milliseconds if the name ends in `-ms`. gRPC has `grpc-timeout`, always",
        ),
        key(
            "stream_idle_timeout",
            Kind::TimeoutOrOff,
            "off",
            r#""60s""#,
            "how long a streamed response may be silent",
        ),
        key(
            "keep_alive",
            Kind::Bool,
            "true",
            "false",
            "whether a connection serves more than one call",
        ),
        key(
            "max_response_head",
            Kind::Size(8 << 10, 16 << 20),
            "64KiB",
            r#""128KiB""#,
            "the largest response head",
        ),
        key(
            "max_response_body",
            Kind::SizeOrOff(0, u64::MAX >> 1),
            "off",
            r#""10MiB""#,
            "the largest response body",
        ),
    ],
    gone: gone::CONNECTION,
};

pub(in super::super) static RATE_LIMIT: Block = Block {
    name: "rate_limit",
    about: "Off unless the block is there, here or as `default_rate_limit`: there is no rate that \
            fits all. A token bucket.",
    keys: &[
        ENABLED,
        key(
            "requests_per_second",
            Kind::Rate(0.000_001, 1e9),
            "required",
            "100",
            "tokens gained in a second; may be a fraction, or a text such as `90/m`",
        ),
        key(
            "burst_size",
            Kind::Integer(1, u32::MAX),
            "one second's tokens",
            "20",
            "the most tokens the bucket holds",
        ),
        key(
            "max_wait",
            Kind::Duration,
            "0s",
            r#""50ms""#,
            "how long a call may wait for a token; `0s` refuses at once",
        ),
        key(
            "key_header",
            Kind::Text,
            "none",
            r#""x-tenant""#,
            "a header: each of its values has a bucket of its own, and calls without it share one. One bucket for all calls without this",
        ),
        key(
            "max_keys",
            Kind::Integer(1, 10_000_000),
            "10000",
            "1000",
            "the most buckets, some 200 bytes each; for one more a bucket is dropped that is full again, or nearest to it. Refused without `key_header`",
        ),
        key(
            "headers",
            Kind::Bool,
            "false",
            "true",
            "whether responses have the headers `RateLimit-Policy` and `RateLimit`",
        ),
    ],
    gone: gone::RATE_LIMIT,
};

pub(in super::super) static CONCURRENCY: Block = Block {
    name: "concurrency",
    about: "Off unless the block is there, here or as `default_concurrency`. A bulkhead.",
    keys: &[
        ENABLED,
        key(
            "max_concurrent",
            Kind::Integer(1, 1_000_000),
            "required",
            "64",
            "calls under way at once",
        ),
        key(
            "max_queued",
            Kind::Integer(0, 1_000_000),
            "0",
            "16",
            "calls that may wait for a place. Waiting takes both this and `max_wait`; one without the other is refused",
        ),
        key(
            "max_wait",
            Kind::Duration,
            "0s",
            r#""100ms""#,
            "how long a call may wait for a place",
        ),
        key(
            "adaptive",
            Kind::Word(&["off", "gradient", "aimd"]),
            "off",
            r#""gradient""#,
            "whether the limit finds its own size, from 1 to `max_concurrent`, beginning at 20: `gradient` by how much longer calls take than they did, `aimd` by calls that fail",
        ),
        key(
            "priority_header",
            Kind::Text,
            "none",
            r#""x-priority""#,
            "a header that has a call's priority: `critical`, `normal`, `sheddable` or `bulk`. The last two get 80 % and 50 % of the places and of the queue",
        ),
    ],
    gone: &[],
};

pub(in super::super) static LOAD_BALANCING: Block = Block {
    name: "load_balancing",
    about: "Which endpoint an attempt goes to. Endpoints of the same priority are a level, and of these the ones in \
            `zone` come first; a level that loses endpoints spills into the next. A strategy picks in the level.",
    keys: &[
        key(
            "strategy",
            Kind::Word(&[
                "peak-ewma",
                "round-robin",
                "weighted-round-robin",
                "random",
                "weighted-random",
                "least-request",
                "least-connections",
                "least-latency",
                "ring-hash",
                "maglev",
                "consistent-hash",
            ]),
            "peak-ewma",
            r#""round-robin""#,
            "`peak-ewma`: of two endpoints drawn at random, the one with the lower expected latency, which steers around a slow one without a setting. `round-robin`: each in turn. `random`. `weighted-round-robin`, `weighted-random`: the same by weight. `least-request`: of two drawn at random, the one with fewer calls under way. `least-connections`, `least-latency`: the least of all. `ring-hash` (or `consistent-hash`), `maglev`: calls with the same key to the same endpoint",
        ),
        key(
            "hash_on",
            Kind::Text,
            "required with `ring-hash` and `maglev`",
            r#""header:x-user""#,
            "where the key of a call is: `header:NAME` or `cookie:NAME`. A call without it goes anywhere",
        ),
        key(
            "load_factor",
            Kind::Number(0.0, 1_000.0),
            "1.25",
            "2",
            "with `ring-hash` and `maglev`: an endpoint with more than so many times the mean of calls under way is passed over; 1 or more, 0 for no bound",
        ),
        key(
            "least_request_bias",
            Kind::Number(0.0, 10.0),
            "1.0",
            "2",
            "with `least-request`, where weights differ: how much calls under way count beside weights",
        ),
        key(
            "panic_threshold",
            Kind::Number(0.0, 1.0),
            "0.5",
            "0.3",
            "if less than this share of a level's endpoints is left and the other levels cannot make up for it, ejected ones get calls again; a breaker that is open still refuses. 0 is never",
        ),
        key(
            "overprovisioning",
            Kind::Number(1.0, 100.0),
            "1.4",
            "2",
            "how much more than its calls a level can take: at 1.4 it spills into the next when less than 72 % of it is left",
        ),
        key(
            "zone",
            Kind::Text,
            "none",
            r#""eu-1a""#,
            "where this process is: endpoints of other zones get what those of this one cannot take",
        ),
        key(
            "subset",
            Kind::Named,
            "none",
            r#"{ "version": "2" }"#,
            "only endpoints that have these labels",
        ),
        key(
            "subset_on",
            Kind::Named,
            "none",
            r#"{ "version": "header:x-version" }"#,
            "endpoints whose label has the value that the call has there: `header:NAME` or `cookie:NAME`. With several, all must match",
        ),
        key(
            "subset_fallback",
            Kind::Word(&["any", "none"]),
            "any",
            r#""none""#,
            "of a call whose subset has no endpoint, or that does not say which it wants: `any` sends it to any endpoint, `none` refuses it",
        ),
        key(
            "slow_start_window",
            Kind::TimeoutOrOff,
            "off",
            r#""30s""#,
            "for how long an endpoint that is new, or comes back from an open breaker or an ejection, has less than its weight beside the others; not with `ring-hash` and `maglev`, where a key stays where it is",
        ),
        key(
            "slow_start_min_weight",
            Kind::Number(0.001, 1.0),
            "0.1",
            "0.25",
            "with `slow_start_window`: the part of its weight that it has from the beginning",
        ),
        key(
            "slow_start_aggression",
            Kind::Number(0.01, 100.0),
            "1.0",
            "2",
            "with `slow_start_window`: the part of its weight that it has after the time t is `(t / window)^(1 / aggression)`: 1 is evenly, more is faster at first",
        ),
    ],
    gone: gone::LOAD_BALANCING,
};

pub(in super::super) static TLS: Block = Block {
    name: "tls",
    about: "For `transport: https` and `grpc-tls` only. The files are read with the config: a certificate that \
            was replaced is a change of the config, and is taken up like any other.",
    keys: &[
        key(
            "ca_file",
            Kind::File,
            "the system's roots",
            r#""/etc/plugins/ca.pem""#,
            "certificates in PEM that vouch for the endpoints, in the place of the system's",
        ),
        key(
            "server_name",
            Kind::Text,
            "the host of the URL",
            r#""search.internal""#,
            "the name that is asked for, and that the endpoint's certificate must have",
        ),
        key(
            "cert_file",
            Kind::File,
            "none",
            r#""/etc/plugins/client.pem""#,
            "the certificate in PEM that is shown to endpoints that ask for one, with those between it and the root; with `key_file`",
        ),
        key(
            "key_file",
            Kind::File,
            "none",
            r#""/etc/plugins/client.key""#,
            "its private key in PEM: PKCS #8, PKCS #1 or SEC1. Others must not be able to read the file",
        ),
        key(
            "min_version",
            Kind::Word(&["1.2", "1.3"]),
            "1.2",
            r#""1.3""#,
            "the oldest version of TLS that is spoken; earlier ones than 1.2 are broken",
        ),
    ],
    gone: &[],
};
