//! What is in a line.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tower_plugins_proto::exec;
use tower_plugins_proto::line::{self, Kind, Map};

use crate::router::http::OfLine;

/// One kind of lines.
pub(super) trait Wire {
    /// What an answer repeats of its request.
    type Asked;

    /// The request that `line` stands for; the error says what is wrong with it.
    fn read(line: &Bytes) -> Result<(Self::Asked, Request<Body>), String>;

    /// What is repeated of a line that could not be read.
    fn unread() -> Self::Asked;

    /// The line that answers with `result`.
    fn write(
        asked: &Self::Asked,
        headers: BTreeMap<String, String>,
        result: Result<&RawValue, String>,
    ) -> serde_json::Result<Vec<u8>>;
}

/// What a process is sent by `transport: exec-json`: [`tower_plugins_proto::exec`].
pub(super) struct Exec;

impl Wire for Exec {
    type Asked = String;

    fn read(line: &Bytes) -> Result<(String, Request<Body>), String> {
        let request: exec::Request<'_, Option<&RawValue>> = parsed(line)?;
        let context = request.context;
        let payload = request.payload.map(|payload| payload.get().as_bytes());
        let of_line = OfLine {
            request_id: request.id.clone().into_owned(),
            deadline: (context.timeout > 0)
                .then(|| after(Duration::from_nanos(context.timeout)))
                .flatten(),
            metadata: owned(context.metadata),
        };
        let payload = payload.map(|payload| line.slice_ref(payload));
        let uri = Uri::from_static("/");
        let http = as_http(Method::POST, uri, &context.headers, payload, of_line);
        Ok((request.id.into_owned(), http))
    }

    fn unread() -> String {
        String::new()
    }

    fn write(
        asked: &String,
        _: BTreeMap<String, String>,
        result: Result<&RawValue, String>,
    ) -> serde_json::Result<Vec<u8>> {
        as_line(&match result {
            Ok(result) => exec::Response::success(asked, result),
            Err(error) => exec::Response::failure(asked, error),
        })
    }
}

/// What comes over a Unix socket by `transport: unix-json`: [`tower_plugins_proto::line`].
pub(super) struct Unix;

impl Wire for Unix {
    type Asked = line::Request<'static, ()>;

    fn read(line: &Bytes) -> Result<(Self::Asked, Request<Body>), String> {
        let request: line::Request<'_, Option<&RawValue>> = parsed(line)?;
        let of_line = OfLine {
            request_id: request.request_id.clone().into_owned(),
            deadline: request
                .timeout_ms
                .and_then(|millis| after(Duration::from_millis(millis))),
            metadata: BTreeMap::new(),
        };
        let (method, path) = match request.kind {
            Kind::Health => (Method::GET, "/health"),
            Kind::Info => (Method::GET, "/info"),
            Kind::Ping => (Method::GET, "/ping"),
            _ => (Method::POST, "/"),
        };
        let payload = request
            .data
            .map(|data| line.slice_ref(data.get().as_bytes()));
        let uri = Uri::from_static(path);
        let http = as_http(method, uri, &request.headers, payload, of_line);
        let id = request.request_id.into_owned();
        Ok((line::Request::new(request.kind, id, ()), http))
    }

    fn unread() -> Self::Asked {
        line::Request::new(Kind::Execute, "", ())
    }

    fn write(
        asked: &Self::Asked,
        headers: BTreeMap<String, String>,
        result: Result<&RawValue, String>,
    ) -> serde_json::Result<Vec<u8>> {
        let mut response = match result {
            Ok(data) => line::Response::success(asked, data),
            Err(error) => line::Response::failure(asked, error),
        };
        response.headers = Some(headers).filter(|headers| !headers.is_empty());
        as_line(&response)
    }
}

fn parsed<'a, T: serde::Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(line).map_err(|error| format!("the line is no request: {error}"))
}

fn after(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

fn owned(map: Map<'_>) -> BTreeMap<String, String> {
    let owned =
        |(name, value): (Cow<'_, str>, Cow<'_, str>)| (name.into_owned(), value.into_owned());
    map.into_iter().map(owned).collect()
}

/// The call of a line as what all calls are here. A header that HTTP cannot have is left out.
fn as_http(
    method: Method,
    uri: Uri,
    headers: &Map<'_>,
    payload: Option<Bytes>,
    of_line: OfLine,
) -> Request<Body> {
    let mut request = Request::new(payload.map_or_else(Body::empty, Body::from));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    for (name, value) in headers {
        if let Ok(name) = name.parse::<HeaderName>()
            && let Ok(value) = HeaderValue::try_from(&**value)
        {
            request.headers_mut().append(name, value);
        }
    }
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, json);
    request.extensions_mut().insert(of_line);
    request
}

/// The headers of `response` that are about the answer, and are text.
pub(super) fn headers<B>(response: &Response<B>) -> BTreeMap<String, String> {
    const OF_HTTP: [&str; 3] = ["content-type", "content-length", "x-request-id"];
    let headers = response.headers().iter();
    let headers = headers.filter(|(name, _)| !OF_HTTP.contains(&name.as_str()));
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    headers
        .filter_map(|(name, value)| Some((name.to_string(), text(value)?)))
        .collect()
}

fn as_line(response: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(response)?;
    // Outside of its texts, which have none, JSON may be broken into lines.
    for byte in &mut line {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    Ok(line)
}
