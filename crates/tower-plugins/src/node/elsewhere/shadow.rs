//! Copies of calls, whose answers are dropped.
//!
//! A copy is made of what the call itself reads of its body, and sent when that was all of it: nobody waits.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use metrics::{Counter, counter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower_plugins_layers::{BoxError, CallContext, Principal};

use super::super::Services;
use super::{Other, send};
use crate::Body;
use crate::config::{PluginSpec, ShadowSpec};

/// What a request that may be repeated has.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

pub(in super::super) struct Shadow {
    part: f64,
    idempotent_only: bool,
    max_body: usize,
    places: Arc<Semaphore>,
    sender: Arc<Sender>,
    /// With this the copies end that are under way.
    _gone: DropGuard,
}

/// What a copy needs to be sent.
struct Sender {
    to: Other,
    timeout: Duration,
    gone: CancellationToken,
    counts: Counts,
}

/// What became of copies.
struct Counts {
    answered: Counter,
    failed: Counter,
    /// As many were under way as may be.
    busy: Counter,
    too_large: Counter,
    /// The call did not read its body to the end.
    unread: Counter,
}

impl Shadow {
    pub(in super::super) fn new(
        plugin: &PluginSpec,
        spec: &ShadowSpec,
        max_body: usize,
        services: &Arc<Services>,
    ) -> Self {
        let count = |outcome| {
            let name = plugin.name.as_str().to_owned();
            counter!("plugin_shadow_calls_total", "plugin_name" => name, "outcome" => outcome)
        };
        let gone = CancellationToken::new();
        let sender = Sender {
            to: Other {
                name: spec.to.clone(),
                services: Arc::clone(services),
            },
            timeout: spec.timeout,
            gone: gone.clone(),
            counts: Counts {
                answered: count("answered"),
                failed: count("failed"),
                busy: count("busy"),
                too_large: count("too_large"),
                unread: count("unread"),
            },
        };
        Self {
            part: spec.percent.get() / 100.0,
            idempotent_only: spec.idempotent_only,
            max_body,
            places: Arc::new(Semaphore::new(spec.max_concurrent as usize)),
            sender: Arc::new(sender),
            _gone: gone.drop_guard(),
        }
    }

    /// The request of `caller` as it goes on, of which a copy is made, or is not.
    pub(super) fn copy(&self, request: Request<Body>, caller: Option<Principal>) -> Request<Body> {
        let is_wanted = !self.idempotent_only || is_idempotent(&request);
        if !is_wanted || fastrand::f64() >= self.part {
            return request;
        }
        let counts = &self.sender.counts;
        let (parts, body) = request.into_parts();
        if http_body::Body::size_hint(&body).lower() > self.max_body as u64 {
            counts.too_large.increment(1);
            return Request::from_parts(parts, body);
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            counts.busy.increment(1);
            return Request::from_parts(parts, body);
        };
        let copy = Copy {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            headers: parts.headers.clone(),
            caller,
            place,
            sender: Arc::clone(&self.sender),
        };
        let body = if http_body::Body::is_end_stream(&body) {
            copy.send(Bytes::new());
            body
        } else {
            Body::boxed(Tee {
                body,
                kept: BytesMut::new(),
                max: self.max_body,
                copy: Some(Box::new(copy)),
            })
        };
        Request::from_parts(parts, body)
    }
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shadow").field(&self.sender.to).finish()
    }
}

fn is_idempotent(request: &Request<Body>) -> bool {
    if request.headers().contains_key(header::UPGRADE) {
        return false;
    }
    request.method().is_idempotent()
        || request.headers().contains_key(IDEMPOTENCY_KEY)
        || CallContext::of(request).is_some_and(CallContext::is_idempotent)
}

/// A copy that is not sent yet.
struct Copy {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap<HeaderValue>,
    /// Whom the plugin has let in.
    caller: Option<Principal>,
    place: OwnedSemaphorePermit,
    sender: Arc<Sender>,
}

impl Copy {
    fn send(self, body: Bytes) {
        let Self {
            method,
            uri,
            version,
            mut headers,
            caller,
            place,
            sender,
        } = self;
        headers.remove(header::TRANSFER_ENCODING);
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        *request.headers_mut() = headers;
        CallContext::new().attach(&mut request);
        tokio::spawn(async move {
            let call = timeout(sender.timeout, sender.call(request, caller));
            let answered = sender.gone.run_until_cancelled(call).await;
            drop(place);
            match answered {
                Some(Ok(Ok(()))) => sender.counts.answered.increment(1),
                _ => sender.counts.failed.increment(1),
            }
        });
    }
}

impl Sender {
    /// Makes the call, and reads its answer to the end.
    async fn call(
        &self,
        request: Request<Body>,
        caller: Option<Principal>,
    ) -> Result<(), BoxError> {
        let there = self.to.find(request.headers());
        let there = there.ok_or("there is no such plugin")?;
        let mut body = send(there, request, caller).await?.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok(())
    }
}

/// The body of a call, of which a copy is made as it is read.
struct Tee {
    body: Body,
    kept: BytesMut,
    max: usize,
    copy: Option<Box<Copy>>,
}

impl Tee {
    fn keep(&mut self, data: &Bytes) {
        if self.kept.len() + data.len() <= self.max {
            self.kept.extend_from_slice(data);
        } else if let Some(copy) = self.copy.take() {
            copy.sender.counts.too_large.increment(1);
            self.kept = BytesMut::new();
        }
    }

    fn end(&mut self) {
        if let Some(copy) = self.copy.take() {
            copy.send(std::mem::take(&mut self.kept).freeze());
        }
    }
}

impl http_body::Body for Tee {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(data), true) = (frame.data_ref(), this.copy.is_some()) {
                    this.keep(data);
                }
                if http_body::Body::is_end_stream(&this.body) {
                    this.end();
                }
            }
            None => this.end(),
            // It is told as unread.
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        if let Some(copy) = self.copy.take() {
            copy.sender.counts.unread.increment(1);
        }
    }
}
