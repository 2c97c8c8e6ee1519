//! `authorize.jwt`: callers that show a token which somebody else signed.

use std::collections::BTreeMap;
use std::time::Duration;

#[cfg(feature = "jwt")]
use tower_plugins_layers::authorize::{Algorithm, BadKey, JwtKeys};

use super::balance::named;
use super::error::ProblemKind;
use super::fault::Fault;
use super::table::Table;
use super::{FileContents, Secret};

/// `authorize.jwt`: which tokens are taken, as `authorization: Bearer`, and what they must say.
///
/// A token must have an `exp`, and be signed by the key with one of the algorithms.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JwtSpec {
    /// What tokens are checked with.
    pub key: JwtKey,
    /// The algorithms that are taken; empty is all those of the keys of a set.
    pub algorithms: Vec<JwtAlgorithm>,
    /// The `iss` that a token must have, one of these; empty is any.
    pub issuers: Vec<String>,
    /// The `aud` that a token must have, one of these; empty refuses a token that has one.
    pub audiences: Vec<String>,
    /// How far the clocks may be apart.
    pub leeway: Duration,
    /// The claim with the caller's name.
    pub name_claim: String,
    /// The claim with the caller's scopes.
    pub scope_claim: String,
    /// Scopes that a token must grant, all of them.
    pub required_scopes: Vec<String>,
    /// Claims that a token must have, with these values.
    pub required_claims: BTreeMap<String, String>,
}

/// What tokens are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JwtKey {
    /// `secret`: one that the signer has as well.
    Secret(Secret),
    /// `key_file`: a public key in PEM.
    PublicKey(FileContents),
    /// `jwks_file`: a set of keys in JSON (RFC 7517).
    Set(FileContents),
}

/// How a token is signed: the names of RFC 7518 and RFC 8037.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub enum JwtAlgorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

pub(super) const ALGORITHMS: [(&str, JwtAlgorithm); 12] = [
    ("HS256", JwtAlgorithm::Hs256),
    ("HS384", JwtAlgorithm::Hs384),
    ("HS512", JwtAlgorithm::Hs512),
    ("RS256", JwtAlgorithm::Rs256),
    ("RS384", JwtAlgorithm::Rs384),
    ("RS512", JwtAlgorithm::Rs512),
    ("PS256", JwtAlgorithm::Ps256),
    ("PS384", JwtAlgorithm::Ps384),
    ("PS512", JwtAlgorithm::Ps512),
    ("ES256", JwtAlgorithm::Es256),
    ("ES384", JwtAlgorithm::Es384),
    ("EdDSA", JwtAlgorithm::EdDsa),
];

const KEYS: [&str; 3] = ["secret", "key_file", "jwks_file"];

impl JwtSpec {
    /// Tokens signed by `key`, of any issuer and for nobody in particular; the clocks may be 30 s apart.
    ///
    /// A secret or a public key takes `algorithms` as well.
    #[must_use]
    pub fn new(key: JwtKey) -> Self {
        Self {
            key,
            algorithms: Vec::new(),
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway: Duration::from_secs(30),
            name_claim: "sub".to_owned(),
            scope_claim: "scope".to_owned(),
            required_scopes: Vec::new(),
            required_claims: BTreeMap::new(),
        }
    }
}

impl JwtAlgorithm {
    /// Its name in a token's header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        let known = ALGORITHMS.iter().find(|(_, known)| *known == self);
        known.map_or("", |(name, _)| name)
    }

    /// Whether signer and reader share a secret.
    const fn takes_secret(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

/// The block, if it says enough.
pub(super) fn read(mut table: Table<'_>) -> Option<JwtSpec> {
    let key = key(&mut table);
    let algorithms = algorithms(&mut table);
    let needs_algorithms = !table.has("jwks_file");
    if needs_algorithms && KEYS.iter().any(|key| table.has(key)) {
        table.require("algorithms");
    }
    let issuers = table.texts("issuers", filled);
    let audiences = table.texts("audiences", filled);
    let leeway = table.duration("leeway");
    let name_claim = table.read("name_claim", |given, _| filled(given.text()?));
    let scope_claim = table.read("scope_claim", |given, _| filled(given.text()?));
    let required_scopes = table.texts("required_scopes", scope);
    let required_claims = named(&mut table, "required_claims", |given| filled(given.text()?));
    let spec = key.map(|(written, key)| {
        let usual = JwtSpec::new(key);
        let spec = JwtSpec {
            algorithms: algorithms.unwrap_or_default(),
            issuers: issuers.unwrap_or_default(),
            audiences: audiences.unwrap_or_default(),
            leeway: leeway.unwrap_or(usual.leeway),
            name_claim: name_claim.unwrap_or(usual.name_claim),
            scope_claim: scope_claim.unwrap_or(usual.scope_claim),
            required_scopes: required_scopes.unwrap_or_default(),
            required_claims: required_claims.unwrap_or_default(),
            key: usual.key,
        };
        (written, spec)
    });
    if let Some((written, spec)) = &spec
        && table.is_sound()
        && fit(&table, spec)
        && let Err(message) = check(spec)
    {
        table.problem(written, Fault::new(ProblemKind::BadValue, message));
    }
    table.finish();
    spec.map(|(_, spec)| spec)
}

/// The one key that there is, and what it is called.
fn key(table: &mut Table<'_>) -> Option<(&'static str, JwtKey)> {
    let secret = table.secret("secret", |_| Ok(())).map(JwtKey::Secret);
    let public = table.file("key_file", false).map(JwtKey::PublicKey);
    let set = table.file("jwks_file", false).map(JwtKey::Set);
    let mut written = KEYS.into_iter().filter(|key| table.has(key));
    match (written.next(), written.next()) {
        (Some(one), Some(other)) => {
            let message = format!(
                "is there beside {one}: keep one of them, or put several keys into one jwks_file"
            );
            table.conflict(other, message);
        }
        (None, _) => {
            let message =
                "is missing: what tokens are checked with, one of secret, key_file and jwks_file";
            table.problem("secret", Fault::new(ProblemKind::Missing, message));
        }
        (Some(_), None) => {}
    }
    let mut keys = KEYS.into_iter().zip([secret, public, set]);
    keys.find_map(|(name, key)| Some((name, key?)))
}

fn algorithms(table: &mut Table<'_>) -> Option<Vec<JwtAlgorithm>> {
    let algorithms = table.texts("algorithms", |name| {
        let known = ALGORITHMS.iter().find(|(known, _)| *known == name);
        known
            .map(|(_, algorithm)| *algorithm)
            .ok_or_else(|| Fault::unknown_word(name, ALGORITHMS.iter().map(|(known, _)| *known)))
    })?;
    if algorithms.is_empty() && table.is_sound() {
        let message = "holds none, and every token would be refused";
        table.problem("algorithms", Fault::new(ProblemKind::Ineffective, message));
    }
    Some(algorithms)
}

fn filled(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(Fault::of_secret("is empty"));
    }
    Ok(text.to_owned())
}

fn scope(scope: &str) -> Result<String, Fault> {
    if scope.contains(char::is_whitespace) {
        return Err(Fault::of_value("is more than one scope: write a list"));
    }
    filled(scope)
}

/// Whether the algorithms go with the key; if not, that is reported.
fn fit(table: &Table<'_>, spec: &JwtSpec) -> bool {
    let (is_secret, name) = match &spec.key {
        JwtKey::Secret(_) => (true, "secret"),
        JwtKey::PublicKey(_) => (false, "key_file"),
        JwtKey::Set(_) => return true,
    };
    let mut algorithms = spec.algorithms.iter();
    let Some(other) = algorithms.find(|algorithm| algorithm.takes_secret() != is_secret) else {
        return true;
    };
    let (other, takes) = match is_secret {
        true => (other.as_str(), "key_file, a public key"),
        false => (other.as_str(), "secret"),
    };
    table.conflict(
        "algorithms",
        format!("{other} takes {takes}, and there is {name}"),
    );
    false
}

/// What is wrong with the key, in words that do not repeat it.
#[cfg(feature = "jwt")]
fn check(spec: &JwtSpec) -> Result<(), String> {
    spec.keys()
        .map(drop)
        .map_err(|error| format!("cannot be used: {error}"))
}

/// Without the feature nothing is made of the key, and the plugin is refused when it is to be made.
#[cfg(not(feature = "jwt"))]
const fn check(_: &JwtSpec) -> Result<(), String> {
    Ok(())
}

#[cfg(feature = "jwt")]
impl JwtSpec {
    /// The key, for each algorithm that it is used with.
    pub(crate) fn keys(&self) -> Result<JwtKeys, BadKey> {
        // What is no text holds no key either.
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        let mut keys = JwtKeys::default();
        match &self.key {
            JwtKey::Secret(secret) => {
                for algorithm in self.layer_algorithms() {
                    keys = keys.and(&JwtKeys::hmac(algorithm, secret.expose().as_bytes())?);
                }
            }
            JwtKey::PublicKey(pem) => {
                for algorithm in self.layer_algorithms() {
                    keys = keys.and(&JwtKeys::pem(algorithm, text(pem.expose()))?);
                }
            }
            JwtKey::Set(set) => keys = JwtKeys::jwks(text(set.expose()))?,
        }
        Ok(keys)
    }

    /// The algorithms as the layer has them.
    pub(crate) fn layer_algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.algorithms.iter().map(|algorithm| match algorithm {
            JwtAlgorithm::Hs256 => Algorithm::Hs256,
            JwtAlgorithm::Hs384 => Algorithm::Hs384,
            JwtAlgorithm::Hs512 => Algorithm::Hs512,
            JwtAlgorithm::Rs256 => Algorithm::Rs256,
            JwtAlgorithm::Rs384 => Algorithm::Rs384,
            JwtAlgorithm::Rs512 => Algorithm::Rs512,
            JwtAlgorithm::Ps256 => Algorithm::Ps256,
            JwtAlgorithm::Ps384 => Algorithm::Ps384,
            JwtAlgorithm::Ps512 => Algorithm::Ps512,
            JwtAlgorithm::Es256 => Algorithm::Es256,
            JwtAlgorithm::Es384 => Algorithm::Es384,
            JwtAlgorithm::EdDsa => Algorithm::EdDsa,
        })
    }
}
