use std::time::{SystemTime, UNIX_EPOCH};

use http::Request;
use http::header::AUTHORIZATION;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value, json};
use tower_plugins_layers::Reason;
use tower_plugins_layers::authorize::{
    Algorithm, AuthorizeLayer, Callers, Denied, JwtKeys, JwtPolicy, Principal,
};

use super::{inside, name_of, showing};
use crate::support::{millis, reason};

// Made for these tests and used nowhere else.
const RSA: &[u8] = include_bytes!("keys/rsa.test-key.der");
const RSA_PUBLIC: &str = include_str!("keys/rsa.pub.pem");
const EC: &[u8] = include_bytes!("keys/ec.test-key.der");
const EC_PUBLIC: &str = include_str!("keys/ec.pub.pem");
const ED: &[u8] = include_bytes!("keys/ed.test-key.der");
const ED_PUBLIC: &str = include_str!("keys/ed.pub.pem");
const SET: &str = include_str!("keys/jwks.json");

pub(super) const SECRET: &[u8] = b"a secret of more than thirty-two bytes";

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Claims that are good, with changes; `null` takes one away.
fn claims(changes: &Value) -> Value {
    let mut claims = json!({ "sub": "ann", "exp": now() + 600 });
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn sign(algorithm: jsonwebtoken::Algorithm, kid: Option<&str>, claims: &Value) -> Request<()> {
    use jsonwebtoken::Algorithm as A;
    let key = match algorithm {
        A::ES256 => EncodingKey::from_ec_der(EC),
        A::EdDSA => EncodingKey::from_ed_der(ED),
        A::HS256 | A::HS384 | A::HS512 => EncodingKey::from_secret(SECRET),
        _ => EncodingKey::from_rsa_der(RSA),
    };
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    bearer(&jsonwebtoken::encode(&header, claims, &key).unwrap())
}

fn bearer(token: &str) -> Request<()> {
    showing([(AUTHORIZATION, format!("Bearer {token}").as_str())])
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is made where it is passed"
)]
pub(super) fn hs256(changes: Value) -> Request<()> {
    sign(jsonwebtoken::Algorithm::HS256, None, &claims(&changes))
}

fn takes(policy: JwtPolicy) -> AuthorizeLayer {
    AuthorizeLayer::new(Callers::new().jwt(policy))
}

fn secret() -> JwtPolicy {
    JwtPolicy::new(JwtKeys::hmac(Algorithm::Hs256, SECRET).unwrap())
}

#[tokio::test]
async fn a_good_token_names_its_caller_and_its_claims_go_in() {
    let token = hs256(json!({ "scope": "read write", "team": "search" }));
    let (headers, extensions) = inside(&takes(secret()), token).await.unwrap();
    let principal = extensions.get::<Principal>().unwrap();
    assert_eq!(principal.name(), "ann");
    assert_eq!(principal.scopes().collect::<Vec<_>>(), ["read", "write"]);
    assert_eq!(principal.claims()["team"], "search");
    assert!(!headers.contains_key(AUTHORIZATION));
    assert!(!format!("{principal:?}").contains("team"));
}

#[tokio::test]
async fn each_kind_of_key_checks_its_own_algorithm() {
    use jsonwebtoken::Algorithm as A;
    for (algorithm, theirs, pem) in [
        (Algorithm::Rs256, A::RS256, RSA_PUBLIC),
        (Algorithm::Rs512, A::RS512, RSA_PUBLIC),
        (Algorithm::Ps256, A::PS256, RSA_PUBLIC),
        (Algorithm::Es256, A::ES256, EC_PUBLIC),
        (Algorithm::EdDsa, A::EdDSA, ED_PUBLIC),
    ] {
        let policy = JwtPolicy::new(JwtKeys::pem(algorithm, pem).unwrap());
        let layer = takes(policy);
        let good = sign(theirs, None, &claims(&json!({})));
        assert_eq!(name_of(&layer, good).await.unwrap(), "ann", "{algorithm}");
        for other in [A::HS256, A::RS256, A::RS384, A::PS256, A::ES256, A::EdDSA] {
            if other != theirs {
                let token = sign(other, None, &claims(&json!({})));
                let refused = reason(inside(&layer, token).await);
                assert_eq!(
                    refused,
                    Some(Reason::Unauthenticated),
                    "{other:?} for {algorithm}"
                );
            }
        }
    }
}

/// The attacks of RFC 8725: the token says how it is to be checked.
#[tokio::test]
async fn a_token_does_not_choose_how_it_is_checked() {
    let encode = |value: Value| encode(value.to_string().as_bytes());
    let body = encode(claims(&json!({})));
    let unsigned = [
        format!("{}.{body}.", encode(json!({ "alg": "none" }))),
        format!("{}.{body}.", encode(json!({ "alg": "None", "typ": "JWT" }))),
        format!("{}.{body}.", encode(json!({ "alg": "HS256" }))),
        format!("{}.{body}", encode(json!({ "alg": "HS256" }))),
        format!("{body}.{body}.{body}"),
        "..".to_owned(),
        String::new(),
    ];
    for token in &unsigned {
        let refused = reason(inside(&takes(secret()), bearer(token)).await);
        assert_eq!(refused, Some(Reason::Unauthenticated), "{token}");
    }

    // A public key, which everybody has, as the secret.
    let key = EncodingKey::from_secret(RSA_PUBLIC.as_bytes());
    let header = Header::new(jsonwebtoken::Algorithm::HS256);
    let token = jsonwebtoken::encode(&header, &claims(&json!({})), &key).unwrap();
    let public = takes(JwtPolicy::new(
        JwtKeys::pem(Algorithm::Rs256, RSA_PUBLIC).unwrap(),
    ));
    assert_eq!(
        reason(inside(&public, bearer(&token)).await),
        Some(Reason::Unauthenticated)
    );

    // An extension that must be understood.
    let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
    header.crit = Some(vec!["b64".to_owned()]);
    let key = EncodingKey::from_secret(SECRET);
    let token = jsonwebtoken::encode(&header, &claims(&json!({})), &key).unwrap();
    assert_eq!(
        reason(inside(&takes(secret()), bearer(&token)).await),
        Some(Reason::Unauthenticated)
    );
}

fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let mut bits = 0_u32;
        for n in 0..3 {
            bits = bits << 8 | u32::from(three.get(n).copied().unwrap_or(0));
        }
        for n in 0..=three.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * n) & 63) as usize]));
        }
    }
    text
}

#[tokio::test]
async fn times_issuer_and_audience_are_checked() {
    let policy = secret()
        .issuer("https://issuer")
        .audience("greeter")
        .leeway(millis(4_001));
    let layer = takes(policy);
    let base = json!({ "iss": "https://issuer", "aud": "greeter" });
    let with = |changes: Value| {
        let mut all = base.clone();
        all.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        hs256(all)
    };
    for good in [
        json!({}),
        json!({ "aud": ["other", "greeter"] }),
        json!({ "exp": now() - 2 }),
        json!({ "nbf": now() + 2 }),
    ] {
        assert_eq!(
            name_of(&layer, with(good.clone())).await.unwrap(),
            "ann",
            "{good}"
        );
    }
    for bad in [
        json!({ "exp": now() - 10 }),
        json!({ "exp": null }),
        json!({ "nbf": now() + 60 }),
        json!({ "iss": "https://other" }),
        json!({ "iss": null }),
        json!({ "aud": "other" }),
        json!({ "aud": null }),
        json!({ "sub": null }),
        json!({ "sub": 7 }),
    ] {
        let refused = reason(inside(&layer, with(bad.clone())).await);
        assert_eq!(refused, Some(Reason::Unauthenticated), "{bad}");
    }
    // One that is meant for somebody is not taken by whoever has said nothing.
    let refused = inside(&takes(secret()), hs256(json!({ "aud": "other" }))).await;
    assert_eq!(reason(refused), Some(Reason::Unauthenticated));
}

#[tokio::test]
async fn scopes_and_claims_that_are_missing_forbid() {
    let layer =
        takes(secret().scope_claim("scp").require_claim("groups", "staff")).require_scope("read");
    let token = |groups: Value, scopes: Value| hs256(json!({ "groups": groups, "scp": scopes }));
    let good = token(json!(["other", "staff"]), json!(["write", "read"]));
    assert_eq!(name_of(&layer, good).await.unwrap(), "ann");
    for bad in [
        token(json!(["other"]), json!(["read"])),
        token(json!(null), json!("read")),
        token(json!("staff"), json!("write reader")),
    ] {
        assert_eq!(reason(inside(&layer, bad).await), Some(Reason::Forbidden));
    }
    // A scope that tokens alone must grant.
    let callers = Callers::new()
        .api_key("key", "k")
        .jwt(secret().require_scope("read"));
    let layer = AuthorizeLayer::new(callers);
    let token = |scope: &str| hs256(json!({ "scope": scope }));
    assert_eq!(name_of(&layer, token("write read")).await.unwrap(), "ann");
    let refused = inside(&layer, token("write")).await;
    assert_eq!(reason(refused), Some(Reason::Forbidden));
    let by_key = showing([(http::HeaderName::from_static("x-api-key"), "k")]);
    assert_eq!(name_of(&layer, by_key).await.unwrap(), "key");
}

#[tokio::test]
async fn the_key_of_a_set_is_found_by_its_id_and_the_set_may_be_replaced() {
    use jsonwebtoken::Algorithm as A;
    let keys = JwtKeys::jwks(SET).unwrap();
    let layer = takes(JwtPolicy::new(keys.clone()));
    let token = |algorithm, kid| sign(algorithm, kid, &claims(&json!({})));
    for good in [
        token(A::RS256, Some("rsa-1")),
        token(A::ES256, Some("ec-1")),
        token(A::ES256, None),
    ] {
        assert_eq!(name_of(&layer, good).await.unwrap(), "ann");
    }
    for bad in [
        token(A::RS256, Some("ec-1")),
        token(A::RS256, Some("unknown")),
        // A key whose algorithm is said checks no other; one for encryption checks nothing.
        token(A::RS384, Some("rsa-1")),
        token(A::RS256, Some("enc-1")),
        token(A::HS256, None),
    ] {
        assert_eq!(
            reason(inside(&layer, bad).await),
            Some(Reason::Unauthenticated)
        );
    }

    let mut rotated: Map<String, Value> = serde_json::from_str(SET).unwrap();
    rotated["keys"].as_array_mut().unwrap().remove(0);
    keys.replace(&JwtKeys::jwks(&Value::from(rotated).to_string()).unwrap());
    let old = token(A::RS256, Some("rsa-1"));
    assert_eq!(
        reason(inside(&layer, old).await),
        Some(Reason::Unauthenticated)
    );
    let still = token(A::ES256, Some("ec-1"));
    assert_eq!(name_of(&layer, still).await.unwrap(), "ann");
}

#[tokio::test]
async fn the_algorithms_of_a_policy_narrow_those_of_its_keys() {
    use jsonwebtoken::Algorithm as A;
    let keys = JwtKeys::jwks(SET).unwrap();
    let layer = takes(JwtPolicy::new(keys).algorithms([Algorithm::Es256]));
    let token = |algorithm| sign(algorithm, None, &claims(&json!({})));
    assert_eq!(name_of(&layer, token(A::ES256)).await.unwrap(), "ann");
    assert_eq!(
        reason(inside(&layer, token(A::RS256)).await),
        Some(Reason::Unauthenticated)
    );
}

#[test]
fn a_key_that_cannot_be_used_is_refused_when_it_is_made() {
    assert!(JwtKeys::hmac(Algorithm::Hs256, b"short").is_err());
    assert!(JwtKeys::hmac(Algorithm::Hs512, SECRET).is_err());
    assert!(JwtKeys::hmac(Algorithm::Rs256, SECRET).is_err());
    assert!(JwtKeys::pem(Algorithm::Hs256, RSA_PUBLIC).is_err());
    assert!(JwtKeys::pem(Algorithm::Rs256, "no PEM").is_err());
    for (algorithm, other) in [
        (Algorithm::Rs256, EC_PUBLIC),
        (Algorithm::Ps512, ED_PUBLIC),
        (Algorithm::Es256, RSA_PUBLIC),
        (Algorithm::Es384, EC_PUBLIC),
        (Algorithm::EdDsa, EC_PUBLIC),
    ] {
        assert!(JwtKeys::pem(algorithm, other).is_err(), "{algorithm}");
    }
    for set in [
        "",
        "{}",
        "{\"keys\":[]}",
        "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}",
    ] {
        assert!(JwtKeys::jwks(set).is_err(), "{set}");
    }
    assert!("none".parse::<Algorithm>().is_err());
    assert!("hs256".parse::<Algorithm>().is_err());
}

#[tokio::test]
async fn a_leeway_of_all_time_takes_a_good_token_and_one_that_expired() {
    let layer = takes(secret().leeway(std::time::Duration::MAX));
    for changes in [json!({}), json!({ "exp": 1 })] {
        assert!(inside(&layer, hs256(changes)).await.is_ok());
    }
}

#[tokio::test]
async fn no_token_and_no_key_is_printed() {
    let printed = format!("{:?} {:?}", secret(), takes(secret()));
    assert!(!printed.contains("secret of more"), "{printed}");
    let token = hs256(json!({ "exp": 1 }));
    let shown = token.headers()[AUTHORIZATION].to_str().unwrap().to_owned();
    let error = inside(&takes(secret()), token).await.unwrap_err();
    let printed = format!("{error} {error:?}");
    let signature = shown.rsplit('.').next().unwrap();
    assert!(!printed.contains(signature), "{printed}");
    assert!(
        error.to_string().ends_with("the token has expired"),
        "{error}"
    );
    let challenge = Denied::find(&*error).unwrap().challenge().unwrap();
    assert_eq!(challenge, "Bearer error=\"invalid_token\"");
}
