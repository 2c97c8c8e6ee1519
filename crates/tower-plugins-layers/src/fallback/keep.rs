//! What is kept of a request's body.

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, Empty};

use super::FallbackBody;
use crate::retry::Replay;
use crate::{BoxError, ReplayBody};

/// How a request's body is kept for the other service: [`NoBody`] or [`WithBody`].
pub trait Keep<B>: Clone + sealed::Keep<B> {}

impl<B, K: Clone + sealed::Keep<B>> Keep<B> for K {}

pub(super) mod sealed {
    pub trait Keep<B> {
        type Kept: Again + Send + 'static;

        /// The body as it goes in, and what is kept of it.
        fn keep(&self, body: B) -> (B, Self::Kept);
    }

    pub trait Again {
        /// A body for the other service, unless too much of it is lost.
        fn again(self) -> Option<super::FallbackBody>;
    }
}

/// Nothing is kept of a body: the other service gets an empty one.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBody;

impl<B> sealed::Keep<B> for NoBody {
    type Kept = ();

    fn keep(&self, body: B) -> (B, ()) {
        (body, ())
    }
}

impl sealed::Again for () {
    fn again(self) -> Option<FallbackBody> {
        Some(Empty::new().map_err(|never| match never {}).boxed_unsync())
    }
}

/// A body is kept up to a size.
#[derive(Clone, Copy, Debug)]
pub struct WithBody<R> {
    pub(super) max: usize,
    pub(super) wrap: R,
}

impl<B, R> sealed::Keep<B> for WithBody<R>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    R: Fn(ReplayBody<B>) -> B,
{
    type Kept = KeptBody<B>;

    fn keep(&self, body: B) -> (B, KeptBody<B>) {
        let (body, replay) = Replay::new(body, self.max);
        // A body that passes through is the caller's own.
        let body = body.into_inner().unwrap_or_else(&self.wrap);
        (body, KeptBody(replay))
    }
}

/// The means to read a body again.
pub struct KeptBody<B>(Option<Replay<B>>);

impl<B> sealed::Again for KeptBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    fn again(self) -> Option<FallbackBody> {
        Some(self.0?.again().ok()?.boxed_unsync())
    }
}

impl<B> std::fmt::Debug for KeptBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeptBody")
    }
}
