//! Services of this program.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::util::Oneshot;
use tower_plugins_layers::{BoxError, Reason, Refused};
use tower_service::Service;

use super::{ResponseFuture, Transport};
use crate::Body;

/// A service of this program, called like any endpoint.
///
/// Each call has its own clone of the service, which is driven to readiness inside the call. A
/// panic in the service, its future or its response's body is the error of that one call, with
/// [`Reason::Panicked`] and the panic's text.
///
/// Two are equal if they have the same name. Cloning shares the service.
///
/// ```
/// # use http::{Request, Response};
/// # use tower_plugins::{Body, transport::{InProcess, Transport}};
/// use tower_plugins_layers::Reason;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// async fn broken(_: Request<Body>) -> Result<Response<Body>, std::io::Error> {
///     panic!("out of cheese")
/// }
///
/// let transport = InProcess::new("broken", tower::service_fn(broken));
/// let error = transport.call(Request::new(Body::empty())).await.unwrap_err();
/// assert_eq!(Reason::of(&*error), Some(Reason::Panicked));
/// # }
/// ```
#[derive(Clone)]
pub struct InProcess {
    name: Arc<str>,
    service: Arc<dyn Transport>,
}

impl InProcess {
    /// The service `service`, registered as `name`.
    pub fn new<S, B>(name: &str, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let name: Arc<str> = name.into();
        let service = Arc::new(PerCall {
            name: Arc::clone(&name),
            service,
        });
        Self { name, service }
    }

    /// The name it was registered under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Transport for InProcess {
    fn call(&self, request: Request<Body>) -> ResponseFuture<'_> {
        self.service.call(request)
    }
}

impl<'a> Service<Request<Body>> for &'a InProcess {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = ResponseFuture<'a>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture<'a> {
        self.service.call(request)
    }
}

impl PartialEq for InProcess {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for InProcess {}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InProcess").field(&self.name).finish()
    }
}

struct PerCall<S> {
    name: Arc<str>,
    service: S,
}

impl<S, B> Transport for PerCall<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn call(&self, request: Request<Body>) -> ResponseFuture<'_> {
        // Only the clone is made here: the first poll does the rest, and catches its panics.
        match unpanicked(&self.name, || self.service.clone()) {
            Ok(service) => Box::pin(Call::new(&self.name, Oneshot::new(service, request))),
            Err(panicked) => Box::pin(std::future::ready(Err(panicked))),
        }
    }
}

pin_project! {
    /// A call whose panics are its error.
    pub(super) struct Call<'a, F> {
        name: &'a Arc<str>,
        #[pin]
        call: Option<F>,
    }
}

impl<'a, F> Call<'a, F> {
    pub(super) const fn new(name: &'a Arc<str>, call: F) -> Self {
        Self {
            name,
            call: Some(call),
        }
    }
}

impl<F, B, E> Future for Call<'_, F>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<Body>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(call) = this.call.as_mut().as_pin_mut() else {
            return Poll::Ready(Err(panicked(this.name, &"polled after it had ended")));
        };
        let name = &**this.name;
        let polled = unpanicked(name, || {
            call.poll(cx).map(|result| match result {
                Ok(response) => Ok(response.map(|body| guard(this.name, body))),
                Err(error) => Err(error.into()),
            })
        });
        if let Ok(Poll::Pending) = polled {
            return Poll::Pending;
        }
        let dropped = unpanicked(name, || this.call.set(None));
        match polled.and_then(|polled| dropped.map(|()| polled)) {
            Ok(polled) => polled,
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    }
}

/// What `work` gives, or its panic as an error.
pub(super) fn unpanicked<T>(name: &str, work: impl FnOnce() -> T) -> Result<T, BoxError> {
    // Unwind safe: whatever panicked is dropped by its owner and never used again.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panicked(name, &*panic))
}

/// What a panic says.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

fn panicked(name: &str, panic: &(dyn Any + Send)) -> BoxError {
    let text = panic_text(panic);
    let cause = format!("in-process service {name} panicked: {text}");
    Refused::new(Reason::Panicked).caused_by(cause).into()
}

/// `body`, with its panics caught. What is all here already cannot panic and stays as it is.
fn guard<B>(name: &Arc<str>, body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut body = Some(body);
    let ours = (&mut body as &mut dyn Any)
        .downcast_mut::<Option<Body>>()
        .and_then(|ours| ours.take_if(|ours| ours.is_end_stream() || ours.is_full()));
    match (ours, body) {
        (Some(ours), _) => ours,
        (None, Some(body)) => Body::new(Guarded {
            name: Arc::clone(name),
            body: Some(body),
        }),
        (None, None) => Body::empty(),
    }
}

pin_project! {
    struct Guarded<B> {
        name: Arc<str>,
        #[pin]
        body: Option<B>,
    }
}

impl<B> http_body::Body for Guarded<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        match unpanicked(this.name, || body.poll_frame(cx)) {
            Ok(polled) => Poll::Ready(ready!(polled).map(|frame| frame.map_err(Into::into))),
            Err(panicked) => {
                // A panic in its drop too is the same failure, already told.
                let _ = unpanicked(this.name, || this.body.set(None));
                Poll::Ready(Some(Err(panicked)))
            }
        }
    }

    // A panic here leaves it unknown; the next frame tells.
    fn is_end_stream(&self) -> bool {
        self.body
            .as_ref()
            .is_none_or(|body| unpanicked(&self.name, || body.is_end_stream()).unwrap_or_default())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(
            || SizeHint::with_exact(0),
            |body| unpanicked(&self.name, || body.size_hint()).unwrap_or_default(),
        )
    }
}
