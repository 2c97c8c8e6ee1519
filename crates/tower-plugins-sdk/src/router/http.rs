//! The door for HTTP, and for lines of JSON, which are HTTP within the process.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Request, StatusCode, request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use tokio::time::Instant;

use super::answer::Reply;
use super::caller::Said;
use super::error::{CallError, Kind};
use super::methods::{Methods, within};
use super::{Call, Caller, envelope};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What a line says that has no place in a request, in its extensions.
#[derive(Clone, Debug, Default)]
pub(super) struct OfLine {
    pub(super) request_id: String,
    pub(super) deadline: Option<Instant>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// What the head of a call says.
pub(super) fn said(methods: &Methods, head: request::Parts) -> Said {
    let request = Request::from_parts(head, ());
    let deadline = methods.deadline(&request);
    let (head, ()) = request.into_parts();
    let request_id = head.headers.get(REQUEST_ID);
    let request_id = request_id
        .and_then(|id| id.to_str().ok())
        .map(str::to_owned);
    let mut said = Said {
        headers: head.headers,
        extensions: head.extensions,
        request_id: request_id.filter(|id| !id.is_empty()),
        metadata: BTreeMap::new(),
        deadline,
    };
    if let Some(line) = said.extensions.remove::<OfLine>() {
        said.request_id = Some(line.request_id).filter(|id| !id.is_empty());
        said.deadline = said.deadline.into_iter().chain(line.deadline).min();
        said.metadata = line.metadata;
    }
    said
}

/// Answers the request, to the method `name` or to the one that it names itself.
pub(super) async fn answer(
    methods: Arc<Methods>,
    name: Option<Arc<str>>,
    request: Request<Body>,
) -> Response {
    let (head, body) = request.into_parts();
    let is_line = head.extensions.get::<OfLine>().is_some();
    let mut said = said(&methods, head);
    let payload = within(said.deadline, read(body, methods.max_request)).await;
    let mut payload = match payload.and_then(|payload| payload) {
        Ok(payload) => payload,
        Err(error) => return failed(error, said.request_id.as_deref()),
    };
    let mut is_enveloped = false;
    // What a line carries has been taken out of its envelope by the host.
    if methods.reads_envelopes
        && !is_line
        && let Some(data) = envelope::open(&payload, &mut said)
    {
        (payload, is_enveloped) = (data, true);
    }
    let name = name.map_or_else(|| methods.named(&said.headers, &payload), Ok);
    let caller = Caller::new(said);
    let id = caller.request_id().map(str::to_owned);
    let outcome = match name {
        Ok(name) => methods.reply(&name, Call::new(caller, payload)).await,
        Err(error) => Err(error),
    };
    if is_enveloped {
        return enveloped(outcome.as_ref(), id.as_deref());
    }
    match outcome {
        Ok(reply) => succeeded(reply, id.as_deref()),
        Err(error) => failed(error, id.as_deref()),
    }
}

async fn read(body: Body, max: usize) -> Result<Bytes, CallError> {
    let read = Limited::new(body, max).collect().await;
    let error = match read {
        Ok(body) => return Ok(body.to_bytes()),
        Err(error) => error,
    };
    let is_too_large = error.is::<LengthLimitError>()
        || error
            .source()
            .is_some_and(|cause| cause.is::<LengthLimitError>());
    let error = if is_too_large {
        let message = format!("the request is larger than {max} bytes, the most that is read");
        CallError::new(Kind::ResourceExhausted, message).status(StatusCode::PAYLOAD_TOO_LARGE)
    } else {
        CallError::new(Kind::InvalidArgument, error)
    };
    Err(error.before_the_handler())
}

fn succeeded(reply: Reply, id: Option<&str>) -> Response {
    let mut response = Response::new(Body::from(reply.payload));
    *response.headers_mut() = reply.headers;
    let kind = reply.content_type.unwrap_or(JSON);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    with_id(response, id)
}

/// The envelope is for what a handler said; all else has a status, and is tried again by hosts where that helps.
fn enveloped(outcome: Result<&Reply, &CallError>, id: Option<&str>) -> Response {
    if let Err(error) = outcome
        && !error.is_verdict()
    {
        return failed(error.clone(), id);
    }
    match envelope::close(outcome, id.unwrap_or_default()) {
        Err(error) => failed(error, id),
        Ok(payload) => {
            let reply = Reply {
                payload,
                ..Reply::default()
            };
            succeeded(reply, id)
        }
    }
}

/// A failure as JSON.
#[derive(Serialize)]
struct Failure<'a> {
    error: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

pub(super) fn failed(error: CallError, id: Option<&str>) -> Response {
    let failure = Failure {
        error: error.to_string(),
        kind: error.kind().as_str(),
        code: error.word(),
        request_id: id,
    };
    // Text is all there is in it, which can always be written.
    let body = serde_json::to_vec(&failure).unwrap_or_default();
    let mut response = (error.http_status(), Body::from(body)).into_response();
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    if let Some(wait) = error.wait() {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response.extensions_mut().insert(error);
    with_id(response, id)
}

fn with_id(mut response: Response, id: Option<&str>) -> Response {
    if let Some(id) = id.and_then(|id| HeaderValue::from_str(id).ok()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// `value`, which is known to be JSON, as an answer that is always the same.
pub(super) fn json(value: &impl Serialize) -> ([(HeaderName, HeaderValue); 1], Bytes) {
    let body = serde_json::to_vec(value).unwrap_or_default();
    ([(CONTENT_TYPE, JSON)], body.into())
}

/// A call of no method that there is.
pub(super) async fn unknown(methods: Arc<Methods>, request: Request<Body>) -> Response {
    let kind = request.headers().get(CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        let message = format!("there is no service at {}", request.uri().path());
        return tonic::Status::unimplemented(message).into_http();
    }
    let path = request.uri().path();
    failed(
        methods.unknown(path.strip_prefix('/').unwrap_or(path)),
        None,
    )
}

/// A method that was called with a verb that it does not answer. The header `allow` is axum's to add.
pub(super) async fn not_allowed() -> Response {
    let message = "a method is called with POST, and with GET where the header `allow` of this answer says so";
    let error = CallError::new(Kind::Unimplemented, message);
    failed(error.status(StatusCode::METHOD_NOT_ALLOWED), None)
}
