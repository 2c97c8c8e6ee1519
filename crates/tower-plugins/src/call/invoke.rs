use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Limited};
use tokio::time::Instant;
use tower_plugins_layers::{BoxError, CallContext, Priority};
use tower_service::Service;

use super::codec::DecodeError;
use super::{Codec, Method};
use crate::error::{Error, Kind};
use crate::{Body, Plugin};

/// The largest response that a typed call reads, unless it says otherwise: 16 MiB.
const MAX_RESPONSE: usize = 16 << 20;

/// A typed call that is about to be made: `.await` makes it.
///
/// # Cancellation
/// Dropping the future ends the call.
#[must_use = "a call is made by awaiting it"]
pub struct Invoke<'a, Req: ?Sized, Res, C> {
    plugin: &'a Plugin,
    method: &'a Method<Req, Res, C>,
    request: &'a Req,
    headers: HeaderMap,
    timeout: Option<Duration>,
    priority: Option<Priority>,
    max_response: usize,
    invalid: Option<BoxError>,
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
            headers: HeaderMap::new(),
            timeout: None,
            priority: None,
            max_response: MAX_RESPONSE,
            invalid: None,
        }
    }

    /// The time that the whole call may take, waits and retries included. The plugin's own
    /// `request_timeout` holds if it is shorter.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How much it matters that the call goes through, where the plugin has a `concurrency` limit: the calls of
    /// less importance are shed first, with [`Reason::Shed`](crate::Reason::Shed). It counts before what
    /// `concurrency.priority_header` says; without either the call is [`Priority::Normal`]. The plugin is not told.
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Adds a header. A name or value that is none is this call's error.
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName, Error: Into<BoxError>>,
        V: TryInto<HeaderValue, Error: Into<BoxError>>,
    {
        match (name.try_into(), value.try_into()) {
            (Ok(name), Ok(value)) => {
                self.headers.append(name, value);
            }
            (Err(error), _) => self.invalid = Some(error.into()),
            (_, Err(error)) => self.invalid = Some(error.into()),
        }
        self
    }

    /// Names the request, in the header `x-request-id`.
    pub fn request_id(mut self, id: &str) -> Self {
        self.headers.remove("x-request-id");
        self.header("x-request-id", id)
    }

    /// Sets the header `idempotency-key`, and with it says that the call may be repeated.
    pub fn idempotency_key(mut self, key: &str) -> Self {
        self.headers.remove("idempotency-key");
        self.header("idempotency-key", key)
    }

    /// The largest response that is read, in bytes; 16 MiB by default.
    pub const fn max_response(mut self, bytes: usize) -> Self {
        self.max_response = bytes;
        self
    }

    fn encode(&mut self) -> Result<Request<Body>, BoxError>
    where
        C: Codec<Req, Res>,
    {
        if let Some(error) = self.invalid.take() {
            return Err(error);
        }
        let path = self.method.path();
        // Without the slash it would be a host.
        if !path.starts_with('/') {
            return Err(format!("the method's path must begin with /, and is {path:?}").into());
        }
        let mut request = Request::builder()
            .method(self.method.http_method().clone())
            .uri(http::Uri::try_from(path)?)
            .body(Body::empty())?;
        *request.headers_mut() = std::mem::take(&mut self.headers);
        self.method
            .codec()
            .encode(self.request, &mut request, self.timeout)?;
        let mut context = CallContext::new().idempotent(self.method.is_idempotent());
        if let Some(at) = self
            .timeout
            .and_then(|timeout| Instant::now().checked_add(timeout))
        {
            context = context.own_deadline(at);
        }
        if let Some(priority) = self.priority {
            context = context.priority(priority);
        }
        context.attach(&mut request);
        Ok(request)
    }

    async fn run(mut self) -> Result<Res, Error>
    where
        C: Codec<Req, Res>,
    {
        let request = self
            .encode()
            .map_err(|error| Error::caused_by(Kind::Encode, error))?;
        let mut plugin = self.plugin;
        let response = plugin.call(request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, self.max_response).collect().await;
        let body = body.map_err(Error::from_body)?.to_bytes();
        if !head.status.is_success() {
            return Err(Error::caused_by(
                Kind::Status(head.status),
                Answer::new(&body),
            ));
        }
        let response = Response::from_parts(head, body);
        self.method
            .codec()
            .decode(response)
            .map_err(|error| match error {
                DecodeError::Invalid(error) => Error::caused_by(Kind::Decode, error),
                DecodeError::Plugin(error) => Error::caused_by(Kind::Plugin, error),
            })
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
            .field("timeout", &self.timeout)
            .field("priority", &self.priority)
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
