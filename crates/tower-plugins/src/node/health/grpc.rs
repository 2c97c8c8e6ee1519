//! `grpc.health.v1`, over whatever carries HTTP.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use tower_plugins_layers::Reason;
use tower_plugins_proto::health::{
    CHECK, HealthCheckRequest, HealthCheckResponse, ServingStatus, WATCH,
};

use super::ask::{Ask, Failed};
use super::state::Failure;
use crate::Body;
use crate::config::RetryOn;

/// No answer is nearly as long.
const MAX_MESSAGE: usize = 64 << 10;

/// The flag and the length before a message.
const PREFIX: usize = 5;

/// The code of a call that the server does not know.
pub(super) const UNIMPLEMENTED: u8 = 12;

/// The code of a service that the server does not know.
const NOT_FOUND: u8 = 5;

/// Whether `failure` says that nobody there can tell.
pub(super) fn is_not_there(failure: &Failure) -> bool {
    matches!(failure.code, Some(UNIMPLEMENTED | NOT_FOUND))
}

/// What a message says: that it is well, or why it is not.
pub(super) type Said = Result<(), Failure>;

/// Asks once.
pub(super) async fn check(ask: &Ask, service: &str) -> Result<(), Failed> {
    let mut answer = open(ask, CHECK, service).await?;
    match answer.next().await? {
        Some(said) => {
            said?;
            // The trailers have the last word, and their end frees the stream.
            match answer.next().await? {
                None => Ok(()),
                Some(_) => {
                    Err(Failure::new(Reason::Status, "an answer of several messages").into())
                }
            }
        }
        None => Err(Failure::new(Reason::Status, "an answer without a message").into()),
    }
}

/// Asks to be told of each change.
pub(super) async fn watch(ask: &Ask, service: &str) -> Result<Answer, Failed> {
    open(ask, WATCH, service).await
}

async fn open(ask: &Ask, path: &'static str, service: &str) -> Result<Answer, Failed> {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let message = request.to_bytes();
    let mut framed = Vec::with_capacity(PREFIX + message.len());
    framed.push(0);
    // The name of a service is not nearly as long.
    framed.extend_from_slice(
        &u32::try_from(message.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    framed.extend_from_slice(&message);
    let mut request = Request::new(Body::from(framed));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let response = ask.call(request).await?;
    if response.status() != StatusCode::OK {
        let message = format!("status {}", response.status());
        return Err(Failure::new(Reason::Status, message).into());
    }
    let is_judged = judge(response.headers())?;
    Ok(Answer {
        is_judged,
        body: response.into_body(),
        read: BytesMut::new(),
    })
}

/// The messages of a response.
pub(super) struct Answer {
    /// Whether its status has come, which was well.
    is_judged: bool,
    body: Body,
    read: BytesMut,
}

impl Answer {
    /// What the next message says; `None` at an end that is well.
    pub(super) async fn next(&mut self) -> Result<Option<Said>, Failed> {
        loop {
            if let Some(message) = self.message()? {
                return Ok(Some(said(&message)));
            }
            let Some(frame) = self.body.frame().await else {
                if self.is_judged {
                    return Ok(None);
                }
                return Err(Failure::new(Reason::Status, "an answer without a grpc-status").into());
            };
            let frame = frame.map_err(|error| Failed::by(&error))?;
            match frame.into_data() {
                Ok(data) => self.read.extend_from_slice(&data),
                Err(frame) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        self.is_judged |= judge(trailers)?;
                    }
                }
            }
        }
    }

    fn message(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(&[flag, a, b, c, d]) = self.read.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if flag != 0 || length > MAX_MESSAGE {
            let what = "an answer that is compressed, or too long, or not gRPC";
            return Err(Failure::new(Reason::Status, what));
        }
        if self.read.len() < PREFIX + length {
            return Ok(None);
        }
        self.read.advance(PREFIX);
        Ok(Some(self.read.split_to(length).freeze()))
    }
}

fn said(message: &[u8]) -> Said {
    let status = match HealthCheckResponse::from_bytes(message) {
        Ok(response) => response.status(),
        Err(error) => return Err(Failure::new(Reason::Status, error.to_string())),
    };
    let what = match status {
        ServingStatus::Serving => return Ok(()),
        ServingStatus::NotServing => "it says that it does not serve",
        ServingStatus::ServiceUnknown => "it knows no such service",
        ServingStatus::Unknown => "it says that it does not know",
    };
    Err(Failure::new(Reason::Status, what))
}

/// What `grpc-status` says; false where there is none.
fn judge(headers: &HeaderMap) -> Result<bool, Failure> {
    let Some(status) = headers.get("grpc-status") else {
        return Ok(false);
    };
    match status.to_str().ok().and_then(|status| status.parse().ok()) {
        Some(0) => Ok(true),
        Some(code) => Err(unwell(code)),
        None => Err(Failure::new(Reason::Status, "a grpc-status that is none")),
    }
}

fn unwell(code: u8) -> Failure {
    // It writes a code's name after `grpc:`.
    let name = RetryOn::Grpc(code).to_string().replace(':', " status ");
    Failure {
        code: Some(code),
        ..Failure::new(Reason::Status, name)
    }
}
