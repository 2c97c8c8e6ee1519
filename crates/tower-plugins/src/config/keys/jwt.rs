use super::{Block, Kind, key};

pub(in super::super) static JWT: Block = Block {
    name: "jwt",
    about: "In `authorize`: callers that show a token which somebody else signed (RFC 7519), beside those of `api_keys` and \
            `bearer_tokens`: any of them lets a caller in. A token must have an `exp`. One that is not good is refused as \
            `unauthenticated`, one that lacks a scope or a claim as `forbidden`. Needs the feature `jwt` of `tower-plugins`.",
    keys: &[
        key(
            "secret",
            Kind::Secret,
            "one of three",
            r#""file:/run/secrets/signing-key""#,
            "what tokens are checked with: a secret that the signer has as well, for HS256, HS384 and HS512; at least 32, 48 or 64 bytes",
        ),
        key(
            "key_file",
            Kind::File,
            "one of three",
            r#""/etc/plugins/issuer.pem""#,
            "or the signer's public key in PEM (`BEGIN PUBLIC KEY`): RSA, an elliptic curve's, or Ed25519",
        ),
        key(
            "jwks_file",
            Kind::File,
            "one of three",
            r#""/etc/plugins/issuer.json""#,
            "or a set of keys in JSON (RFC 7517), found by their `kid`: how keys rotate. As with each file, a change is a reload",
        ),
        key(
            "algorithms",
            Kind::Texts,
            "required with `secret` and `key_file`",
            r#"["RS256"]"#,
            "the algorithms that are taken: `HS256`, `HS384`, `HS512`, `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `EdDSA`. A token does not choose another. With `jwks_file` they narrow down those of its keys",
        ),
        key(
            "issuers",
            Kind::Texts,
            "[]",
            r#"["https://issuer.example"]"#,
            "the `iss` that a token must have, one of these; any if there is none",
        ),
        key(
            "audiences",
            Kind::Texts,
            "[]",
            r#"["search"]"#,
            "the `aud` that a token must have, one of these. If there is none, a token that has one is refused: it is meant for somebody else",
        ),
        key(
            "leeway",
            Kind::Duration,
            "30s",
            r#""5s""#,
            "how far the clocks may be apart, for `exp` and `nbf`; rounded up to whole seconds",
        ),
        key(
            "name_claim",
            Kind::Text,
            "sub",
            r#""client_id""#,
            "the claim with the caller's name, which a token must have",
        ),
        key(
            "scope_claim",
            Kind::Text,
            "scope",
            r#""scp""#,
            "the claim with the caller's scopes: text with spaces between, or a list",
        ),
        key(
            "required_scopes",
            Kind::Texts,
            "[]",
            r#"["search:read"]"#,
            "scopes that a token must grant, all of them",
        ),
        key(
            "required_claims",
            Kind::NamedScalars,
            "none",
            r#"{ "team": "search", "email_verified": true }"#,
            "claims that a token must have with these values, or with lists that have them: texts, numbers, `true` and `false`; what a variable says is text",
        ),
    ],
    gone: &[],
};
