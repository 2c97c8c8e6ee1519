//! Typed calls of a plugin that speaks gRPC: through the service `tower_plugins.v1.Plugin`.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, request};
use http_body_util::BodyExt;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tower_plugins_layers::{Reason, Refused};
use tower_plugins_proto::v1::plugin_client::PluginClient;
use tower_plugins_proto::v1::{ExecuteRequest, ExecuteResponse, InfoRequest, InfoResponse};
use tower_service::Service;

use crate::Body;
use crate::config::{Compression, GrpcSpec};
use crate::error::{Error, Kind};
use crate::node::{self, Node};
use crate::transport::Limit;

/// Not passed on within a message: they belong to the call, or are nobody's business.
const OF_THE_CALL: [HeaderName; 4] = [CONTENT_TYPE, AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE];

const REQUEST_ID: &str = "x-request-id";

/// The node of one call as a channel.
pub(super) struct Pinned {
    node: Arc<Node>,
    limit: Option<Arc<Limit>>,
}

impl Service<Request<tonic::body::Body>> for Pinned {
    type Response = Response<Body>;
    type Error = Error;
    type Future = node::CallFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> node::CallFuture {
        let call = Arc::clone(&self.node).call(request.map(Body::new));
        match &self.limit {
            None => call,
            Some(limit) => {
                let limit = Arc::clone(limit);
                Box::pin(async move { Ok(call.await?.map(|body| limit.applied(body))) })
            }
        }
    }
}

/// A client of `node`, which reads messages of at most `max_response` bytes.
pub(super) fn client(
    node: Arc<Node>,
    spec: &GrpcSpec,
    max_response: usize,
) -> PluginClient<Pinned> {
    let max = u32::try_from(max_response).unwrap_or(u32::MAX);
    // The transport has a limit of its own.
    let limit = (max < spec.max_response_message).then(|| {
        Arc::new(Limit {
            what: "the answer".into(),
            bytes: max,
            key: "max_response",
            reason: Reason::ResponseTooLarge,
        })
    });
    // Takes the place of the endpoint's until that is known.
    let origin = Uri::from_static("http://plugin");
    let client = PluginClient::with_origin(Pinned { node, limit }, origin)
        .max_decoding_message_size(max.min(spec.max_response_message) as usize);
    match spec.compression {
        Compression::Off => client,
        Compression::Gzip => client
            .send_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Gzip),
    }
}

/// Makes the call that a codec has written as `request`; gives the answer as the codec reads it.
pub(super) async fn execute(
    mut client: PluginClient<Pinned>,
    request: Request<Body>,
) -> Result<Response<Bytes>, Error> {
    let method = method_of(request.uri());
    let (head, body) = request.into_parts();
    let body = body.collect().await;
    let payload = body.map_err(|error| Error::caused_by(Kind::Encode, error))?;
    let message = message(&head.headers, method, payload.to_bytes());
    let response = client.execute(with_head(head, message)).await;
    let (metadata, message, _) = response.map_err(of_status)?.into_parts();
    Ok(answer(message, metadata.into_headers()))
}

pub(super) async fn info(mut client: PluginClient<Pinned>) -> Result<InfoResponse, Error> {
    let response = client.info(InfoRequest {}).await.map_err(of_status)?;
    Ok(response.into_inner())
}

/// The name of the method at `uri`: its path, without the slash at its beginning.
pub(super) fn method_of(uri: &Uri) -> String {
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    path.strip_prefix('/').unwrap_or(path).to_owned()
}

/// The message that says what a codec has written.
pub(super) fn message(headers: &HeaderMap, method: String, payload: Bytes) -> ExecuteRequest {
    let text = |value: Option<&HeaderValue>| {
        let value = value.and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let beside = headers.iter().filter_map(|(name, value)| {
        let is_ours = OF_THE_CALL.contains(name) || name == REQUEST_ID || value.is_sensitive();
        let value = value.to_str().ok().filter(|_| !is_ours)?;
        Some((name.as_str().to_owned(), value.to_owned()))
    });
    let mut metadata = BTreeMap::<String, String>::new();
    for (name, value) in beside {
        metadata
            .entry(name)
            .and_modify(|all| *all = format!("{all}, {value}"))
            .or_insert(value);
    }
    ExecuteRequest {
        method,
        payload,
        content_type: text(headers.get(CONTENT_TYPE)),
        metadata,
        request_id: text(headers.get(REQUEST_ID)),
    }
}

/// `message` with what the layers of the stack see of a call: its headers, and its context.
pub(super) fn with_head<M>(head: request::Parts, message: M) -> tonic::Request<M> {
    let metadata = MetadataMap::from_headers(head.headers);
    tonic::Request::from_parts(metadata, head.extensions, message)
}

/// The answer as one over HTTP, which codecs read.
pub(super) fn answer(message: ExecuteResponse, mut headers: HeaderMap) -> Response<Bytes> {
    headers.remove(CONTENT_TYPE);
    for (name, value) in &message.metadata {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
            headers.insert(name, value);
        }
    }
    if let Ok(kind) = HeaderValue::try_from(&message.content_type)
        && !kind.is_empty()
    {
        headers.insert(CONTENT_TYPE, kind);
    }
    let mut answer = Response::new(message.payload);
    *answer.headers_mut() = headers;
    answer
}

/// What a call's status says: an error of this side, or the plugin's own.
pub(super) fn of_status(status: Status) -> Error {
    let mut next = StdError::source(&status);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<Error>() {
            return error.duplicate();
        }
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return Error::of_status(Kind::Refused(refused.reason()), status);
        }
        next = error.source();
    }
    // Of what the length on the wire does not say.
    if status.code() == tonic::Code::ResourceExhausted
        && status.message().starts_with("Error decompressing")
    {
        return Error::of_status(Kind::Refused(Reason::ResponseTooLarge), status);
    }
    Error::of_status(Kind::Answered(status.code() as i32), status)
}
