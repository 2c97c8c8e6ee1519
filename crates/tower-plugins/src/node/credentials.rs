//! What is shown to the endpoints of a plugin.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tower::Layer;
use tower_plugins_layers::CredentialsLayer;
use tower_plugins_layers::credentials::TokenCredentialsLayer;

use super::endpoint::{Shown, Wire};
use crate::config::{ConnectionSpec, CredentialsSpec, OAuth2Spec, PluginSpec, ProxySpec, Secret};
use crate::error::{Error, Kind};

/// Headers that stay the same, or a token, which all endpoints share.
#[derive(Clone)]
pub(super) struct Credentials {
    spec: CredentialsSpec,
    fixed: CredentialsLayer,
    token: Option<(Way, TokenCredentialsLayer)>,
}

/// The proxy on the way to where tokens are asked for: the one on the way to the plugin.
#[derive(Clone, PartialEq)]
pub(super) struct Way {
    pub(super) proxy: ProxySpec,
    pub(super) proxy_auth: Option<Secret>,
}

impl Way {
    fn of(connection: &ConnectionSpec) -> Self {
        Self {
            proxy: connection.proxy.clone(),
            proxy_auth: connection.proxy_auth.clone(),
        }
    }
}

impl Credentials {
    /// With an equal spec, and by the same way, the token stays: a reload asks for none.
    pub(super) fn build(plugin: &PluginSpec, old: Option<&Self>) -> Result<Self, Error> {
        let spec = &plugin.policy.credentials;
        let way = Way::of(&plugin.upstream.connection);
        let is_kept = |old: &&Self| {
            let same_way = |(old, _): &(Way, _)| *old == way;
            old.spec == *spec && old.token.as_ref().is_none_or(same_way)
        };
        if let Some(old) = old.filter(is_kept) {
            return Ok(old.clone());
        }
        let token = match spec {
            CredentialsSpec::OAuth2(spec) => {
                let token = token(plugin.name.as_str(), spec, &way)?;
                Some((way, token))
            }
            _ => None,
        };
        Ok(Self {
            spec: spec.clone(),
            fixed: fixed(spec)?,
            token,
        })
    }

    pub(super) fn around(&self, wire: Wire) -> Shown {
        let token = self.token.as_ref().map(|(_, token)| token.clone());
        Shown::of(token)(self.fixed.layer(wire))
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
fn token(plugin: &str, spec: &OAuth2Spec, way: &Way) -> Result<TokenCredentialsLayer, Error> {
    super::oauth2::layer(plugin, spec, way)
}

#[cfg(not(feature = "oauth2"))]
fn token(_: &str, _: &OAuth2Spec, _: &Way) -> Result<TokenCredentialsLayer, Error> {
    let message = "auth.method oauth2 needs the feature `oauth2` of tower-plugins, which is off";
    Err(Error::caused_by(Kind::Config, message.to_owned()))
}
