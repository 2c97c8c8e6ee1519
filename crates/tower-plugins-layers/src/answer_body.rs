//! The body of a response that may have been given in another's place.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use http_body_util::Either;
use pin_project_lite::pin_project;

use crate::BoxError;

pin_project! {
    /// The body `B` of the service inside, or the body `A` of what answered in its place.
    ///
    /// It is made of a `B` by [`From`], so that a layer with such responses can be
    /// [`Optional`](crate::Optional).
    #[derive(Clone, Copy, Debug)]
    pub struct AnswerBody<B, A> {
        #[pin]
        body: Either<B, A>,
    }
}

impl<B, A> AnswerBody<B, A> {
    /// That of an answer which was given in another's place.
    pub(crate) const fn instead(body: A) -> Self {
        Self {
            body: Either::Right(body),
        }
    }
}

/// `body` of the service inside.
impl<B, A> From<B> for AnswerBody<B, A> {
    fn from(body: B) -> Self {
        Self {
            body: Either::Left(body),
        }
    }
}

impl<B, A> Body for AnswerBody<B, A>
where
    B: Body<Error: Into<BoxError>>,
    A: Body<Data = B::Data, Error: Into<BoxError>>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
