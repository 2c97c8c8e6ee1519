//! The table of a router's methods, and how each call of one is run.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt};
use http::{HeaderMap, Request, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tower_plugins_layers::DeadlineLayer;

use super::answer::{Answer, Replies, Reply, Shape};
use super::error::{CallError, Kind};
use super::{Call, Info, envelope};

/// The header that names the method of a call which has no path, as lines have none.
const OPERATION: &str = "x-operation";

/// How near a name must be to be suggested, from 0 to 1.
const NEAR: f64 = 0.6;

/// A handler with its state, whatever its types.
pub(super) type Endpoint =
    Box<dyn Fn(Call) -> BoxFuture<'static, Result<Answer, CallError>> + Send + Sync>;

/// What all doors of a router share.
pub(super) struct Methods {
    pub(super) table: BTreeMap<Arc<str>, Endpoint>,
    pub(super) info: Info,
    pub(super) max_request: usize,
    pub(super) reads_envelopes: bool,
    pub(super) deadline: DeadlineLayer,
}

impl Methods {
    /// When the caller of `request` stops waiting, as far as its head says.
    pub(super) fn deadline<B>(&self, request: &Request<B>) -> Option<Instant> {
        let waits = self.deadline.caller_waits(request)?;
        Instant::now().checked_add(waits)
    }

    /// The answer to `call` of the method `name`, within the caller's time.
    pub(super) async fn run(&self, name: &str, call: Call) -> Result<Answer, CallError> {
        let Some(endpoint) = self.table.get(name) else {
            return Err(self.unknown(name));
        };
        let deadline = call.caller().deadline();
        let answer = async { endpoint(call).await };
        let answer = AssertUnwindSafe(answer).catch_unwind();
        let caught = within(deadline, answer).await?;
        let answer = caught.unwrap_or_else(|panic| Err(panicked(name, &*panic)))?;
        Ok(match answer.0 {
            Shape::One(_) => answer,
            Shape::Stream(replies) => Answer(Shape::Stream(self.guarded(name, replies, deadline))),
        })
    }

    /// `replies` within the caller's time, and with a panic as their last one.
    fn guarded(&self, name: &str, replies: Replies, deadline: Option<Instant>) -> Replies {
        let name = self.table.get_key_value(name);
        let name = name.map_or_else(|| Arc::from(""), |(name, _)| Arc::clone(name));
        let replies = AssertUnwindSafe(replies).catch_unwind();
        let replies = replies
            .map(move |reply| reply.unwrap_or_else(|panic| Err(panicked(&name, &*panic))))
            .fuse();
        match deadline {
            None => Box::pin(replies),
            Some(at) => Box::pin(Timed {
                replies: Some(Box::pin(replies)),
                timer: Box::pin(sleep_until(at)),
            }),
        }
    }

    /// The one reply to a call that can take no more.
    pub(super) async fn reply(&self, name: &str, call: Call) -> Result<Reply, CallError> {
        match self.run(name, call).await?.0 {
            Shape::One(reply) => Ok(reply),
            Shape::Stream(_) => {
                let message = format!("{name} answers with a stream: call it by ExecuteStream");
                Err(CallError::new(Kind::Unimplemented, message).before_the_handler())
            }
        }
    }

    /// The method that a call without a path asks for: that of the header `x-operation`, or of the text `operation`
    /// in the payload, or else the only one there is.
    pub(super) fn named(
        &self,
        headers: &HeaderMap,
        payload: &Bytes,
    ) -> Result<Arc<str>, CallError> {
        let header = headers
            .get(OPERATION)
            .and_then(|name| name.to_str().ok())
            .map(Cow::Borrowed);
        if let Some(name) = header.or_else(|| operation(payload)) {
            let found = self.table.get_key_value(&*name);
            let only = || self.only().filter(|_| headers.get(OPERATION).is_none());
            // An only method may have an `operation` of its own meaning.
            return found
                .map(|(name, _)| Arc::clone(name))
                .or_else(only)
                .ok_or_else(|| self.unknown(&name));
        }
        self.only().ok_or_else(|| {
            let message = format!(
                "the call does not say which method it is: name one in the text `operation` of its payload, or in \
                 the header {OPERATION}. There are {}",
                self.names()
            );
            CallError::new(Kind::InvalidArgument, message).before_the_handler()
        })
    }

    fn only(&self) -> Option<Arc<str>> {
        let mut names = self.table.keys();
        names.next().filter(|_| names.next().is_none()).cloned()
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.table.keys().map(|name| &**name).collect();
        names.join(", ")
    }

    /// Why there is no answer to a method `name`, with the known one that is nearest to it.
    pub(super) fn unknown(&self, name: &str) -> CallError {
        let shown: String = name.chars().take(64).collect();
        let near = self
            .table
            .keys()
            .map(|known| (strsim::normalized_damerau_levenshtein(&shown, known), known))
            .filter(|(near, _)| *near >= NEAR)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = match near {
            Some((_, known)) => format!(": the nearest is {known}"),
            None if self.table.is_empty() => String::new(),
            None => format!(": there are {}", self.names()),
        };
        let message = format!("there is no method {shown}{hint}");
        CallError::new(Kind::Unimplemented, message)
            .status(StatusCode::NOT_FOUND)
            .before_the_handler()
    }
}

/// The text `operation` of `payload`, if it is an object that has one.
fn operation(payload: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        operation: Cow<'a, str>,
    }
    envelope::object(payload).map(|named: Named<'_>| named.operation)
}

/// What `work` gives, unless the time is up first: it is then dropped.
pub(super) async fn within<F: Future>(
    deadline: Option<Instant>,
    work: F,
) -> Result<F::Output, CallError> {
    match deadline {
        None => Ok(work.await),
        Some(at) if at <= Instant::now() => Err(late()),
        Some(at) => timeout_at(at, work).await.map_err(|_| late()),
    }
}

fn late() -> CallError {
    CallError::new(Kind::DeadlineExceeded, "the caller's time is up").before_the_handler()
}

fn panicked(method: &str, panic: &(dyn Any + Send)) -> CallError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("a value that is no text");
    tracing::error!(method, "a handler panicked: {text}");
    // The text is for the plugin's log: nobody has judged what it says to a caller.
    CallError::internal(format!("the handler of {method} panicked")).before_the_handler()
}

/// A stream that ends, and is dropped, when the caller's time is up.
struct Timed {
    replies: Option<Replies>,
    timer: Pin<Box<Sleep>>,
}

impl Stream for Timed {
    type Item = Result<Reply, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(replies) = &mut this.replies else {
            return Poll::Ready(None);
        };
        // The time goes before the answer, or a stream that always has one would outrun it. The clock and not the timer
        // is asked, which only fires when the task lets go.
        if Instant::now() < this.timer.deadline() {
            let next = replies.as_mut().poll_next(cx);
            if next.is_ready() || this.timer.as_mut().poll(cx).is_pending() {
                return next;
            }
        }
        this.replies = None;
        Poll::Ready(Some(Err(late())))
    }
}
