use std::fmt;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

#[cfg(feature = "jwt")]
use super::JwtPolicy;
use super::{Denied, Policy, Principal, Verdict};

static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The callers that are known, and by what.
///
/// A request is known by the first of these that it shows, and what it shows must be good: an API key in
/// its header, else `authorization: Bearer` or `authorization: Basic`.
///
/// ```
/// use tower_plugins_layers::authorize::{Callers, Principal};
///
/// let callers = Callers::new()
///     .api_key("billing", "k3y-of-b1lling")
///     .bearer(Principal::new("ci").scope("deploy"), "t0ken-of-ci")
///     .realm("greeter");
/// assert!(!format!("{callers:?}").contains("t0ken"));
/// ```
///
/// As text (feature `serde`) `api_key`, `bearer` and `basic` are tables from a caller's name to its secret, or to a
/// table of `secret` and `scopes`; beside them may be `jwt`, `api_key_header` and `realm`. Refused is a text that
/// names nobody, an empty secret, and one that two have.
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "super::text::RawCallers"))]
pub struct Callers {
    known: Vec<Known>,
    #[cfg(feature = "jwt")]
    jwt: Option<Arc<JwtPolicy>>,
    /// The header of API keys, and `authorization`: those of them that are looked at.
    headers: Vec<HeaderName>,
    api_key_header: HeaderName,
    realm: Option<Box<str>>,
    challenges: Arc<Challenges>,
}

#[derive(Clone)]
struct Known {
    kind: Kind,
    digest: [u8; 32],
    principal: Principal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ApiKey,
    Bearer,
    Basic,
}

/// What a refused caller may do next, made once.
#[derive(Debug, Default)]
struct Challenges {
    plain: Option<HeaderValue>,
    invalid_token: Option<HeaderValue>,
}

impl Callers {
    /// Nobody is known: everybody is refused.
    #[must_use]
    pub fn new() -> Self {
        Self {
            known: Vec::new(),
            #[cfg(feature = "jwt")]
            jwt: None,
            headers: Vec::new(),
            api_key_header: X_API_KEY.clone(),
            realm: None,
            challenges: Arc::default(),
        }
    }

    /// Knows `who` by an API key.
    #[must_use]
    pub fn api_key(self, who: impl Into<Principal>, key: &str) -> Self {
        self.know(Kind::ApiKey, who.into(), key)
    }

    /// Knows `who` by a bearer token (RFC 6750).
    #[must_use]
    pub fn bearer(self, who: impl Into<Principal>, token: &str) -> Self {
        self.know(Kind::Bearer, who.into(), token)
    }

    /// Knows `who` by an `authorization: Basic` header (RFC 7617) whose base64 is `encoded`.
    #[must_use]
    pub fn basic(self, who: impl Into<Principal>, encoded: &str) -> Self {
        self.know(Kind::Basic, who.into(), encoded)
    }

    /// Knows those to whom somebody else gave a token (RFC 7519), as `policy` says. They show it as a
    /// bearer token.
    #[cfg(feature = "jwt")]
    #[must_use]
    pub fn jwt(mut self, policy: JwtPolicy) -> Self {
        self.jwt = Some(Arc::new(policy));
        self.prepare()
    }

    /// The header in which API keys are looked for: `x-api-key` unless told otherwise.
    #[must_use]
    pub fn api_key_header(mut self, name: HeaderName) -> Self {
        self.api_key_header = name;
        self.prepare()
    }

    /// The realm of the challenge. Quotes and what is not visible ASCII are left out of it.
    #[must_use]
    pub fn realm(mut self, realm: &str) -> Self {
        let plain = |c: &char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
        let realm: String = realm.chars().filter(plain).collect();
        self.realm = Some(realm.into());
        self.prepare()
    }

    /// Whether nobody is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && !self.takes_jwt()
    }

    fn know(mut self, kind: Kind, principal: Principal, secret: &str) -> Self {
        self.known.push(Known {
            kind,
            digest: Sha256::digest(secret.as_bytes()).into(),
            principal,
        });
        self.prepare()
    }

    #[cfg(feature = "jwt")]
    const fn takes_jwt(&self) -> bool {
        self.jwt.is_some()
    }

    #[cfg(not(feature = "jwt"))]
    #[expect(clippy::unused_self, reason = "the same interface as with the feature")]
    const fn takes_jwt(&self) -> bool {
        false
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::Bearer && self.takes_jwt()
            || self.known.iter().any(|known| known.kind == kind)
    }

    /// Makes anew what follows from the rest.
    fn prepare(mut self) -> Self {
        let (api_key, basic) = (self.takes(Kind::ApiKey), self.takes(Kind::Basic));
        let bearer = self.takes(Kind::Bearer);
        self.headers.clear();
        if api_key {
            self.headers.push(self.api_key_header.clone());
        }
        if (bearer || basic) && !self.headers.contains(&AUTHORIZATION) {
            self.headers.push(AUTHORIZATION);
        }
        let realm = self.realm.as_deref();
        let challenge = |extra: &str| {
            let realm = realm.map(|realm| format!("realm=\"{realm}\""));
            let one = |scheme: &str, more: &str| {
                let params = realm.as_deref().into_iter().chain([more]);
                let params: Vec<_> = params.filter(|param| !param.is_empty()).collect();
                format!("{scheme} {}", params.join(", "))
                    .trim_end()
                    .to_owned()
            };
            let mut all = Vec::new();
            if bearer {
                all.push(one("Bearer", extra));
            }
            if basic {
                all.push(one("Basic", "charset=\"UTF-8\""));
            }
            if api_key {
                all.push(one(
                    "ApiKey",
                    &format!("header=\"{}\"", self.api_key_header),
                ));
            }
            (!all.is_empty())
                .then(|| HeaderValue::try_from(all.join(", ")).ok())
                .flatten()
        };
        self.challenges = Arc::new(Challenges {
            plain: challenge(""),
            invalid_token: challenge("error=\"invalid_token\""),
        });
        self
    }

    fn decide(&self, headers: &HeaderMap) -> Result<Principal, Denied> {
        if self.takes(Kind::ApiKey)
            && let Some(key) = only(headers, &self.api_key_header)?
        {
            return self.find(Kind::ApiKey, key.as_bytes()).ok_or(UNKNOWN);
        }
        let shown = match only(headers, &AUTHORIZATION)? {
            Some(shown) if self.headers.contains(&AUTHORIZATION) => shown.as_bytes(),
            _ => return Err(Denied::unauthenticated().because("the request shows nothing")),
        };
        if let Some(token) = of_scheme(shown, b"bearer") {
            if let Some(principal) = self.find(Kind::Bearer, token) {
                return Ok(principal);
            }
            #[cfg(feature = "jwt")]
            if let Some(jwt) = &self.jwt {
                return jwt.principal(token);
            }
            return Err(UNKNOWN);
        }
        let encoded = of_scheme(shown, b"basic")
            .ok_or(Denied::unauthenticated().because("no scheme that is taken here"))?;
        self.find(Kind::Basic, encoded).ok_or(UNKNOWN)
    }

    /// Who shows `secret`. All that are known are compared, whichever it is.
    fn find(&self, kind: Kind, secret: &[u8]) -> Option<Principal> {
        let shown: [u8; 32] = Sha256::digest(secret).into();
        let mut found = u64::MAX;
        for (known, n) in self.known.iter().zip(0_u64..) {
            if known.kind == kind {
                found.conditional_assign(&n, known.digest.ct_eq(&shown));
            }
        }
        let found = self.known.get(usize::try_from(found).ok()?)?;
        Some(found.principal.clone())
    }
}

const UNKNOWN: Denied = Denied::unauthenticated().because("what the request shows is not known");

/// The one value of a header.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Denied> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => {
            Err(Denied::unauthenticated().because("the request shows two things at once"))
        }
        (value, None) => Ok(value),
    }
}

/// What stands behind an authentication scheme, whose case does not matter.
fn of_scheme<'a>(shown: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (first, rest) = shown.split_at_checked(scheme.len())?;
    let rest = rest.strip_prefix(b" ")?.trim_ascii();
    first.eq_ignore_ascii_case(scheme).then_some(rest)
}

impl Default for Callers {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy for Callers {
    fn check(&self, head: &Parts) -> Verdict {
        Verdict::Now(self.decide(&head.headers).map_err(|denied| {
            let token_shown = head
                .headers
                .get(AUTHORIZATION)
                .is_some_and(|shown| of_scheme(shown.as_bytes(), b"bearer").is_some());
            let challenge = if token_shown {
                &self.challenges.invalid_token
            } else {
                &self.challenges.plain
            };
            match challenge {
                Some(challenge) => denied.challenge_with(challenge.clone()),
                None => denied,
            }
        }))
    }

    fn headers(&self) -> &[HeaderName] {
        &self.headers
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |kind| {
            let of_kind = self.known.iter().filter(move |known| known.kind == kind);
            of_kind
                .map(|known| known.principal.name())
                .collect::<Vec<_>>()
        };
        f.debug_struct("Callers")
            .field("headers", &self.headers)
            .field("api_keys", &names(Kind::ApiKey))
            .field("bearers", &names(Kind::Bearer))
            .field("basic", &names(Kind::Basic))
            .field("jwt", &self.takes_jwt())
            .finish_non_exhaustive()
    }
}
