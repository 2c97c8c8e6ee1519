use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
#[cfg(feature = "grpc")]
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use tokio::time::Instant;

#[cfg(feature = "grpc")]
use super::grpc;
use super::options::{Options, setters};
use super::{Codec, Method};
use crate::error::{Error, Kind};
use crate::{Body, Plugin};

/// A typed call that is about to be made: `.await` makes it.
///
/// # Cancellation
/// Dropping the future ends the call.
#[must_use = "a call is made by awaiting it"]
pub struct Invoke<'a, Req: ?Sized, Res, C> {
    plugin: &'a Plugin,
    method: &'a Method<Req, Res, C>,
    request: &'a Req,
    options: Options,
}

impl<'a, Req: ?Sized, Res, C> Invoke<'a, Req, Res, C> {
    pub(crate) fn new(
        plugin: &'a Plugin,
        method: &'a Method<Req, Res, C>,
        request: &'a Req,
    ) -> Self {
        Self {
            plugin,
            method,
            request,
            options: Options::new(),
        }
    }

    setters! {
        timeout: "The time that the whole call may take, waits and retries included. The plugin's own \
                  `request_timeout` holds if it is shorter.",
        max_response: "The largest response that is read, in bytes; 16 MiB by default."
    }

    /// Sets the header `idempotency-key`, and with it says that the call may be repeated.
    pub fn idempotency_key(mut self, key: &str) -> Self {
        self.options.only("idempotency-key", key);
        self
    }

    fn encode(&mut self) -> Result<Request<Body>, Error>
    where
        C: Codec<Req, Res>,
    {
        let method = self.method;
        let (path, idempotent) = (method.path(), method.is_idempotent());
        let request = self
            .options
            .request(method.http_method(), path, idempotent)
            .and_then(|mut request| {
                let timeout = self.options.timeout;
                method.codec().encode(self.request, &mut request, timeout)?;
                Ok(request)
            });
        request.map_err(|error| Error::caused_by(Kind::Encode, error))
    }

    async fn run(mut self) -> Result<Res, Error>
    where
        C: Codec<Req, Res>,
    {
        let (begun, limit) = (Instant::now(), self.options.deadline());
        let node = self.plugin.find(&self.options.headers, limit).await?;
        self.options.waited(begun);
        #[cfg(feature = "grpc")]
        if let Some(spec) = &node.spec().upstream.grpc {
            // One answer is all of it, though its head looks like that of a stream.
            let deadline = node.spec().policy.deadline;
            let timeout = &mut self.options.timeout;
            *timeout = (*timeout).into_iter().chain(deadline).min();
            let client = grpc::client(Arc::clone(&node), spec, self.options.max_response);
            let response = grpc::execute(client, self.encode()?).await?;
            return Ok(self.method.codec().decode(response)?);
        }
        let response = node.call(self.encode()?).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, self.options.max_response)
            .collect()
            .await;
        let body = body.map_err(Error::from_body)?.to_bytes();
        if !head.status.is_success() {
            return Err(Error::caused_by(
                Kind::Status(head.status),
                Answer::new(&body),
            ));
        }
        Ok(self
            .method
            .codec()
            .decode(Response::from_parts(head, body))?)
    }
}

impl<'a, Req, Res, C> IntoFuture for Invoke<'a, Req, Res, C>
where
    Req: Sync + ?Sized,
    Res: 'a,
    C: Codec<Req, Res> + Sync,
{
    type Output = Result<Res, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let plugin = self.plugin;
            self.run()
                .await
                .map_err(|error| error.of_plugin(&plugin.shared_name()))
        })
    }
}

impl<Req: ?Sized, Res, C: fmt::Debug> fmt::Debug for Invoke<'_, Req, Res, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invoke")
            .field("plugin", &self.plugin)
            .field("method", &self.method)
            .field("timeout", &self.options.timeout)
            .field("priority", &self.options.priority)
            .finish_non_exhaustive()
    }
}

/// The beginning of an answer that is no success.
#[derive(Debug)]
struct Answer(String);

impl Answer {
    fn new(body: &Bytes) -> Self {
        const SHOWN: usize = 256;
        let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
        let more = if body.len() > SHOWN { "…" } else { "" };
        Self(format!("the answer was: {text}{more}"))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Answer {}
