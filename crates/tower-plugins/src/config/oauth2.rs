//! `auth` with `method: oauth2`.

use std::time::Duration;

use http::Uri;

use super::address::{is_loopback, parse_http, parse_https};
use super::fault::Fault;
use super::table::Table;
use super::tls;
use super::units::write_duration;
use super::{Address, AuthStyle, ConfigError, OAuth2Spec, Secret};

/// The longest that a token is waited for.
const LONGEST: Duration = Duration::from_secs(30);

pub(super) const STYLES: [(&str, AuthStyle); 2] =
    [("header", AuthStyle::Header), ("body", AuthStyle::Body)];

pub(super) fn read(table: &mut Table<'_>) -> Option<OAuth2Spec> {
    for key in ["token_url", "client_id", "client_secret"] {
        table.require(key);
    }
    let token_url = table.read("token_url", |given, _| parse_url(given.text()?));
    let client_id = table.read("client_id", |given, _| {
        let id = given.text()?;
        check(id)?;
        Ok(id.to_owned())
    });
    let client_secret = table.secret("client_secret", |secret| Ok(check(secret)?));
    let scopes = table.texts("scopes", |scope| {
        if is_scope(scope) {
            return Ok(scope.to_owned());
        }
        Err(Fault::of_value(
            "is no scope: printable ASCII without blanks, quotes and backslashes; write each as an item of the list",
        ))
    });
    let audience = table.read("audience", |given, _| {
        let audience = given.text()?;
        check(audience)?;
        Ok(audience.to_owned())
    });
    let auth_style = table.word("auth_style", &STYLES);
    let refresh_before = table.duration("refresh_before");
    let timeout = table.duration("timeout");
    if let Some(timeout) = timeout.filter(|timeout| *timeout > LONGEST) {
        let fault = Fault::out_of_range(write_duration(timeout), "1ns", "30s", "");
        table.problem("timeout", fault);
    }
    let ca = tls::read_ca(table);
    let usual = OAuth2Spec::of(token_url?, client_id?, client_secret?);
    Some(OAuth2Spec {
        scopes: scopes.unwrap_or_default(),
        audience,
        auth_style: auth_style.unwrap_or(usual.auth_style),
        refresh_before: refresh_before.unwrap_or(usual.refresh_before),
        timeout: timeout.unwrap_or(usual.timeout),
        ca,
        ..usual
    })
}

/// RFC 6749, appendix A.1 and A.2, and no more than a form should have.
fn check(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() > 8 << 10 || text.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) {
        return Err("must be printable ASCII, at most 8 KiB");
    }
    Ok(())
}

/// RFC 6749, section 3.3.
fn is_scope(scope: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    !scope.is_empty() && scope.bytes().all(allowed)
}

fn parse_url(url: &str) -> Result<Uri, Fault> {
    let is_http = url.starts_with("http://");
    let address = if is_http {
        parse_http(url)?
    } else {
        parse_https(url)?
    };
    if let Address::Http { authority, .. } = address
        && !is_loopback(authority.host())
    {
        return Err(Fault::of_value(
            "would send the client's secret in the clear to another machine: write an https:// URL",
        ));
    }
    url.parse()
        .map_err(|_| Fault::of_value("is not a URL such as \"https://issuer.example/token\""))
}

impl OAuth2Spec {
    /// A client that asks at `token_url`, with 10 s for an answer, and for a new token 30 s before the old one's end.
    ///
    /// # Errors
    ///
    /// If `token_url` is neither an `https` URL nor an `http` one of this machine, or has credentials, a query or a
    /// fragment.
    ///
    /// ```
    /// use tower_plugins::config::{CredentialsSpec, OAuth2Spec, PluginSpec, Secret};
    ///
    /// let url = "https://issuer.example/token";
    /// let mut oauth2 = OAuth2Spec::new(url, "search", Secret::new("s3cret".to_owned()))?;
    /// oauth2.scopes = vec!["search:read".to_owned()];
    /// let mut plugin = PluginSpec::https("search", "https://search.example")?;
    /// plugin.policy.credentials = CredentialsSpec::OAuth2(Box::new(oauth2));
    /// # Ok::<(), tower_plugins::config::ConfigError>(())
    /// ```
    pub fn new(
        token_url: &str,
        client_id: impl Into<String>,
        client_secret: Secret,
    ) -> Result<Self, ConfigError> {
        let url = parse_url(token_url)
            .map_err(|fault| ConfigError::from(fault.into_problem("auth.token_url", token_url)))?;
        Ok(Self::of(url, client_id.into(), client_secret))
    }

    fn of(token_url: Uri, client_id: String, client_secret: Secret) -> Self {
        Self {
            token_url,
            client_id,
            client_secret,
            scopes: Vec::new(),
            audience: None,
            auth_style: AuthStyle::default(),
            refresh_before: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
            ca: None,
        }
    }
}
