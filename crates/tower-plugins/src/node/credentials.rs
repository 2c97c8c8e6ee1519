//! What is shown to the endpoints of a plugin.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tower::Layer;
use tower_plugins_layers::CredentialsLayer;
use tower_plugins_layers::credentials::TokenCredentialsLayer;

use super::endpoint::{Shown, Wire};
use crate::config::{CredentialsSpec, OAuth2Spec, PluginSpec, Secret};
use crate::error::{Error, Kind};

/// Headers that stay the same, or a token, which all endpoints share.
#[derive(Clone)]
pub(super) struct Credentials {
    spec: CredentialsSpec,
    fixed: CredentialsLayer,
    token: Option<TokenCredentialsLayer>,
}

impl Credentials {
    /// With an equal spec the token stays: a reload asks for none.
    pub(super) fn build(plugin: &PluginSpec, old: Option<&Self>) -> Result<Self, Error> {
        let spec = &plugin.policy.credentials;
        if let Some(old) = old.filter(|old| old.spec == *spec) {
            return Ok(old.clone());
        }
        let token = match spec {
            CredentialsSpec::OAuth2(spec) => Some(token(plugin.name.as_str(), spec)?),
            _ => None,
        };
        Ok(Self {
            spec: spec.clone(),
            fixed: fixed(spec)?,
            token,
        })
    }

    pub(super) fn around(&self, wire: Wire) -> Shown {
        Shown::of(self.token.clone())(self.fixed.layer(wire))
    }
}

fn fixed(spec: &CredentialsSpec) -> Result<CredentialsLayer, Error> {
    let layer = match spec {
        CredentialsSpec::None | CredentialsSpec::OAuth2(_) => return Ok(CredentialsLayer::none()),
        CredentialsSpec::ApiKey { header, key } => {
            CredentialsLayer::api_key(header.clone(), key.expose())
        }
        CredentialsSpec::Bearer { token } => CredentialsLayer::bearer(token.expose()),
        CredentialsSpec::Basic { username, password } => {
            let pair = Secret::new(format!("{username}:{}", password.expose()));
            CredentialsLayer::basic(&BASE64_STANDARD.encode(pair.expose()))
        }
        CredentialsSpec::Custom { headers } => CredentialsLayer::headers(
            headers
                .iter()
                .map(|(name, value)| (name.clone(), value.expose())),
        ),
    };
    // The error of a value that is no header does not repeat the value.
    layer.map_err(|error| {
        Error::caused_by(
            Kind::Config,
            format!("auth: {error}: a secret must be printable ASCII"),
        )
    })
}

#[cfg(feature = "oauth2")]
fn token(plugin: &str, spec: &OAuth2Spec) -> Result<TokenCredentialsLayer, Error> {
    super::oauth2::layer(plugin, spec)
}

#[cfg(not(feature = "oauth2"))]
fn token(_: &str, _: &OAuth2Spec) -> Result<TokenCredentialsLayer, Error> {
    let message = "auth.method oauth2 needs the feature `oauth2` of tower-plugins, which is off";
    Err(Error::caused_by(Kind::Config, message.to_owned()))
}
