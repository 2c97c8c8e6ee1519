//! Callers and their tokens as text. They are read and never written: what is kept of a secret cannot be
//! read again.

use std::collections::BTreeMap;

use serde::Deserialize;

#[cfg(feature = "jwt")]
use super::JwtPolicy;
use super::{Callers, Principal};
use crate::header;

/// A text that no error repeats, as serde's would.
#[cfg(feature = "jwt")]
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text")]
pub(super) enum Secret {
    Text(String),
}

#[cfg(feature = "jwt")]
impl Secret {
    fn text(&self) -> &str {
        let Self::Text(text) = self;
        text
    }
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a secret, or a table of `secret` and `scopes`"
)]
enum Caller {
    Known(String),
    Granted(Granted),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Granted {
    secret: String,
    #[serde(default)]
    scopes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a table from callers' names to their secrets"
)]
enum Known {
    Callers(BTreeMap<String, Caller>),
}

impl Default for Known {
    fn default() -> Self {
        Self::Callers(BTreeMap::new())
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawCallers {
    api_key: Known,
    bearer: Known,
    basic: Known,
    #[cfg(feature = "jwt")]
    jwt: Option<JwtPolicy>,
    api_key_header: Option<String>,
    realm: Option<String>,
}

impl TryFrom<RawCallers> for Callers {
    type Error = String;

    fn try_from(raw: RawCallers) -> Result<Self, String> {
        let mut callers = Self::new();
        if let Some(name) = header::parsed(raw.api_key_header.as_deref())? {
            callers = callers.api_key_header(name);
        }
        if let Some(realm) = &raw.realm {
            callers = callers.realm(realm);
        }
        callers = known(callers, raw.api_key, Self::api_key)?;
        callers = known(callers, raw.bearer, Self::bearer)?;
        callers = known(callers, raw.basic, Self::basic)?;
        #[cfg(feature = "jwt")]
        if let Some(policy) = raw.jwt {
            callers = callers.jwt(policy);
        }
        if callers.is_empty() {
            return Err("nobody is known, and everybody would be refused".to_owned());
        }
        Ok(callers)
    }
}

fn known(
    mut callers: Callers,
    Known::Callers(all): Known,
    know: impl Fn(Callers, Principal, &str) -> Callers,
) -> Result<Callers, String> {
    let mut others = BTreeMap::new();
    for (name, caller) in all {
        let (secret, scopes) = match caller {
            Caller::Known(secret) => (secret, Vec::new()),
            Caller::Granted(Granted { secret, scopes }) => (secret, scopes),
        };
        if secret.is_empty() {
            return Err(format!("the secret of `{name}` is empty"));
        }
        let principal = Principal::new(&name);
        let principal = scopes.iter().fold(principal, |who, scope| who.scope(scope));
        callers = know(callers, principal, &secret);
        if let Some(other) = others.insert(secret, name.clone()) {
            return Err(format!("`{other}` and `{name}` have one secret"));
        }
    }
    Ok(callers)
}

#[cfg(feature = "jwt")]
pub(super) use self::jwt::RawJwt;

#[cfg(feature = "jwt")]
mod jwt {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use serde::Deserialize;
    use serde_json::Value;

    use super::super::{Algorithm, JwtKeys, JwtPolicy};
    use super::Secret;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(in super::super) struct RawJwt {
        secret: Option<Secret>,
        pem: Option<Secret>,
        jwks: Option<Secret>,
        #[serde(default)]
        algorithms: Vec<Algorithm>,
        #[serde(default)]
        issuer: Vec<String>,
        #[serde(default)]
        audience: Vec<String>,
        #[serde(default, with = "humantime_serde")]
        leeway: Option<Duration>,
        name_claim: Option<String>,
        scope_claim: Option<String>,
        #[serde(default)]
        require_scope: Vec<String>,
        #[serde(default)]
        require_claim: BTreeMap<String, Value>,
    }

    impl RawJwt {
        fn keys(&self) -> Result<JwtKeys, String> {
            type Make = fn(Algorithm, &str) -> Result<JwtKeys, super::super::BadKey>;
            let (make, key): (Make, _) = match (&self.secret, &self.pem, &self.jwks) {
                (None, None, Some(set)) => {
                    return JwtKeys::jwks(set.text()).map_err(|error| error.to_string());
                }
                (Some(secret), None, None) => (
                    |algorithm, key| JwtKeys::hmac(algorithm, key.as_bytes()),
                    secret,
                ),
                (None, Some(pem), None) => (JwtKeys::pem, pem),
                _ => return Err("one of `secret`, `pem` and `jwks` must be there".to_owned()),
            };
            if self.algorithms.is_empty() {
                return Err("`algorithms` must name those that the key is for".to_owned());
            }
            let mut keys = JwtKeys::default();
            for algorithm in &self.algorithms {
                let key = make(*algorithm, key.text())
                    .map_err(|error| format!("{algorithm}: {error}"))?;
                keys = keys.and(&key);
            }
            Ok(keys)
        }
    }

    impl TryFrom<RawJwt> for JwtPolicy {
        type Error = String;

        fn try_from(raw: RawJwt) -> Result<Self, String> {
            let mut policy = Self::new(raw.keys()?);
            if !raw.algorithms.is_empty() {
                policy = policy.algorithms(raw.algorithms);
            }
            if let Some(leeway) = raw.leeway {
                policy = policy.leeway(leeway);
            }
            if let Some(claim) = &raw.name_claim {
                policy = policy.name_claim(claim);
            }
            if let Some(claim) = &raw.scope_claim {
                policy = policy.scope_claim(claim);
            }
            policy = raw
                .issuer
                .iter()
                .fold(policy, |policy, one| policy.issuer(one));
            policy = raw
                .audience
                .iter()
                .fold(policy, |policy, one| policy.audience(one));
            let scopes = raw.require_scope.iter();
            policy = scopes.fold(policy, |policy, scope| policy.require_scope(scope));
            let claims = raw.require_claim.into_iter();
            Ok(claims.fold(policy, |policy, (claim, value)| {
                policy.require_claim(&claim, value)
            }))
        }
    }
}
