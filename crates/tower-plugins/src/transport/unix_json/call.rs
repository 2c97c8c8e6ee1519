//! An HTTP request as a line, and a line as the response to it.

use std::borrow::Cow;
use std::time::Duration;

use ::http::header::{HeaderName, HeaderValue};
use ::http::request::Parts;
use ::http::{Method, Response};
use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tower_plugins_proto::envelope;
use tower_plugins_proto::line::{self, Kind, Map};

use crate::Body;
use crate::config::unix_json::{OF_HTTP, REQUEST_ID};
use crate::transport::enveloped::{Enveloped, as_map, as_text};
use crate::transport::lines::{answered, as_line, new_id, not_a_line, out_of_step, parsed};

/// What a request asks, for a plugin that is sent lines.
#[derive(Debug)]
pub(super) struct Call<'a> {
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
    pub(super) fn of(head: &'a Parts, body: &'a [u8]) -> Result<Self, String> {
        let is_enveloped = head.extensions.get::<Enveloped>().is_some();
        let mut headers = as_map(&head.headers, |name| OF_HTTP.contains(&name))?;
        let (mut id, mut timeout) = (Cow::Borrowed(""), Duration::ZERO);
        let data = if is_enveloped {
            let envelope: envelope::Request<'_, Option<&RawValue>> = parsed("unix-json", body)?;
            headers.extend(envelope.headers);
            (id, timeout) = (envelope.request_id, envelope.timeout);
            envelope.data
        } else if body.is_empty() {
            None
        } else {
            parsed("unix-json", body)?
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
    pub(super) fn line(&self, deadline: Option<Instant>) -> Result<Vec<u8>, String> {
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
        as_line(&request)
    }

    /// What `answer`, a line, says; the error says why it is no answer to this call.
    pub(super) fn respond(&self, answer: &Bytes) -> Result<Response<Body>, String> {
        let parsed: line::Response<&RawValue> =
            serde_json::from_slice(answer).map_err(|error| not_a_line(&error))?;
        if parsed.request_id != self.id {
            return Err(out_of_step(&self.id, &parsed.request_id));
        }
        let headers = parsed.headers.clone().unwrap_or_default();
        let result = parsed.into_result();
        let mut response = answered(answer, result, &self.id, self.is_enveloped)?;
        for (name, value) in headers {
            // What is none, or is not for it to say, is left out.
            if let Ok(name) = HeaderName::try_from(name)
                && let Ok(value) = HeaderValue::try_from(value)
                && !OF_HTTP.contains(&name.as_str())
            {
                response.headers_mut().append(name, value);
            }
        }
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
