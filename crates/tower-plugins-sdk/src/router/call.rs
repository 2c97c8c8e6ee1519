use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::BoxStream;

use super::error::{CallError, Kind};
use super::{Caller, FromCall};

/// A stream of payloads, which ends with its first error.
pub(super) type Payloads = BoxStream<'static, Result<Bytes, CallError>>;

/// One call, of which a handler's arguments are made by [`FromCall`].
pub struct Call {
    caller: Caller,
    payload: Bytes,
    rest: Option<Payloads>,
}

impl Call {
    pub(super) fn new(caller: Caller, payload: Bytes) -> Self {
        Self {
            caller,
            payload,
            rest: None,
        }
    }

    pub(super) fn followed_by(mut self, rest: Payloads) -> Self {
        self.rest = Some(rest);
        self
    }

    /// Who calls.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What is asked, as it came: the first message, where there is a stream of them.
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    pub(super) fn payloads(&mut self) -> Payloads {
        let first = futures_util::stream::iter([Ok(self.payload.clone())]);
        match self.rest.take() {
            None => Box::pin(first),
            Some(rest) => Box::pin(futures_util::StreamExt::chain(first, rest)),
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("caller", &self.caller)
            .field("bytes", &self.payload.len())
            .field("is_stream", &self.rest.is_some())
            .finish()
    }
}

/// The JSON that `payload` is; an empty one is `null`.
pub(super) fn parsed<'a, T: serde::Deserialize<'a>>(payload: &'a [u8]) -> Result<T, CallError> {
    let payload = if payload.is_empty() { b"null" } else { payload };
    serde_json::from_slice(payload).map_err(|error| {
        let message = format!("the request is not what this method takes: {error}");
        CallError::new(Kind::InvalidArgument, message)
    })
}

/// All that the caller sends, as values of `T`, in their order: what a handler takes in place of
/// [`Input`](super::Input) to read a stream. Of a call that is no stream it is the one request.
///
/// It ends with its first error. A handler reads as fast as it likes: what it has not read waits at the caller.
///
/// ```
/// use futures_util::TryStreamExt;
/// use tower_plugins_sdk::router::{CallError, Messages, Router};
///
/// async fn sum(numbers: Messages<u64>) -> Result<u64, CallError> {
///     numbers.try_fold(0, async |sum, number| Ok(sum + number)).await
/// }
/// let router = Router::new().method("sum", sum);
/// ```
#[must_use = "a stream does nothing unless it is read"]
pub struct Messages<T> {
    payloads: Option<Payloads>,
    types: std::marker::PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Messages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

impl<T: serde::de::DeserializeOwned> Stream for Messages<T> {
    type Item = Result<T, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(payloads) = &mut self.payloads else {
            return Poll::Ready(None);
        };
        let next = ready!(payloads.as_mut().poll_next(cx));
        let message = next.map(|payload| parsed(&payload?));
        if !matches!(message, Some(Ok(_))) {
            self.payloads = None;
        }
        Poll::Ready(message)
    }
}

impl<S, T: serde::de::DeserializeOwned> FromCall<S> for Messages<T> {
    fn from_call(call: &mut Call, _: &S) -> Result<Self, CallError> {
        super::extract::must_be_json(call)?;
        Ok(Self {
            payloads: Some(call.payloads()),
            types: std::marker::PhantomData,
        })
    }
}
