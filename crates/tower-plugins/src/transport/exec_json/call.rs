//! An HTTP request as a line, and a line as the response to it.

use std::borrow::Cow;
use std::time::Duration;

use ::http::Response;
use ::http::request::Parts;
use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tower_plugins_proto::envelope;
use tower_plugins_proto::exec::{self, Context, Map};

use crate::Body;
use crate::config::unix_json::{OF_HTTP, REQUEST_ID};
use crate::transport::enveloped::{Enveloped, as_map, as_text};
use crate::transport::lines::{answered, as_line, new_id, not_a_line, out_of_step, parsed};

/// What a request asks, for a plugin that is sent lines.
#[derive(Debug)]
pub(super) struct Call<'a> {
    id: Cow<'a, str>,
    payload: Option<&'a RawValue>,
    headers: Map<'a>,
    metadata: Map<'a>,
    /// How long the caller waits, if nothing else says so.
    timeout: Duration,
    is_enveloped: bool,
}

impl<'a> Call<'a> {
    /// What the request of `head` and `body` asks; the error says what of it no line can carry.
    pub(super) fn of(head: &'a Parts, body: &'a [u8]) -> Result<Self, String> {
        let is_enveloped = head.extensions.get::<Enveloped>().is_some();
        let mut call = Self {
            id: Cow::Borrowed(""),
            payload: None,
            headers: as_map(&head.headers, |name| OF_HTTP.contains(&name))?,
            metadata: Map::new(),
            timeout: Duration::ZERO,
            is_enveloped,
        };
        if is_enveloped {
            let envelope: envelope::Request<'_, Option<&RawValue>> = parsed("exec-json", body)?;
            call.headers.extend(envelope.headers);
            call.metadata = envelope.metadata;
            (call.id, call.timeout) = (envelope.request_id, envelope.timeout);
            call.payload = envelope.data;
        } else if !body.is_empty() {
            call.payload = parsed("exec-json", body)?;
        }
        if let Some(given) = head.headers.get(REQUEST_ID) {
            call.id = as_text(REQUEST_ID, given)?.into();
        }
        if call.id.is_empty() {
            call.id = new_id().into();
        }
        Ok(call)
    }

    /// The line, and its newline, if it goes out now.
    pub(super) fn line(&self, deadline: Option<Instant>) -> Result<Vec<u8>, String> {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let left = left.or_else(|| (!self.timeout.is_zero()).then_some(self.timeout));
        // What reads it has 63 bits for it, and none at all would say that there is no limit.
        let nanos = |left: Duration| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
        let most = i64::MAX.unsigned_abs();
        let request = exec::Request {
            id: Cow::Borrowed(&*self.id),
            method: exec::EXECUTE.into(),
            payload: self.payload,
            context: Context {
                request_id: Cow::Borrowed(&*self.id),
                timeout: left.map_or(0, |left| nanos(left).clamp(1, most)),
                max_retries: 0,
                headers: self.headers.clone(),
                metadata: self.metadata.clone(),
            },
        };
        as_line(&request)
    }

    /// What `answer`, a line, says; the error says why it is no answer to this call.
    pub(super) fn respond(&self, answer: &Bytes) -> Result<Response<Body>, String> {
        let parsed: exec::Response<&RawValue> =
            serde_json::from_slice(answer).map_err(|error| not_a_line(&error))?;
        // One that could not read the line has no id to answer with, and there is one call at a time.
        let is_unread = parsed.id.is_empty() && parsed.error.is_some();
        if parsed.id != self.id && !is_unread {
            return Err(out_of_step(&self.id, &parsed.id));
        }
        answered(answer, parsed.into_result(), &self.id, self.is_enveloped)
    }
}
