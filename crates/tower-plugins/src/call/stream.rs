//! Typed calls with a stream of requests and a stream of answers.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, Request, Response};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::Streaming;
use tower_plugins_layers::BoxError;
use tower_plugins_proto::v1::{ExecuteRequest, ExecuteResponse};

use super::options::{Options, setters};
use super::{Codec, Method, grpc};
use crate::error::{Error, Kind};
use crate::{Body, Plugin};

/// A typed stream that is about to be opened: `.await` opens it, and gives its [`Answers`].
///
/// # Cancellation
/// Dropping the future, or the answers, ends the call and resets its stream at the plugin.
#[must_use = "a call is made by awaiting it"]
pub struct InvokeStream<'a, S, Req: ?Sized, Res, C> {
    plugin: &'a Plugin,
    method: &'a Method<Req, Res, C>,
    requests: S,
    options: Options,
}

impl<'a, S, Req: ?Sized, Res, C> InvokeStream<'a, S, Req, Res, C> {
    pub(crate) fn new(plugin: &'a Plugin, method: &'a Method<Req, Res, C>, requests: S) -> Self {
        Self {
            plugin,
            method,
            requests,
            options: Options::new(),
        }
    }

    setters! {
        timeout: "The time that the whole call may take, to its last answer.",
        max_response: "The largest answer that is read, in bytes; 16 MiB by default, and no more than \
                       `grpc.max_response_message`."
    }
}

impl<S, Req, Res: 'static, C> InvokeStream<'_, S, Req, Res, C>
where
    S: Stream<Item = Req> + Send + 'static,
    C: Codec<Req, Res> + Clone + Send + Sync + 'static,
    Req: 'static,
{
    async fn open(mut self) -> Result<Answers<Res>, Error> {
        let refuse = |error| Error::caused_by(Kind::Encode, error);
        let (begun, limit) = (Instant::now(), self.options.deadline());
        let node = self.plugin.find(&self.options.headers, limit).await?;
        self.options.waited(begun);
        let Some(spec) = &node.spec().upstream.grpc else {
            let message = "a stream of typed calls takes transport: grpc or grpc-tls";
            return Err(refuse(message.into()));
        };
        let (method, codec) = (self.method, self.method.codec());
        let head =
            self.options
                .request(method.http_method(), method.path(), method.is_idempotent());
        let (head, _) = head.map_err(refuse)?.into_parts();
        let (failed, mut failure) = oneshot::channel();
        let requests = Requests {
            requests: Box::pin(self.requests),
            first: Some((grpc::method_of(&head.uri), head.headers.clone())),
            codec: codec.clone(),
            failed: Some(failed),
            types: PhantomData::<fn() -> Res>,
        };
        let mut client = grpc::client(Arc::clone(&node), spec, self.options.max_response);
        let opening = client.execute_stream(grpc::with_head(head, requests));
        let opened = tokio::select! {
            biased;
            // All are sent, as a rule, if there is no error.
            Ok(error) = &mut failure => return Err(error),
            opened = opening => opened,
        };
        let codec = codec.clone();
        Ok(Answers {
            streaming: Some(opened.map_err(grpc::of_status)?.into_inner()),
            failure: (!failure.is_terminated()).then_some(failure),
            decode: Box::new(move |answer| codec.decode(answer).map_err(Error::from)),
            plugin: self.plugin.shared_name(),
        })
    }
}

impl<'a, S, Req, Res, C> IntoFuture for InvokeStream<'a, S, Req, Res, C>
where
    S: Stream<Item = Req> + Send + 'static,
    C: Codec<Req, Res> + Clone + Send + Sync + 'static,
    Req: 'static,
    Res: 'static,
{
    type Output = Result<Answers<Res>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        let name = self.plugin.shared_name();
        Box::pin(async move { self.open().await.map_err(|error| error.of_plugin(&name)) })
    }
}

impl<S, Req: ?Sized, Res, C: fmt::Debug> fmt::Debug for InvokeStream<'_, S, Req, Res, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvokeStream")
            .field("plugin", &self.plugin)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

type Decode<Res> = dyn Fn(Response<Bytes>) -> Result<Res, Error> + Send + Sync;

/// The answers of a typed stream, in their order, and then its error if it ended with one.
///
/// It is a [`Stream`], and has [`next`](Self::next) for those who have no `StreamExt`.
#[must_use = "a stream does nothing unless it is read"]
pub struct Answers<Res> {
    streaming: Option<Streaming<ExecuteResponse>>,
    /// A request that could not be encoded.
    failure: Option<oneshot::Receiver<Error>>,
    decode: Box<Decode<Res>>,
    plugin: Arc<str>,
}

impl<Res> Answers<Res> {
    /// The next answer; `None` when there is none any more.
    pub async fn next(&mut self) -> Option<Result<Res, Error>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Res, Error>>> {
        if let Some(failure) = &mut self.failure
            && let Poll::Ready(failed) = Pin::new(failure).poll(cx)
        {
            self.failure = None;
            if let Ok(error) = failed {
                return Poll::Ready(Some(Err(error)));
            }
        }
        let Some(streaming) = &mut self.streaming else {
            return Poll::Ready(None);
        };
        let answer = ready!(Pin::new(streaming).poll_next(cx));
        Poll::Ready(answer.map(|answer| {
            let answer = answer.map_err(grpc::of_status)?;
            (self.decode)(grpc::answer(answer, HeaderMap::new()))
        }))
    }
}

impl<Res> Stream for Answers<Res> {
    type Item = Result<Res, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let answer = ready!(this.poll_answer(cx));
        if !matches!(answer, Some(Ok(_))) {
            // An error is the end.
            (this.streaming, this.failure) = (None, None);
        }
        let named = |error: Error| error.of_plugin(&this.plugin);
        Poll::Ready(answer.map(|answer| answer.map_err(named)))
    }
}

impl<Res> fmt::Debug for Answers<Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers")
            .field("plugin", &self.plugin)
            .field("ended", &self.streaming.is_none())
            .finish_non_exhaustive()
    }
}

/// A caller's requests as messages. It has no end where one cannot be encoded: the plugin would take that
/// for all there was to say.
struct Requests<S, Res, C> {
    requests: Pin<Box<S>>,
    /// What the first message says beside its payload.
    first: Option<(String, HeaderMap)>,
    codec: C,
    failed: Option<oneshot::Sender<Error>>,
    types: PhantomData<fn() -> Res>,
}

impl<S: Stream, Res, C: Codec<S::Item, Res>> Requests<S, Res, C> {
    fn message(&mut self, value: &S::Item) -> Result<ExecuteRequest, BoxError> {
        let mut request = Request::new(Body::empty());
        self.codec.encode(value, &mut request, None)?;
        let payload = request.body().full().cloned();
        let payload = payload.ok_or("a codec must give all of a message at once")?;
        let (method, mut headers) = self.first.take().unwrap_or_default();
        headers.extend(std::mem::take(request.headers_mut()));
        Ok(grpc::message(&headers, method, payload))
    }
}

impl<S: Stream, Res, C> Unpin for Requests<S, Res, C> {}

impl<S: Stream, Res, C: Codec<S::Item, Res>> Stream for Requests<S, Res, C> {
    type Item = ExecuteRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ExecuteRequest>> {
        let this = &mut *self;
        if this.failed.is_none() {
            return Poll::Pending;
        }
        let Some(value) = ready!(this.requests.as_mut().poll_next(cx)) else {
            return Poll::Ready(None);
        };
        match this.message(&value) {
            Ok(message) => Poll::Ready(Some(message)),
            Err(error) => {
                if let Some(failed) = this.failed.take() {
                    // Whoever waits for it may be gone.
                    let _ = failed.send(Error::caused_by(Kind::Encode, error));
                }
                Poll::Pending
            }
        }
    }
}
