use super::{Block, JWT, Kind, key};

pub(in super::super) static AUTHORIZE: Block = Block {
    name: "authorize",
    about: "Who may call. A call that shows none of these is refused as `unauthenticated`; what was shown \
            is taken off the request before it goes on, so that a caller's secret never reaches the plugin, \
            unless `forward_credentials` says otherwise. A header that is there twice is refused.",
    keys: &[
        key(
            "api_keys",
            Kind::Headers,
            "none",
            r#"{ "billing": "file:/run/secrets/billing" }"#,
            "a table from a caller's name to its key. At least one caller must be named here or in `bearer_tokens`, or `jwt` be there: a block that names nobody is refused",
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
        key(
            "jwt",
            Kind::Block(&JWT),
            "none",
            r#"{ "jwks_file": "/etc/plugins/issuer.json", "issuers": ["https://issuer.example"] }"#,
            "tokens that somebody else signed, shown as `authorization: Bearer`; needs the feature `jwt`",
        ),
        key(
            "anonymous",
            Kind::Bool,
            "false",
            "true",
            "whether a call goes on that shows nothing at all; one that shows something must show something good. For plugins that tell the two apart: it sees who was known by nothing but what a layer of the program adds",
        ),
        key(
            "forward_credentials",
            Kind::Bool,
            "false",
            "true",
            "whether what was shown goes on with the request, for a plugin that looks at it too. What `auth` sends takes its place in the same header",
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
            "the reasons that call for it. By default those that say that the plugin cannot answer now: `concurrency_limited`, `breaker_open`, `no_endpoint`, `retry_budget`, `deadline_exceeded`, `attempt_timeout`, `connect_failed`, `pool_exhausted`, `connection_lost`, `panicked` and `shed`",
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
