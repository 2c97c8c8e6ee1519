//! What retry sends, as the plain request that everything further in takes.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Request;
use pin_project_lite::pin_project;
use tower_plugins_layers::{BoxError, ReplayBody, Unsent};
use tower_service::Service;

use crate::Body;

/// Turns the body that retry can replay into a [`Body`], and the request that comes back unsent into
/// one that retry knows.
#[derive(Clone, Debug)]
pub(super) struct Attempt<S>(pub(super) S);

impl<'a, S> Service<Request<ReplayBody<Body>>> for &'a Attempt<S>
where
    &'a S: Service<Request<Body>, Error = BoxError>,
{
    type Response = <&'a S as Service<Request<Body>>>::Response;
    type Error = BoxError;
    type Future = AttemptFuture<<&'a S as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.0).poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReplayBody<Body>>) -> Self::Future {
        let request = request.map(|body| body.into_inner().unwrap_or_else(Body::new));
        AttemptFuture {
            inner: (&self.0).call(request),
        }
    }
}

pin_project! {
    pub(super) struct AttemptFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F, T> Future for AttemptFuture<F>
where
    F: Future<Output = Result<T, BoxError>>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.project().inner.poll(cx));
        Poll::Ready(
            result.map_err(|error| match Unsent::<Body>::recover(error) {
                Ok((request, cause)) => {
                    let request = request.map(|request| request.map(ReplayBody::passthrough));
                    Unsent::new(request, cause).into()
                }
                Err(error) => error,
            }),
        )
    }
}
