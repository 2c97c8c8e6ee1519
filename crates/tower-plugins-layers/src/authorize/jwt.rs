//! Tokens that somebody else signed.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken as jwt;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{AlgorithmIdentifier, SubjectPublicKeyInfoDer, alg_id};
use serde_json::{Map, Value};

use super::{Denied, Principal};

/// How a token is signed. There is no `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "UPPERCASE"))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names of RFC 7518 and RFC 8037")]
pub enum Algorithm {
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
    #[cfg_attr(feature = "serde", serde(rename = "EdDSA"))]
    EdDsa,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// Its name in a token's header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    const fn theirs(self) -> jwt::Algorithm {
        match self {
            Self::Hs256 => jwt::Algorithm::HS256,
            Self::Hs384 => jwt::Algorithm::HS384,
            Self::Hs512 => jwt::Algorithm::HS512,
            Self::Rs256 => jwt::Algorithm::RS256,
            Self::Rs384 => jwt::Algorithm::RS384,
            Self::Rs512 => jwt::Algorithm::RS512,
            Self::Ps256 => jwt::Algorithm::PS256,
            Self::Ps384 => jwt::Algorithm::PS384,
            Self::Ps512 => jwt::Algorithm::PS512,
            Self::Es256 => jwt::Algorithm::ES256,
            Self::Es384 => jwt::Algorithm::ES384,
            Self::EdDsa => jwt::Algorithm::EdDSA,
        }
    }

    /// What a public key for it is of.
    const fn key_kind(self) -> Option<AlgorithmIdentifier> {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => None,
            Self::Es256 => Some(alg_id::ECDSA_P256),
            Self::Es384 => Some(alg_id::ECDSA_P384),
            Self::EdDsa => Some(alg_id::ED25519),
            _ => Some(alg_id::RSA_ENCRYPTION),
        }
    }

    /// The shortest secret for it: as long as its hash (RFC 7518, section 3.2).
    const fn least_secret(self) -> Option<usize> {
        match self {
            Self::Hs256 => Some(32),
            Self::Hs384 => Some(48),
            Self::Hs512 => Some(64),
            _ => None,
        }
    }
}

impl FromStr for Algorithm {
    type Err = BadKey;

    fn from_str(name: &str) -> Result<Self, BadKey> {
        let mut all = Self::ALL.into_iter();
        all.find(|algorithm| algorithm.as_str() == name)
            .ok_or(BadKey("no such algorithm, or one that is not taken"))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a key cannot be used. It does not repeat the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadKey(&'static str);

/// One key, and the algorithms it is used with.
struct Key {
    id: Option<Box<str>>,
    key: jwt::DecodingKey,
    algorithms: Vec<jwt::Algorithm>,
}

/// The keys that tokens may be signed with. Clones share them, so that they can be
/// [replaced](Self::replace) while calls come in.
///
/// A key is used with the algorithms it was made for and with no other: a token does not choose.
#[derive(Clone, Default)]
pub struct JwtKeys {
    keys: Arc<RwLock<Arc<[Key]>>>,
}

impl JwtKeys {
    /// One secret, shared with whoever signs. It is at least as long as the algorithm's hash.
    ///
    /// # Errors
    /// When the algorithm is not one for secrets, or the secret is too short.
    pub fn hmac(algorithm: Algorithm, secret: &[u8]) -> Result<Self, BadKey> {
        match algorithm.least_secret() {
            None => return Err(BadKey("this algorithm takes a public key, not a secret")),
            Some(least) if secret.len() < least => {
                return Err(BadKey(
                    "the secret is shorter than the algorithm's hash: 32 bytes for HS256, 48 for HS384, \
                     64 for HS512",
                ));
            }
            Some(_) => {}
        }
        Ok(Self::of(vec![Key {
            id: None,
            key: jwt::DecodingKey::from_secret(secret),
            algorithms: vec![algorithm.theirs()],
        }]))
    }

    /// One public key, as PEM: `-----BEGIN PUBLIC KEY-----`.
    ///
    /// # Errors
    /// When the algorithm is one for secrets, or `pem` has no public key, or one of another kind than the
    /// algorithm's.
    pub fn pem(algorithm: Algorithm, pem: &str) -> Result<Self, BadKey> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| BadKey("no public key in the PEM text"))?;
        if let Some(kind) = algorithm.key_kind()
            && kind_of(&der) != Some(kind.as_ref())
        {
            return Err(BadKey(
                "the public key is of another kind than the algorithm's",
            ));
        }
        let key = match algorithm {
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => {
                return Err(BadKey("this algorithm takes a secret, not a public key"));
            }
            Algorithm::Es256 | Algorithm::Es384 => jwt::DecodingKey::from_ec_der(&der),
            Algorithm::EdDsa => jwt::DecodingKey::from_ed_der(&der),
            _ => jwt::DecodingKey::from_rsa_der(&der),
        };
        Ok(Self::of(vec![Key {
            id: None,
            key,
            algorithms: vec![algorithm.theirs()],
        }]))
    }

    /// The keys of a set (RFC 7517), by their `kid`. One for encryption, or of a kind that is not taken
    /// here, is passed over; a symmetric one must say its `alg`.
    ///
    /// # Errors
    /// When `text` is no such set, or none of its keys can be used.
    pub fn jwks(text: &str) -> Result<Self, BadKey> {
        // Key by key: an unknown kind of key among them is no reason to know none.
        let set: Map<String, Value> =
            serde_json::from_str(text).map_err(|_| BadKey("no JSON Web Key Set"))?;
        let keys = set.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or(BadKey("no JSON Web Key Set"))?;
        let known = keys.iter().filter_map(|key| {
            let set = serde_json::json!({ "keys": [key] });
            let set: JwkSet = serde_json::from_value(set).ok()?;
            of_set(set.keys.first()?)
        });
        let known: Vec<_> = known.collect();
        if known.is_empty() {
            return Err(BadKey("the JSON Web Key Set has no key that can be used"));
        }
        Ok(Self::of(known))
    }

    /// These keys and those.
    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        let (these, those) = (self.get(), other.get());
        let all = these.iter().chain(those.iter()).map(|key| Key {
            id: key.id.clone(),
            key: key.key.clone(),
            algorithms: key.algorithms.clone(),
        });
        Self::of(all.collect())
    }

    /// Puts the keys of `new` in the place of these, for all clones, from the next call on.
    pub fn replace(&self, new: &Self) {
        let new = new.get();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    fn of(keys: Vec<Key>) -> Self {
        // The provider is this one, whatever features of the library others turn on. One that was
        // installed before stays.
        let _ = jwt::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        Self {
            keys: Arc::new(RwLock::new(keys.into())),
        }
    }

    fn get(&self) -> Arc<[Key]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for JwtKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.get();
        f.debug_list()
            .entries(keys.iter().map(|key| (&key.id, &key.algorithms)))
            .finish()
    }
}

/// What a public key is of: the first sequence inside of the first (RFC 5280, section 4.1).
fn kind_of(key: &[u8]) -> Option<&[u8]> {
    fn inside(sequence: &[u8]) -> Option<&[u8]> {
        let (&length, rest) = sequence.strip_prefix(&[0x30])?.split_first()?;
        let Some(more) = length.checked_sub(0x80) else {
            return rest.get(..length.into());
        };
        let (length, rest) = rest.split_at_checked(more.into())?;
        let length = length.iter().try_fold(0_usize, |length, byte| {
            Some(length.checked_mul(256)? + usize::from(*byte))
        });
        rest.get(..length?)
    }
    inside(inside(key)?)
}

/// A key of a set, if it is one that tokens are checked with.
fn of_set(jwk: &Jwk) -> Option<Key> {
    use jwt::Algorithm as A;
    if !matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    ) {
        return None;
    }
    let said: Option<jwt::Algorithm> = match jwk.common.key_algorithm {
        Some(algorithm) => Some(algorithm.to_string().parse().ok()?),
        None => None,
    };
    let fit: &[jwt::Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => {
            &[A::RS256, A::RS384, A::RS512, A::PS256, A::PS384, A::PS512]
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[A::ES256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => &[A::ES384],
        AlgorithmParameters::EllipticCurve(_) => return None,
        AlgorithmParameters::OctetKeyPair(_) => &[A::EdDSA],
        AlgorithmParameters::OctetKey(_) if said.is_none() => return None,
        AlgorithmParameters::OctetKey(_) => &[A::HS256, A::HS384, A::HS512],
    };
    let algorithms: Vec<_> = fit
        .iter()
        .copied()
        .filter(|fit| said.is_none_or(|said| said == *fit))
        .collect();
    if algorithms.is_empty() {
        return None;
    }
    Some(Key {
        id: jwk.common.key_id.as_deref().map(Into::into),
        key: jwt::DecodingKey::from_jwk(jwk).ok()?,
        algorithms,
    })
}

/// Which tokens are taken, and what they say (RFC 7519, and RFC 8725 on how not to do it).
///
/// | option | default | |
/// | --- | --- | --- |
/// | [`algorithms`](Self::algorithms) | those of the keys | narrows them down |
/// | [`issuer`](Self::issuer) | any | the `iss` that a token must have, one of these |
/// | [`audience`](Self::audience) | none | the `aud` that a token must have, one of these; without, a token that has one is refused |
/// | [`leeway`](Self::leeway) | 30 s | how far the clocks may be apart, for `exp` and `nbf`; in whole seconds |
/// | [`name_claim`](Self::name_claim) | `sub` | the claim with the caller's name |
/// | [`scope_claim`](Self::scope_claim) | `scope` | the claim with its scopes: text with spaces between, or a list |
/// | [`require_scope`](Self::require_scope) | none | a scope that the token must grant |
/// | [`require_claim`](Self::require_claim) | none | a claim that must be there with this value |
///
/// A token must have an `exp`; a `crit` header is refused. A token that names its key (`kid`) is checked with the
/// keys of that id, or with those that have none; any other with all of them.
///
/// As text (feature `serde`) the keys are one of `secret`, `pem` and `jwks`, the text itself; the first two need
/// `algorithms`. `issuer`, `audience` and `require_scope` are lists, `require_claim` is a table, and all else is
/// named as it is here.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "super::text::RawJwt"))]
pub struct JwtPolicy {
    keys: JwtKeys,
    algorithms: Option<Vec<jwt::Algorithm>>,
    issuers: Vec<String>,
    audiences: Vec<String>,
    leeway: Duration,
    name_claim: Box<str>,
    scope_claim: Box<str>,
    scopes: Vec<Box<str>>,
    claims: Vec<(Box<str>, Value)>,
}

impl JwtPolicy {
    /// Takes tokens that were signed with one of `keys`.
    #[must_use]
    pub fn new(keys: JwtKeys) -> Self {
        Self {
            keys,
            algorithms: None,
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway: Duration::from_secs(30),
            name_claim: "sub".into(),
            scope_claim: "scope".into(),
            scopes: Vec::new(),
            claims: Vec::new(),
        }
    }

    /// Takes no algorithms but these, of those that the keys are for.
    #[must_use]
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.algorithms = Some(algorithms.into_iter().map(Algorithm::theirs).collect());
        self
    }

    /// Takes tokens of `issuer`, beside those named before.
    #[must_use]
    pub fn issuer(mut self, issuer: &str) -> Self {
        self.issuers.push(issuer.to_owned());
        self
    }

    /// Takes tokens that are meant for `audience`, beside those named before.
    #[must_use]
    pub fn audience(mut self, audience: &str) -> Self {
        self.audiences.push(audience.to_owned());
        self
    }

    /// How far the clocks may be apart, rounded up to whole seconds; more than the time since 1970 is as
    /// much as that.
    #[must_use]
    pub const fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// The claim with the caller's name.
    #[must_use]
    pub fn name_claim(mut self, claim: &str) -> Self {
        self.name_claim = claim.into();
        self
    }

    /// The claim with its scopes.
    #[must_use]
    pub fn scope_claim(mut self, claim: &str) -> Self {
        self.scope_claim = claim.into();
        self
    }

    /// A scope that the token must grant, beside those named before: a caller without it is known and
    /// refused. Unlike [`AuthorizeLayer::require_scope`](super::AuthorizeLayer::require_scope) it asks
    /// nothing of callers that show something else.
    #[must_use]
    pub fn require_scope(mut self, scope: &str) -> Self {
        self.scopes.push(scope.into());
        self
    }

    /// A claim that must be there with `value`: a caller without it is known and refused.
    #[must_use]
    pub fn require_claim(mut self, claim: &str, value: impl Into<Value>) -> Self {
        self.claims.push((claim.into(), value.into()));
        self
    }

    /// Who shows `token`.
    pub(super) fn principal(&self, token: &[u8]) -> Result<Principal, Denied> {
        const BAD: Denied = Denied::unauthenticated().because("the token is not good");
        let header = jwt::decode_header(token).map_err(|_| BAD)?;
        if header.crit.is_some() {
            return Err(BAD.because("the token asks for an extension that is not taken"));
        }
        let keys = self.keys.get();
        let of_id = |key: &&Key| key.id.is_some() && key.id.as_deref() == header.kid.as_deref();
        let named = header.kid.is_some() && keys.iter().any(|key| of_id(&key));
        let fit = keys.iter().filter(|key| match (&header.kid, named) {
            (None, _) => true,
            (Some(_), true) => of_id(key),
            (Some(_), false) => key.id.is_none(),
        });
        let mut denied = BAD.because("no key is known for the token");
        for key in fit {
            let Some(validation) = self.validation(key, header.alg) else {
                continue;
            };
            match jwt::decode::<Map<String, Value>>(token, &key.key, &validation) {
                Ok(token) => return self.read(token.claims),
                Err(error) => denied = BAD.because(why(error.kind())),
            }
        }
        Err(denied)
    }

    /// How a token is checked with `key`, if it may be signed so.
    fn validation(&self, key: &Key, algorithm: jwt::Algorithm) -> Option<jwt::Validation> {
        let allowed = self
            .algorithms
            .as_ref()
            .is_none_or(|all| all.contains(&algorithm));
        if !allowed || !key.algorithms.contains(&algorithm) {
            return None;
        }
        let mut validation = jwt::Validation::new(algorithm);
        let parts = u64::from(self.leeway.subsec_nanos() > 0);
        let leeway = self.leeway.as_secs().saturating_add(parts);
        // The library takes it off the present time.
        validation.leeway = leeway.min(jwt::get_current_timestamp());
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        if !self.issuers.is_empty() {
            validation.set_issuer(&self.issuers);
            required.push("iss");
        }
        if !self.audiences.is_empty() {
            validation.set_audience(&self.audiences);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        Some(validation)
    }

    fn read(&self, claims: Map<String, Value>) -> Result<Principal, Denied> {
        let name = claims.get(&*self.name_claim).and_then(Value::as_str);
        let name = name.ok_or(Denied::unauthenticated().because("the token names nobody"))?;
        let mut principal = Principal::new(name);
        match claims.get(&*self.scope_claim) {
            Some(Value::String(scopes)) => {
                for scope in scopes.split_ascii_whitespace() {
                    principal = principal.scope(scope);
                }
            }
            Some(Value::Array(scopes)) => {
                for scope in scopes.iter().filter_map(Value::as_str) {
                    principal = principal.scope(scope);
                }
            }
            _ => {}
        }
        if !self.scopes.iter().all(|scope| principal.has_scope(scope)) {
            return Err(Denied::forbidden().because("the token lacks a scope"));
        }
        let has = |(name, value): &(Box<str>, Value)| match claims.get(&**name) {
            Some(Value::Array(all)) => all.iter().any(|claim| equal(claim, value)),
            claim => claim.is_some_and(|claim| equal(claim, value)),
        };
        if !self.claims.iter().all(has) {
            return Err(Denied::forbidden().because("the token lacks a claim"));
        }
        Ok(principal.claims_of(claims))
    }
}

/// Of numbers, how they are written is no difference.
fn equal(claim: &Value, value: &Value) -> bool {
    match (claim, value) {
        (Value::Number(one), Value::Number(other)) if one.is_f64() || other.is_f64() => {
            one.as_f64() == other.as_f64()
        }
        _ => claim == value,
    }
}

const fn why(kind: &jwt::errors::ErrorKind) -> &'static str {
    use jwt::errors::ErrorKind;
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the token is of another issuer",
        ErrorKind::InvalidAudience => "the token is meant for somebody else",
        ErrorKind::InvalidSignature => "the token's signature is not good",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks a claim that it must have",
        _ => "the token is not good",
    }
}
