//! Tokens that the program asks for in its own name (RFC 6749, section 4.4).
//!
//! The questions and answers are the crate `oauth2`'s; they go over a transport of ours, through the plugin's proxy if
//! it has one. No error repeats an answer, nor what the server says in one: either might hold a secret.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use oauth2::basic::{BasicClient, BasicErrorResponseType, BasicTokenResponse, BasicTokenType};
use oauth2::{
    AsyncHttpClient, AuthType, ClientId, ClientSecret, EndpointNotSet, EndpointSet, HttpRequest,
    HttpResponse, RequestTokenError, Scope, TokenResponse, TokenUrl,
};
use tower_plugins_layers::credentials::{Token, TokenCredentialsLayer};
use tower_plugins_layers::{BoxError, Unsent};

use super::credentials::Way;
use super::health::with_causes;
use crate::Body;
use crate::config::{
    Address, AuthStyle, ConnectionSpec, OAuth2Spec, ProxySpec, TlsSpec, is_loopback,
};
use crate::error::{Error, Kind};
use crate::transport::{Http, Transport};

/// More than any token, and less than would matter.
const MAX_ANSWER: u64 = 64 << 10;

type Client =
    BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// One token for all who call `plugin`, asked for by `way`.
pub(super) fn layer(
    plugin: &str,
    spec: &OAuth2Spec,
    way: &Way,
) -> Result<TokenCredentialsLayer, Error> {
    let asking = Asking::new(plugin, spec, way)
        .map_err(|why| Error::caused_by(Kind::Config, format!("auth.token_url: {why}")))?;
    let asking = Arc::new(asking);
    let source = move || {
        let asking = Arc::clone(&asking);
        async move { asking.token().await }
    };
    Ok(TokenCredentialsLayer::new(source, spec.refresh_before).invalidate_on_401(true))
}

struct Asking {
    plugin: String,
    spec: OAuth2Spec,
    client: Client,
    wire: TokenEndpoint,
}

impl Asking {
    fn new(plugin: &str, spec: &OAuth2Spec, way: &Way) -> Result<Self, BoxError> {
        let style = match spec.auth_style {
            AuthStyle::Header => AuthType::BasicAuth,
            AuthStyle::Body => AuthType::RequestBody,
        };
        let client = BasicClient::new(ClientId::new(spec.client_id.clone()))
            .set_client_secret(ClientSecret::new(spec.client_secret.expose().to_owned()))
            .set_auth_type(style)
            .set_token_uri(TokenUrl::new(spec.token_url.to_string())?);
        Ok(Self {
            plugin: plugin.to_owned(),
            spec: spec.clone(),
            client,
            wire: TokenEndpoint::new(spec, way)?,
        })
    }

    async fn token(&self) -> Result<Token, Failed> {
        let asked = tokio::time::timeout(self.spec.timeout, self.ask());
        let asked = asked.await.unwrap_or_else(|_| {
            let limit = self.spec.timeout;
            Err(self.failed(&format!("no answer within the timeout of {limit:?}")))
        });
        // While the old token is good, no call tells of it.
        if let Err(error) = &asked {
            let plugin = self.plugin.as_str();
            tracing::warn!(plugin, %error, "no new token");
        }
        asked
    }

    async fn ask(&self) -> Result<Token, Failed> {
        let scopes = self.spec.scopes.iter().cloned().map(Scope::new);
        let mut request = self.client.exchange_client_credentials().add_scopes(scopes);
        if let Some(audience) = &self.spec.audience {
            request = request.add_extra_param("audience", audience);
        }
        let answer: BasicTokenResponse = request
            .request_async(&self.wire)
            .await
            .map_err(|error| self.failed(&what(error)))?;
        if *answer.token_type() != BasicTokenType::Bearer {
            return Err(self.failed("the answer has a token of another kind than Bearer"));
        }
        let token = Token::new(answer.access_token().secret())
            .map_err(|_| self.failed("the answer has a token that no header can carry"))?;
        Ok(match answer.expires_in() {
            Some(time) => token.expires_in(time),
            None => token,
        })
    }

    fn failed(&self, why: &str) -> Failed {
        Failed(format!("asking {} for a token: {why}", self.spec.token_url))
    }
}

type Answer = oauth2::basic::BasicErrorResponse;

/// What went wrong, of which nothing that the server wrote is repeated.
fn what(error: RequestTokenError<Failed, Answer>) -> String {
    match error {
        RequestTokenError::Request(failed) => failed.0,
        RequestTokenError::ServerResponse(answer) => {
            let code = match answer.error() {
                BasicErrorResponseType::InvalidClient => {
                    "invalid_client: it does not take client_id and client_secret, or not by this auth_style"
                }
                BasicErrorResponseType::InvalidGrant => "invalid_grant",
                BasicErrorResponseType::InvalidRequest => {
                    "invalid_request: it may want an audience, or another auth_style"
                }
                BasicErrorResponseType::InvalidScope => {
                    "invalid_scope: it does not give this client these scopes"
                }
                BasicErrorResponseType::UnauthorizedClient => {
                    "unauthorized_client: this client may not ask for tokens in its own name"
                }
                BasicErrorResponseType::UnsupportedGrantType => {
                    "unsupported_grant_type: it has no client credentials"
                }
                BasicErrorResponseType::Extension(_) => "an error that is not one of RFC 6749",
            };
            format!("the answer is {code}")
        }
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            "the answer is not one of RFC 6749, section 5: is this the token endpoint?".to_owned()
        }
    }
}

/// The transport to the token endpoint.
struct TokenEndpoint(Http);

impl TokenEndpoint {
    fn new(spec: &OAuth2Spec, way: &Way) -> Result<Self, BoxError> {
        let url = &spec.token_url;
        let authority = url.authority().cloned().ok_or("it has no host")?;
        let prefix = String::new();
        // To a proxy "this machine" is another one, and over `http` the client's secret would be in the clear there.
        let (proxy, proxy_auth) = if is_loopback(authority.host()) {
            (ProxySpec::Off, None)
        } else {
            (way.proxy.clone(), way.proxy_auth.clone())
        };
        let address = if url.scheme_str() == Some("https") {
            Address::Https { authority, prefix }
        } else {
            Address::Http { authority, prefix }
        };
        let connection = ConnectionSpec {
            proxy,
            proxy_auth,
            max_response_body: Some(MAX_ANSWER),
            ..ConnectionSpec::default()
        };
        let tls = TlsSpec {
            ca: spec.ca.clone(),
            ..TlsSpec::default()
        };
        Ok(Self(Http::with_tls(&address, &connection, &tls)?))
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, Failed> {
        let mut request = request.map(Body::from);
        let headers = request.headers_mut();
        let agent = HeaderValue::from_static("tower-plugins");
        headers.insert(USER_AGENT, agent);
        if let Some(credentials) = headers.get_mut(AUTHORIZATION) {
            credentials.set_sensitive(true);
        }
        let response = self.0.call(request).await.map_err(|error| {
            // Without the question, which has the client's secret in it.
            match Unsent::<Body>::recover(error) {
                Ok((_, cause)) => Failed::by(&*cause),
                Err(error) => Failed::by(&*error),
            }
        })?;
        let (head, body) = response.into_parts();
        // The others are not the token endpoint's own (RFC 6749, section 5).
        let expected = [
            StatusCode::OK,
            StatusCode::BAD_REQUEST,
            StatusCode::UNAUTHORIZED,
        ];
        if !expected.contains(&head.status) {
            return Err(Failed(format!("the answer is {}", head.status)));
        }
        let body = body.collect().await.map_err(|error| Failed::by(&*error))?;
        Ok(Response::from_parts(head, body.to_bytes().to_vec()))
    }
}

impl<'c> AsyncHttpClient<'c> for TokenEndpoint {
    type Error = Failed;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Failed>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// Why there is no token: text alone, as its causes are about another endpoint than the call's.
#[derive(Debug)]
struct Failed(String);

impl Failed {
    /// The transport speaks of the keys of plugins, which are not about a token endpoint.
    fn by(error: &(dyn std::error::Error + 'static)) -> Self {
        let why = with_causes(error)
            .replace("tls.ca_file", "auth.ca_file")
            .replace("set tls.server_name", "set the host of auth.token_url")
            .replace(
                "set tls.cert_file and tls.key_file",
                "auth.method: oauth2 shows none",
            );
        Self(why)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}
