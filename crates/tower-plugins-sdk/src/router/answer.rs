//! What a handler may return.

use std::fmt;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use super::error::{BoxError, CallError, IntoCallError};

/// One answer, encoded.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub(super) payload: Bytes,
    /// None is JSON.
    pub(super) content_type: Option<HeaderValue>,
    pub(super) headers: HeaderMap,
}

/// A stream of answers, which ends with its first error.
pub(super) type Replies = BoxStream<'static, Result<Reply, CallError>>;

/// All that a handler answers.
pub struct Answer(pub(super) Shape);

pub(super) enum Shape {
    One(Reply),
    Stream(Replies),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Shape::One(reply) => f.debug_tuple("Answer").field(reply).finish(),
            Shape::Stream(_) => f.write_str("Answer(a stream)"),
        }
    }
}

/// A value that a handler answers with: anything that serde can write, [`Output`] or [`Raw`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no answer of a handler",
    note = "derive `serde::Serialize` for it, or answer with `Raw`"
)]
pub trait IntoReply {
    /// The value, encoded.
    ///
    /// # Errors
    /// It cannot be.
    fn into_reply(self) -> Result<Reply, CallError>;
}

impl<T: Serialize> IntoReply for T {
    fn into_reply(self) -> Result<Reply, CallError> {
        let payload = serde_json::to_vec(&self).map_err(CallError::internal)?;
        Ok(Reply {
            payload: payload.into(),
            ..Reply::default()
        })
    }
}

/// An answer with headers: of HTTP, of a line where it has a place for them, and `metadata` of an envelope and of
/// gRPC. It is also how a handler that cannot fail answers with a value of its own.
///
/// ```
/// use tower_plugins_sdk::router::{Output, Router};
///
/// let router = Router::new()
///     .method("primes", async || Output(vec![2, 3, 5, 7]))
///     .method("cached", async || Output(7).header("cache", "hit"));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Output<T>(pub T);

impl<T> Output<T> {
    /// Adds a header to the answer. A name or value that is none fails the call as an internal error.
    pub fn header<N, V>(self, name: N, value: V) -> WithHeaders<T>
    where
        N: TryInto<HeaderName, Error: Into<BoxError>>,
        V: TryInto<HeaderValue, Error: Into<BoxError>>,
    {
        WithHeaders {
            value: self.0,
            headers: Ok(HeaderMap::new()),
        }
        .header(name, value)
    }
}

/// An [`Output`] with headers.
#[derive(Debug)]
pub struct WithHeaders<T> {
    value: T,
    headers: Result<HeaderMap, CallError>,
}

impl<T> WithHeaders<T> {
    /// Adds another header.
    #[must_use]
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName, Error: Into<BoxError>>,
        V: TryInto<HeaderValue, Error: Into<BoxError>>,
    {
        let name = name.try_into().map_err(CallError::internal);
        let value = value.try_into().map_err(CallError::internal);
        self.headers = self.headers.and_then(|mut headers| {
            headers.append(name?, value?);
            Ok(headers)
        });
        self
    }
}

impl<T: IntoReply> IntoReply for Output<T> {
    fn into_reply(self) -> Result<Reply, CallError> {
        self.0.into_reply()
    }
}

impl<T: IntoReply> IntoReply for WithHeaders<T> {
    fn into_reply(self) -> Result<Reply, CallError> {
        let headers = self.headers?;
        let mut reply = self.value.into_reply()?;
        reply.headers.extend(headers);
        Ok(reply)
    }
}

/// Bytes in an encoding of the plugin's own, such as protobuf. Lines and envelopes carry JSON alone.
///
/// ```
/// use bytes::Bytes;
/// use tower_plugins_sdk::router::{Raw, Router};
///
/// let router = Router::new().method("echo", async |given: Bytes| Raw::new("application/protobuf", given));
/// ```
#[derive(Clone, Debug)]
pub struct Raw {
    content_type: &'static str,
    bytes: Bytes,
}

impl Raw {
    /// `bytes` of the media type `content_type`.
    #[must_use]
    pub fn new(content_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        Self {
            content_type,
            bytes: bytes.into(),
        }
    }
}

impl IntoReply for Raw {
    fn into_reply(self) -> Result<Reply, CallError> {
        let content_type = HeaderValue::from_str(self.content_type).map_err(CallError::internal)?;
        Ok(Reply {
            payload: self.bytes,
            content_type: Some(content_type),
            headers: HeaderMap::new(),
        })
    }
}

/// What tells the ways of answering apart, for the compiler's sake.
pub mod shape {
    /// One answer.
    #[derive(Debug)]
    pub enum One {}
    /// A stream of answers.
    #[derive(Debug)]
    pub enum Many {}
    /// A stream of answers, or why there is none.
    #[derive(Debug)]
    pub enum ManyOrNone {}
}

/// What a handler may return.
///
/// - `Result<T, E>`, where serde can write `T`, or `T` is [`Output`] or [`Raw`], and `E` is [`IntoCallError`];
/// - a `Stream` of such results, over gRPC's `ExecuteStream`, or a `Result` of that;
/// - without a `Result`: `()`, text, [`Output`] or [`Raw`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no answer of a handler",
    note = "a handler returns `Result<T, E>` with `T: serde::Serialize` and `E: IntoCallError`, a `Stream` of such results, a `Result` of that, or `Output(value)`, text or `()`",
    note = "an error of the program's own implements `IntoCallError`; `BoxError` takes any error by `?`"
)]
pub trait IntoAnswer<Shape> {
    /// The answer, encoded.
    ///
    /// # Errors
    /// The handler's own.
    fn into_answer(self) -> Result<Answer, CallError>;
}

fn one(reply: Result<Reply, CallError>) -> Result<Answer, CallError> {
    reply.map(|reply| Answer(Shape::One(reply)))
}

impl<T: IntoReply, E: IntoCallError> IntoAnswer<shape::One> for Result<T, E> {
    fn into_answer(self) -> Result<Answer, CallError> {
        let reply = self.map_err(E::into_call_error);
        one(reply.and_then(T::into_reply))
    }
}

impl<St, T, E> IntoAnswer<shape::Many> for St
where
    St: Stream<Item = Result<T, E>> + Send + 'static,
    T: IntoReply,
    E: IntoCallError,
{
    fn into_answer(self) -> Result<Answer, CallError> {
        let replies = self.map(|item| {
            let value = item.map_err(E::into_call_error);
            value.and_then(T::into_reply)
        });
        Ok(Answer(Shape::Stream(Box::pin(replies))))
    }
}

impl<St, E> IntoAnswer<shape::ManyOrNone> for Result<St, E>
where
    St: IntoAnswer<shape::Many>,
    E: IntoCallError,
{
    fn into_answer(self) -> Result<Answer, CallError> {
        self.map_err(E::into_call_error)
            .and_then(IntoAnswer::into_answer)
    }
}

/// What cannot fail.
macro_rules! infallible {
    ($([$($generic:tt)*] $answer:ty),* $(,)?) => { $(
        impl $($generic)* IntoAnswer<shape::One> for $answer {
            fn into_answer(self) -> Result<Answer, CallError> {
                one(self.into_reply())
            }
        }
    )* };
}

infallible!(
    [] (),
    [] &'static str,
    [] String,
    [] serde_json::Value,
    [] Raw,
    [<T: IntoReply>] Output<T>,
    [<T: IntoReply>] WithHeaders<T>,
);
