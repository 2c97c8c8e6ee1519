//! `authorize`, `filter` and `fallback`: who may call, and what there is where there is no answer.

use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use tower_plugins_layers::Reason;

use super::address::parse_in_process;
use super::auth::{check_value, header_name};
use super::error::ProblemKind;
use super::fault::Fault;
use super::jwt;
use super::table::Table;
use super::tree::Value;
use super::values::read_secret;
use super::{Address, AuthorizeSpec, FallbackSpec, FilterSpec, PluginName, Secret};

/// The largest answer in a config: a larger one is a service's.
const MAX_BODY: usize = 64 << 10;

/// Who may call. A block that is there lets in only whom it names, so one that names nobody is refused.
pub(super) fn authorize(mut table: Table<'_>) -> AuthorizeSpec {
    let header = if table.has("api_key_header") {
        table.read("api_key_header", |given, _| header_name(given.text()?))
    } else {
        table.pass(&["api_key_header"]);
        None
    };
    let spec = AuthorizeSpec {
        api_keys: callers(&mut table, "api_keys"),
        api_key_header: header.unwrap_or_else(AuthorizeSpec::usual_header),
        bearer_tokens: callers(&mut table, "bearer_tokens"),
        jwt: table.table("jwt").and_then(jwt::read),
        anonymous: table.bool("anonymous").unwrap_or(false),
        forward_credentials: table.bool("forward_credentials").unwrap_or(false),
    };
    if table.is_sound() {
        let both = !spec.api_keys.is_empty() && spec.takes_bearers();
        if both && spec.api_key_header == http::header::AUTHORIZATION {
            table.conflict(
                "api_key_header",
                "is where bearer tokens are looked for: keep one of the two, or another header",
            );
        }
        if spec.api_keys.is_empty() && table.has("api_key_header") {
            table.conflict("api_key_header", "does nothing without api_keys: remove it");
        }
        if spec.api_keys.is_empty() && !spec.takes_bearers() {
            let message = "names nobody, and would refuse every call: add api_keys, \
                           bearer_tokens or jwt, or remove authorize";
            table.problem("api_keys", Fault::new(ProblemKind::Missing, message));
        }
    }
    table.finish();
    spec
}

/// A table from a caller's name to its secret.
fn callers(table: &mut Table<'_>, key: &'static str) -> Vec<(String, Secret)> {
    let (report, doc, path) = (table.report(), table.doc(), table.path_of(key));
    let entries = table.read(key, |given, _| match &given.node.value {
        Value::Table(entries) => Ok(entries),
        _ => Err(given.expected("a table")),
    });
    let mut callers: Vec<(String, Secret)> = Vec::new();
    for entry in entries.into_iter().flatten() {
        let caller = report.given(&entry.node).and_then(|given| {
            if !PluginName::is_valid(&entry.key) {
                return Err(Fault::of_secret(format!(
                    "cannot name a caller: {}",
                    PluginName::RULE
                )));
            }
            let secret = read_secret(report, doc, &given)?;
            check_value(secret.expose())?;
            if let Some((other, _)) = callers.iter().find(|(_, known)| *known == secret) {
                return Err(Fault::of_secret(format!(
                    "is that of {other:?} as well: give each caller its own"
                )));
            }
            Ok((entry.key.clone().into_owned(), secret))
        });
        match caller {
            Ok(caller) => callers.push(caller),
            Err(fault) => report.add(doc, entry.at, super::table::join(&path, &entry.key), fault),
        }
    }
    callers.sort_by(|(a, _), (b, _)| a.cmp(b));
    callers
}

/// Who is asked about each call, and of what.
pub(super) fn filter(mut table: Table<'_>) -> Option<FilterSpec> {
    table.require("service");
    let service = service(&mut table);
    let headers = header_names(&mut table, "headers");
    let copy_headers = header_names(&mut table, "copy_headers");
    let timeout = table.duration("timeout");
    let fail_open = table.bool("fail_open");
    table.finish();
    let usual = FilterSpec::new(service?);
    Some(FilterSpec {
        headers: headers.unwrap_or_default(),
        copy_headers: copy_headers.unwrap_or_default(),
        timeout: timeout.unwrap_or(usual.timeout),
        fail_open: fail_open.unwrap_or(usual.fail_open),
        ..usual
    })
}

/// The name of a service that the program registers. Whether it does is not known here.
fn service(table: &mut Table<'_>) -> Option<String> {
    table.read("service", |given, _| {
        match parse_in_process(given.text()?)? {
            Address::InProcess { service } => Ok(service),
            address => Err(Fault::of_value(format!("{address} is no service's name"))),
        }
    })
}

/// A list of headers' names, each once.
fn header_names(table: &mut Table<'_>, key: &'static str) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for name in table.texts(key, header_name)? {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Some(names)
}

/// The answer, fixed or of a service, and when it is given.
pub(super) fn fallback(mut table: Table<'_>) -> FallbackSpec {
    let usual = FallbackSpec::default();
    let on = reasons(&mut table);
    if on.as_ref().is_some_and(Vec::is_empty) && table.is_sound() {
        let message = "holds no reason, and the fallback would never be used: remove fallback";
        table.problem("on", Fault::new(ProblemKind::Ineffective, message));
    }
    let status = table.integer("status").and_then(|status| {
        let status = u16::try_from(status).ok()?;
        StatusCode::from_u16(status).ok()
    });
    let body = if table.has("body") {
        table.read("body", |given, _| {
            let body = given.text()?;
            if body.len() > MAX_BODY {
                return Err(Fault::of_value("is larger than 64 KiB"));
            }
            Ok(body.to_owned())
        })
    } else {
        table.pass(&["body"]);
        None
    };
    let content_type = if table.has("content_type") {
        table.read("content_type", |given, _| {
            let kind = given.text()?;
            if kind.is_empty() || HeaderValue::from_str(kind).is_err() {
                return Err(Fault::of_value("cannot be the value of a header"));
            }
            Ok(kind.to_owned())
        })
    } else {
        table.pass(&["content_type"]);
        None
    };
    let service = if table.has("service") {
        for key in ["status", "body", "content_type"] {
            if table.has(key) {
                let message =
                    "is of a fixed answer, and `service` gives its own: remove one of them";
                table.conflict(key, message);
            }
        }
        service(&mut table)
    } else {
        table.pass(&["service"]);
        None
    };
    table.finish();
    FallbackSpec {
        on: on.unwrap_or(usual.on),
        service,
        status: status.unwrap_or(usual.status),
        body: body.unwrap_or(usual.body),
        content_type: content_type.unwrap_or(usual.content_type),
    }
}

fn reasons(table: &mut Table<'_>) -> Option<Vec<Reason>> {
    let mut reasons = table.texts("on", |word| {
        let known = || FallbackSpec::POSSIBLE.iter();
        known()
            .find(|reason| reason.as_str() == word)
            .copied()
            .ok_or_else(|| Fault::unknown_word(word, known().map(|reason| reason.as_str())))
    })?;
    reasons.sort_by_key(|reason| *reason as usize);
    reasons.dedup();
    Some(reasons)
}

impl AuthorizeSpec {
    /// Nobody, and the usual header.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            api_keys: Vec::new(),
            api_key_header: Self::usual_header(),
            bearer_tokens: Vec::new(),
            jwt: None,
            anonymous: false,
            forward_credentials: false,
        }
    }

    /// Whether callers show bearer tokens.
    const fn takes_bearers(&self) -> bool {
        !self.bearer_tokens.is_empty() || self.jwt.is_some()
    }

    /// Whether `header` is looked at for callers, and then taken off the request.
    pub(super) fn takes(&self, header: &HeaderName) -> bool {
        let looked_at = !self.api_keys.is_empty() && *header == self.api_key_header
            || self.takes_bearers() && *header == http::header::AUTHORIZATION;
        looked_at && !self.forward_credentials
    }

    const fn usual_header() -> HeaderName {
        HeaderName::from_static("x-api-key")
    }
}

impl Default for AuthorizeSpec {
    fn default() -> Self {
        Self::new()
    }
}

impl FilterSpec {
    /// The filter `service`, which sees no headers; it has a second, and a call goes on only if it says so.
    #[must_use]
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            headers: Vec::new(),
            copy_headers: Vec::new(),
            timeout: Duration::from_secs(1),
            fail_open: false,
        }
    }
}

impl FallbackSpec {
    /// The reasons that may stand in `on`: those with which a call can end here.
    pub(super) const POSSIBLE: [Reason; 17] = [
        Reason::RateLimited,
        Reason::ConcurrencyLimited,
        Reason::BreakerOpen,
        Reason::NoEndpoint,
        Reason::DeadlineExceeded,
        Reason::AttemptTimeout,
        Reason::ConnectFailed,
        Reason::PoolExhausted,
        Reason::ConnectionLost,
        Reason::ResponseTooLarge,
        Reason::Panicked,
        Reason::Shed,
        Reason::Unauthenticated,
        Reason::Forbidden,
        Reason::FilterFailed,
        Reason::CredentialsFailed,
        Reason::RetryBudget,
    ];
}

impl Default for FallbackSpec {
    /// An empty answer with status 200, where the plugin cannot answer now.
    fn default() -> Self {
        Self {
            on: vec![
                Reason::ConcurrencyLimited,
                Reason::BreakerOpen,
                Reason::NoEndpoint,
                Reason::DeadlineExceeded,
                Reason::AttemptTimeout,
                Reason::ConnectFailed,
                Reason::PoolExhausted,
                Reason::ConnectionLost,
                Reason::Panicked,
                Reason::Shed,
                Reason::RetryBudget,
            ],
            service: None,
            status: StatusCode::OK,
            body: String::new(),
            content_type: "text/plain; charset=utf-8".to_owned(),
        }
    }
}
