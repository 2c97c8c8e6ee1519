use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderMap;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tower_plugins::Reason;

use super::authorize::sent;
use super::stage::Stage;

const SECRET: &str = "a secret of more than thirty-two bytes";

/// A token of ann's that is good for ten minutes, with changes; `null` takes a claim away.
fn token(header: &Header, key: &EncodingKey, changes: &Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut claims = json!({ "sub": "ann", "exp": now.as_secs() + 600 });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
        .as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    format!(
        "Bearer {}",
        jsonwebtoken::encode(header, &claims, key).unwrap()
    )
}

pub(super) fn hs256(changes: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    token(&Header::new(Algorithm::HS256), &key, changes)
}

/// A token of an elliptic curve's key.
fn es256(key: &KeyPair, kid: Option<&str>) -> String {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = kid.map(str::to_owned);
    token(
        &header,
        &EncodingKey::from_ec_der(&key.serialize_der()),
        &json!({}),
    )
}

async fn stage(keys: &str) -> Stage {
    Stage::of(&format!("authorize: {{ jwt: {{ {keys} }} }}")).await
}

/// Takes what is signed with the secret.
async fn by_secret(keys: &str) -> Stage {
    stage(&format!("secret: {SECRET}, algorithms: [HS256], {keys}")).await
}

/// How calls that show these tokens end.
async fn ends<const N: usize>(stage: &Stage, tokens: [String; N]) -> [Option<Reason>; N] {
    let mut ends = [None; N];
    for (end, token) in ends.iter_mut().zip(tokens) {
        *end = sent(stage, "authorization", &token).await.err();
    }
    ends
}

const UNKNOWN: Option<Reason> = Some(Reason::Unauthenticated);
const FORBIDDEN: Option<Reason> = Some(Reason::Forbidden);

#[tokio::test]
async fn secret_is_what_tokens_are_signed_with_and_they_go_no_further() {
    let stage = by_secret("").await;
    let good = hs256(&json!({}));
    assert_eq!(
        sent(&stage, "authorization", &good).await,
        Ok(HeaderMap::new())
    );
    let other = EncodingKey::from_secret(b"another secret, of the same length or so");
    let other = token(&Header::new(Algorithm::HS256), &other, &json!({}));
    assert_eq!(
        ends(&stage, [other, "Bearer x".to_owned()]).await,
        [UNKNOWN; 2]
    );
    assert_eq!(stage.refusal().await, UNKNOWN);
}

#[tokio::test]
async fn key_file_is_the_public_key_of_those_who_sign() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("issuer.pem");
    let [ours, other] = [(); 2].map(|()| KeyPair::generate().unwrap());
    std::fs::write(&path, ours.public_key_pem()).unwrap();
    let stage = stage(&format!(
        "key_file: {}, algorithms: [ES256]",
        path.display()
    ))
    .await;
    let tokens = [
        es256(&ours, None),
        es256(&ours, Some("any")),
        es256(&other, None),
    ];
    assert_eq!(ends(&stage, tokens).await, [None, None, UNKNOWN]);
}

/// A set with the public half of each key, under its name.
fn write_set(path: &Path, keys: &[(&str, &KeyPair)]) {
    let keys = keys.iter().map(|(kid, key)| {
        // An uncompressed point: a byte that says so, and two coordinates.
        let point = key.public_key_raw();
        let [x, y] = [1..33, 33..65].map(|range| BASE64_URL_SAFE_NO_PAD.encode(&point[range]));
        json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y })
    });
    let set = json!({ "keys": keys.collect::<Vec<_>>() });
    std::fs::write(path, set.to_string()).unwrap();
}

#[tokio::test]
async fn jwks_file_is_a_set_of_keys_and_a_reload_takes_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("issuer.json");
    let [old, new] = [(); 2].map(|()| KeyPair::generate().unwrap());
    let config = dir.path().join("plugins.yaml");
    let text = format!(
        "plugins: {{ p: {{ transport: in-process, endpoint: one, authorize: {{ jwt: {{ jwks_file: {} }} }} }} }}",
        path.display()
    );
    std::fs::write(&config, text).unwrap();
    let read = || tower_plugins::config::Config::from_file(&config).unwrap();
    write_set(&path, &[("old", &old)]);
    let stage = Stage::start_with(read()).await;
    let tokens = || {
        [
            es256(&old, Some("old")),
            es256(&old, Some("new")),
            es256(&new, Some("new")),
        ]
    };
    assert_eq!(ends(&stage, tokens()).await, [None, UNKNOWN, UNKNOWN]);
    write_set(&path, &[("old", &old), ("new", &new)]);
    stage.plugins.reload(read()).await.unwrap();
    assert_eq!(ends(&stage, tokens()).await, [None, UNKNOWN, None]);
}

#[tokio::test]
async fn algorithms_are_those_that_a_token_may_be_signed_with() {
    let secret = format!("{SECRET}, and some more of it so that it is of sixty-four");
    let key = EncodingKey::from_secret(secret.as_bytes());
    let tokens = || {
        [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512]
            .map(|algorithm| token(&Header::new(algorithm), &key, &json!({})))
    };
    for (algorithms, wanted) in [
        ("[HS256]", [None, UNKNOWN, UNKNOWN]),
        ("[HS512, HS384]", [UNKNOWN, None, None]),
    ] {
        let keys = format!("secret: '{secret}', algorithms: {algorithms}");
        assert_eq!(ends(&stage(&keys).await, tokens()).await, wanted);
    }
}

#[tokio::test]
async fn issuers_are_those_whose_tokens_are_taken() {
    let stage = by_secret("issuers: [one, two]").await;
    let tokens = [json!("one"), json!("two"), json!("three"), Value::Null]
        .map(|issuer| hs256(&json!({ "iss": issuer })));
    assert_eq!(ends(&stage, tokens).await, [None, None, UNKNOWN, UNKNOWN]);
}

#[tokio::test]
async fn audiences_are_those_whom_a_token_may_be_meant_for() {
    let tokens = || {
        [
            json!("one"),
            json!(["two", "three"]),
            json!("three"),
            Value::Null,
        ]
        .map(|audience| hs256(&json!({ "aud": audience })))
    };
    let named = by_secret("audiences: [one, two]").await;
    assert_eq!(ends(&named, tokens()).await, [None, None, UNKNOWN, UNKNOWN]);
    let nobody = by_secret("").await;
    assert_eq!(
        ends(&nobody, tokens()).await,
        [UNKNOWN, UNKNOWN, UNKNOWN, None]
    );
}

#[tokio::test]
async fn leeway_is_how_far_the_clocks_may_be_apart() {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let tokens = || [20, 200, 2_000].map(|ago| hs256(&json!({ "exp": now - ago })));
    for (leeway, wanted) in [
        ("", [None, UNKNOWN, UNKNOWN]),
        ("leeway: 0s", [UNKNOWN; 3]),
        ("leeway: 10m", [None, None, UNKNOWN]),
    ] {
        assert_eq!(
            ends(&by_secret(leeway).await, tokens()).await,
            wanted,
            "{leeway}"
        );
    }
}

#[tokio::test]
async fn name_claim_is_what_a_token_must_name_its_caller_in() {
    let tokens = || {
        [
            json!({ "client": "a" }),
            json!({ "sub": null, "client": "a" }),
            json!({}),
        ]
        .map(|claims| hs256(&claims))
    };
    let usual = by_secret("").await;
    assert_eq!(ends(&usual, tokens()).await, [None, UNKNOWN, None]);
    let own = by_secret("name_claim: client").await;
    assert_eq!(ends(&own, tokens()).await, [None, None, UNKNOWN]);
}

#[tokio::test]
async fn scope_claim_is_where_scopes_are_looked_for() {
    let tokens =
        || [json!({ "scope": "read" }), json!({ "scp": ["read"] })].map(|claims| hs256(&claims));
    let usual = by_secret("required_scopes: [read]").await;
    assert_eq!(ends(&usual, tokens()).await, [None, FORBIDDEN]);
    let own = by_secret("required_scopes: [read], scope_claim: scp").await;
    assert_eq!(ends(&own, tokens()).await, [FORBIDDEN, None]);
}

#[tokio::test]
async fn required_scopes_are_what_a_token_must_grant_and_nobody_else() {
    let stage = Stage::of(&format!(
        "authorize: {{ api_keys: {{ a: k }}, bearer_tokens: {{ b: t }},
            jwt: {{ secret: {SECRET}, algorithms: [HS256], required_scopes: [read, write] }} }}"
    ))
    .await;
    let tokens = ["read", "write more read"].map(|scope| hs256(&json!({ "scope": scope })));
    assert_eq!(ends(&stage, tokens).await, [FORBIDDEN, None]);
    sent(&stage, "x-api-key", "k").await.unwrap();
    sent(&stage, "authorization", "Bearer t").await.unwrap();
}

#[tokio::test]
async fn required_claims_are_what_a_token_must_say() {
    let stage = by_secret("required_claims: { team: search }").await;
    let tokens = [
        json!("search"),
        json!(["a", "search"]),
        json!("a"),
        Value::Null,
    ]
    .map(|team| hs256(&json!({ "team": team })));
    assert_eq!(
        ends(&stage, tokens).await,
        [None, None, FORBIDDEN, FORBIDDEN]
    );
}

#[tokio::test]
async fn a_required_claim_is_a_text_a_number_or_a_boolean() {
    for (wanted, good, bad) in [
        (
            "true",
            [json!(true), json!([false, true])],
            [json!("true"), json!(false)],
        ),
        ("2", [json!(2), json!(2.0)], [json!("2"), json!(3)]),
        (
            "2.5",
            [json!(2.5), json!([1, 2.5])],
            [json!("2.5"), json!(2)],
        ),
        ("-7", [json!(-7), json!(-7.0)], [json!(7), json!("-7")]),
        ("'2'", [json!("2"), json!(["2"])], [json!(2), json!([2])]),
    ] {
        let stage = by_secret(&format!("required_claims: {{ level: {wanted} }}")).await;
        let tokens = |claims: [Value; 2]| claims.map(|claim| hs256(&json!({ "level": claim })));
        assert_eq!(ends(&stage, tokens(good)).await, [None, None], "{wanted}");
        assert_eq!(ends(&stage, tokens(bad)).await, [FORBIDDEN; 2], "{wanted}");
    }
}
