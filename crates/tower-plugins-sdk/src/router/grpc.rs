//! The door for gRPC: the service `tower_plugins.v1.Plugin`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, Streaming};
use tower_plugins_proto::v1::plugin_server::Plugin;
use tower_plugins_proto::v1::{ExecuteRequest, ExecuteResponse, InfoRequest, InfoResponse};

use super::answer::{Reply, Shape};
use super::caller::Said;
use super::error::{CallError, IntoCallError};
use super::methods::{Methods, within};
use super::{Call, Caller, envelope, http as door};

/// A router as a service of gRPC's.
pub(super) struct Grpc(pub(super) Arc<Methods>);

/// A call that has come, and how it is to be answered.
struct Opened {
    method: String,
    call: Call,
    form: Form,
}

/// What the answers to a call have in common.
#[derive(Clone)]
struct Form {
    request_id: String,
    is_enveloped: bool,
}

impl Grpc {
    /// The call that a `message` with this `metadata` begins.
    fn open(
        &self,
        mut message: ExecuteRequest,
        metadata: MetadataMap,
        extensions: tonic::Extensions,
    ) -> Opened {
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.headers = metadata.into_headers();
        head.extensions = extensions;
        let mut said = door::said(&self.0, head);
        // That of the call is gRPC's own.
        match HeaderValue::try_from(&message.content_type) {
            Ok(kind) if !kind.is_empty() => said.headers.insert(CONTENT_TYPE, kind),
            _ => said.headers.remove(CONTENT_TYPE),
        };
        if !message.request_id.is_empty() {
            said.request_id = Some(std::mem::take(&mut message.request_id));
        }
        said.metadata = message.metadata;
        let mut payload = message.payload;
        let data = (self.0.reads_envelopes)
            .then(|| envelope::open(&payload, &mut said))
            .flatten();
        let is_enveloped = data.is_some();
        payload = data.unwrap_or(payload);
        let caller = Caller::new(said);
        let request_id = caller.request_id().unwrap_or_default().to_owned();
        // What stands after a path belongs to HTTP.
        let mut method = message.method;
        method.truncate(method.find('?').unwrap_or(method.len()));
        Opened {
            method,
            call: Call::new(caller, payload),
            form: Form {
                request_id,
                is_enveloped,
            },
        }
    }
}

impl Form {
    fn message(&self, reply: Reply) -> Result<ExecuteResponse, Status> {
        let mut content_type = String::new();
        let payload = if self.is_enveloped {
            envelope::close(Ok(&reply), &self.request_id).map_err(|error| status(&error))?
        } else {
            reply.payload
        };
        if let Some(kind) = reply.content_type {
            kind.to_str()
                .unwrap_or_default()
                .clone_into(&mut content_type);
        } else {
            content_type.push_str("application/json");
        }
        let mut metadata = BTreeMap::new();
        if !self.is_enveloped {
            let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
            let headers = reply.headers.iter();
            metadata
                .extend(headers.filter_map(|(name, value)| Some((name.to_string(), text(value)?))));
        }
        Ok(ExecuteResponse {
            payload,
            content_type,
            metadata,
            request_id: self.request_id.clone(),
        })
    }

    fn respond(&self, outcome: Result<Reply, CallError>) -> Result<ExecuteResponse, Status> {
        match outcome {
            Ok(reply) => self.message(reply),
            // gRPC has no envelope for errors that the status would not say better.
            Err(error) => Err(status(&error)),
        }
    }
}

#[tonic::async_trait]
impl Plugin for Grpc {
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(self.0.info.message()))
    }

    async fn execute(
        &self,
        request: Request<ExecuteRequest>,
    ) -> Result<Response<ExecuteResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let Opened { method, call, form } = self.open(message, metadata, extensions);
        let outcome = self.0.reply(&method, call).await;
        form.respond(outcome).map(Response::new)
    }

    type ExecuteStreamStream = BoxStream<'static, Result<ExecuteResponse, Status>>;

    async fn execute_stream(
        &self,
        request: Request<Streaming<ExecuteRequest>>,
    ) -> Result<Response<Self::ExecuteStreamStream>, Status> {
        let (metadata, extensions, mut messages) = request.into_parts();
        let first = self.first(&metadata, &mut messages).await?;
        let Opened { method, call, form } = self.open(first, metadata, extensions);
        let is_enveloped = form.is_enveloped;
        let rest = messages.map(move |message| {
            let payload = message.map_err(IntoCallError::into_call_error)?.payload;
            Ok(if is_enveloped { data(payload) } else { payload })
        });
        let answer = self.0.run(&method, call.followed_by(Box::pin(rest))).await;
        let answers: Self::ExecuteStreamStream = match answer.map_err(|error| status(&error))?.0 {
            Shape::One(reply) => {
                let only = form.message(reply);
                Box::pin(futures_util::stream::iter([only]))
            }
            Shape::Stream(replies) => Box::pin(replies.map(move |reply| form.respond(reply))),
        };
        Ok(Response::new(answers))
    }
}

impl Grpc {
    /// The message that names the method. It may be as late as the caller waits.
    async fn first(
        &self,
        metadata: &MetadataMap,
        messages: &mut Streaming<ExecuteRequest>,
    ) -> Result<ExecuteRequest, Status> {
        let mut head = http::Request::new(());
        *head.headers_mut() = metadata.clone().into_headers();
        let first = within(self.0.deadline(&head), messages.message()).await;
        let first = first.map_err(|error| status(&error))??;
        first.ok_or_else(|| {
            Status::invalid_argument(
                "the first message of a stream names its method: there was none",
            )
        })
    }
}

/// What is in the envelope that `payload` is, or else all of it.
fn data(payload: Bytes) -> Bytes {
    envelope::open(&payload, &mut Said::default()).unwrap_or(payload)
}

fn status(error: &CallError) -> Status {
    let mut metadata = MetadataMap::new();
    if let Some(Ok(code)) = error.word().map(MetadataValue::try_from) {
        metadata.insert("x-error-code", code);
    }
    if let Some(wait) = error.wait() {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        metadata.insert("grpc-retry-pushback-ms", millis.into());
    }
    Status::with_metadata(error.kind().code(), error.to_string(), metadata)
}
