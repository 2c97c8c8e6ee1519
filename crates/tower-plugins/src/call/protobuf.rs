use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use prost::Message;
use tower_plugins_layers::BoxError;

use super::{Codec, DecodeError};
use crate::Body;

/// Protobuf messages, as `application/protobuf`.
///
/// ```
/// use tower_plugins::call::{Method, Protobuf};
/// use tower_plugins_proto::v1::{InfoRequest, InfoResponse};
///
/// static DESCRIBE: Method<InfoRequest, InfoResponse, Protobuf> =
///     Method::with_codec(http::Method::POST, "/describe", Protobuf);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Protobuf;

impl<Req: Message, Res: Message + Default> Codec<Req, Res> for Protobuf {
    fn encode(
        &self,
        value: &Req,
        request: &mut Request<Body>,
        _: Option<Duration>,
    ) -> Result<(), BoxError> {
        let kind = HeaderValue::from_static("application/protobuf");
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        *request.body_mut() = value.encode_to_vec().into();
        Ok(())
    }

    fn decode(&self, response: Response<Bytes>) -> Result<Res, DecodeError> {
        Res::decode(response.into_body()).map_err(|error| DecodeError::Invalid(error.into()))
    }
}
