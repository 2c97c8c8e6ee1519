//! `authorize.jwt`: callers that show a token which somebody else signed.

use super::balance::named;
use super::error::ProblemKind;
use super::fault::Fault;
use super::given::Given;
use super::spec::JWT_ALGORITHMS;
use super::table::Table;
use super::tree::Value;
use super::{ClaimValue, JwtAlgorithm, JwtKey, JwtSpec, Number};

const KEYS: [&str; 3] = ["secret", "key_file", "jwks_file"];

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
    let required_claims = named(&mut table, "required_claims", claim);
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
        let known = JWT_ALGORITHMS.iter().find(|(known, _)| *known == name);
        known.map(|(_, algorithm)| *algorithm).ok_or_else(|| {
            Fault::unknown_word(name, JWT_ALGORITHMS.iter().map(|(known, _)| *known))
        })
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

/// What a variable says is text.
fn claim(given: &Given<'_>) -> Result<ClaimValue, Fault> {
    match given.node.value {
        Value::Bool(bool) => Ok(ClaimValue::Bool(bool)),
        Value::Integer(whole) => Ok(ClaimValue::Integer(whole)),
        Value::Float(number) => match Number::new(number) {
            Some(number) => Ok(ClaimValue::Number(number)),
            None => Err(Fault::of_value("is not a finite number")),
        },
        Value::Table(_) | Value::List(_) => Err(given.expected("text, a number, true or false")),
        _ => filled(given.text()?).map(ClaimValue::Text),
    }
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
