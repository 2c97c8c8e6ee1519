use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower_plugins_layers::BoxError;
use tower_plugins_proto::envelope;

use crate::Body;
use crate::transport::{Enveloped, as_map};

/// How a typed request becomes an HTTP request, and an HTTP response a typed one.
pub trait Codec<Req: ?Sized, Res> {
    /// Fills in the body of `request` and the headers that describe it.
    ///
    /// `timeout` is the time the caller gives the call, if it has said so.
    ///
    /// # Errors
    /// When `value` cannot be encoded.
    fn encode(
        &self,
        value: &Req,
        request: &mut Request<Body>,
        timeout: Option<Duration>,
    ) -> Result<(), BoxError>;

    /// What a successful response says.
    ///
    /// # Errors
    /// [`DecodeError`]: the response cannot be decoded, or it is the plugin's own error.
    fn decode(&self, response: Response<Bytes>) -> Result<Res, DecodeError>;
}

/// Why a response is no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum DecodeError {
    /// It cannot be decoded.
    Invalid(BoxError),
    /// It is an error that the plugin sent.
    Plugin(BoxError),
}

/// Plain JSON: the body is the value. A request that encodes to `null`, such as `()`, has no body.
///
/// An empty response decodes as `null`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<Req: Serialize + ?Sized, Res: DeserializeOwned> Codec<Req, Res> for Json {
    fn encode(
        &self,
        value: &Req,
        request: &mut Request<Body>,
        _: Option<Duration>,
    ) -> Result<(), BoxError> {
        let bytes = serde_json::to_vec(value)?;
        if bytes != b"null" {
            set_json(request.headers_mut());
            *request.body_mut() = bytes.into();
        }
        Ok(())
    }

    fn decode(&self, response: Response<Bytes>) -> Result<Res, DecodeError> {
        let body = response.into_body();
        let body: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(body).map_err(invalid)
    }
}

/// The envelope of the go-plugins library's HTTP wire: the value stands in `data`, next to the
/// request's id, its timeout and its headers; an answer whose `error` is not empty is an error.
///
/// A plugin with `transport: unix-json` takes the same method: the envelope's parts go to their places in
/// the line, and what the line says comes back as an envelope.
#[derive(Clone, Copy, Debug, Default)]
pub struct Envelope;

impl<Req: Serialize + ?Sized, Res: DeserializeOwned> Codec<Req, Res> for Envelope {
    fn encode(
        &self,
        value: &Req,
        request: &mut Request<Body>,
        timeout: Option<Duration>,
    ) -> Result<(), BoxError> {
        let request_id = request
            .headers()
            .get("x-request-id")
            .and_then(|id| id.to_str().ok());
        let timeout = timeout.unwrap_or_default();
        let mut envelope = envelope::Request::new(request_id.unwrap_or_default(), timeout, value);
        // The id has a place of its own.
        envelope.headers = as_map(request.headers(), |name| name == "x-request-id")?;
        let bytes = serde_json::to_vec(&envelope)?;
        set_json(request.headers_mut());
        *request.body_mut() = bytes.into();
        request.extensions_mut().insert(Enveloped);
        Ok(())
    }

    fn decode(&self, response: Response<Bytes>) -> Result<Res, DecodeError> {
        let answer: envelope::Response<serde_json::Value> =
            serde_json::from_slice(response.body()).map_err(invalid)?;
        match answer.into_result() {
            Ok(data) => serde_json::from_value(data).map_err(invalid),
            // An answer that is empty is the answer of a type that is nothing, or no answer at all.
            Err(envelope::Failure::Empty) => {
                serde_json::from_value(serde_json::Value::Null).map_err(invalid)
            }
            Err(error) => Err(DecodeError::Plugin(error.into())),
        }
    }
}

fn invalid(error: serde_json::Error) -> DecodeError {
    DecodeError::Invalid(error.into())
}

fn set_json(headers: &mut HeaderMap) {
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
}
