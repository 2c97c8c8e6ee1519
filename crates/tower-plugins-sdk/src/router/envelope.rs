//! Payloads that are the envelope of go-plugins.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tower_plugins_proto::duration;
use tower_plugins_proto::envelope::{Map, Response};

use super::answer::Reply;
use super::caller::Said;
use super::error::CallError;

/// An envelope has these keys and no other, of which hosts always send the first three. That tells it from data.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[serde(with = "duration")]
    timeout: Duration,
    #[serde(borrow, default)]
    headers: Map<'a>,
    #[serde(borrow, default)]
    metadata: Map<'a>,
}

/// Takes the envelope off `payload`, if it is one: what else it says goes into `said`, where the call itself has not
/// said it.
pub(super) fn open(payload: &Bytes, said: &mut Said) -> Option<Bytes> {
    let envelope: Envelope<'_> = object(payload)?;
    for (name, value) in &envelope.headers {
        if let Ok(name) = name.parse::<HeaderName>()
            && let Ok(value) = HeaderValue::try_from(&**value)
        {
            said.headers.entry(name).or_insert(value);
        }
    }
    let owned =
        |(name, value): (Cow<'_, str>, Cow<'_, str>)| (name.into_owned(), value.into_owned());
    said.metadata
        .extend(envelope.metadata.into_iter().map(owned));
    if said.request_id.is_none() && !envelope.request_id.is_empty() {
        said.request_id = Some(envelope.request_id.into_owned());
    }
    if !envelope.timeout.is_zero() {
        let at = Instant::now().checked_add(envelope.timeout);
        said.deadline = said.deadline.into_iter().chain(at).min();
    }
    Some(payload.slice_ref(envelope.data.get().as_bytes()))
}

/// The object that `payload` is, if it has the keys of a `T`. An array that has as many values is none.
pub(super) fn object<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Option<T> {
    let is_object = payload.trim_ascii_start().first() == Some(&b'{');
    is_object
        .then(|| serde_json::from_slice(payload).ok())
        .flatten()
}

/// `outcome` in an envelope.
pub(super) fn close(
    outcome: Result<&Reply, &CallError>,
    request_id: &str,
) -> Result<Bytes, CallError> {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let mut response = Response {
        data: None,
        error: None,
        request_id: request_id.to_owned(),
        metadata: None,
    };
    let mut metadata = BTreeMap::new();
    match outcome {
        Ok(reply) => {
            response.data = Some(json(reply)?);
            let headers = reply.headers.iter();
            let headers =
                headers.filter_map(|(name, value)| Some((name.to_string(), text(value)?)));
            metadata.extend(headers);
        }
        Err(error) => {
            response.error = Some(error.to_string()).filter(|text| !text.is_empty());
            // An envelope with an empty error is one without an error.
            response
                .error
                .get_or_insert_with(|| error.kind().as_str().to_owned());
            metadata.insert("kind".to_owned(), error.kind().as_str().to_owned());
            metadata.extend(
                error
                    .word()
                    .map(|code| ("code".to_owned(), code.to_owned())),
            );
        }
    }
    response.metadata = Some(metadata).filter(|metadata| !metadata.is_empty());
    let bytes = serde_json::to_vec(&response).map_err(CallError::internal)?;
    Ok(bytes.into())
}

/// The JSON that `reply` is.
pub(super) fn json(reply: &Reply) -> Result<&RawValue, CallError> {
    if let Some(other) = &reply.content_type {
        let message = format!("the answer is {other:?}, and what it has to go into carries JSON");
        return Err(CallError::internal(message));
    }
    serde_json::from_slice(&reply.payload).map_err(CallError::internal)
}
