//! Who may call, of what the config says.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::{HeaderName, Request, Response};
use tower::Layer;
use tower_plugins_layers::BoxError;
use tower_plugins_layers::authorize::{
    Authorize, AuthorizeLayer, Callers, Policy as _, ResponseFuture,
};
use tower_service::Service;

use super::around::{Next, Owned};
use crate::Body;
use crate::config::{JwtSpec, PluginName, Policy};
use crate::error::{Error, Kind};

/// Marks a request that another plugin has let in, and sends to this one.
///
/// With the name, so that nobody else lets it in to whom it may be passed on.
#[derive(Clone, Debug)]
pub(super) struct LetIn(pub(super) PluginName);

/// Asks who calls, but for calls that were [let in](LetIn) by another plugin: that has taken off what they showed.
#[derive(Clone, Debug)]
pub(super) struct DoorLayer {
    name: PluginName,
    asks: AuthorizeLayer,
    /// The headers that the service inside does not see.
    hides: Arc<[HeaderName]>,
}

impl Layer<Next> for DoorLayer {
    type Service = Door;

    fn layer(&self, inside: Next) -> Door {
        Door {
            asks: self.asks.layer(inside.clone()),
            inside,
            layer: self.clone(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Door {
    asks: Authorize<Next>,
    inside: Next,
    layer: DoorLayer,
}

impl Service<Request<Body>> for Door {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Either<Owned, ResponseFuture<Next, Body>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inside.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let let_in = request.extensions_mut().remove::<LetIn>();
        if let_in.is_none_or(|LetIn(name)| name != self.layer.name) {
            return Either::Right(self.asks.call(request));
        }
        for header in &*self.layer.hides {
            request.headers_mut().remove(header);
        }
        Either::Left(self.inside.call(request))
    }
}

/// Whoever is named may call; where nobody is asked for, everybody may.
pub(super) fn layer(name: &PluginName, policy: &Policy) -> Result<Option<DoorLayer>, Error> {
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
    let hides = match spec.forward_credentials {
        true => [].into(),
        false => callers.headers().into(),
    };
    let asks = AuthorizeLayer::new(callers)
        .anonymous(spec.anonymous)
        .forward_credentials(spec.forward_credentials);
    Ok(Some(DoorLayer {
        name: name.clone(),
        asks,
        hides,
    }))
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
