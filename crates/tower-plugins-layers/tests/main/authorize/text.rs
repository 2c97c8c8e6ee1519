use http::header::AUTHORIZATION;
use serde_json::{Value, from_value, json};
use tower_plugins_layers::authorize::{AuthorizeLayer, Callers, Principal};

use super::jwt::{SECRET, hs256};
use super::{inside, name_of, showing};

fn callers(text: Value) -> Result<Callers, String> {
    from_value(text).map_err(|error| error.to_string())
}

fn secret() -> &'static str {
    std::str::from_utf8(SECRET).unwrap()
}

#[tokio::test]
async fn callers_are_read_with_their_scopes_and_policies() {
    let layer = AuthorizeLayer::new(
        callers(json!({
            "api_key": { "billing": "k1", "search": { "secret": "k2", "scopes": ["read", "write"] } },
            "api_key_header": "X-Own",
            "bearer": { "ci": "t" },
            "basic": { "ann": "YW5uOnMzY3JldA==" },
            "realm": "here",
            "jwt": {
                "secret": secret(), "algorithms": ["HS256"], "issuer": ["one", "two"],
                "audience": ["us"], "leeway": "5s", "name_claim": "client", "scope_claim": "scp",
                "require_scope": ["read"], "require_claim": { "admin": true },
            },
        }))
        .unwrap(),
    );
    let own = http::HeaderName::from_static("x-own");
    for (header, value, name) in [
        (own.clone(), "k1", "billing"),
        (own.clone(), "k2", "search"),
        (AUTHORIZATION, "Bearer t", "ci"),
        (AUTHORIZATION, "Basic YW5uOnMzY3JldA==", "ann"),
    ] {
        let known = name_of(&layer, showing([(header, value)])).await.unwrap();
        assert_eq!(known, name);
    }
    let (_, extensions) = inside(&layer, showing([(own, "k2")])).await.unwrap();
    let principal = extensions.get::<Principal>().unwrap();
    assert_eq!(principal.scopes().collect::<Vec<_>>(), ["read", "write"]);

    let good = json!({ "iss": "two", "aud": "us", "client": "eve", "scp": "read", "admin": true });
    assert_eq!(name_of(&layer, hs256(good.clone())).await.unwrap(), "eve");
    for (claim, wrong) in [
        ("iss", json!("three")),
        ("aud", json!("them")),
        ("client", Value::Null),
        ("scp", json!("write")),
        ("admin", json!("true")),
    ] {
        let mut claims = good.clone();
        claims[claim] = wrong;
        assert!(inside(&layer, hs256(claims)).await.is_err(), "{claim}");
    }
}

#[test]
fn what_makes_no_sense_of_callers_is_refused_and_no_secret_is_repeated() {
    let jwt = |jwt: Value| json!({ "jwt": jwt });
    for (text, says) in [
        (json!({}), "nobody is known"),
        (json!({ "keys": { "a": "hunter2" } }), "unknown field"),
        (
            json!({ "api_key": "hunter2" }),
            "a table from callers' names",
        ),
        (
            json!({ "api_key": { "a": "hunter2", "b": "hunter2" } }),
            "`a` and `b` have one secret",
        ),
        (
            json!({ "bearer": { "a": "" } }),
            "the secret of `a` is empty",
        ),
        (
            json!({ "bearer": { "a": { "secret": "hunter2", "scope": "x" } } }),
            "callers' names",
        ),
        (
            json!({ "api_key": { "a": "hunter2" }, "api_key_header": "a b" }),
            "name of a header",
        ),
        (jwt(json!({})), "one of `secret`, `pem` and `jwks`"),
        (jwt(json!({ "secret": "hunter2" })), "must name those"),
        (
            jwt(json!({ "secret": "hunter2", "algorithms": ["HS256"] })),
            "32 bytes",
        ),
        (
            jwt(json!({ "secret": secret(), "algorithms": ["none"] })),
            "unknown variant",
        ),
        (
            jwt(json!({ "secret": secret(), "algorithms": ["RS256"] })),
            "takes a public key",
        ),
        (
            jwt(json!({ "pem": "hunter2", "algorithms": ["EdDSA"] })),
            "no public key",
        ),
        (jwt(json!({ "jwks": "hunter2" })), "no JSON Web Key Set"),
        (jwt(json!({ "secret": ["hunter2"] })), "expected a text"),
    ] {
        let error = callers(text.clone()).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
