//! `authorize.jwt`.

use std::collections::BTreeMap;
use std::time::Duration;

#[cfg(feature = "jwt")]
use tower_plugins_layers::authorize::{Algorithm, BadKey, JwtKeys};

use super::super::{FileContents, Number, Secret};

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
    /// Claims that a token must have, with these values or with lists that have them.
    pub required_claims: BTreeMap<String, ClaimValue>,
}

/// What a claim must be. A whole number and a fraction are equal where their values are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub enum ClaimValue {
    Text(String),
    Bool(bool),
    Integer(i64),
    Number(Number),
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

pub(in super::super) const ALGORITHMS: [(&str, JwtAlgorithm); 12] = [
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
    pub(in super::super) const fn takes_secret(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
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
