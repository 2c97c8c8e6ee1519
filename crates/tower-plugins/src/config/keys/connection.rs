use super::{Block, Kind, gone, key};

pub(in super::super) static CONNECTION: Block = Block {
    name: "connection",
    about: "For an `in-process` plugin only `request_timeout`, `timeout_header` and `stream_idle_timeout` \
            mean something; the others are refused. With `unix-json`, `protocol` and `max_response_head` are.",
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
            "the largest response body; with `unix-json` an answer's line, 16MiB unless it is said, and never off",
        ),
    ],
    gone: gone::CONNECTION,
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
