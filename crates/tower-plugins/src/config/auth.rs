//! `auth`: what is sent with each attempt.

use figment::value::Value;
use http::header::{self, HeaderName, HeaderValue};

use super::table::{Table, text};
use super::{CredentialsSpec, Secret};

/// The largest value of a header: what most servers take as the size of a whole head.
const MAX_VALUE: usize = 8 << 10;

/// Headers that frame a message or name its target. A config that could set them could make two
/// programs disagree on where a message ends.
const RESERVED: [HeaderName; 9] = [
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
    Custom,
}

/// The method, with the keys that belong to it.
const METHODS: [(&str, Method, &[&str]); 6] = [
    ("none", Method::None, &[]),
    ("api-key", Method::ApiKey, &["api_key", "header"]),
    ("api_key", Method::ApiKey, &["api_key", "header"]),
    ("bearer", Method::Bearer, &["token"]),
    ("basic", Method::Basic, &["username", "password"]),
    ("custom", Method::Custom, &["headers"]),
];

const KEYS: [&str; 6] = [
    "api_key", "header", "token", "username", "password", "headers",
];

pub(super) fn read(mut table: Table<'_>) -> CredentialsSpec {
    table.require("method");
    let methods = METHODS.map(|(word, method, keys)| (word, (word, method, keys)));
    let method = if table.entries().get("method").and_then(Value::as_str) == Some("mtls") {
        table.refuse("method", "\"mtls\" is not available in this version");
        None
    } else {
        table.word("method", &methods)
    };
    let Some((word, method, mine)) = method else {
        // Which keys belong is not known, so none of the known ones is wrong.
        for key in KEYS {
            table.allow(key);
        }
        table.finish();
        return CredentialsSpec::None;
    };
    for key in KEYS.into_iter().filter(|key| !mine.contains(key)) {
        table.refuse(key, format!("does not belong to the method {word:?}"));
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
        Method::Custom => custom(&mut table),
    };
    table.finish();
    credentials.unwrap_or_default()
}

fn api_key(table: &mut Table<'_>) -> Option<CredentialsSpec> {
    table.require("api_key");
    let header = if table.has("header") {
        table.read("header", |value| header_name(text(value)?))
    } else {
        table.allow("header");
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
    let username = table.read("username", |value| {
        let username = text(value)?;
        // RFC 7617, section 2: the first colon ends the user.
        if username.is_empty() || username.contains(':') || username.chars().any(char::is_control) {
            return Err("must not be empty, nor hold a colon or a control character".to_owned());
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
    let entries = table.table("headers")?;
    if entries.entries().is_empty() {
        table.problem("headers", "holds no header");
        return None;
    }
    let mut headers: Vec<(HeaderName, Secret)> = Vec::new();
    for (name, value) in entries.entries() {
        let header = header_name(name).and_then(|name| {
            if headers.iter().any(|(other, _)| *other == name) {
                return Err("is there twice, as names of headers ignore case".to_owned());
            }
            let value = text(value)?;
            check_value(value).map(|()| (name, Secret::new(value.to_owned())))
        });
        match header {
            Ok(header) => headers.push(header),
            Err(message) => entries.problem(name, message),
        }
    }
    headers.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    Some(CredentialsSpec::Custom { headers })
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    let header = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("{name:?} is not the name of a header"))?;
    if RESERVED.contains(&header) {
        return Err(format!("the header `{header}` is set by the connection"));
    }
    Ok(header)
}

/// Whether `value` can be the value of a header. The message does not repeat it.
fn check_value(value: &str) -> Result<(), String> {
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
