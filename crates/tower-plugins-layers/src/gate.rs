//! A call that may have to wait before it begins.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Request;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{BoxError, CallContext, End, OnEnd, Refused};

/// Waits for what a call needs. Boxed: only a call that has to wait has one.
pub(crate) type Wait<P> = Pin<Box<dyn Future<Output = Result<P, Refused>> + Send>>;

/// What a limit says of a call.
pub(crate) enum Admission<P> {
    Granted(P),
    Wait(Wait<P>),
    Refused(Refused),
}

pin_project! {
    /// Calls a service that is ready as soon as it may. Once it has ended in a response the permit is to be
    /// [taken](Self::take_permit).
    #[project = Projected]
    pub(crate) enum Gate<Svc, B, P>
    where
        Svc: Service<Request<B>>,
    {
        Waiting { wait: Wait<P>, parts: Box<Option<(Svc, Request<B>)>> },
        Calling { #[pin] inner: Svc::Future, permit: Option<P> },
        Refused { refused: Option<Refused> },
    }
}

impl<Svc, B, P> Gate<Svc, B, P>
where
    Svc: Service<Request<B>>,
{
    pub(crate) const fn calling(inner: Svc::Future, permit: P) -> Self {
        Self::Calling {
            inner,
            permit: Some(permit),
        }
    }

    pub(crate) fn waiting(wait: Wait<P>, service: Svc, request: Request<B>) -> Self {
        Self::Waiting {
            wait,
            parts: Box::new(Some((service, request))),
        }
    }

    pub(crate) const fn refused(refused: Refused) -> Self {
        Self::Refused {
            refused: Some(refused),
        }
    }

    /// The permit of a call that is under way or has been answered.
    pub(crate) fn take_permit(self: Pin<&mut Self>) -> Option<P> {
        match self.project() {
            Projected::Calling { permit, .. } => permit.take(),
            Projected::Waiting { .. } | Projected::Refused { .. } => None,
        }
    }
}

/// Takes the instance that is ready; a clone, which is not, takes its place.
pub(crate) fn take_ready<S: Clone>(service: &mut S) -> S {
    let clone = service.clone();
    std::mem::replace(service, clone)
}

impl<Svc, B, P> Future for Gate<Svc, B, P>
where
    Svc: Service<Request<B>>,
    Svc::Error: Into<BoxError>,
    P: OnEnd,
{
    type Output = Result<Svc::Response, BoxError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let next = match self.as_mut().project() {
                Projected::Calling { inner, permit } => {
                    return match inner.poll(cx) {
                        Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
                        Poll::Ready(Err(error)) => {
                            let error = error.into();
                            permit.take().on_end(End::Error(&*error));
                            Poll::Ready(Err(error))
                        }
                        Poll::Pending => Poll::Pending,
                    };
                }
                Projected::Waiting { wait, parts } => {
                    let permit = ready!(wait.as_mut().poll(cx))?;
                    #[expect(clippy::expect_used, reason = "taken when this state is left")]
                    let (mut service, mut request) = parts.take().expect("polled after its end");
                    CallContext::waited(request.extensions_mut());
                    Self::Calling {
                        inner: service.call(request),
                        permit: Some(permit),
                    }
                }
                Projected::Refused { refused } => {
                    #[expect(clippy::expect_used, reason = "a future is not polled after its end")]
                    let refused = refused.take().expect("polled after its end");
                    return Poll::Ready(Err(refused.into()));
                }
            };
            self.set(next);
        }
    }
}

impl<Svc, B, P> fmt::Debug for Gate<Svc, B, P>
where
    Svc: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting { .. } => "Waiting",
            Self::Calling { .. } => "Calling",
            Self::Refused { .. } => "Refused",
        })
    }
}
