use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{AUTHORIZATION, HeaderName};
use http::request::Parts;
use http::{HeaderMap, Request};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{Callers, Denied, Principal};
use crate::gate::take_ready;
use crate::{BoxError, CallContext};

/// What a [`Policy`] says, now or later.
pub enum Verdict {
    /// It is decided.
    Now(Result<Principal, Denied>),
    /// Somebody has to be asked. The future is dropped with the call.
    Later(Pin<Box<dyn Future<Output = Result<Principal, Denied>> + Send>>),
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(result) => f.debug_tuple("Now").field(result).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

/// Says who a call comes from and whether it may.
///
/// A closure that takes a request's head and gives a future is one.
pub trait Policy: Send + Sync + 'static {
    /// Who it is, or why it is not let in. The head is that of the request as it came.
    fn check(&self, head: &Parts) -> Verdict;

    /// The headers that callers show to it. They are taken off a request before it goes in, unless
    /// they are to be forwarded.
    fn headers(&self) -> &[HeaderName] {
        const USUAL: &[HeaderName] = &[AUTHORIZATION];
        USUAL
    }
}

impl<F, Fut> Policy for F
where
    F: Fn(&Parts) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Principal, Denied>> + Send + 'static,
{
    fn check(&self, head: &Parts) -> Verdict {
        Verdict::Later(Box::pin(self(head)))
    }
}

/// Makes [`Authorize`] services.
#[derive(Clone, Debug)]
pub struct AuthorizeLayer {
    rules: Option<Arc<Rules>>,
}

#[derive(Clone)]
struct Rules {
    policy: Arc<dyn Policy>,
    scopes: Vec<Box<str>>,
    anonymous: bool,
    forward: bool,
}

impl AuthorizeLayer {
    /// Lets in the callers that are known.
    #[must_use]
    pub fn new(callers: Callers) -> Self {
        Self::policy(callers)
    }

    /// Lets in whom `policy` lets in.
    #[must_use]
    pub fn policy(policy: impl Policy) -> Self {
        Self {
            rules: Some(Arc::new(Rules {
                policy: Arc::new(policy),
                scopes: Vec::new(),
                anonymous: false,
                forward: false,
            })),
        }
    }

    /// Asks nothing: the layer does nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self { rules: None }
    }

    /// Each caller must have been granted `scope`, beside those named before.
    #[must_use]
    pub fn require_scope(self, scope: &str) -> Self {
        self.with(|rules| rules.scopes.push(scope.into()))
    }

    /// Whether a request goes in that has none of the policy's [headers](Policy::headers): without a
    /// [`Principal`], and without being asked for scopes. One that shows something must show
    /// something good all the same.
    #[must_use]
    pub fn anonymous(self, anonymous: bool) -> Self {
        self.with(|rules| rules.anonymous = anonymous)
    }

    /// Whether the policy's [headers](Policy::headers) go in with the request. Unless they do, the service
    /// inside and what it calls never see a caller's secret.
    #[must_use]
    pub fn forward_credentials(self, forward: bool) -> Self {
        self.with(|rules| rules.forward = forward)
    }

    fn with(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        if let Some(rules) = &mut self.rules {
            change(Arc::make_mut(rules));
        }
        self
    }

    /// What becomes of `request`.
    fn ask<B>(&self, mut request: Request<B>) -> Asked<B> {
        // A principal is what this layer says it is, whoever put one there.
        let Some(rules) = &self.rules else {
            return Asked::Go(request);
        };
        request.extensions_mut().remove::<Principal>();
        let shows = |name| request.headers().contains_key(name);
        if rules.anonymous && !rules.policy.headers().iter().any(shows) {
            return Asked::Go(request);
        }
        let (mut head, body) = request.into_parts();
        match rules.policy.check(&head) {
            Verdict::Now(result) => match rules.admit(result, &mut head) {
                Ok(()) => Asked::Go(Request::from_parts(head, body)),
                Err(denied) => Asked::Refused(denied.into()),
            },
            Verdict::Later(verdict) => Asked::Wait(verdict, head, body, Arc::clone(rules)),
        }
    }
}

impl Rules {
    /// Prepares the head of a request that may go in.
    fn admit(&self, result: Result<Principal, Denied>, head: &mut Parts) -> Result<(), Denied> {
        let principal = result?;
        if !self.scopes.iter().all(|scope| principal.has_scope(scope)) {
            return Err(Denied::forbidden().because("the caller lacks a scope"));
        }
        if !self.forward {
            strip(&mut head.headers, self.policy.headers());
        }
        head.extensions.insert(principal);
        Ok(())
    }
}

fn strip(headers: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        headers.remove(name);
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("headers", &self.policy.headers())
            .field("scopes", &self.scopes)
            .field("anonymous", &self.anonymous)
            .field("forward", &self.forward)
            .finish_non_exhaustive()
    }
}

type Later = Pin<Box<dyn Future<Output = Result<Principal, Denied>> + Send>>;

enum Asked<B> {
    Go(Request<B>),
    Wait(Later, Parts, B, Arc<Rules>),
    Refused(BoxError),
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        Authorize {
            inner,
            layer: self.clone(),
        }
    }
}

/// Lets in who may. See the [module](crate::authorize).
#[derive(Clone, Debug)]
pub struct Authorize<S> {
    inner: S,
    layer: AuthorizeLayer,
}

impl<S, B> Service<Request<B>> for Authorize<S>
where
    S: Service<Request<B>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.layer.ask(request) {
            Asked::Go(request) => ResponseFuture::calling(self.inner.call(request)),
            // The instance that is ready stays with the call.
            Asked::Wait(verdict, head, body, rules) => {
                ResponseFuture::asking(verdict, take_ready(&mut self.inner), head, body, rules)
            }
            Asked::Refused(error) => ResponseFuture::refused(error),
        }
    }
}

impl<'a, S, B> Service<Request<B>> for &'a Authorize<S>
where
    &'a S: Service<Request<B>>,
    <&'a S as Service<Request<B>>>::Error: Into<BoxError>,
{
    type Response = <&'a S as Service<Request<B>>>::Response;
    type Error = BoxError;
    type Future = ResponseFuture<&'a S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.inner).poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.layer.ask(request) {
            Asked::Go(request) => ResponseFuture::calling((&self.inner).call(request)),
            Asked::Wait(verdict, head, body, rules) => {
                ResponseFuture::asking(verdict, &self.inner, head, body, rules)
            }
            Asked::Refused(error) => ResponseFuture::refused(error),
        }
    }
}

/// A call whose policy has to ask somebody.
struct Asking<S, B> {
    verdict: Later,
    held: Option<(S, Parts, B)>,
    rules: Arc<Rules>,
}

pin_project! {
    /// The future of [`Authorize`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        // Boxed: only a call that has to wait has it.
        Asking { asking: Box<Asking<S, B>> },
        Calling { #[pin] inner: S::Future },
        Refused { error: Option<BoxError> },
    }
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    const fn calling(inner: S::Future) -> Self {
        Self {
            state: State::Calling { inner },
        }
    }

    fn asking(verdict: Later, service: S, head: Parts, body: B, rules: Arc<Rules>) -> Self {
        Self {
            state: State::Asking {
                asking: Box::new(Asking {
                    verdict,
                    held: Some((service, head, body)),
                    rules,
                }),
            },
        }
    }

    const fn refused(error: BoxError) -> Self {
        Self {
            state: State::Refused { error: Some(error) },
        }
    }
}

impl<S, B> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                Projected::Calling { inner } => return inner.poll(cx).map_err(Into::into),
                Projected::Asking { asking } => {
                    let result = ready!(asking.verdict.as_mut().poll(cx));
                    #[expect(clippy::expect_used, reason = "taken when this state is left")]
                    let (mut service, mut head, body) = asking.held.take().expect("polled again");
                    asking.rules.admit(result, &mut head)?;
                    CallContext::waited(&mut head.extensions);
                    State::Calling {
                        inner: service.call(Request::from_parts(head, body)),
                    }
                }
                Projected::Refused { error } => {
                    #[expect(clippy::expect_used, reason = "a future is not polled after its end")]
                    let error = error.take().expect("polled after its end");
                    return Poll::Ready(Err(error));
                }
            };
            state.set(next);
        }
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Asking { .. } => "Asking",
            State::Calling { .. } => "Calling",
            State::Refused { .. } => "Refused",
        })
    }
}
