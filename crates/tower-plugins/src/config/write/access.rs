//! `auth`, `authorize`, `filter` and `fallback`.

use super::super::oauth2::STYLES;
use super::super::tree::{Entry, Node, Value};
use super::super::{
    AuthorizeSpec, ClaimValue, CredentialsSpec, FallbackSpec, FilterSpec, JwtKey, JwtSpec,
    OAuth2Spec, Policy, Secret,
};
use super::Writer;
use super::values::{bool, duration, file, integer, list, named, number, table, text, texts, word};

impl Writer {
    pub(super) fn auth(&self, policy: &Policy) -> Node<'static> {
        let mut auth = self.credentials(&policy.credentials);
        if policy.allow_plaintext
            && let Value::Table(entries) = &mut auth.value
        {
            entries.extend(bool(true).map(|node| Entry::unplaced("allow_plaintext", node)));
        }
        auth
    }

    fn credentials(&self, credentials: &CredentialsSpec) -> Node<'static> {
        match credentials {
            CredentialsSpec::None => table([("method", text("none"))]),
            CredentialsSpec::ApiKey { header, key } => table([
                ("method", text("api-key")),
                ("header", text(header.as_str())),
                ("api_key", Some(self.secret(key))),
            ]),
            CredentialsSpec::Bearer { token } => table([
                ("method", text("bearer")),
                ("token", Some(self.secret(token))),
            ]),
            CredentialsSpec::Basic { username, password } => table([
                ("method", text("basic")),
                ("username", text(username)),
                ("password", Some(self.secret(password))),
            ]),
            CredentialsSpec::OAuth2(spec) => self.oauth2(spec),
            CredentialsSpec::Custom { headers } => {
                let entry = |(name, value): &(http::HeaderName, Secret)| Entry {
                    key: name.as_str().to_owned().into(),
                    ..Entry::unplaced("", self.secret(value))
                };
                let headers = headers.iter().map(entry).collect();
                table([
                    ("method", text("custom")),
                    ("headers", Some(Node::unplaced(Value::Table(headers)))),
                ])
            }
        }
    }

    fn oauth2(&self, spec: &OAuth2Spec) -> Node<'static> {
        let OAuth2Spec {
            token_url,
            client_id,
            client_secret,
            scopes,
            audience,
            auth_style,
            refresh_before,
            timeout,
            ca,
        } = spec;
        table([
            ("method", text("oauth2")),
            ("token_url", text(&token_url.to_string())),
            ("client_id", text(client_id)),
            ("client_secret", Some(self.secret(client_secret))),
            ("scopes", texts(scopes)),
            ("audience", audience.as_deref().and_then(text)),
            ("auth_style", word(&STYLES, auth_style)),
            ("refresh_before", duration(*refresh_before)),
            ("timeout", duration(*timeout)),
            ("ca_file", ca.as_ref().and_then(file)),
        ])
    }

    pub(super) fn authorize(&self, spec: &AuthorizeSpec) -> Node<'static> {
        let AuthorizeSpec {
            api_keys,
            api_key_header,
            bearer_tokens,
            jwt,
            anonymous,
            forward_credentials,
        } = spec;
        let callers = |callers: &[(String, Secret)]| {
            let entry = |(name, secret): &(String, Secret)| Entry {
                key: name.clone().into(),
                ..Entry::unplaced("", self.secret(secret))
            };
            let entries = callers.iter().map(entry).collect();
            (!callers.is_empty()).then(|| Node::unplaced(Value::Table(entries)))
        };
        let header = || text(api_key_header.as_str());
        table([
            ("api_keys", callers(api_keys)),
            // Without keys it does nothing, and is refused.
            (
                "api_key_header",
                (!api_keys.is_empty()).then(header).flatten(),
            ),
            ("bearer_tokens", callers(bearer_tokens)),
            ("jwt", jwt.as_ref().map(|spec| self.jwt(spec))),
            ("anonymous", bool(*anonymous)),
            ("forward_credentials", bool(*forward_credentials)),
        ])
    }

    fn jwt(&self, spec: &JwtSpec) -> Node<'static> {
        let JwtSpec {
            key,
            algorithms,
            issuers,
            audiences,
            leeway,
            name_claim,
            scope_claim,
            required_scopes,
            required_claims,
        } = spec;
        let [mut secret, mut key_file, mut jwks_file] = [None, None, None];
        match key {
            JwtKey::Secret(text) => secret = Some(self.secret(text)),
            JwtKey::PublicKey(contents) => key_file = file(contents),
            JwtKey::Set(contents) => jwks_file = file(contents),
        }
        let algorithms: Vec<_> = algorithms
            .iter()
            .map(|one| one.as_str().to_owned())
            .collect();
        table([
            ("secret", secret),
            ("key_file", key_file),
            ("jwks_file", jwks_file),
            // None is no restriction, and an empty list would be one.
            (
                "algorithms",
                texts(&algorithms).filter(|_| !algorithms.is_empty()),
            ),
            ("issuers", texts(issuers)),
            ("audiences", texts(audiences)),
            ("leeway", duration(*leeway)),
            ("name_claim", text(name_claim)),
            ("scope_claim", text(scope_claim)),
            ("required_scopes", texts(required_scopes)),
            (
                "required_claims",
                named(required_claims, |value| match value {
                    ClaimValue::Text(claim) => text(claim),
                    ClaimValue::Bool(claim) => bool(*claim),
                    ClaimValue::Integer(claim) => Some(Node::unplaced(Value::Integer(*claim))),
                    ClaimValue::Number(claim) => number(*claim),
                }),
            ),
        ])
    }
}

pub(super) fn filter(spec: &FilterSpec) -> Node<'static> {
    let FilterSpec {
        service,
        headers,
        copy_headers,
        timeout,
        fail_open,
    } = spec;
    let names = |names: &[http::HeaderName]| {
        list(
            names
                .iter()
                .filter_map(|name| text(name.as_str()))
                .collect(),
        )
    };
    table([
        ("service", text(service)),
        ("headers", Some(names(headers))),
        ("copy_headers", Some(names(copy_headers))),
        ("timeout", duration(*timeout)),
        ("fail_open", bool(*fail_open)),
    ])
}

pub(super) fn fallback(spec: &FallbackSpec) -> Node<'static> {
    let FallbackSpec {
        on,
        service,
        status,
        body,
        content_type,
    } = spec;
    let reasons = on.iter().filter_map(|reason| text(reason.as_str()));
    // Where a service answers there is no fixed answer.
    let fixed = |node: Option<Node<'static>>| node.filter(|_| service.is_none());
    table([
        ("on", Some(list(reasons.collect()))),
        ("service", service.as_deref().and_then(text)),
        ("status", fixed(integer(status.as_u16().into()))),
        ("body", fixed(text(body))),
        ("content_type", fixed(text(content_type))),
    ])
}
