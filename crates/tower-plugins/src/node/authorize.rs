//! Who may call, of what the config says.

use tower_plugins_layers::authorize::{AuthorizeLayer, Callers};

use crate::config::{JwtSpec, Policy};
use crate::error::{Error, Kind};

/// Whoever is named may call; where nobody is asked for, everybody may.
pub(super) fn layer(policy: &Policy) -> Result<Option<AuthorizeLayer>, Error> {
    let Some(spec) = &policy.authorize else {
        return Ok(None);
    };
    let mut callers = Callers::new().api_key_header(spec.api_key_header.clone());
    for (name, key) in &spec.api_keys {
        callers = callers.api_key(name.as_str(), key.expose());
    }
    for (name, token) in &spec.bearer_tokens {
        callers = callers.bearer(name.as_str(), token.expose());
    }
    if let Some(spec) = &spec.jwt {
        let refused = |why| Error::caused_by(Kind::Config, format!("authorize.jwt: {why}"));
        callers = with_jwt(callers, spec).map_err(refused)?;
    }
    let layer = AuthorizeLayer::new(callers)
        .anonymous(spec.anonymous)
        .forward_credentials(spec.forward_credentials);
    Ok(Some(layer))
}

#[cfg(feature = "jwt")]
fn with_jwt(callers: Callers, spec: &JwtSpec) -> Result<Callers, String> {
    use tower_plugins_layers::authorize::JwtPolicy;

    use crate::config::ClaimValue;

    let keys = spec.keys().map_err(|error| format!("its key {error}"))?;
    let mut policy = JwtPolicy::new(keys)
        .leeway(spec.leeway)
        .name_claim(&spec.name_claim)
        .scope_claim(&spec.scope_claim);
    if !spec.algorithms.is_empty() {
        policy = policy.algorithms(spec.layer_algorithms());
    }
    for issuer in &spec.issuers {
        policy = policy.issuer(issuer);
    }
    for audience in &spec.audiences {
        policy = policy.audience(audience);
    }
    for scope in &spec.required_scopes {
        policy = policy.require_scope(scope);
    }
    for (claim, value) in &spec.required_claims {
        policy = match value {
            ClaimValue::Text(text) => policy.require_claim(claim, text.as_str()),
            ClaimValue::Bool(bool) => policy.require_claim(claim, *bool),
            ClaimValue::Integer(whole) => policy.require_claim(claim, *whole),
            ClaimValue::Number(number) => policy.require_claim(claim, number.get()),
        };
    }
    Ok(callers.jwt(policy))
}

#[cfg(not(feature = "jwt"))]
fn with_jwt(_: Callers, _: &JwtSpec) -> Result<Callers, String> {
    Err("it needs the feature `jwt` of tower-plugins, which is off".to_owned())
}
