//! `auth`: what is sent with each attempt.

use http::header::{self, HeaderName, HeaderValue};

use super::fault::Fault;
use super::keys::AUTH;
use super::table::Table;
use super::tree::{Node, Value};
use super::values::read_secret;
use super::{CredentialsSpec, Secret, TlsSpec};
use super::{oauth2, tls};

/// The largest value of a header: what most servers take as the size of a whole head.
const MAX_VALUE: usize = 8 << 10;

/// Headers that frame a message or name its target. A config that could set them could make two
/// programs disagree on where a message ends.
const RESERVED: [HeaderName; 11] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

#[derive(Clone, Copy, PartialEq)]
enum Method {
    None,
    ApiKey,
    Bearer,
    Basic,
    OAuth2,
    Mtls,
    Custom,
}

/// The method, with the keys that belong to it.
const METHODS: [(&str, (Method, &[&str])); 8] = [
    ("none", (Method::None, &[])),
    ("api-key", (Method::ApiKey, API_KEY)),
    ("api_key", (Method::ApiKey, API_KEY)),
    ("bearer", (Method::Bearer, &["token", OPEN])),
    ("basic", (Method::Basic, &["username", "password", OPEN])),
    ("oauth2", (Method::OAuth2, OAUTH2)),
    (
        "mtls",
        (Method::Mtls, &["cert_file", "key_file", "ca_file"]),
    ),
    ("custom", (Method::Custom, &["headers", OPEN])),
];

/// Of each method that sends something.
const OPEN: &str = "allow_plaintext";

const API_KEY: &[&str] = &["api_key", "header", OPEN];

const OAUTH2: &[&str] = &[
    "token_url",
    "client_id",
    "client_secret",
    "scopes",
    "audience",
    "auth_style",
    "refresh_before",
    "timeout",
    "ca_file",
    OPEN,
];

/// What `auth` says: headers, or, for `mtls`, what TLS shows.
pub(super) struct Auth {
    pub(super) credentials: CredentialsSpec,
    pub(super) tls: Option<TlsSpec>,
    pub(super) allow_plaintext: bool,
}

/// `of_tls` is the plugin's own block `tls`, if it has one.
pub(super) fn read(mut table: Table<'_>, tls: &TlsSpec, of_tls: Option<&Node<'_>>) -> Auth {
    let mut auth = Auth {
        credentials: CredentialsSpec::None,
        tls: None,
        allow_plaintext: false,
    };
    // What `type` is here is said of it.
    if !table.has("type") {
        table.require("method");
    }
    let Some((method, mine)) = table.word("method", &METHODS) else {
        // Which keys belong is not known, so none of the known ones is wrong.
        for key in AUTH.names() {
            table.pass(&[key]);
        }
        table.finish();
        return auth;
    };
    let why = match mine {
        [] => "does not go with this method, which takes no other key: remove it".to_owned(),
        mine => format!(
            "does not go with this method, which takes {}: remove it",
            mine.join(", ")
        ),
    };
    for key in AUTH
        .names()
        .filter(|key| *key != "method" && !mine.contains(key))
    {
        table.refuse(key, &why);
    }
    let credentials = match method {
        Method::None => Some(CredentialsSpec::None),
        Method::ApiKey => api_key(&mut table),
        Method::Bearer => {
            table.require("token");
            table
                .secret("token", check_value)
                .map(|token| CredentialsSpec::Bearer { token })
        }
        Method::Basic => basic(&mut table),
        Method::OAuth2 => oauth2::read(&mut table).map(|spec| CredentialsSpec::OAuth2(spec.into())),
        Method::Mtls => {
            table.require("cert_file");
            table.require("key_file");
            for key in mine {
                if table.has(key) && of_tls.is_some_and(|tls| tls.get(key).is_some()) {
                    table.conflict(key, format!("is there beside tls.{key}: keep one of them"));
                }
            }
            auth.tls = Some(tls::read_files(&mut table, tls));
            None
        }
        Method::Custom => custom(&mut table),
    };
    if mine.contains(&OPEN) {
        auth.allow_plaintext = table.bool(OPEN).unwrap_or(false);
    }
    // Of what is wrong in itself nothing more is to be said.
    auth.credentials = credentials.filter(|_| table.is_sound()).unwrap_or_default();
    table.finish();
    auth
}

fn api_key(table: &mut Table<'_>) -> Option<CredentialsSpec> {
    table.require("api_key");
    let header = if table.has("header") {
        table.read("header", |given, _| header_name(given.text()?))
    } else {
        table.pass(&["header"]);
        Some(HeaderName::from_static("x-api-key"))
    };
    let key = table.secret("api_key", check_value);
    Some(CredentialsSpec::ApiKey {
        header: header?,
        key: key?,
    })
}

fn basic(table: &mut Table<'_>) -> Option<CredentialsSpec> {
    table.require("username");
    table.require("password");
    let username = table.read("username", |given, _| {
        let username = given.text()?;
        // RFC 7617, section 2: the first colon ends the user.
        if username.is_empty() || username.contains(':') || username.chars().any(char::is_control) {
            return Err("must not be empty, nor hold a colon or a control character".into());
        }
        Ok(username.to_owned())
    });
    let password = table.secret("password", |password| {
        if password.chars().any(char::is_control) || password.len() > MAX_VALUE {
            return Err("must not hold a control character, and at most 8 KiB".to_owned());
        }
        Ok(())
    });
    Some(CredentialsSpec::Basic {
        username: username?,
        password: password?,
    })
}

fn custom(table: &mut Table<'_>) -> Option<CredentialsSpec> {
    table.require("headers");
    let (report, doc, path) = (table.report(), table.doc(), table.path_of("headers"));
    let entries = table.read("headers", |given, _| match &given.node.value {
        Value::Table(entries) if entries.is_empty() => Err("holds no header".into()),
        Value::Table(entries) => Ok(entries),
        _ => Err(given.expected("a table")),
    })?;
    let mut headers: Vec<(HeaderName, Secret)> = Vec::new();
    for entry in entries {
        let given = report.given(&entry.node);
        let header = given.and_then(|given| {
            let name = header_name(&entry.key).map_err(|fault| Fault {
                names_value: false,
                message: format!("{:?} {}", entry.key, fault.message),
                ..fault
            })?;
            if headers.iter().any(|(other, _)| *other == name) {
                return Err("is there twice, as names of headers ignore case".into());
            }
            let secret = read_secret(report, doc, &given)?;
            check_value(secret.expose())?;
            Ok((name, secret))
        });
        match header {
            Ok(header) => headers.push(header),
            Err(fault) => report.add(doc, entry.at, super::table::join(&path, &entry.key), fault),
        }
    }
    headers.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    Some(CredentialsSpec::Custom { headers })
}

impl CredentialsSpec {
    /// Whether what is sent stands in the header `name`.
    pub(crate) fn sets(&self, name: &HeaderName) -> bool {
        match self {
            Self::None => false,
            Self::ApiKey { header, .. } => header == name,
            Self::Bearer { .. } | Self::Basic { .. } | Self::OAuth2(_) => {
                *name == header::AUTHORIZATION
            }
            Self::Custom { headers } => headers.iter().any(|(header, _)| header == name),
        }
    }
}

pub(super) fn header_name(name: &str) -> Result<HeaderName, Fault> {
    let header = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Fault::of_value("is not the name of a header"))?;
    if RESERVED.contains(&header) {
        return Err(Fault::of_value("is set by the connection"));
    }
    Ok(header)
}

/// Whether `value` can be the value of a header. The message does not repeat it.
pub(super) fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("is empty".to_owned());
    }
    if value.len() > MAX_VALUE {
        return Err(format!("has {} bytes, at most {MAX_VALUE}", value.len()));
    }
    if value.trim() != value || HeaderValue::from_str(value).is_err() {
        return Err(
            "cannot be sent in a header: it begins or ends with white space, or holds a line \
             break or another character that headers do not allow"
                .to_owned(),
        );
    }
    Ok(())
}
