use super::{Block, ENABLED, Kind, key};

pub(in super::super) static HEALTH_CHECK: Block = Block {
    name: "health_check",
    about: "Off unless the block is there, here or as `default_health_check`: a check is traffic that a plugin has to know \
            an answer to. Each endpoint is asked how it is, beside the calls; one that fails is left out, as one that \
            `outlier_detection` ejects. A check takes the endpoint's connections and `auth`, and no part in limits, \
            breakers and retries.",
    keys: &[
        ENABLED,
        key(
            "kind",
            Kind::Word(&["http", "grpc", "grpc-watch", "tcp", "process"]),
            "`http`; `grpc` with `transport: grpc`, `grpc-tls` or `subprocess`; `process` with `exec-json`",
            r#""grpc""#,
            "what is asked: `http`, a GET; `grpc`, `grpc.health.v1.Health/Check`; `grpc-watch`, its `Watch`, which tells at once; `tcp`, whether a connection can be opened; `process`, whether the process lives, which is started if need be: with `subprocess`, and with `exec-json`, where it is the only one",
        ),
        key(
            "endpoint",
            Kind::Text,
            "/health",
            r#""/healthz""#,
            "the path that is asked for, after that of the endpoint's own address; refused with another kind than `http`",
        ),
        key(
            "statuses",
            Kind::Statuses(200, 599),
            r#"["200-299"]"#,
            r#"[200, "401-403"]"#,
            "the statuses that are well, from 200 to 599: numbers, and ranges as text; refused with another kind than `http`",
        ),
        key(
            "service",
            Kind::Text,
            "",
            r#""search.v1.Search""#,
            "the gRPC service that is asked about, by default the server as a whole, and with `subprocess` `plugin`, which go-plugin answers for: one that has no health service is taken for well there, as it answers; refused without a `grpc` kind",
        ),
        key(
            "interval",
            Kind::Timeout,
            "30s",
            r#""10s""#,
            "from the end of a check to the next; with `grpc-watch`, from a stream's end to the next, and how long a stream may be silent until a `Check` asks whether anybody is there",
        ),
        key(
            "unhealthy_interval",
            Kind::Timeout,
            "`interval`",
            r#""2s""#,
            "the same, after a check that failed: shorter, an endpoint that comes back is soon seen",
        ),
        key(
            "jitter",
            Kind::Number(0.0, 1.0),
            "0.1",
            "0.5",
            "up to this share is added to each interval at random, and the first check begins within it: many programs do not ask at one moment",
        ),
        key(
            "timeout",
            Kind::Timeout,
            "5s, or `interval` if that is shorter",
            r#""1s""#,
            "a check without an answer by then has failed; at most `interval`",
        ),
        key(
            "failure_limit",
            Kind::Integer(1, 1_000),
            "3",
            "2",
            "failures in a row that take an endpoint out; before that it is `degraded`. The first check of all decides by itself",
        ),
        key(
            "healthy_threshold",
            Kind::Integer(1, 1_000),
            "1",
            "2",
            "successes in a row that bring it back",
        ),
        key(
            "degraded_after",
            Kind::TimeoutOrOff,
            "off",
            r#""500ms""#,
            "an endpoint whose answer takes longer is `degraded`: said, and no more; shorter than `timeout`",
        ),
    ],
    gone: &[
        ("path", "is `endpoint` here: rename it"),
        ("method", "is not read: a check is a GET; remove it"),
        ("success_codes", "is `statuses` here: rename it"),
        ("unhealthy_threshold", "is `failure_limit` here: rename it"),
    ],
};
