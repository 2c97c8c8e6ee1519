use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::{Either, Full};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::body::{Head, Larger, Take, WithBody};
use super::{Decide, Decision, FilterPolicy, Http};
use crate::gate::take_ready;
use crate::oneshot::oneshot;
use crate::{BoxError, CallContext, Principal, Reason, Refused};

static X_PARTIAL_BODY: HeaderName = HeaderName::from_static("x-partial-body");

/// The body of a request to the filter.
pub type FilterBody = Full<Bytes>;

/// Makes [`Filter`] services: `F` is asked, `D` reads its answers, `T` takes what it sees of a body.
#[derive(Clone)]
pub struct FilterLayer<F, D = Http, T = Head> {
    rules: Option<Rules<F, D, T>>,
}

#[derive(Clone)]
struct Rules<F, D, T> {
    policy: Arc<FilterPolicy>,
    service: F,
    decide: D,
    take: T,
}

impl<F> FilterLayer<F> {
    /// Asks `service` about each call.
    #[must_use]
    pub fn new(policy: FilterPolicy, service: F) -> Self {
        Self {
            rules: Some(Rules {
                policy: Arc::new(policy),
                service,
                decide: Http,
                take: Head,
            }),
        }
    }

    /// Asks nobody: the layer does nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self { rules: None }
    }
}

impl<F, D, T> FilterLayer<F, D, T> {
    /// Reads the answers with `decide`.
    #[must_use]
    pub fn decide<E>(self, decide: E) -> FilterLayer<F, E, T> {
        FilterLayer {
            rules: self.rules.map(|rules| Rules {
                policy: rules.policy,
                service: rules.service,
                decide,
                take: rules.take,
            }),
        }
    }

    /// Lets the filter see up to `max` bytes of a request's body, which are read before it is asked. `wrap`
    /// makes a body of the request's own type, such as `axum::body::Body::new`.
    #[must_use]
    pub fn send_body<R>(
        self,
        max: usize,
        larger: Larger,
        wrap: R,
    ) -> FilterLayer<F, D, WithBody<R>> {
        FilterLayer {
            rules: self.rules.map(|rules| Rules {
                policy: rules.policy,
                service: rules.service,
                decide: rules.decide,
                take: WithBody { max, larger, wrap },
            }),
        }
    }
}

impl<F, D, T> fmt::Debug for FilterLayer<F, D, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterLayer")
            .field("policy", &self.rules.as_ref().map(|rules| &rules.policy))
            .finish_non_exhaustive()
    }
}

impl<S, F: Clone, D: Clone, T: Clone> Layer<S> for FilterLayer<F, D, T> {
    type Service = Filter<S, F, D, T>;

    fn layer(&self, inner: S) -> Self::Service {
        Filter {
            inner,
            layer: self.clone(),
        }
    }
}

/// Asks another service about each call. See the [module](crate::filter).
#[derive(Clone)]
pub struct Filter<S, F, D = Http, T = Head> {
    inner: S,
    layer: FilterLayer<F, D, T>,
}

impl<S: fmt::Debug, F, D, T> fmt::Debug for Filter<S, F, D, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter")
            .field("inner", &self.inner)
            .field("layer", &self.layer)
            .finish()
    }
}

/// What becomes of a call.
enum Asked<B, FB> {
    Go(Request<B>),
    Answer(Response<FB>),
}

// Boxed: it is a call of its own.
type Asking<B, FB> = Pin<Box<dyn Future<Output = Result<Asked<B, FB>, BoxError>> + Send>>;

impl<F, D, T> Rules<F, D, T> {
    /// The filter's request about one with this head.
    fn question(&self, head: &Parts, body: Bytes, whole: bool) -> Request<FilterBody> {
        let mut question = Request::new(Full::new(body));
        *question.method_mut() = head.method.clone();
        *question.uri_mut() = head.uri.clone();
        for name in &self.policy.headers {
            for value in head.headers.get_all(name) {
                question.headers_mut().append(name, value.clone());
            }
        }
        if !whole {
            let partial = HeaderValue::from_static("true");
            question.headers_mut().insert(&X_PARTIAL_BODY, partial);
        }
        if let Some(context) = head.extensions.get::<CallContext>() {
            question.extensions_mut().insert(context.clone());
        }
        if let Some(principal) = head.extensions.get::<Principal>() {
            question.extensions_mut().insert(principal.clone());
        }
        question
    }

    async fn ask<B, FB>(self, request: Request<B>) -> Result<Asked<B, FB>, BoxError>
    where
        F: Service<Request<FilterBody>, Response = Response<FB>, Error: Into<BoxError>>,
        D: Decide<FB>,
        T: Take<B>,
    {
        let (mut head, body) = request.into_parts();
        let (seen, whole, body) = self.take.take(body).await?;
        let question = self.question(&head, seen, whole);
        let timeout = Some(self.policy.timeout);
        let decision = match oneshot(self.service, question, timeout).await {
            Ok(answer) => self.decide.decide(answer, &self.policy),
            Err(error) => Decision::Failed(error),
        };
        for name in &self.policy.copy_headers {
            head.headers.remove(name);
        }
        match decision {
            Decision::Continue(change) => change.apply(&mut head.uri, &mut head.headers),
            Decision::Answer(answer) => return Ok(Asked::Answer(answer)),
            Decision::Failed(_) if self.policy.fail_open => {}
            Decision::Failed(error) => return Err(failed(error)),
        }
        CallContext::waited(&mut head.extensions);
        Ok(Asked::Go(Request::from_parts(head, body)))
    }
}

fn failed(error: BoxError) -> BoxError {
    Refused::new(Reason::FilterFailed).caused_by(error).into()
}

impl<S, F, D, T, B, RB, FB> Service<Request<B>> for Filter<S, F, D, T>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    F: Service<Request<FilterBody>, Response = Response<FB>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
    D: Decide<FB> + Send + Sync + 'static,
    T: Take<B> + Send + Sync + 'static,
    B: Send + 'static,
    FB: Send + 'static,
{
    type Response = Response<Either<RB, FB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, FB>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.layer.rules.clone() {
            None => ResponseFuture::calling(self.inner.call(request)),
            // The instance that is ready stays with the call.
            Some(rules) => {
                ResponseFuture::asking(Box::pin(rules.ask(request)), take_ready(&mut self.inner))
            }
        }
    }
}

impl<'a, S, F, D, T, B, RB, FB> Service<Request<B>> for &'a Filter<S, F, D, T>
where
    &'a S: Service<Request<B>, Response = Response<RB>>,
    <&'a S as Service<Request<B>>>::Error: Into<BoxError>,
    F: Service<Request<FilterBody>, Response = Response<FB>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
    D: Decide<FB> + Send + Sync + 'static,
    T: Take<B> + Send + Sync + 'static,
    B: Send + 'static,
    FB: Send + 'static,
{
    type Response = Response<Either<RB, FB>>;
    type Error = BoxError;
    type Future = ResponseFuture<&'a S, B, FB>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.inner).poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.layer.rules.clone() {
            None => ResponseFuture::calling((&self.inner).call(request)),
            Some(rules) => ResponseFuture::asking(Box::pin(rules.ask(request)), &self.inner),
        }
    }
}

pin_project! {
    /// The future of [`Filter`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, FB>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B, FB>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<S, B, FB>
    where
        S: Service<Request<B>>,
    {
        Asking { asking: Asking<B, FB>, service: S },
        Calling { #[pin] inner: S::Future },
    }
}

impl<S, B, FB> ResponseFuture<S, B, FB>
where
    S: Service<Request<B>>,
{
    const fn calling(inner: S::Future) -> Self {
        Self {
            state: State::Calling { inner },
        }
    }

    fn asking(asking: Asking<B, FB>, service: S) -> Self {
        Self {
            state: State::Asking { asking, service },
        }
    }
}

impl<S, B, RB, FB> Future for ResponseFuture<S, B, FB>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<Either<RB, FB>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                Projected::Calling { inner } => {
                    let response = ready!(inner.poll(cx)).map_err(Into::into)?;
                    return Poll::Ready(Ok(response.map(Either::Left)));
                }
                Projected::Asking { asking, service } => match ready!(asking.as_mut().poll(cx))? {
                    Asked::Go(request) => State::Calling {
                        inner: service.call(request),
                    },
                    Asked::Answer(answer) => return Poll::Ready(Ok(answer.map(Either::Right))),
                },
            };
            state.set(next);
        }
    }
}

impl<S, B, FB> fmt::Debug for ResponseFuture<S, B, FB>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Asking { .. } => "Asking",
            State::Calling { .. } => "Calling",
        })
    }
}
