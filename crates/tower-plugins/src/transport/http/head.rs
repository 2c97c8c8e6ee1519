//! What a hop changes in the heads of requests and responses.

use ::http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue,
    TE, TRANSFER_ENCODING, UPGRADE,
};
use ::http::uri::{Authority, PathAndQuery, Scheme};
use ::http::{Method, Request, Uri, Version};
use bytes::Bytes;
use http_body::Body as _;
use tower_plugins_layers::{BoxError, Reason, Refused};

use super::gunzip;
use crate::Body;
use crate::config::Protocol;

/// Where requests to an endpoint are addressed.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    /// The authority, as it stands in `host`.
    pub(super) host: HeaderValue,
    /// Empty, or a path without its last slash.
    pub(super) prefix: String,
    pub(super) protocol: Protocol,
    pub(super) keep_alive: bool,
    /// Whether to ask for compressed responses.
    pub(super) gzip: bool,
}

/// What a request asks for that its response may be.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) upgrade: bool,
    /// By this side, not by the caller.
    pub(super) gzip: bool,
}

impl Origin {
    /// Makes `request` one to this endpoint, and says what it asks for.
    pub(super) fn address(&self, request: &mut Request<Body>) -> Result<Asked, BoxError> {
        if *request.method() == Method::CONNECT {
            return Err(unsupported(if is_extended_connect(request) {
                "of CONNECT with a protocol (RFC 8441) only WebSockets are passed on, and by a route: ask for an upgrade over HTTP/1.1"
            } else {
                "CONNECT is not passed on: a plugin is no proxy"
            }));
        }
        let upgrade = strip_request(request.headers_mut());
        let upgrades = upgrade.is_some();
        match self.protocol {
            Protocol::Http1 => {
                *request.version_mut() = Version::HTTP_11;
                let is_unframed = is_unframed(request);
                let headers = request.headers_mut();
                join_cookies(headers);
                headers.insert(HOST, self.host.clone());
                if is_unframed {
                    headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
                if let Some(upgrade) = upgrade {
                    headers.insert(UPGRADE, upgrade);
                    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                } else if !self.keep_alive {
                    headers.insert(CONNECTION, HeaderValue::from_static("close"));
                }
                let uri = request.uri();
                let origin_form = uri.authority().is_none() && uri.scheme().is_none();
                if !origin_form || !self.prefix.is_empty() {
                    *request.uri_mut() = Uri::from(self.path(uri)?);
                }
            }
            Protocol::Http2 if upgrades => {
                return Err(unsupported(
                    "a connection of HTTP/2 cannot be upgraded: set connection.protocol: http1 for this plugin",
                ));
            }
            Protocol::Http2 => {
                *request.version_mut() = Version::HTTP_2;
                request.headers_mut().remove(HOST);
                let mut parts = ::http::uri::Parts::default();
                parts.path_and_query = Some(self.path(request.uri())?);
                parts.scheme = Some(self.scheme.clone());
                parts.authority = Some(self.authority.clone());
                *request.uri_mut() = Uri::from_parts(parts)?;
            }
        }
        Ok(Asked {
            upgrade: upgrades,
            gzip: self.gzip && !upgrades && gunzip::ask(request),
        })
    }

    /// Undoes that for a request that was not sent, so that it can be addressed again.
    pub(super) fn release(&self, request: &mut Request<Body>, asked: Asked) {
        if asked.gzip {
            request.headers_mut().remove(ACCEPT_ENCODING);
        }
        if self.prefix.is_empty() {
            return;
        }
        let path = request
            .uri()
            .path_and_query()
            .map_or("", PathAndQuery::as_str);
        let path = path
            .strip_prefix(&self.prefix)
            .and_then(|path| path.parse().ok());
        if let Some(path) = path {
            *request.uri_mut() = path;
        }
    }

    fn path(&self, uri: &Uri) -> Result<PathAndQuery, ::http::Error> {
        let path = uri.path_and_query();
        if self.prefix.is_empty() || uri.path() == "*" {
            return Ok(path
                .cloned()
                .unwrap_or_else(|| PathAndQuery::from_static("/")));
        }
        let (path, query) = path.map_or(("/", None), |path| (path.path(), path.query()));
        let length = self.prefix.len() + path.len() + query.map_or(0, |query| query.len() + 1);
        let mut joined = String::with_capacity(length);
        joined.push_str(&self.prefix);
        joined.push_str(path);
        if let Some(query) = query {
            joined.push('?');
            joined.push_str(query);
        }
        Ok(PathAndQuery::from_maybe_shared(Bytes::from(joined))?)
    }
}

/// Whether a header is about one connection only (RFC 9110, section 7.6.1).
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "keep-alive" | "proxy-connection" | "te" | "transfer-encoding" | "upgrade"
    )
}

fn unsupported(why: &'static str) -> BoxError {
    Refused::new(Reason::UpgradeUnsupported)
        .caused_by(why)
        .into()
}

/// Whether it is a `CONNECT` with a protocol (RFC 8441).
fn is_extended_connect(request: &Request<Body>) -> bool {
    request.extensions().get::<hyper::ext::Protocol>().is_some()
}

/// Gives the upgrade that is asked for.
///
/// Headers that the caller's `connection` names stay: else a client of an embedding program could
/// take away what the layers above have added, credentials among it.
fn strip_request(headers: &mut HeaderMap) -> Option<HeaderValue> {
    if !headers.keys().any(is_hop_by_hop) {
        return None;
    }
    let upgrade = upgrade_of(headers);
    let trailers = headers
        .get(TE)
        .is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    remove_hop_by_hop(headers);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    upgrade
}

/// Makes one header of several cookies, as HTTP/2 may have them (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies = headers.get_all(COOKIE);
    if cookies.iter().nth(1).is_none() {
        return;
    }
    let is_sensitive = cookies.iter().any(HeaderValue::is_sensitive);
    let all: Vec<_> = cookies.iter().map(HeaderValue::as_bytes).collect();
    // What is made of values of headers is one.
    if let Ok(mut all) = HeaderValue::try_from(all.join(&b"; "[..])) {
        all.set_sensitive(is_sensitive);
        headers.insert(COOKIE, all);
    }
}

/// Whether hyper would leave the body out: that of a `GET` or a `HEAD`, which seldom have one, needs a header that says
/// so, and its length is not known.
fn is_unframed(request: &Request<Body>) -> bool {
    let body = request.body();
    matches!(*request.method(), Method::GET | Method::HEAD)
        && !body.is_end_stream()
        && body.size_hint().exact().is_none()
        && !request.headers().contains_key(CONTENT_LENGTH)
}

/// The upgrade that a request asks for.
///
/// Not one to another version of HTTP, or to TLS: that is about one hop, and passed on it would carry requests past all
/// that looks at them here.
fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let upgrade = headers.get(UPGRADE)?;
    let mut to = upgrade.to_str().ok()?.split(',').map(str::trim);
    let of_one_hop = |name: &str| ["h2c", "http", "tls"].map(|hop| name.eq_ignore_ascii_case(hop));
    if to.any(|to| of_one_hop(to.split('/').next().unwrap_or_default()).contains(&true)) {
        return None;
    }
    let connection = headers.get_all(CONNECTION).iter();
    let mut asked = connection
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    asked
        .any(|name| name.trim().eq_ignore_ascii_case("upgrade"))
        .then(|| upgrade.clone())
}

pub(super) fn strip_response(headers: &mut HeaderMap) {
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    remove_hop_by_hop(headers);
}

/// As [`strip_response`], of a head that grants an upgrade.
pub(super) fn strip_upgrade(headers: &mut HeaderMap) {
    let upgrade = headers.get(UPGRADE).cloned();
    strip_response(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // A length beside it says nothing, and the next hop would believe it (RFC 9112, section 6.3).
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    while let Some(name) = headers.keys().find(|name| is_hop_by_hop(name)).cloned() {
        headers.remove(name);
    }
}
