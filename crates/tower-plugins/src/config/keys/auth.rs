use super::{Block, Kind, gone, key};

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
            "the token; of one in a file, a new one is taken up as soon as it is written there",
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
