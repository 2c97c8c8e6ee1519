use super::{Block, ENABLED, Kind, gone, key};

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
            "the most tokens the bucket holds; at most what comes back in four and a half years",
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
            "off",
            r#""x-tenant""#,
            "a header: each of its values has a bucket of its own, and calls without it share one. `off` is one bucket for all calls",
        ),
        key(
            "max_keys",
            Kind::Integer(1, 10_000_000),
            "10000",
            "1000",
            "the most buckets, some 250 bytes each; for one more a bucket is dropped that is full again, or nearest to it. Refused without `key_header`, and with `redis`, where a full bucket expires",
        ),
        key(
            "cost_header",
            Kind::Text,
            "off",
            r#""x-cost""#,
            "a header with the tokens that a call takes, a whole number; 1 where it is absent or none. A call that takes more than `burst_size` is always refused. It is the caller's word",
        ),
        key(
            "headers",
            Kind::Bool,
            "false",
            "true",
            "whether responses have the headers `RateLimit-Policy` and `RateLimit`",
        ),
        key(
            "redis",
            Kind::Block(&REDIS),
            "off",
            r#"{ "url": "redis://redis.internal:6379/0" }"#,
            "where the buckets are, if many processes are to share them; needs the feature `redis`",
        ),
    ],
    gone: gone::RATE_LIMIT,
};

pub(in super::super) static REDIS: Block = Block {
    name: "redis",
    about: "In `rate_limit`: a Redis server that keeps the buckets, so that all processes with the same settings together get no \
            more than the rate and the burst. It is connected to at the first call, and again when it went away: a server that is down \
            fails neither start nor reload. `off` is buckets of this process. Needs the feature `redis` of `tower-plugins`.",
    keys: &[
        key(
            "url",
            Kind::Secret,
            "required",
            r#""redis://redis.internal:6379/0""#,
            "where it is: `redis://host:port/database`, with `user:password@` before the host if it asks for them, or `unix:/path/of/socket`. There is no TLS to it",
        ),
        key(
            "prefix",
            Kind::Text,
            "`rate_limit:`, the plugin's name, `:`",
            r#""limits:search:""#,
            "what the keys on the server begin with. Plugins with one prefix draw from the same buckets, and must have the same rate and burst",
        ),
        key(
            "timeout",
            Kind::Timeout,
            "100ms",
            r#""20ms""#,
            "how long a call may wait for its answer, to connect included",
        ),
        key(
            "fail_open",
            Kind::Bool,
            "true",
            "false",
            "whether a call goes on, unlimited, when the server fails or is too slow; without it the call is refused as `filter_failed`. After three failures in a row the server is not asked for a second, and calls go on, or are refused, at once; then one call asks",
        ),
    ],
    gone: &[],
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
            "off",
            r#""x-priority""#,
            "a header that has a call's priority: `critical`, `normal`, `sheddable` or `bulk`; `off` treats all alike. The last two get 80 % and 50 % of the places and of the queue",
        ),
    ],
    gone: &[],
};
