//! An HTTP request as a line, and a line as the response to it.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::http::header::{self, HeaderName, HeaderValue};
use ::http::request::Parts;
use ::http::{Method, Response, StatusCode};
use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tower_plugins_proto::envelope;
use tower_plugins_proto::line::{self, Kind, Map};

use crate::Body;
use crate::config::unix_json::{OF_HTTP, REQUEST_ID};
use crate::transport::enveloped::{Enveloped, as_map, as_text};

/// What a request asks, for a plugin that is sent lines.
#[derive(Debug)]
pub(in crate::transport) struct Call<'a> {
    kind: Kind,
    id: Cow<'a, str>,
    data: Option<&'a RawValue>,
    headers: Map<'a>,
    /// How long the caller waits, if nothing else says so.
    timeout: Duration,
    is_enveloped: bool,
}

impl<'a> Call<'a> {
    /// What the request of `head` and `body` asks; the error says what of it no line can carry.
    pub(in crate::transport) fn of(head: &'a Parts, body: &'a [u8]) -> Result<Self, String> {
        let is_enveloped = head.extensions.get::<Enveloped>().is_some();
        let mut headers = as_map(&head.headers, |name| OF_HTTP.contains(&name))?;
        let (mut id, mut timeout) = (Cow::Borrowed(""), Duration::ZERO);
        let data = if is_enveloped {
            let envelope: envelope::Request<'_, Option<&RawValue>> = parsed(body)?;
            headers.extend(envelope.headers);
            (id, timeout) = (envelope.request_id, envelope.timeout);
            envelope.data
        } else if body.is_empty() {
            None
        } else {
            parsed(body)?
        };
        if let Some(given) = head.headers.get(REQUEST_ID) {
            id = as_text(REQUEST_ID, given)?.into();
        }
        Ok(Self {
            kind: kind(head, body),
            id: if id.is_empty() { new_id().into() } else { id },
            data,
            headers,
            timeout,
            is_enveloped,
        })
    }

    /// The line, and its newline, if it goes out now.
    pub(in crate::transport) fn line(&self, deadline: Option<Instant>) -> Result<Vec<u8>, String> {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let left = left.or_else(|| (!self.timeout.is_zero()).then_some(self.timeout));
        // None at all would say that there is no limit.
        let millis = |left: Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        let request = line::Request {
            kind: self.kind,
            request_id: Cow::Borrowed(&*self.id),
            data: self.data,
            headers: self.headers.clone(),
            timeout_ms: left.map(millis),
        };
        let line = serde_json::to_vec(&request);
        let mut line = line.map_err(|error| error.to_string())?;
        // Outside of its texts, which have none, JSON may be broken into lines.
        for byte in &mut line {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        line.push(b'\n');
        Ok(line)
    }

    /// What `answer`, a line, says; the error says why it is no answer to this call.
    pub(in crate::transport) fn respond(&self, answer: &Bytes) -> Result<Response<Body>, String> {
        let parsed: line::Response<&RawValue> =
            serde_json::from_slice(answer).map_err(|error| {
                // Its own words may repeat what the plugin said.
                let at = error.column();
                format!("it did not answer with a line as it should: wrong at byte {at}")
            })?;
        if parsed.request_id != self.id {
            let found: String = parsed.request_id.chars().take(64).collect();
            let id = &self.id;
            return Err(format!(
                "it is out of step: the answer to {id:?} was one to {found:?}"
            ));
        }
        let mut response = Response::new(Body::empty());
        let headers = parsed.headers.clone().unwrap_or_default();
        for (name, value) in headers {
            // What is none, or is not for it to say, is left out.
            if let Ok(name) = HeaderName::try_from(name)
                && let Ok(value) = HeaderValue::try_from(value)
                && !OF_HTTP.contains(&name.as_str())
            {
                response.headers_mut().append(name, value);
            }
        }
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        let body = match (parsed.into_result(), self.is_enveloped) {
            (Ok(data), false) => {
                let data = data.map_or(Bytes::from_static(b"null"), |data| {
                    answer.slice_ref(data.get().as_bytes())
                });
                *response.body_mut() = data.into();
                return Ok(response);
            }
            (Ok(data), true) => serde_json::to_vec(&envelope::Response {
                data,
                error: None,
                request_id: self.id.clone().into_owned(),
                metadata: None,
            }),
            (Err(failure), is_enveloped) => {
                if !is_enveloped {
                    *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
                }
                serde_json::to_vec(&envelope::Response::<()>::failure(&*self.id, failure.0))
            }
        };
        *response.body_mut() = body.map_err(|error| error.to_string())?.into();
        Ok(response)
    }
}

/// A request without a body for a path that the wire has a word for is that word.
fn kind(head: &Parts, body: &[u8]) -> Kind {
    if head.method != Method::GET || !body.is_empty() {
        return Kind::Execute;
    }
    match head.uri.path() {
        "/health" => Kind::Health,
        "/info" => Kind::Info,
        "/ping" => Kind::Ping,
        _ => Kind::Execute,
    }
}

fn parsed<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("its body is not the JSON that unix-json carries, at {line}:{column}")
    })
}

/// An id that no other call has, here or from another process.
fn new_id() -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(|| RandomState::new().hash_one(std::process::id()));
    format!("{process:016x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
